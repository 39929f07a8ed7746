"""Overhead of several nodes and of several processes on one machine, and what a kill costs.

1. Sweeps of Langevin chains, one cell a chain, by ``--executor local`` and on a Ray cluster of a head without cores and
   two nodes of one core each, by turns: a few short cells, many short cells (their difference is the cost of a cell),
   and long cells (efficiency: seconds of the local executor over those of Ray). Then the long sweep again with one node
   killed in the middle; its files are compared with those of the local sweep.
2. A training by Adam in one process, on two devices of one process, and on two processes of one device each, by turns,
   of a small and of a larger problem: seconds of a step. Then two processes of which one is killed: what the other one
   says, after how many seconds, and whether the resumed run ends where an undisturbed one does.

Seconds are those that runs record themselves (``summary.json``, ``metrics.jsonl``), start of the interpreter left out;
processor seconds are those of the command and all its processes, and of Ray's own. Medians of the rounds.

    python benchmarks/scale.py [--quick] [--rounds 3]     # writes benchmarks/results/scale.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from facts import facts

from mfresnet.runs import checkpoint

RESULTS = Path(__file__).parent / "results" / "scale.json"
NODES = 2
CHAINS = "sweep certificate --set data.n=256 --model.depth 4 --data.n-test 256 --quiet"
SWEEPS = {"few": (4, 40), "many": (20, 40), "long": (8, 1000)}  # cells and steps of each
TRAIN = (
    "train random-labels --train.rule adam --data.n-test 64 --quiet --certify.enabled false --record.report false "
    "--record.checkpoint-seconds 0 --diagnostics.gram-every 0 --diagnostics.kl-every 0 --diagnostics.landscape false"
)
TRAININGS = {  # of the command above, and how many steps are timed after the first record
    "small": ("--data.n 512 --data.dimension 2", 400),
    "larger": ("--data.n 8192 --data.dimension 32 --model.width 64 --model.head-width 64", 40),
}
QUICK = ("--data.n 64 --data.dimension 2", 40)
WAYS = {"one process": (1, 1), "one process, two devices": (1, 2), "two processes": (2, 1)}  # processes, devices each
DEVICES = "--xla_force_host_platform_device_count="


def command(text: str, *more: object) -> list[str]:
    """The words of an mfresnet command."""
    return [sys.executable, "-m", "mfresnet", *text.split(), *map(str, more)]


class Processor:
    """Processor seconds of processes and all their descendants, sampled: those that end count as last seen."""

    def __init__(self, roots: Callable[[], Sequence[int]]):
        self.roots, self.seen, self.stop = roots, {}, threading.Event()
        self._sample()
        self.before = sum(self.seen.values())
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _sample(self) -> None:
        for root in self.roots():
            try:
                process = psutil.Process(root)
                for one in [process, *process.children(recursive=True)]:
                    times = one.cpu_times()
                    self.seen[one.pid, one.create_time()] = times.user + times.system
            except psutil.Error:
                continue

    def _watch(self) -> None:
        while not self.stop.wait(0.5):
            self._sample()

    def seconds(self) -> float:
        """Since the start; it ends the sampling."""
        self._sample()
        self.stop.set()
        self.thread.join()
        return sum(self.seen.values()) - self.before


# --- 1. sweeps -----------------------------------------------------------------------------------


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """A head without cores and `NODES` nodes of one core each."""
    # Ray gives workers niceness 15, which would compare priorities where others use the machine too
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(NODES):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


def processes_of(node: Any) -> list[int]:
    """Ray's own processes of a node; workers are their descendants."""
    return [info.process.pid for infos in node.all_processes.values() for info in infos]


def kill_node(node: Any) -> None:
    """All processes of a node at once."""
    own = [psutil.Process(number) for number in processes_of(node)]
    below = [child for process in own for child in process.children(recursive=True)]
    for process in own + below:
        os.kill(process.pid, signal.SIGKILL)


def sweep(cells: int, steps: int, out: Path, cluster: Any = None, kill: bool = False) -> dict[str, Any]:
    """Seconds of a sweep; with ``kill`` one node is killed after the first cell."""
    where = [] if cluster is None else ["--executor", "ray", "--address", cluster.address]
    words = command(CHAINS, "--seeds", cells, "--train.steps", steps, *where, "--out", out)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    nodes = [] if cluster is None else [cluster.head_node, *cluster.worker_nodes]
    own = [number for node in nodes for number in processes_of(node)]
    processor = Processor(lambda: [process.pid, *own])
    found: dict[str, Any] = {}
    if kill:
        while not list((out / "cells").glob("*.json")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        kill_node(nodes[-1])
        found["cells_done_at_kill"] = len(list((out / "cells").glob("*.json")))
    said, _ = process.communicate(timeout=1800)
    assert process.returncode == 0, said
    found |= {"wall_s": json.loads((out / "summary.json").read_text())["seconds"], "cpu_s": processor.seconds()}
    if kill:
        found["said"] = [line for line in said.splitlines() if "mfresnet" in line or "lost" in line]
    return found


def differing_files(one: Path, two: Path) -> list[str]:
    """Cells, tables and results that are not the same bytes."""
    names = [f"cells/{file.name}" for file in sorted((one / "cells").iterdir())] + ["result.json", "cells.csv"]
    return [n for n in names if not (two / n).exists() or (one / n).read_bytes() != (two / n).read_bytes()]


def sweeps(rounds: int, folder: Path) -> dict[str, Any]:
    """Both executors by turns, then the kill."""
    seen: dict[tuple[str, str], list[dict[str, float]]] = {}
    begun = time.perf_counter()
    with ray_cluster() as cluster:
        started = time.perf_counter() - begun
        for steps in {steps for _, steps in SWEEPS.values()}:  # compiled programs are kept from here on
            for place, where in enumerate((None, cluster)):
                sweep(2, steps, folder / f"warm-{steps}-{place}", where)
        for turn in range(rounds):
            for name, (cells, steps) in SWEEPS.items():
                for executor in ("local", "ray"):
                    out = folder / f"{name}-{executor}-{turn}"
                    once = sweep(cells, steps, out, cluster if executor == "ray" else None)
                    seen.setdefault((name, executor), []).append(once)
                    print(f"{name} ({cells} cells of {steps} steps), {executor}: {json.dumps(once)}", flush=True)
        killed = sweep(*SWEEPS["long"], folder / "killed", cluster, kill=True)
    last = f"-{rounds - 1}"
    killed["files_that_differ"] = differing_files(folder / f"long-local{last}", folder / "killed")
    undisturbed = [
        file
        for name in SWEEPS
        for file in differing_files(folder / f"{name}-local{last}", folder / f"{name}-ray{last}")
    ]
    print(f"a node killed: {json.dumps(killed)}", flush=True)
    result: dict[str, Any] = {
        "nodes": NODES, "sizes": SWEEPS, "rounds": rounds, "cluster_start_s": started, "killed": killed,
        "files_that_differ": undisturbed,
    }  # fmt: skip
    more = SWEEPS["many"][0] - SWEEPS["few"][0]
    for unit in ("wall_s", "cpu_s"):
        middle = {key: median(once[unit] for once in found) for key, found in seen.items()}
        cell = {one: (middle["many", one] - middle["few", one]) / more for one in ("local", "ray")}
        fixed = {one: middle["few", one] - SWEEPS["few"][0] * cell[one] for one in ("local", "ray")}
        result[unit] = {
            **{name: {one: middle[name, one] for one in ("local", "ray")} for name in SWEEPS},
            "overhead_per_cell": cell["ray"] - cell["local"],
            "overhead_per_sweep": fixed["ray"] - fixed["local"],
            "efficiency": middle["long", "local"] / middle["long", "ray"],
            "rounds_of_efficiency": [
                a[unit] / b[unit] for a, b in zip(seen["long", "local"], seen["long", "ray"], strict=True)
            ],
        }
    return result


# --- 2. trainings --------------------------------------------------------------------------------


def start(words: Sequence[str], processes: int, devices: int) -> list[subprocess.Popen[str]]:
    """The processes of one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}{devices}"
    started = []
    for own in range(processes):
        many = ["--coordinator", address, "--processes", str(processes), "--process-id", str(own)]
        more = many if processes > 1 else ["--devices", str(devices)]
        started.append(
            subprocess.Popen(
                [*words, *more], env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
    return started


def rows(run: Path) -> list[dict[str, Any]]:
    """The recorded metrics; a last line that is not whole yet is left out."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def step(name: str, flags: str, steps: int, way: str, out: Path) -> dict[str, float]:
    """Milliseconds of a step, of the clock and of all processors together."""
    words = command(f"{TRAIN} {flags}", "--train.steps", 2 * steps, "--record.metrics-every", steps // 2, "--out", out)
    processes = start(words, *WAYS[way])
    at: dict[int, float] = {}  # processor seconds when a row was written
    while any(process.poll() is None for process in processes):
        last = rows(out)[-1]["step"] if rows(out) else 0
        if last and last not in at:
            times = [psutil.Process(process.pid).cpu_times() for process in processes if process.poll() is None]
            at[last] = sum(one.user + one.system for one in times)
        time.sleep(0.01)
    said = [process.communicate()[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), said
    made = {row["step"]: row["wall_s"] for row in rows(out)}
    first, last = steps, 3 * steps // 2
    return {
        "wall_ms": 1e3 * (made[last] - made[first]) / (last - first),
        "cpu_ms": 1e3 * (at[last] - at[first]) / (last - first) if {first, last} <= at.keys() else float("nan"),
    }


def last_state(run: Path) -> dict[str, np.ndarray]:
    """Arrays of the last checkpoint."""
    folder = run / "checkpoints"
    return checkpoint.read(folder, checkpoint.steps(folder)[-1])[0]


def difference(one: Path, two: Path) -> float:
    """The largest of any number of the last states."""
    first, second = last_state(one), last_state(two)
    pairs = [(a, second[name]) for name, a in first.items() if np.issubdtype(a.dtype, np.floating)]
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def killed_process(flags: str, steps: int, folder: Path) -> dict[str, Any]:
    """Process 1 of two is killed in the middle, then both are started again with ``resume``."""
    text = f"{TRAIN} {flags} --train.steps {4 * steps} --record.metrics-every {max(1, steps // 10)}"
    whole, cut = folder / "whole", folder / "cut"
    for process in start(command(text, "--out", whole), 2, 1):
        assert process.wait() == 0, process.communicate()
    processes = start(command(text, "--out", cut), 2, 1)
    while not rows(cut) or rows(cut)[-1]["step"] < steps // 5:
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.005)
    processes[1].kill()
    begun = time.perf_counter()
    said, _ = processes[0].communicate(timeout=120)
    seconds = time.perf_counter() - begun
    processes[1].communicate()
    resumed = start(command("resume", cut, "--quiet"), 2, 1)
    assert all(process.wait() == 0 for process in resumed), [p.communicate() for p in resumed]
    return {
        "said": said.strip().replace(str(folder), "RUNS").splitlines(),
        "code": processes[0].returncode,
        "seconds_until_the_other_ended": seconds,
        "difference_of_the_resumed_run": difference(whole, cut),
    }


def trainings(rounds: int, folder: Path) -> dict[str, Any]:
    """All ways by turns, then the kill."""
    found: dict[str, Any] = {"rounds": rounds, "steps": {}}
    for name, (flags, steps) in TRAININGS.items():
        seen: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for turn in range(rounds):
            for place, way in enumerate(WAYS):
                seen[way].append(step(name, flags, steps, way, folder / f"{name}-{turn}-{place}"))
                print(f"{name}, {way}: {json.dumps(seen[way][-1])}", flush=True)
        found["steps"][name] = {
            "flags": flags,
            **{unit: {way: median(once[unit] for once in seen[way]) for way in WAYS} for unit in ("wall_ms", "cpu_ms")},
        }
        ends = [folder / f"{name}-0-{place}" for place in range(len(WAYS))]
        found["steps"][name]["difference_to_one_process"] = {
            way: difference(ends[0], end) for way, end in zip(WAYS, ends, strict=True)
        }
    found["killed"] = killed_process(*QUICK, folder)
    print(f"a process killed: {json.dumps(found['killed'])}", flush=True)
    return found


def main() -> None:
    """Measure, print and write ``results/scale.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="the two kills alone, tiny, nothing written")
    options.add_argument("--rounds", type=int, default=3, help="by turns (default 3)")
    options.add_argument("--part", choices=("sweeps", "trainings"), help="the other one keeps its last figures")
    given = options.parse_args()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        if given.quick:
            print("a process killed:", killed_process(*QUICK, Path(folder)), flush=True)
            with ray_cluster() as cluster:
                print("a node killed:", sweep(4, 20, Path(folder) / "ray", cluster, kill=True))
            return
        for part, measure in {"sweeps": sweeps, "trainings": trainings}.items():
            if given.part in (None, part):
                result[part] = {"machine": facts(), **measure(given.rounds, Path(folder))}
                RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
