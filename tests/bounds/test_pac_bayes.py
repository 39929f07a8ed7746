"""PAC-Bayes certificates: naive transcription, validity by simulation, and what they refuse."""

from math import log, sqrt

import numpy as np
import pytest
from scipy.stats import binom

from mfresnet.bounds import (
    Density,
    DrawnPoint,
    GibbsPoint,
    clopper_pearson_lower,
    drawn_certificate,
    gibbs_certificate,
    kl_bernoulli,
    kl_estimate,
    mean_upper,
    pac_bayes_bound,
)
from mfresnet.errors import MfresnetError


def naive_bound(q, kl, n, delta, grid):
    c = (kl + log(2 * sqrt(n) * grid / delta)) / n
    p = np.linspace(q, 1, 200_001)
    return p[kl_bernoulli(q, p) <= c].max()


def test_bound_against_a_fine_search():
    for q, kl, n, delta, grid in [(0.0, 0.0, 8, 0.1, 1), (0.05, 10, 400, 0.05, 20), (0.4, 300, 1000, 0.01, 3)]:
        assert pac_bayes_bound(q, kl, n, delta, grid) == pytest.approx(naive_bound(q, kl, n, delta, grid), abs=2e-5)


@pytest.mark.parametrize("n", [8, 30, 400])
def test_maurers_moment(n):
    """E exp(n kl(K/n || p)) <= 2 sqrt(n), the only inequality on the data that the bounds use."""
    k = np.arange(n + 1)
    for p in (1e-3, 0.1, 0.5, 0.9):
        moment = np.sum(np.exp(binom.logpmf(k, n, p) + n * kl_bernoulli(k / n, p)))
        assert moment <= 2 * sqrt(n)


def learner(rng, n, delta):
    """1-d thresholds with 20 % label noise: 41 hypotheses, uniform prior, Gibbs posterior from the sample.

    Returns what the two certificates need, and the true errors.
    """
    grid, noise = np.linspace(0, 1, 41), 0.2
    true = noise + (1 - 2 * noise) * np.abs(grid - 0.5)
    x = rng.uniform(size=n)
    y = (x > 0.5) ^ (rng.uniform(size=n) < noise)
    train = np.mean((x[None, :] > grid[:, None]) != y[None, :], axis=1)
    q = np.exp(-2 * n * (train - train.min()))
    return train, true, q / q.sum()


def test_the_gibbs_bound_fails_at_most_delta_of_the_time():
    rng, n, delta, runs = np.random.default_rng(0), 60, 0.2, 1000
    failures = 0
    for _ in range(runs):
        train, true, q = learner(rng, n, delta)
        kl = np.sum(q * np.log(np.maximum(q * len(q), 1e-300)))
        failures += q @ true > pac_bayes_bound(q @ train, kl, n, delta)
    assert clopper_pearson_lower(failures, runs, 0.01) <= delta


@pytest.mark.parametrize("m", [1, 5])
def test_the_drawn_bound_fails_at_most_delta_of_the_time_even_for_dependent_draws(m):
    rng, n, delta, runs = np.random.default_rng(m), 60, 0.2, 1000
    failures, values = 0, []
    for _ in range(runs):
        train, true, q = learner(rng, n, delta)
        # dependent draws: one uniform number, shifted; each alone is an exact draw of Q
        place = (rng.uniform() + np.arange(m) / m) % 1.0
        drawn = np.searchsorted(np.cumsum(q), place).clip(0, len(q) - 1)
        c = drawn_certificate([DrawnPoint(1, 1, train[drawn], np.log(q[drawn] * len(q)))], n, delta)
        failures += true[drawn].mean() > c.value
        values.append(c.value)
    assert clopper_pearson_lower(failures, runs, 0.01) <= delta
    assert np.mean(values) < 0.5  # and it is not vacuous


def test_a_tight_case_shows_that_the_constant_cannot_shrink_much():
    """One hypothesis, no complexity: the bound fails with a probability below delta but not absurdly so."""
    n, p, delta = 100, 0.3, 0.05
    k = np.arange(n + 1)
    fails = pac_bayes_bound(k / n, 0.0, n, delta) < p
    assert 1e-4 < binom.pmf(k, n, p)[fails].sum() <= delta


@pytest.mark.parametrize("delta", [0.05, 1e-3, 1e-6])
@pytest.mark.parametrize("paid", ["delta", "prior", "grid"])
def test_each_term_is_needed_to_keep_the_failures_below_delta(delta, paid):
    """The probability of a failure, from the binomial law: no samples, so no false alarms.

    Of 10^4 independent hypotheses, each with true error p, the one with the fewest training errors is kept. A prior
    with weight 10^-4 for each pays for this choice, and so does a union over 10^4 priors.
    """
    n, p, many = 100, 0.3, 10_000

    def fails(hypotheses, kl, confidence, grid_size):
        value = pac_bayes_bound(np.arange(n + 1) / n, kl, n, confidence, grid_size)
        one = binom.pmf(np.arange(n + 1), n, p)[value < p].sum()
        return -np.expm1(hypotheses * np.log1p(-one))

    tried, kl, grid_size = {"delta": (1, 0.0, 1), "prior": (many, log(many), 1), "grid": (many, 0.0, many)}[paid]
    assert fails(tried, kl, delta, grid_size) <= delta
    if paid != "delta":
        assert fails(tried, 0.0, delta, 1) > delta
    elif delta < 0.05:  # the 2 sqrt(n) of the bound pays for a large delta alone
        assert fails(tried, kl, 1 - 1e-12, 1) > delta


def test_pure_noise_is_never_certified_better_than_chance():
    rng, n, runs = np.random.default_rng(3), 100, 200
    better = 0
    for _ in range(runs):
        train = rng.binomial(n, 0.5, size=64) / n  # 64 hypotheses on coin-flip labels; the best is kept
        best = train.argmin()
        better += not drawn_certificate([DrawnPoint(1, 1, [train[best]], [log(64)])], n, 0.05).vacuous
    assert clopper_pearson_lower(better, runs, 0.01) <= 0.05


def points(rng, times=3, head=True):
    shape, found = (4, 300), []
    for t in range(times):
        mu = 0.05 * (t + 1)
        encoder = mu * rng.normal(size=shape) + mu**2 / 2
        for k, big in ((5, 10), (20, 40)):
            errors = rng.binomial(1000, 0.2 / (t + 1), 100) / 1000
            found.append(GibbsPoint(k, big, errors, encoder[0] if head else None, encoder, time=float(t)))
    return found


def test_gibbs_certificate_is_the_minimum_over_its_grid_of_the_naive_value():
    grid, n, delta = points(np.random.default_rng(0)), 1000, 0.05
    c = gibbs_certificate(grid, n, delta)
    values = []
    for p in grid:
        each = delta / 4 / (2 * len(grid))
        upper = p.heads * kl_estimate(p.head_log_ratios, each).upper
        upper += p.residuals * kl_estimate(p.encoder_log_ratios, each).upper
        values.append(naive_bound(mean_upper(p.errors, delta / 4 / len(grid)), upper, n, delta / 2, 2))
    assert c.value == pytest.approx(min(values), abs=2e-5)
    best = grid[int(np.argmin(values))]
    assert (c.details["heads"], c.details["residuals"], c.details["time"]) == (best.heads, best.residuals, best.time)
    assert all(v >= 0 for v in c.terms.values()) and c.status == "estimated"
    # more priors than counted cost, fewer are refused
    assert gibbs_certificate(grid, n, delta, priors=50).value > c.value
    with pytest.raises(MfresnetError, match="count all"):
        gibbs_certificate(grid, n, delta, priors=1)


def test_without_head_only_residual_particles_are_paid():
    grid = points(np.random.default_rng(0), 1, head=False)[:1]
    c = gibbs_certificate(grid, 1000)
    estimate = kl_estimate(grid[0].encoder_log_ratios, 0.01)
    assert c.details["kl"] == pytest.approx(10 * max(estimate.value, 0.0))


def test_the_status_follows_the_density():
    point = DrawnPoint(1, 2, [0.1, 0.1], [1.0, 2.0])
    kinds = {
        "assumed": Density("same"),
        "estimated": Density("euler", normalisation_error=1e-3),
        "violated": Density("euler", normalisation_error=1e-3, not_one_to_one=2),
    }
    found = {status: drawn_certificate([point], 500, density=density) for status, density in kinds.items()}
    assert all(c.status == status for status, c in found.items())
    assert len({c.value for c in found.values()}) == 1 and "estimated" in found["estimated"].reading
    assert drawn_certificate([point], 500, density=Density("solver")).status == "estimated"
    assert drawn_certificate([point], 500).status == "estimated"  # nobody said that Q is the prior
    exact = found["assumed"]
    other = drawn_certificate([point], 250, prior="the law trained on 250 other points")
    assert "250 other" in str(other) and other.value > exact.value


def test_mean_upper_covers():
    rng, delta, runs = np.random.default_rng(2), 0.1, 1000
    for method in ("kl", "bernstein"):
        draws = rng.beta(1, 9, size=(runs, 50))
        misses = sum(mean_upper(row, delta, method=method) < 0.1 for row in draws)
        assert clopper_pearson_lower(misses, runs, 0.01) <= delta
    assert mean_upper(np.full(100, 0.1), 0.05, independent=10) > mean_upper(np.full(100, 0.1), 0.05)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: drawn_certificate([], 100), "grid point"),
        (lambda: Density("exact"), "same, euler, solver"),
        (lambda: drawn_certificate([DrawnPoint(1, 1, [0.1], [1.0])], 7), "n = 7"),
        (lambda: drawn_certificate([DrawnPoint(1, 1, [0.1], [1.0])], 100, 0.0), "delta"),
        (lambda: drawn_certificate([DrawnPoint(1, 1, [0.1, 0.2], [1.0])], 100), "per draw"),
        (lambda: drawn_certificate([DrawnPoint(1, 1, [1.1], [1.0])], 100), "errors"),
        (lambda: drawn_certificate([DrawnPoint(1, 1, [0.1], [np.nan])], 100), "log_ratios"),
        (lambda: drawn_certificate([DrawnPoint(1, 0, [0.1], [1.0])], 100), "residuals"),
        (lambda: gibbs_certificate([GibbsPoint(1, 1, [0.1], None, np.zeros((3, 0)))], 100), "no probes"),
        (lambda: kl_estimate(np.zeros(4), 0.05), "at least 8"),
        (lambda: kl_estimate(np.zeros((8, 1)), 0.05), "2 in each"),
        (lambda: mean_upper([0.1], 0.1, method="bernstein"), "bernstein"),
        (lambda: mean_upper([0.1], 0.1, independent=3), "independent"),
        (lambda: pac_bayes_bound(0.1, 1.0, 100, 0.05, 0), "grid_size"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(call, match):
    with pytest.raises(MfresnetError, match=match):
        call()
