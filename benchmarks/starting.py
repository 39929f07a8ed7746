"""Time to the first result of each command, with an empty compilation cache and at the second start.

Each command runs twice in a process of its own: with an empty cache directory (cold), and again (second). The workload
is one step of the default network, so that starting is what is measured; the first step of ``train`` and ``image`` is
told from the progress that the run directory shows. Wall time and processor time of the whole process; on a shared
machine the second is the one to compare.

    python benchmarks/starting.py [--quick]    # writes benchmarks/results/starting.json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from facts import facts

RESULTS = Path(__file__).parent / "results" / "starting.json"
TRAIN = ["train", "two-spirals", "--train.steps", "2", "--train.time", "0.2", "--quiet", "--overwrite", "--out"]
IMAGE = "image synthetic-images --model.name resnet8 --data.n 64 --data.n_test 32 --train.batch-size 32 --epochs 1"
IMAGE += " --quiet --overwrite --out"
COMMANDS: dict[str, list[str]] = {  # RUN is the directory of a training, IMAGES of an image run
    "train": [*TRAIN, "RUN"],
    "measure": ["measure", "RUN"],
    "certify": ["certify", "RUN"],
    "image": [*IMAGE.split(), "IMAGES"],
}
QUICK = "train two-spirals --data.n 16 --model.depth 2 --train.rule adam --train.steps 2 --diagnostics.landscape false "
QUICK += "--certify.enabled false --quiet --overwrite --out RUN"
FIRST_STEP = {"train": "RUN", "image": "IMAGES"}  # whose metrics.jsonl shows it


def run(words: list[str], environment: dict[str, str], watched: Path | None) -> dict[str, float | None]:
    """Seconds of a command: wall and processor time of all, and wall time until ``watched`` has two lines."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    first = first_cpu = None
    if watched is not None:
        watched.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "mfresnet", *words], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    lines = 1 if "image" in words else 2  # the row of the start comes before the first step of a training
    while watched is not None and first is None and process.poll() is None:
        if watched.exists() and watched.read_bytes().count(b"\n") >= lines:
            times = psutil.Process(process.pid).cpu_times()
            first, first_cpu = time.perf_counter() - begun, times.user + times.system
        time.sleep(0.02)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - begun, "cpu_s": cpu, "first_step_s": first, "first_step_cpu_s": first_cpu}


def main() -> None:
    """Run all commands by turns, print the times and write ``results/starting.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options.add_argument("--quick", action="store_true", help="a training, once from cold, nothing written")
    given = options.parse_args()
    if given.quick:
        given.repeats, given.commands = 1, ["train"]
        COMMANDS["train"] = QUICK.split()
    own = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "JAX_ENABLE_COMPILATION_CACHE")
    machine, seen = facts(), {name: {"cold": [], "second": []} for name in given.commands}
    with tempfile.TemporaryDirectory() as folder:
        places = {"RUN": str(Path(folder) / "run"), "IMAGES": str(Path(folder) / "images")}
        for _ in range(given.repeats):
            for name in given.commands:
                cache = Path(folder) / "cache" / name
                shutil.rmtree(cache, ignore_errors=True)
                environment = {key: value for key, value in os.environ.items() if key not in own}
                environment["MFRESNET_CACHE"] = str(cache)
                words = [places.get(word, word) for word in COMMANDS[name]]
                watched = Path(places[FIRST_STEP[name]]) / "metrics.jsonl" if name in FIRST_STEP else None
                for start in ("cold", "second"):
                    seen[name][start].append(run(words, environment, watched))
                    print(name, start, json.dumps(seen[name][start][-1]), flush=True)
    if given.quick:
        return
    rows = []
    for name, starts in seen.items():
        row: dict[str, object] = {"command": "mfresnet " + " ".join(COMMANDS[name])}
        for start, times in starts.items():
            values = {key: [t[key] for t in times if t[key] is not None] for key in times[0]}
            row[start] = {key: round(median(found), 2) for key, found in values.items() if found}
        rows.append(row)
    if RESULTS.exists():  # commands that were not measured now keep their figures
        kept = json.loads(RESULTS.read_text())["commands"]
        rows += [row for row in kept if row["command"] not in {new["command"] for new in rows}]
    RESULTS.write_text(json.dumps({"facts": machine, "repeats": given.repeats, "commands": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
