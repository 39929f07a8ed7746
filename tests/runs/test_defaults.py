"""What a run at its defaults says does not depend on how finely its flow was solved."""

from __future__ import annotations

import pytest

from mfresnet.config import build
from mfresnet.runs import train


@pytest.mark.slow
def test_kl_of_the_default_run_is_that_of_a_finer_solution(tmp_path):
    """The same network and probes, so that the difference is the solver's: below half a standard error of the probes.

    Ten times the default tolerance fails: the explicit solver then wavers at its limit of stability, which moves
    particles for nothing, and KL of the head is more than three times as large.
    """
    quiet = {
        "diagnostics": {"gram_every": 0, "landscape": False},
        "certify": {"enabled": False},
        "record": {"report": False},
    }
    default = build(quiet).train.tolerance
    coarse, usual, fine = (
        train(build({**quiet, "train": {"tolerance": factor * default}}), tmp_path / str(factor), quiet=True)
        for factor in (10, 1, 0.1)
    )
    for part in ("encoder", "head"):
        allowed = 0.5 * usual[f"kl.{part}.stderr"]
        assert abs(usual[f"kl.{part}.value"] - fine[f"kl.{part}.value"]) < allowed
    assert coarse["kl.head.value"] > 2 * fine["kl.head.value"]
