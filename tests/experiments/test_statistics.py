"""Fits against data made from known laws, and their intervals against the literature's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mfresnet.experiments import bootstrap, power_law, student
from mfresnet.stats import mean_interval, paired_difference


def test_power_law_is_least_squares():
    rng = np.random.default_rng(0)
    x = np.geomspace(8, 4096, 10)
    y = 3 * x**-1.1 * np.exp(0.2 * rng.normal(size=10))
    ours, scipys = power_law(x, y), stats.linregress(np.log(x), np.log(y))
    assert ours.slope == pytest.approx(scipys.slope, rel=1e-12)
    assert ours.intercept == pytest.approx(scipys.intercept, rel=1e-12)
    assert ours.stderr == pytest.approx(scipys.stderr, rel=1e-12)
    assert ours.p == pytest.approx(scipys.pvalue, rel=1e-9)
    assert ours(1.0) == pytest.approx(np.exp(scipys.intercept))


def test_student_interval_of_the_slope_covers():
    """95 % of the intervals hold the true slope: 400 trials, 5 standard deviations of a binomial."""
    rng = np.random.default_rng(1)
    x = np.geomspace(1, 100, 6)
    hits = 0
    for _ in range(400):
        low, high = power_law(x, x**-0.5 * np.exp(0.3 * rng.normal(size=6))).interval()
        hits += low <= -0.5 <= high
    assert abs(hits - 380) < 5 * np.sqrt(400 * 0.95 * 0.05)


def test_too_few_points():
    assert np.isnan(power_law([2.0, 2.0], [1.0, 3.0]).slope)
    two = power_law([1.0, 2.0], [1.0, 0.5])
    assert two.slope == pytest.approx(-1) and np.isnan(two.stderr) and np.isnan(two.p)


def test_bootstrap():
    """The interval of a mean has the width of the normal approximation, 2 * 1.96 s / sqrt(n)."""
    values = np.random.default_rng(2).normal(size=400)
    low, high = bootstrap(lambda chosen: float(values[chosen].mean()), 400, 4000, seed=3)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high
    assert np.isnan(bootstrap(lambda chosen: 0.0, 1, 100)).all()


def test_student():
    mean, half = student([1.0, 2.0, 4.0])
    interval = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (mean - half, mean + half) == pytest.approx(interval)
    assert student([5.0])[0] == 5.0 and np.isnan(student([5.0])[1])


def test_intervals_over_seeds():
    """Student's interval of 1, 2, 3: 2 +- 4.303/sqrt(3); lost seeds are counted, and left out of pairs."""
    np.testing.assert_allclose(mean_interval([1.0, 2.0, 3.0])["high"], 2 + 4.302653 / 3**0.5, rtol=1e-6)
    assert mean_interval([1.0, None])["lost"] == 1 and mean_interval([1.0])["low"] is None
    assert paired_difference([0.1, None, 0.3, 0.2], [0.2, 0.1, 0.41, 0.29])["verdict"] == "higher error"
    assert paired_difference([0.1], [0.2])["verdict"] == "one seed: no interval"
    # 0.2 - 0.1 and 0.3 - 0.2 differ in their last bits, which is no spread
    assert paired_difference([0.1, 0.2], [0.2, 0.3])["verdict"] == "no spread over seeds: not judged"
