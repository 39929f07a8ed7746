"""A sweep whose batches keep checkpoints: killed within a batch it goes on from there, with the same result."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from small_sweeps import cells, same

from forked import Commands
from mfresnet.runs import checkpoint
from mfresnet.runs.sweeps.checkpoints import Checkpoints

EPOCHS = 24
FLAGS = [
    *("table1", "--rows", "resnet20", "--data", "synthetic-images", "--n", "24", "--n-test", "8", "--width", "2"),
    *("--seeds", "1", "--batch-size", "8", "--lr-t", "20", "--precision", "float32", "--checkpoint-seconds", "0"),
    *("--epochs", EPOCHS),
]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("commands"))


def kept(sweep: Path) -> list[int]:
    """Steps of the checkpoints of the one batch."""
    return checkpoint.steps(sweep / "checkpoints" / "batch-000000")


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX has them")
def test_killed_within_a_batch(commands, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = commands.start("sweep", *FLAGS, "--out", killed)
    while process.is_alive() and (not kept(killed) or kept(killed)[-1] < 6):
        time.sleep(0.002)
    process.kill()
    process.join()
    left = kept(killed)
    assert left and left[-1] < 3 * EPOCHS, commands.log.read_text()
    assert not cells(killed)
    shutil.copytree(killed, whole)
    shutil.rmtree(whole / "checkpoints")  # this one starts again
    commands.run("resume", killed)
    commands.run("resume", whole)
    same(killed, whole)
    assert not (killed / "checkpoints").exists()
    page = (killed / "report.html").read_text(encoding="utf-8")
    assert "resnet20, mean-field: depth t of the blocks of stage 1, seed 0" in page


def test_checkpoints_that_are_no_use_are_said(tmp_path):
    said: list[str] = []
    state = {"a": pytest.importorskip("jax.numpy").arange(3)}
    store = Checkpoints(tmp_path, "these settings", said.append).of([4, 5])
    assert store.newest(state) is None and not said
    store.save(7, state, {"epochs": [{"t": [0.5]}]})
    found = store.newest(state)
    assert found is not None and found[1]["epochs"] == [{"t": [0.5]}] and found[0]["a"].tolist() == [0, 1, 2]
    other = Checkpoints(tmp_path, "other settings", said.append).of([4, 5])
    assert other.newest(state) is None and "are of other settings. The batch starts again." in said[-1]
    store.save(7, state, {})
    (store.folder / "step-000000007" / "SHA256").write_text("0")
    assert store.newest(state) is None and "The batch starts again." in said[-1]
