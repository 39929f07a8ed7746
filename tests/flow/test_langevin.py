"""Annealed Langevin chains: known laws, the exact density ratio of a path, naive densities in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest, norm

from mfresnet.errors import MfresnetError
from mfresnet.flow import langevin
from mfresnet.flow.annealing import AnnealingSchedule
from mfresnet.flow.langevin import KERNELS, advance, check_kernel, leap, prices, propose, rounding, start

POINTS = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
SIGNS = np.sign(POINTS[:, 0] + 0.3).astype(np.float32)


def potential(z, data):
    """mean sigmoid(-y z.x), a bounded surrogate of a linear classifier."""
    x, y = data
    margin = y * (x @ z)
    return jnp.mean(jax.nn.sigmoid(-2.0 * margin)), jnp.sum(margin <= 0).astype(jnp.float32)


def quadratic(z, data):
    """(1/2) mean_i |z - x_i|^2: conjugate to the Gaussian start."""
    return 0.5 * jnp.mean(jnp.sum((z[None] - data) ** 2, axis=-1)), jnp.zeros(())


def run(potential, data, schedule, key, chains, kernel="adjusted", batch=0, size=2, leaps=1):
    k_start, k_run = jax.random.split(key)
    now = start(potential, data, size, chains, len(schedule), k_start, kernel)
    gammas, steps = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
    return advance(potential, now, data, gammas, steps, k_run, 0, len(schedule), kernel, batch, leaps)


def log_q(z, gradient, new, gamma, e):
    """log density of the proposal, written out."""
    mean = ((2 - e) * z - 2 * e * gamma * gradient) / (2 + e)
    std = np.sqrt(8 * e) / (2 + e)
    return norm.logpdf(new, mean, std).sum()


def naive_gradient(z, x, y):
    s = 1 / (1 + np.exp(2.0 * y * (x @ z)))
    return (-2.0 * s * (1 - s) * y) @ x / len(x)


def naive_loss(z, x, y):
    return np.mean(1 / (1 + np.exp(2.0 * y * (x @ z))))


@pytest.mark.parametrize("kernel", KERNELS)
def test_price_is_the_log_ratio_of_the_densities_of_path_and_reversed_path(kernel):
    """Each step's forward and backward densities in float64, acceptance probabilities included."""
    schedule = AnnealingSchedule([1.0, 5.0, 20.0, 40.0, 60.0, 60.0], [0.5, 0.5, 0.3, 0.2, 0.1, 0.1])
    data, key, batch = (jnp.asarray(POINTS), jnp.asarray(SIGNS)), jax.random.key(3), 5
    gammas, steps = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
    now = start(potential, data, 2, 3, len(schedule), jax.random.key(2), kernel)
    places = [np.asarray(now.z, np.float64)]
    for k in range(len(schedule)):
        now = advance(potential, now, data, gammas, steps, key, k, k + 1, kernel, batch)
        places.append(np.asarray(now.z, np.float64))
    c = prices(now, schedule, len(schedule), kernel)
    x, y = POINTS.astype(np.float64), SIGNS.astype(np.float64)
    expected, moved = np.zeros(3), 0
    for chain in range(3):
        way = [place[chain] for place in places]
        expected[chain] = norm.logpdf(way[0]).sum() - norm.logpdf(way[-1]).sum()
        for k, (z, new) in enumerate(itertools.pairwise(way)):
            if kernel == "adjusted" and np.array_equal(z, new):
                continue  # a rejected step has the same probability both ways
            moved += 1
            gamma, e = float(schedule.gammas[k]), float(schedule.steps[k])
            part = slice(None)
            if kernel == "minibatch":
                part = np.asarray(jax.random.permutation(jax.random.fold_in(jax.random.fold_in(key, k), 2), 12)[:batch])
            g, g_new = (naive_gradient(place, x[part], y[part]) for place in (z, new))
            forward, backward = log_q(z, g, new, gamma, e), log_q(new, g_new, z, gamma, e)
            if kernel == "adjusted":
                target = norm.logpdf(new).sum() - norm.logpdf(z).sum()
                target -= gamma * (naive_loss(new, x, y) - naive_loss(z, x, y))
                ratio = target + backward - forward
                forward, backward = forward + min(0.0, ratio), backward + min(0.0, -ratio)
            expected[chain] += forward - backward
    assert moved >= 6
    np.testing.assert_allclose(c, expected, atol=2e-4)  # float32 states, gamma up to 60


@pytest.mark.parametrize("leaps", [1, 3])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gamma", [1.0, 6.0])
def test_mean_of_exp_minus_c_is_one(kernel, gamma, leaps):
    """The identity behind the certificate; 4.5 standard errors fail by chance once in 150,000."""
    schedule = AnnealingSchedule.power(gamma, 12, step=1.0, largest=0.3)
    now = run(
        potential, (jnp.asarray(POINTS), jnp.asarray(SIGNS)), schedule, jax.random.key(1), 8000, kernel, 4, leaps=leaps
    )
    c = prices(now, schedule, len(schedule), kernel)
    assert c.mean() > 0.01
    weights = np.exp(-c)
    assert abs(weights.mean() - 1) < 4.5 * weights.std() / np.sqrt(len(c))


def test_without_data_the_chain_keeps_the_start_and_costs_nothing():
    schedule = AnnealingSchedule(np.zeros(20), np.full(20, 0.5))
    now = run(potential, (jnp.asarray(POINTS), jnp.asarray(SIGNS)), schedule, jax.random.key(1), 3000)
    assert np.all(prices(now, schedule, 20) == 0.0)
    assert np.asarray(now.acceptance).min() > 0.999  # the prior's own step is accepted, up to rounding
    assert kstest(np.asarray(now.z).ravel(), norm.cdf).pvalue > 1e-4


@pytest.mark.parametrize("leaps", [1, 4])
def test_conjugate_target_has_its_known_law(leaps):
    """p_0 exp(-gamma |z - a|^2/2) is N(gamma a/(1 + gamma), 1/(1 + gamma)); one step from it stays in it."""
    gamma, a = 4.0, np.array([1.0, -0.5], np.float32)
    schedule = AnnealingSchedule(np.minimum(gamma, np.arange(1, 61) / 10), np.full(60, 0.4))
    now = run(quadratic, jnp.asarray(a)[None], schedule, jax.random.key(4), 4000, leaps=leaps)
    standard = (np.asarray(now.z) - gamma * a / (1 + gamma)) * np.sqrt(1 + gamma)
    assert all(kstest(column, norm.cdf).pvalue > 1e-4 for column in standard.T)
    assert 0.3 < np.asarray(now.acceptance)[-1].mean() < 0.999  # rejections had their part


def test_stopping_and_going_on_changes_no_bit():
    schedule, data = AnnealingSchedule.power(30.0, 30), (jnp.asarray(POINTS), jnp.asarray(SIGNS))
    whole = run(potential, data, schedule, jax.random.key(5), 3)
    k_start, k_run = jax.random.split(jax.random.key(5))
    now = start(potential, data, 2, 3, 30, k_start)
    for first, last in ((0, 7), (7, 8), (8, 30)):
        arrays = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
        now = advance(potential, now, data, *arrays, k_run, first, last)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(now), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(("workers", "cached"), [(2, 1024), (4, 1), (3, 1024)])
def test_cores_and_groups_share_the_chains_and_change_no_number(workers, cached, monkeypatch):
    """Eight chains in shares of four and two, in groups of two; three cores cannot share them."""
    schedule, data = AnnealingSchedule.power(30.0, 12), (jnp.asarray(POINTS), jnp.asarray(SIGNS))
    shares = []

    def counted(function, items, workers):
        shares.append(len(items))
        return [function(item) for item in items]

    monkeypatch.setattr(langevin, "spread", counted)
    monkeypatch.setattr(langevin, "cores", lambda: 1)
    whole = run(potential, data, schedule, jax.random.key(5), 8)
    monkeypatch.setattr(langevin, "cores", lambda: workers)
    monkeypatch.setattr(langevin, "CACHED_POINTS", cached)
    shared = run(potential, data, schedule, jax.random.key(5), 8)
    assert shares == ([workers] if workers != 3 else [])
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(shared), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("transform", [jax.jit, lambda f: lambda key: jax.vmap(f)(key[None])[0]])
def test_chains_that_cores_share_run_inside_a_transformation_of_a_user(transform, monkeypatch):
    """Numbers of the transformation may not reach another thread, whichever argument they enter by."""
    monkeypatch.setattr(langevin, "cores", lambda: 2)
    data, rates = (jnp.asarray(POINTS), jnp.asarray(SIGNS)), jnp.full(3, 0.5)
    now = start(potential, data, 2, 4, 3, jax.random.key(1))
    moved = transform(lambda key: advance(potential, now, data, rates, rates, key, 0, 3).z)(jax.random.key(2))
    alone = advance(potential, now, data, rates, rates, jax.random.key(2), 0, 3).z
    np.testing.assert_allclose(moved, alone, rtol=1e-5, atol=1e-5)  # float32 sums in another order


def test_any_stretch_of_the_schedule_is_one_program():
    traces = []

    def counted(z, data):
        traces.append(1)
        return potential(z, data)

    schedule, data = AnnealingSchedule.power(30.0, 30), (jnp.asarray(POINTS), jnp.asarray(SIGNS))
    now = start(counted, data, 2, 3, 30, jax.random.key(7))
    arrays = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
    now = advance(counted, now, data, *arrays, jax.random.key(8), 0, 10)
    once = len(traces)
    for first, last in ((10, 20), (20, 21), (21, 30)):
        now = advance(counted, now, data, *arrays, jax.random.key(8), first, last)
    assert len(traces) == once


def test_a_potential_that_is_not_finite_is_never_entered_by_an_adjusted_chain():
    def wall(z, data):
        return jnp.where(z[0] > 1.0, jnp.nan, jnp.sum(z**2)), jnp.zeros(())

    schedule = AnnealingSchedule.power(2.0, 40, largest=0.5)
    now = run(wall, jnp.zeros(1), schedule, jax.random.key(6), 200)
    inside = np.isfinite(np.asarray(now.losses)[0])
    assert 0 < inside.sum() < 200  # some start beyond the wall
    assert np.all(np.isfinite(prices(now, schedule, 40)) == inside)
    assert np.all(np.asarray(now.z)[inside, 0] <= 1.0)


@pytest.mark.parametrize("leaps", [1, 3])
def test_rounding_of_the_acceptance_is_small_and_measured(leaps):
    schedule, data = AnnealingSchedule.power(100.0, 50), (jnp.asarray(POINTS), jnp.asarray(SIGNS))
    now = run(potential, data, schedule, jax.random.key(7), 50)
    eta = rounding(potential, now, data, schedule.gammas[-1], schedule.steps[-1], jax.random.key(8), leaps=leaps)
    assert 0 < eta < 1e-3


def wells(z):
    """A potential that is not quadratic, and its gradient, in float64."""
    return None, 4 * z**3 - z + np.roll(z, 1)


def test_one_leap_is_a_step_of_the_crank_nicolson_langevin_scheme():
    """Its proposal and the ratio of its densities, written out."""
    rng = np.random.default_rng(1)
    z, v = rng.normal(size=(2, 20))
    gamma, e = 50.0, 1e-3
    g = wells(z)[1]
    new, _, g_new, r = propose(wells, z, v, g, gamma, e)
    np.testing.assert_allclose(new, ((2 - e) * z - 2 * e * gamma * g + np.sqrt(8 * e) * v) / (2 + e), rtol=1e-12)
    forward, backward = log_q(z, g, new, gamma, e), log_q(new, g_new, z, gamma, e)
    assert r == pytest.approx(norm.logpdf(z).sum() - norm.logpdf(new).sum() + forward - backward, rel=1e-9)


@pytest.mark.parametrize("leaps", [2, 5])
def test_leaps_are_reversible_and_keep_volume(leaps):
    """The way back with the velocity reversed, r as the change of |z|^2 + |v|^2, and the determinant by differences."""
    rng = np.random.default_rng(2)
    z, v = rng.normal(size=(2, 3))

    def end(z, v):
        r = 0.0
        gradient = wells(z)[1]
        for _ in range(leaps):
            z, v, _, gradient, change = leap(wells, z, v, gradient, 2.0, 0.02)
            r += change
        return z, v, r

    new, last, r = end(z, v)
    with jax.enable_x64(True):
        jumped = propose(
            lambda z: (None, 4 * z**3 - z + jnp.roll(z, 1)), *map(jnp.asarray, (z, v, wells(z)[1])), 2.0, 0.02, leaps
        )
    np.testing.assert_allclose(jumped[0], new, rtol=1e-12)
    assert float(jumped[3]) == pytest.approx(r, rel=1e-10)
    assert r == pytest.approx(0.5 * (new @ new + last @ last - z @ z - v @ v), rel=1e-10)
    back, first, minus_r = end(new, -last)
    np.testing.assert_allclose(back, z, atol=1e-12)
    np.testing.assert_allclose(-first, v, atol=1e-12)
    assert minus_r == pytest.approx(-r, rel=1e-9)
    whole, h = np.concatenate([z, v]), 1e-5
    columns = [
        (np.concatenate(end(*np.split(whole + step, 2))[:2]) - np.concatenate(end(*np.split(whole - step, 2))[:2]))
        / (2 * h)
        for step in h * np.eye(6)
    ]
    assert np.linalg.det(np.array(columns)) == pytest.approx(1.0, abs=1e-7)


def test_no_leaps_are_refused():
    with pytest.raises(MfresnetError, match="leaps = 0"):
        check_kernel("adjusted", None, 12, 0)


@pytest.mark.parametrize(
    ("gammas", "steps", "words"),
    [
        ([1.0], [0.1], "too short"),
        ([2.0, 1.0], [0.1, 0.1], "fall at step 2"),
        ([0.0, np.inf], [0.1, 0.1], "finite"),
        ([-1.0, 1.0], [0.1, 0.1], "not negative"),
        ([0.0, 1.0], [0.1, 2.0], "between 0 and 2"),
        ([0.0, 1.0], [0.1], "unequal"),
    ],
)
def test_what_is_no_schedule(gammas, steps, words):
    with pytest.raises(MfresnetError, match=words):
        AnnealingSchedule(gammas, steps)


def test_what_is_no_kernel():
    for kernel, batch, words in (("exact", None, "adjusted"), ("minibatch", None, "batch"), ("minibatch", 13, "13")):
        with pytest.raises(MfresnetError, match=words):
            check_kernel(kernel, batch, 12)
