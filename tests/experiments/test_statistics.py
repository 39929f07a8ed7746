"""Fits against data made from known laws, and their intervals against the literature's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mfresnet.stats import compare_pairs, equivalence, jackknife, mean_interval, paired_differences, power_law, student


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


def test_jackknife_interval_covers():
    """95 % of the intervals of a ratio of means hold it: 1000 trials, 5 standard deviations of a binomial."""
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        x, y = 2 + 0.3 * rng.normal(size=12), 3 + 0.3 * rng.normal(size=12)
        mean, half = student(jackknife(lambda used, x=x, y=y: y[used].mean() / x[used].mean(), 12))
        hits += abs(mean - 1.5) <= half
    assert abs(hits - 950) < 5 * np.sqrt(1000 * 0.95 * 0.05)


def test_equivalence_has_its_level():
    """At the edge of the margin "inside" is found in 5 % of trials at most, and so is "outside": 2000 trials each.

    Both thresholds are 5 standard deviations of a binomial above 5 %.
    """
    rng = np.random.default_rng(3)
    edge = [equivalence(1.1 + 0.05 * rng.normal(size=4), 1.0, 0.1) for _ in range(2000)]
    most = 100 + 5 * np.sqrt(2000 * 0.05 * 0.95)
    assert edge.count(True) < most and edge.count(False) < most
    inside = [equivalence(1.0 + 0.02 * rng.normal(size=4), 1.0, 0.1) for _ in range(200)]
    assert inside.count(True) > 190 and inside.count(False) == 0
    # one of three tests is stricter about "outside"
    values = [1.2, 1.28, 1.27]
    assert equivalence(values, 1.0, 0.1) is False and equivalence(values, 1.0, 0.1, tests=20) is None


def test_equivalence_without_spread_or_with_one_value():
    assert equivalence([1.0, 1.0], 1.0, 0.1) is True and equivalence([2.0, 2.0], 1.0, 0.1) is False
    assert equivalence([1.0], 1.0, 0.1) is None and equivalence([], 1.0, 0.1) is None


def test_paired_differences_leave_out_broken_pairs():
    found = paired_differences([1.0, np.nan, 3.0, 4.0], [2.0, 1.0, np.inf, 4.5])
    np.testing.assert_allclose(found, [1.0, 0.5])


def test_student():
    mean, half = student([1.0, 2.0, 4.0])
    interval = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([1.0, 2.0, 4.0]))
    assert (mean - half, mean + half) == pytest.approx(interval)
    assert student([5.0])[0] == 5.0 and np.isnan(student([5.0])[1])


def test_intervals_over_seeds():
    """Student's interval of 1, 2, 3: 2 +- 4.303/sqrt(3); lost seeds are counted, and left out of pairs."""
    np.testing.assert_allclose(mean_interval([1.0, 2.0, 3.0])["high"], 2 + 4.302653 / 3**0.5, rtol=1e-6)
    assert mean_interval([1.0, None])["lost"] == 1 and mean_interval([1.0])["low"] is None
    assert compare_pairs([0.1, None, 0.3, 0.2], [0.2, 0.1, 0.41, 0.29])["verdict"] == "higher error"
    assert compare_pairs([0.1], [0.2])["verdict"] == "one seed: no interval"
    # 0.2 - 0.1 and 0.3 - 0.2 differ in their last bits, which is no spread
    assert compare_pairs([0.1, 0.2], [0.2, 0.3])["verdict"] == "no spread over seeds: not judged"
