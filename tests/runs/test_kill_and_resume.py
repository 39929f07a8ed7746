"""A run that was killed, stopped or starved of space and then resumed equals the uninterrupted one to the bit."""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from small_runs import Commands, flags, same

from mfresnet.runs import RunDirectory
from mfresnet.runs.stopping import Stop

LONG = {"train__steps": 120, "record__metrics_every": 2, "train__batch_size": 8}
KINDS = {
    "adaptive flow with probes": {**LONG, "train__batch_size": None, "train__time": 10, "diagnostics__kl_every": 8},
    "mini-batch heun with probes": {**LONG, "train__solver": "heun", "train__time": 3},
    "mini-batch euler in float64": {**LONG, "train__solver": "euler", "train__precision": "float64"},
    "mini-batch adam": {**LONG, "train__rule": "adam"},
}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


@pytest.fixture(scope="module")
def commands(quick, tmp_path_factory):
    """Processes that share one cache of compiled programs: what is tested is not the compiler."""
    return Commands(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    """The uninterrupted run of each kind, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = folder / str(len(made))
            commands.run("train", *flags(**KINDS[kind]), "--out", made[kind])
        return made[kind]

    return get


def wait_for(process, run: Path, step: int) -> None:
    """Until the run has a checkpoint at or after ``step`` (or has ended)."""
    while process.is_alive():
        names = os.listdir(run / "checkpoints") if (run / "checkpoints").is_dir() else []
        if any(int(name[5:]) >= step for name in names if name.startswith("step-")):
            return
        time.sleep(0.002)


@pytest.mark.exact
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind, commands, whole, tmp_path):
    random = np.random.default_rng(list(KINDS).index(kind))
    run, kills = tmp_path / "run", 0
    process = commands.start("train", *flags(**KINDS[kind]), "--out", run)
    for after in (0, 40, 80):  # three kills: early, in the middle, late; each after a random while more
        wait_for(process, run, after)
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        process = commands.start("resume", run)
    process.join()
    assert process.exitcode == 0, commands.log.read_text()
    assert kills >= 2
    same(run, whole(kind))
    assert not list((run / "checkpoints").glob(".*"))


def test_killed_before_the_first_checkpoint(commands, whole, tmp_path):
    run, kind = tmp_path / "run", "mini-batch adam"
    process = commands.start("train", *flags(**KINDS[kind]), "--out", run)
    while not (run / "config.json").exists():
        time.sleep(0.001)
    process.kill()
    process.join()
    # whatever the kill left is taken back to the earliest moment a run can be resumed from
    for name in ("checkpoints", "arrays"):
        for item in sorted((run / name).rglob("*"), reverse=True):
            item.rmdir() if item.is_dir() else item.unlink()
    (run / "metrics.jsonl").unlink(missing_ok=True)
    assert "no checkpoint was written yet: starting from the first step." in commands.run("resume", run)
    same(run, whole(kind))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_politely(number, commands, whole, tmp_path):
    run, kind = tmp_path / "a run", "mini-batch heun with probes"
    process = commands.start("train", *flags(**KINDS[kind]), "--out", run)
    wait_for(process, run, 20)
    os.kill(process.pid, number)
    process.join()
    said = commands.log.read_text()
    assert process.exitcode == 130, said
    assert "stopping at the next checkpoint" in said
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "interrupted"
    assert f"interrupted at step {summary['step']}: go on with `mfresnet resume '{run}'`" in said
    assert (run / "checkpoints" / f"step-{summary['step']:09d}").is_dir()
    commands.run("resume", run)
    same(run, whole(kind))


@pytest.mark.parametrize("after", [0.0, 0.3])
def test_stopped_while_starting(after, commands, tmp_path):
    """Ctrl-C before the first step, at several moments: one sentence, and what is there can be trained again."""
    run = tmp_path / "run"
    process = commands.start("train", *flags(train__steps=1_000_000), "--out", run)
    while not commands.log.exists():
        time.sleep(0.001)
    time.sleep(after)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    said = commands.log.read_text()
    assert process.exitcode == 130, said
    assert "Traceback" not in said
    assert "mfresnet: stopped" in said or "interrupted at step" in said
    if (run / "config.json").exists():
        with RunDirectory.create(run, overwrite=True) as made:
            assert made.path == run
    else:
        with RunDirectory.create(run) as made:
            assert made.path == run


def test_second_interrupt_stops_at_once(commands, tmp_path):
    run, kind = tmp_path / "run", "mini-batch adam"
    process = commands.start("train", *flags(**KINDS[kind] | {"train__steps": 100_000_000}), "--out", run)
    wait_for(process, run, 4)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.1)
    with suppress(ProcessLookupError):  # a quick machine has stopped in order after the first one
        os.kill(process.pid, signal.SIGINT)
    process.join()
    said = commands.log.read_text()
    assert process.exitcode == 130, said
    assert f"mfresnet: stopped: go on with `mfresnet resume {run}`." in said or "interrupted at step" in said
    assert "Traceback" not in said


def test_disk_full_at_any_write_then_resumed(commands, whole, tmp_path):
    """A limit on the size of files stands for a full disk, in a real process; then the space is back."""
    run, kind = tmp_path / "run", "mini-batch adam"
    process = commands.start("train", *flags(**KINDS[kind]), "--out", run)
    wait_for(process, run, 10)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
    process.join()
    said = commands.log.read_text()
    assert process.exitcode == 2, said
    assert f"mfresnet: cannot write '{run}" in said
    assert f"File too large; what is written is kept: free space, then go on with `mfresnet resume {run}`." in said
    assert not (run / "summary.json").exists()
    commands.run("resume", run)
    same(run, whole(kind))


def test_second_interrupt_inside_the_garbage_collector_is_not_lost():
    """Python drops exceptions of the collector's callbacks."""
    once = [signal.SIGINT]

    def callback(phase, info):
        if once:
            signal.raise_signal(once.pop())

    with Stop(lambda text: None).install() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        gc.callbacks.append(callback)
        try:
            with pytest.raises(KeyboardInterrupt):
                gc.collect()
                assert not once
                time.sleep(30)
        finally:
            gc.callbacks.remove(callback)
