"""Certificates of trained networks over independent draws of the training data: `benchmarks/validity.py`, small."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from mfresnet.bounds import clopper_pearson_lower
from mfresnet.kernels.precision import double_precision

PATH = Path(__file__).parents[2] / "benchmarks" / "validity.py"
DRAWS, DELTA = 24, 0.05


@pytest.fixture(scope="module")
def validity():
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("validity", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["validity"] = module  # where dataclasses look for the module of a class
    spec.loader.exec_module(module)
    yield module
    del sys.modules["validity"]


@pytest.fixture(scope="module")
def records(validity):
    conditions = [("sphere-teacher", 0.0), ("two-spirals", 0.2), ("two-spirals", 0.5)]
    sizes = validity.Sizes(
        n=128, test=2000, depth=2, width=8, head_width=64, steps=16, times=(3, 8, 16), probes=(32, 256),
        drawn=(8, 64), heads=(16, 64), residuals=(2, 8), gibbs=(8, 2), batch=12,
    )  # fmt: skip
    with double_precision():
        return validity.study(sizes, DRAWS, conditions, DELTA, say=lambda line: None)


@pytest.mark.slow
def test_no_kind_of_certificate_fails_more_often_than_delta(validity, records):
    """A share of delta gives more violations than this with probability below 1e-3; the control must be caught."""
    table = validity.summary(records, DELTA)
    kinds = [kind for kind in table if not kind.startswith("control")]
    assert len(kinds) == 8
    for kind in kinds:
        # laws whose flow cannot be inverted, or that moved beyond the grid, get no certificate of that kind
        draws, violated = table[kind]["draws"], table[kind]["violated"]
        assert draws >= DRAWS // 2 and clopper_pearson_lower(violated, draws, 1e-3) <= DELTA, kind
    control = table["control: train error, no bound"]
    assert control["exceeds_delta"] and control["share"] > 0.5


@pytest.mark.slow
def test_of_pure_noise_no_certificate_claims_more_than_chance(validity, records):
    """There every network errs on half of the points, so a value below is a violation: no more than of those."""
    kinds = {kind: row for kind, row in validity.summary(records, DELTA).items() if not kind.startswith("control")}
    # a law whose flow cannot be inverted gets no certificate of that kind, and so claims nothing
    silent = [kind for kind, row in kinds.items() if row["pure_noise.draws"] == 0]
    assert len(silent) <= 1, silent
    for kind, row in kinds.items():
        if kind not in silent:
            below = clopper_pearson_lower(row["pure_noise.below_chance"], row["pure_noise.draws"], 1e-3)
            assert row["pure_noise.draws"] <= DRAWS and below <= DELTA, kind


@pytest.mark.slow
def test_something_is_certified(validity, records):
    """A benchmark of certificates that never say anything would prove nothing."""
    rows = {(row["data"], row["kind"]): row for row in validity.by_condition(records)}
    prior = rows["sphere-teacher", "drawn, learned prior (Q = prior)"]
    assert prior["true error"] < prior["certificate"] < 0.5
    assert all(np.isfinite(row["certificate"]) for row in rows.values())
