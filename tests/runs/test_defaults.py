"""What a run at its defaults says does not depend on how finely its flow was solved."""

from __future__ import annotations

from typing import Any

import pytest

from mfresnet.config import build
from mfresnet.runs import train

TIME = 100.0  # a tenth of the default: a finer solution of all of it takes ten minutes


@pytest.mark.slow
def test_kl_of_the_default_run_is_that_of_a_finer_solution(tmp_path):
    """The same start and probes, so that the difference is the solver's: below half a standard error of the probes, and
    not above what the run itself estimates from a coarser solution."""
    quiet: dict[str, dict[str, Any]] = {
        "diagnostics": {"gram_every": 0, "landscape": False},
        "certify": {"enabled": False},
        "record": {"report": False},
        "train": {"time": TIME},
    }
    default = build(quiet).train.tolerance
    usual = train(build(quiet), tmp_path / "usual", quiet=True)
    quiet["diagnostics"] |= {"solver_error": False}
    quiet["train"] |= {"tolerance": 0.1 * default}
    fine = train(build(quiet), tmp_path / "fine", quiet=True)
    for part in ("encoder", "head"):
        error = abs(usual[f"kl.{part}.value"] - fine[f"kl.{part}.value"])
        print(part, error, usual[f"kl.{part}.value"], usual[f"kl.{part}.stderr"], usual[f"kl.{part}.solver_error"])
        assert 0 < error < 0.5 * usual[f"kl.{part}.stderr"]
        assert error <= usual[f"kl.{part}.solver_error"]
