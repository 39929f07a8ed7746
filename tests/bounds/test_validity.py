"""Certificates of trained networks over independent draws of the training data: `benchmarks/validity.py`, small.

A kind fails where more certificates are violated than a share delta gives with probability 1e-3. With 300 draws of
chains at delta = 0.05 that finds a kind of which 13 % fail with probability 0.99; of the networks there are few draws,
which find gross errors alone, such as the control's. What the price of a path must be is tested exactly, on pure
noise, in tests/certify.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
WITHOUT = "without its price: "
DRAWS, CHAINS, NOISES = 6, 50, (0.0, 0.2, 0.5)


@pytest.fixture(scope="module")
def validity():
    """The benchmark as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module("validity")


@pytest.fixture(scope="module")
def records(validity):
    counts = {validity.networks: DRAWS, validity.chains: CHAINS}
    return validity.study(counts, validity.Sizes(n=64, test=2000), NOISES, say=lambda *line, **options: None)


@pytest.fixture(scope="module")
def table(validity, records):
    return {(row["kind"], row["delta"]): row for row in validity.summary(records)}


@pytest.mark.slow
def test_no_kind_of_certificate_fails_more_often_than_delta(table):
    kinds = {key: row for key, row in table.items() if not key[0].startswith(("control", WITHOUT))}
    assert len(kinds) == 7 + 1 + 5 + 4
    for key, row in kinds.items():
        assert not row["fails"] and not row["pure_noise"]["fails"], (key, row)
        if key[0].startswith("path"):
            assert row["draws"] == 2 * len(NOISES) * CHAINS
        else:  # laws whose flow cannot be inverted, or that moved beyond the grid, get no certificate of that kind
            assert row["draws"] >= len(NOISES) * DRAWS // 2


@pytest.mark.slow
def test_what_has_no_proof_fails(validity, table):
    """The control: the rule has the power to find the train error, sold as a bound."""
    assert table["control: train error, no bound", 0.05]["fails"]
    for delta in validity.DELTAS:  # the price of the path prevents violations
        with_price, without = (table[kind, delta] for kind in ("path, chain, tail", f"{WITHOUT}path, chain, tail"))
        assert with_price["violated"] < without["violated"]


@pytest.mark.slow
def test_something_is_certified(records):
    """A study of certificates that never say anything would prove nothing."""
    of = {(r["data"], r["noise"], r["kind"], r["delta"]): np.array(r["values"]) for r in records}
    for case in (("gaussian", 0.0, "path, chain, tail", 0.5), ("sphere-teacher", 0.0, "held_out", 0.05)):
        certificates, truths = of[case].T
        assert truths.mean() < certificates.mean() < 0.5


def test_the_rule_has_the_probability_that_it_states():
    """The number of violations allowed, and the share that is detected, against the binomial law summed up by hand."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        violations = importlib.import_module("violations")
    from math import comb

    def above(most: int, draws: int, share: float) -> float:
        return sum(comb(draws, k) * share**k * (1 - share) ** (draws - k) for k in range(most + 1, draws + 1))

    for draws, delta in ((40, 0.05), (150, 0.05), (300, 0.5)):
        most = violations.most_violations(draws, delta)
        assert above(most, draws, delta) <= 1e-3 < above(most - 1, draws, delta)
        assert above(most, draws, violations.detects(draws, delta)) == pytest.approx(0.99, abs=1e-9)
