"""One run on several devices and processes, points and particles shared out, equals that on one to rounding."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_runs import flags

from mfresnet import Config
from mfresnet.runs import RunDirectory, checkpoint
from mfresnet.runs import train as run_into
from mfresnet.train.devices import Devices, connect

FORCED = "--xla_force_host_platform_device_count="
KINDS = {
    "whole": {
        "train__rule": "gradient-flow",
        "train__solver": "heun",
        "data__n": 9,
    },  # on 4 devices: three points each of three
    "batches": {"train__rule": "adam", "train__batch_size": 8, "data__n": 30},
}
# as `--devices` and `--particle-devices`: 4 shares of points; 2 of points and 2 of particles; 4 of particles
MESHES = {"4": ("--devices", 4), "2x2": ("--devices", 4, "--particle-devices", 2), "1x4": ("--particle-devices", 4)}
RUNS = [("whole", "4"), ("whole", "2x2"), ("whole", "1x4"), ("batches", "4"), ("batches", "2x2")]
MEASURED = {"diagnostics__kl_every": 4}
# many commands in one process: starting JAX takes longer than the runs
COMMANDS = """
import sys, json, jax
from mfresnet.cli import main
from mfresnet.runs import training
import numpy as np
training.network_figures = lambda start, end, split: {"nothing": np.zeros(1, np.float32)}
from mfresnet.train.measurements import Measurements
metrics = Measurements.metrics

def with_shares(measurements, state, wall_s):  # what the first device holds of the particles and of what goes with them
    trees = {"u": state.model.encoder.out, "head": state.model.head.b, "memory": jax.tree.leaves(state.rule)}
    if state.ensemble is not None:
        trees["probes"], trees["ratio"] = state.ensemble.probes.head.w, state.ensemble.log_ratio.head
    found = jax.tree.map(lambda leaf: list(leaf.addressable_shards[0].data.shape), trees)
    print("share", int(state.step), json.dumps(found))
    return metrics(measurements, state, wall_s)

Measurements.metrics = with_shares
codes = [main(argv) for argv in json.loads(sys.argv[1])]
print("codes", codes)
"""


def command(argvs, devices: int) -> list[str]:
    return [sys.executable, "-c", COMMANDS, json.dumps([[str(a) for a in argv] for argv in argvs])]


def environment(devices: int) -> dict[str, str]:
    flags = re.sub(FORCED + r"\d+", "", os.environ.get("XLA_FLAGS", ""))
    return os.environ | {"XLA_FLAGS": f"{flags} {FORCED}{devices}", "JAX_PLATFORMS": "cpu"}


def state(run: Path) -> dict[str, np.ndarray]:
    return checkpoint.read(run / "checkpoints", checkpoint.steps(run / "checkpoints")[-1])[0]


def close(one: Path, two: Path) -> None:
    """The last states of two runs: sums in another order, 12 steps in float32."""
    first, second = state(one), state(two)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_allclose(first[name], second[name], rtol=2e-4, atol=2e-5, err_msg=name)


def train(kind: str, out: Path, *more) -> list:
    """The command of a run; what ``more`` sets is not set twice."""
    changes = KINDS[kind] | {"certify__enabled": False} | (MEASURED if kind == "whole" else {})
    changes |= {str(flag)[2:].replace("-", "_").replace(".", "__"): None for flag in more if "model." in str(flag)}
    return ["train", *flags(**changes), "--out", out, "--quiet", *more]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, str, str]:
    """Runs on one and on four devices, to be resumed on others, and mistakes: in one process of 4 devices."""
    folder = tmp_path_factory.mktemp("devices")
    argvs = [train(kind, folder / f"{kind}-1", "--devices", 1) for kind in KINDS]
    argvs += [train(kind, folder / f"{kind}-{mesh}", *MESHES[mesh]) for kind, mesh in RUNS]
    argvs += [train("whole", folder / f"too-many-{i}", *more) for i, (more, _) in enumerate(REFUSED)]
    done = subprocess.run(command(argvs, 4), env=environment(4), capture_output=True, text=True, timeout=300)
    assert f"codes {[0] * 7 + [2] * len(REFUSED)}" in done.stdout, done.stdout + done.stderr
    return folder, done.stdout, done.stderr


@pytest.mark.parametrize(("kind", "mesh"), RUNS)
def test_four_devices_give_the_result_of_one(kind, mesh, runs):
    folder, _, _ = runs
    close(folder / f"{kind}-1", folder / f"{kind}-{mesh}")
    rows = [RunDirectory.open(folder / f"{kind}-{n}").metrics() for n in ("1", mesh)]
    for one, two in zip(*rows, strict=True):
        assert one["train.loss"] == pytest.approx(two["train.loss"], rel=1e-4, abs=1e-6)
        if "kl.head.value" in one:  # a diagnostic, taken of states that agree as `close` says
            assert two["kl.head.value"] == pytest.approx(one["kl.head.value"], rel=1e-3, abs=1e-5)
    measured = sum("kl.head.value" in row for row in rows[1])
    assert measured == (4 if kind == "whole" else 0)
    config = RunDirectory.open(folder / f"{kind}-{mesh}").config
    assert config["devices_used"] == 4
    assert config["particle_devices_used"] == {"4": 1, "2x2": 2, "1x4": 4}[mesh]


def test_a_device_holds_its_share_of_the_particles_all_the_time(runs):
    """3 layers of 4 particles in dimension 2, 4 head particles, 4 head probes; Adam remembers two moments of each."""
    per_run: list[list[dict]] = []
    for line in runs[1].splitlines():
        if line.startswith("share "):
            _, step, found = line.split(" ", 2)
            if step == "0":
                per_run.append([])
            per_run[-1].append(json.loads(found))
    assert len(per_run) == 7 and all(len(rows) == 7 for rows in per_run)  # every 2 of 12 steps
    for (kind, mesh), rows in zip([(kind, "1") for kind in KINDS] + RUNS, per_run, strict=True):
        share = {"1": 4, "4": 4, "2x2": 2, "1x4": 1}[mesh]
        for row in rows:
            assert row["u"] == [3, share, 2] and row["head"] == [share]
            if kind == "whole":
                assert row["probes"] == [share, 2] and row["ratio"] == [share]
            else:
                assert row["memory"].count([3, share, 2]) == 4 and row["memory"].count([share, 2]) == 2


# flags beside those of "whole" -> what is said
REFUSED = (
    (("--devices", 5), "devices = 5 is not allowed: JAX has 4 here, so give a value from 1 to 4."),
    (
        ("--devices", 4, "--particle-devices", 3),
        "particle-devices = 3 is not allowed: it has to divide the 4 devices, so give one of 1, 2, 4.",
    ),
    (
        ("--particle-devices", 4, "--model.width", 6),
        "model.width = 6 cannot be divided among 4 particle-devices: give a multiple of 4, or other particle-devices.",
    ),
    (
        ("--particle-devices", 4, "--model.head-width", 6),
        "model.head_width = 6 cannot be divided among 4 particle-devices",
    ),
    (
        ("--particle-devices", 2, "--model.kind", "continuous"),
        "particle-devices = 2 is not allowed for a continuous model, whose particles act one after the other along",
    ),
)


@pytest.mark.parametrize(("number", "sentence"), [(i, said) for i, (_, said) in enumerate(REFUSED)])
def test_devices_that_cannot_share_a_run(number, sentence, runs):
    folder, _, said = runs
    assert f"mfresnet: {sentence}" in said
    assert not (folder / f"too-many-{number}").exists()


def halved(run: Path, copy: Path) -> Path:
    """A copy of a run as it was in the middle."""
    shutil.copytree(run, copy)
    (copy / "summary.json").unlink()
    middle = [step for step in checkpoint.steps(copy / "checkpoints") if 0 < step < 12][-1]
    checkpoint.discard_after(copy / "checkpoints", middle)
    return copy


@pytest.mark.parametrize("mesh", ["4", "1x4"])
def test_resumed_on_one_device(mesh, runs, tmp_path):
    """Half of the run was made on four devices, the rest is made on one, and equals the whole."""
    from mfresnet.runs import resume

    run = halved(runs[0] / f"whole-{mesh}", tmp_path / "run")
    assert resume(run, quiet=True, say=lambda message: None)["status"] == "completed"
    close(run, runs[0] / "whole-1")


def free_address() -> str:
    """Where a coordinator may listen."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def start(argvs, own: int, address: str, devices: int) -> subprocess.Popen:
    """Process ``own`` of two that run commands together over gloo."""
    more = ["--coordinator", address, "--processes", 2, "--process-id", own]
    return subprocess.Popen(
        command([[*argv, *more] for argv in argvs], devices),
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def together(argv, devices: int = 2) -> list[str]:
    """What two processes of two devices each print, that run a command together."""
    address = free_address()
    processes = [start([argv], own, address, devices) for own in range(2)]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert all("codes [0]" in text for text in said), said
    return said


@pytest.mark.parametrize("parts", [1, 4])
def test_two_processes_give_the_result_of_one(parts, runs, tmp_path):
    """Points shared among them, or particles, of which each process then holds a half; only process 0 writes and
    speaks. The second begins in the middle of a run on 2x2 devices."""
    out, more = tmp_path / "run", ("--particle-devices", parts)
    if parts == 4:
        argv = ["resume", halved(runs[0] / "whole-2x2", out), "--quiet", *more]
    else:
        argv = train("whole", out, *more)
    said = together(argv)
    close(out, runs[0] / "whole-1")
    assert "train.loss" in said[0] and "train.loss" not in said[1]
    if parts == 1:
        assert RunDirectory.open(out).config["devices_used"] == 4
    else:
        assert '"u": [3, 1, 2]' in said[0] and '"u": [3, 1, 2]' in said[1]
    rows = [RunDirectory.open(run).metrics() for run in (out, runs[0] / "whole-1")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert rows[0][-1]["kl.head.value"] == pytest.approx(rows[1][-1]["kl.head.value"], rel=1e-3, abs=1e-5)


def test_a_stop_that_another_process_was_asked_for_is_kept(tmp_path, monkeypatch):
    """The first process writes where it stopped, though nobody has asked it."""
    asked = []
    monkeypatch.setattr(Devices, "any", lambda self, flag: flag or (asked.append(flag), len(asked) > 5)[1])
    config = Config(
        data={"n": 8, "n_test": 8},
        model={"depth": 2, "width": 3},
        train={"rule": "sgd", "steps": 50},
        diagnostics={"landscape": False, "gram_every": 0, "kl_every": 0, "solver_error": False},
        record={"snapshots": 2},
    )
    summary = run_into(config, tmp_path / "run", quiet=True)
    assert summary["status"] == "interrupted" and 0 < summary["step"] < 50
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == summary["step"]


def test_bad_addresses_and_missing_numbers(monkeypatch):
    connect()  # one process: nothing to join
    with pytest.raises(ValueError, match=r"needs --processes too \(or MFRESNET_PROCESSES\)"):
        connect("127.0.0.1:1")
    with pytest.raises(ValueError, match=r"process 2 of 2 with coordinator '127.0.0.1:1' is not allowed"):
        connect("127.0.0.1:1", 2, 2)
    monkeypatch.setenv("MFRESNET_PROCESS_ID", "one")
    with pytest.raises(ValueError, match="whole numbers"):
        connect("127.0.0.1:1", 2)
    with pytest.raises(ValueError, match="devices = 0 is not allowed"):
        Devices.of(0)


def test_the_death_of_a_process_is_one_sentence_in_the_others(tmp_path):
    """Killed in the middle of training: the other ends within 30 seconds and names the last checkpoint."""
    for victim in (0, 1):
        run = tmp_path / f"run-{victim}"
        long = flags(train__solver="heun", train__steps=1_000_000, train__time=1000, certify__enabled=False)
        argv = ["train", *long, "--out", run, "--quiet"]
        processes = [start([argv], own, address, 1) for address in [free_address()] for own in range(2)]
        try:
            while not (run / "checkpoints" / "step-000000002").exists():
                assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
                time.sleep(0.05)
            processes[victim].kill()
            said, _ = processes[1 - victim].communicate(timeout=30)
        finally:
            for process in processes:
                process.kill()
                process.wait()
                process.stdout.close()
        assert processes[1 - victim].returncode == 2
        sentence = (
            rf"mfresnet: process {victim} of 2 has died: the run stops. The last checkpoint is that of step \d+: "
        )
        assert re.search(sentence + rf"go on with `mfresnet resume {run}`\.\n$", said), said
        assert "Traceback" not in said and "***" not in said


@pytest.mark.slow
def test_a_process_killed_and_both_resumed_end_where_an_undisturbed_run_does(tmp_path):
    """To the bit: the same program on as many devices; the sum of two shares has no order."""
    long = ["train", *flags(train__solver="heun", train__steps=400, train__time=100, certify__enabled=False), "--quiet"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    together([*long, "--out", whole], devices=1)
    processes = [start([[*long, "--out", cut]], own, address, 1) for address in [free_address()] for own in range(2)]
    while not (cut / "checkpoints" / "step-000000002").exists():
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.01)
    processes[1].kill()
    said = [process.communicate(timeout=30)[0] for process in processes]
    assert "process 1 of 2 has died" in said[0], said
    assert checkpoint.steps(cut / "checkpoints")[-1] < 400
    together(["resume", cut, "--quiet"], devices=1)
    first, second = state(whole), state(cut)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_run_too_small_for_many_processes_is_told_so():
    """Work of a field evaluation against the messages it waits for; one process waits for none."""
    small, two = Config(data={"n": 64}), Devices(layout=None, processes=2)
    assert "64 points" in two.why_slow(small, 64, 2) and "one process is faster" in two.why_slow(small, 64, 2)
    assert two.why_slow(Config(model={"depth": 100, "width": 1000}), 20_000, 30) is None
    assert Devices().why_slow(small, 64, 2) is None
