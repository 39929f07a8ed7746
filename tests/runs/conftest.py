"""Tests of runs start many small ones: the picture is left out."""

import numpy as np
import pytest
from small_certificates import TREE, job_of

from mfresnet.config import build
from mfresnet.runs import train


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A run costs a third of a second instead of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mfresnet.runs.training.network_figures", no_figures)
        yield


def no_figures(start, end, split):
    """In place of `mfresnet.diagnostics.figures.network_figures`, which has tests of its own."""
    return {"nothing": np.zeros(1, np.float32)}


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The directory of a small run that ends with certificates: tests leave it as they find it."""
    out = tmp_path_factory.mktemp("certify") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mfresnet.runs.training.network_figures", no_figures)
        train(build(TREE), out, quiet=True, say=lambda message: None)
    return out


@pytest.fixture(scope="session")
def job():
    """The job of that run."""
    return job_of(build(TREE))
