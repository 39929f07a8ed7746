"""Bounds for drawn predictors: their defining expectations, coverage and prices."""

from math import log

import numpy as np
import pytest
from scipy.stats import binom

from mfresnet.bounds.exact_tail import drawn_bound, log_evidence, log_v, log_weights, log_xi, mean_bound
from mfresnet.bounds.path import path_bound, path_certificate
from mfresnet.errors import MfresnetError


@pytest.mark.parametrize("form", ["tail", "kl"])
@pytest.mark.parametrize("p", [0.003, 0.1, 0.5, 0.97])
def test_expectation_of_v_is_one(form, p):
    n = 60
    k = np.arange(n + 1)
    assert binom.pmf(k, n, p) @ np.exp(log_v(k, n, p, form)) == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("form", ["tail", "kl"])
def test_points_of_different_error_are_covered(form):
    """v is convex in k, so a sum of unequal Bernoulli variables has a smaller expectation (Hoeffding 1956)."""
    rng = np.random.default_rng(0)
    n = 30
    pmf, chances = np.ones(1), rng.uniform(0, 0.6, size=n)
    for chance in chances:
        pmf = np.convolve(pmf, [1 - chance, chance])
    assert pmf @ np.exp(log_v(np.arange(n + 1), n, chances.mean(), form)) < 1.0


def test_naive_evidence():
    n, p = 25, 0.3
    w = np.exp(log_weights(n))
    naive = [np.log(sum(w[j] / binom.cdf(j, n, p) for j in range(k, n + 1))) for k in range(n + 1)]
    np.testing.assert_allclose(log_evidence(n, [p])[0], naive, rtol=1e-10)


def test_bound_is_where_the_evidence_reaches_the_price():
    for form in ("tail", "kl"):
        value = drawn_bound(7, 200, 20.0, form)
        assert log_v([7], 200, [value], form)[0] == pytest.approx(20.0, rel=1e-6)
    assert drawn_bound(200, 200, 5.0) == 1.0
    assert drawn_bound(3, 200, np.inf) == drawn_bound(3, 200, np.nan) == 1.0


def test_price_of_the_tail_is_the_one_stated_and_below_that_of_kl():
    """log v against n kl: net price log H_n + log(k + 1)/2 or less, up to 1, where log xi(n) is log(pi n/2)/2."""
    for n, k, c in ((400, 10, 15.0), (1400, 70, 80.0), (4096, 4, 190.0)):
        price = c + log(20)
        tail, kl = (drawn_bound(k, n, price, form) for form in ("tail", "kl"))
        assert tail < kl
        net = price - (log_v([k], n, [tail], "kl")[0] + log_xi(n))
        assert -net < log(sum(1 / np.arange(1, n + 1))) + 0.5 * log(k + 1) + 1.0
        assert log_xi(n) == pytest.approx(0.5 * log(np.pi * n / 2), abs=0.05)
        assert log_xi(n) < log(2 * n**0.5)


def test_mean_of_unequal_chains_is_the_largest_mean_that_is_allowed():
    """Against brute force on a grid of pairs."""
    n, price, k = 40, 6.0, (2, 9)
    grid = np.linspace(0, 1, 801)
    first, second = (log_v(np.full(801, one), n, grid) for one in k)
    allowed = (first[:, None] + second[None, :]) / 2 <= price
    brute = ((grid[:, None] + grid[None, :]) / 2)[allowed].max()
    value = mean_bound(k, n, price)
    assert brute - 1e-9 <= value <= brute + 2e-3  # the grid of the brute force


def test_failed_chains_err_everywhere_and_cost_their_share():
    both, one = path_bound([5, 0], [10.0, np.nan], 300, 0.05), path_bound([5], [10.0], 300, 0.05 / 2)
    assert both == pytest.approx(0.5 * one + 0.5, abs=1e-9)
    certificate = path_certificate([5, 0], [10.0, np.nan], 300)
    assert certificate.details["failed"] == 1 and "1 of 2 did not" in str(certificate)
    assert path_certificate([5, 0], [10.0, np.nan], 300, certifies="chain", chain=1).value == 1.0


def test_more_times_and_settings_are_paid_for():
    alone = path_certificate([5], [10.0], 300).value
    chosen = path_certificate([[5], [50]], [[10.0], [5.0]], 300, settings=3, times=(10, 20))
    assert chosen.value == pytest.approx(path_bound([5], [10.0 + log(6)], 300, 0.05), abs=1e-9) and chosen.value > alone
    assert chosen.details["time"] == 10 and sum(chosen.terms.values()) == pytest.approx(chosen.value)


def test_coverage_of_independent_predictors():
    """c = 0: the share of draws whose bound is below the truth is at most delta (0.2 + 4 standard errors of 4000)."""
    rng = np.random.default_rng(3)
    k = rng.binomial(80, 0.1, size=4000)
    bounds = np.array([path_bound([one], [0.0], 80, 0.2) for one in range(81)])
    assert np.mean(bounds[k] < 0.1) <= 0.2 + 4 * np.sqrt(0.2 * 0.8 / 4000)


@pytest.mark.usefixtures("unchecked")
def test_bad_input():
    for call, words in (
        (lambda: mean_bound([0.5], 10, 1.0), "whole numbers"),
        (lambda: mean_bound([11], 10, 1.0), "between 0 and n = 10"),
        (lambda: mean_bound([1], 10, 1.0, "exact"), "form"),
        (lambda: path_bound([1, 2], [0.0], 10, 0.05), "one per chain"),
        (lambda: path_certificate([1], [0.0], 10, certifies="chain", chain=1), "chain = 1"),
        (lambda: path_certificate([1], [0.0], 10, certifies="all"), "certifies"),
    ):
        with pytest.raises(MfresnetError, match=words):
            call()


@pytest.mark.parametrize("form", ["tail", "kl"])
def test_a_bound_is_never_below_the_training_error(form):
    """A price may be negative, with probability delta at most; no errors satisfy (2) then."""
    for mistakes in ([5], [5, 5], [10, 8, 1], [0, 1, 0]):
        assert mean_bound(mistakes, 20, -10.0, form) == pytest.approx(np.mean(mistakes) / 20, abs=1e-12)
        assert path_bound(mistakes, [-10.0] * len(mistakes), 20, 0.05, form=form) >= np.mean(mistakes) / 20
