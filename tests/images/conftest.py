"""A small run of two rules and two seeds, on disk and in memory; one compiled program serves all tests of it."""

import os
import signal
from pathlib import Path

import pytest
from small_images import EPOCHS, RATE, SEEDS, write_folder

from mfresnet.cli import main
from mfresnet.config import build
from mfresnet.data.images import load_images
from mfresnet.images import ImageConfig, assemble_images
from mfresnet.runs import RunDirectory, train_images


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images") / "set", {"train": 9, "test": 4})


@pytest.fixture(scope="session")
def config(folder) -> ImageConfig:
    """Two seeds of a network of 20 layers, plain and mean-field, whose blocks do swap."""
    tree = {
        "data": {"name": str(folder)},
        "model": {"name": "resnet20", "width": 2},
        "blocks": {"rules": "plain,mean-field", "lr_t": RATE},
        "train": {"seeds": SEEDS, "epochs": EPOCHS, "batch_size": 8},
        "record": {"report": False},
    }
    return build(tree, ImageConfig)


@pytest.fixture(scope="session")
def job(config):
    return assemble_images(config, load_images(config.data.name))


@pytest.fixture(scope="session")
def stopped_and_finished(config, tmp_path_factory) -> tuple[dict, list[str], Path]:
    """Ctrl-C after the second epoch, then `mfresnet resume`; the summary of the stopped run."""
    out, append, said = tmp_path_factory.mktemp("run") / "run", RunDirectory.append_metrics, []

    def then_stop(run, row):
        append(run, row)
        if (row["rule"], row["epoch"]) == ("mean-field", 2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunDirectory, "append_metrics", then_stop)
        train_images(config, out, quiet=True, say=said.append)
    stopped = RunDirectory.open(out).summary
    assert main(["resume", str(out), "--quiet"]) == 0
    return stopped, said, out


@pytest.fixture(scope="session")
def finished(stopped_and_finished) -> Path:
    """A run of two rules at its end."""
    return stopped_and_finished[2]
