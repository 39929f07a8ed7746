"""Confidence limits of the KL: naive cumulants, and coverage on laws whose KL is known."""

from math import log, sqrt

import numpy as np
import pytest
from scipy.special import stdtrit
from scipy.stats import binom, kstat

from mfresnet.bounds import kl_estimate
from mfresnet.diagnostics.divergence import summarise
from mfresnet.diagnostics.estimate import Estimate, hall_quantile, moments, upper_limit

FALSE_ALARM = 1e-6  # of one comparison of a number of failures with its binomial law


DIMENSION = 4
SCALES = {0.1: 1.1, 0.5: 0.76, 1.0: 1.5, 2.0: 1.0, 4.0: 2.1}  # KL: standard deviation; the mean makes up for the rest


def gaussian_ratios(rng, kl: float, size: tuple[int, ...]):
    """R of independent probes of N(shift e_1, scale^2 I), which has that KL to N(0, I)."""
    scale = SCALES[kl]
    shift = sqrt(2 * kl - DIMENSION * (scale**2 - 1 - 2 * log(scale)))
    normal = rng.normal(size=(*size, DIMENSION))
    omega = scale * normal
    omega[..., 0] += shift
    return 0.5 * np.sum(omega**2 - normal**2, axis=-1) - DIMENSION * log(scale)


def test_moments_are_those_of_k_statistics():
    values = np.random.default_rng(0).exponential(size=(3, 40)) * np.array([[1.0], [2.0], [5.0]])
    estimate = Estimate.of(values)
    second, third = (np.array([kstat(row, n) for row in values]) for n in (2, 3))
    stderr = np.sqrt(second.sum() / 40) / 3
    assert estimate.value == pytest.approx(values.mean(), rel=1e-12)
    assert estimate.stderr == pytest.approx(stderr, rel=1e-12)
    assert estimate.skewness == pytest.approx(third.sum() / (27 * 40**2) / stderr**3, rel=1e-10)
    assert estimate.freedom == pytest.approx(39 * second.sum() ** 2 / np.sum(second**2), rel=1e-12)
    batch = moments(np.stack([values, values[:, ::-1]]))
    np.testing.assert_allclose([m[1] for m in batch], [estimate.value, stderr, estimate.skewness, estimate.freedom])
    t = stdtrit(estimate.freedom, 0.975)
    assert estimate.interval()[1] == pytest.approx(values.mean() + stderr * hall_quantile(t, estimate.skewness))
    assert kl_estimate(values, 0.01).upper == pytest.approx(upper_limit(*batch, 0.01)[1])


@pytest.mark.parametrize("skewness", [-0.4, -1e-9, 0.05, 0.7])
def test_hall_quantile_inverts_the_transformation(skewness):
    """T = -quantile solves g(T) = -t, with g as in Hall (1992); the last t lies beyond the pole of a series in G."""
    t = np.array([0.5, 1.6, 4.2, 8.0])
    T = -hall_quantile(t, skewness)
    np.testing.assert_allclose(T + skewness * T**2 / 3 + skewness**2 * T**3 / 27 + skewness / 6, -t, rtol=1e-6)


@pytest.mark.parametrize("kl", SCALES)
@pytest.mark.parametrize("size", [(1, 512), (10, 32)], ids=["head", "encoder"])
def test_limits_and_intervals_cover(kl, size):
    """At nominal 95 %: between 93 and 97 %, of 4,000 samples; a true share of 95 % leaves it with probability 1e-8.

    Student's intervals of exp(-R) - 1 + R cover 77 % at KL = 0.5 and 82 % at KL = 2 here.
    """
    runs, rng = 4000, np.random.default_rng(int(10 * kl) + size[0])
    value, stderr, skewness, freedom = moments(gaussian_ratios(rng, kl, (runs, *size)))
    t = stdtrit(freedom, 0.975)
    low, high = value - stderr * hall_quantile(t, -skewness), value + stderr * hall_quantile(t, skewness)
    assert 0.93 < np.mean((low < kl) & (kl < high)) < 0.97
    # the larger of two limits may fail less often, not more
    assert np.mean(upper_limit(value, stderr, skewness, freedom, 0.05) < kl) < 0.07


def test_limits_hold_at_the_failure_probability_of_certificates():
    """20,000 samples of 512 probes at delta = 1e-3, of a law skewed to the right, where Student's limit fails 3 times
    too often: 20 failures expected, and fewer than the quantile of the binomial law at 1.3 times that."""
    runs, delta, rng = 20_000, 1e-3, np.random.default_rng(5)
    failures = student = 0
    for _ in range(runs // 1000):
        square = rng.chisquare(1, size=(1000, 512))  # N(0, 9) against N(0, 1)
        ratios, exact = 4 * square - log(3), 4 - log(3)
        value, stderr, skewness, freedom = moments(ratios[:, None, :])
        failures += np.sum(upper_limit(value, stderr, skewness, freedom, delta) < exact)
        student += np.sum(value + stdtrit(511, 1 - delta) * stderr < exact)
    most = binom.ppf(1 - FALSE_ALARM, runs, 1.3 * delta)
    assert failures <= most < student


def test_printed_and_certified_kl_are_one_number():
    """Whatever the sample: never the one of two estimators that looks better on it."""
    ratios = gaussian_ratios(np.random.default_rng(0), 0.1, (3, 64))
    printed, certified = summarise(ratios, np.zeros(1)), kl_estimate(ratios, 0.05)
    assert printed.kl.value == certified.value == ratios.mean()
    assert printed.kl.stderr == certified.stderr and printed.normalisation.value == certified.normalisation


def test_without_spread_or_with_one_probe():
    assert Estimate.of(np.zeros((2, 8))).upper(0.01) == 0.0
    one = Estimate.of(np.zeros((5, 1)))
    assert np.isnan(one.stderr) and one.upper(0.1) == np.inf and one.interval() == (-np.inf, np.inf)
