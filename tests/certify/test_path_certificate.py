"""The path certificate of any predictor: identities, invariances, predictors of several libraries, bad input."""

import os
import subprocess
import sys
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

from mfresnet.certify.path_certificate import path
from mfresnet.errors import MfresnetError
from mfresnet.flow.annealing import AnnealingSchedule
from mfresnet.flow.langevin import KERNELS, advance, prices, start
from mfresnet.flow.potential import GaussianPrior, PredictorPotential, labels
from mfresnet.flow.predictor import NetworkPredictor
from mfresnet.model import ContinuousResNet, LayeredResNet

N = 60
X = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32)
Y = np.sign(X[:, 0] + 0.5 * X[:, 1]).astype(np.float32)
KEY = jax.random.key(0)
LINEAR = GaussianPrior.standard(jnp.zeros(2), std=3.0)
SHORT = AnnealingSchedule.power(40.0, 60, exponent=4.0)


def linear(w, x):
    return x @ w


def test_certificate_follows_from_mistakes_and_prices():
    done = path(linear, LINEAR, (X, Y), SHORT, KEY, chains=3)
    assert done.params.shape == (3, 2)
    counted = [(Y * (X @ np.asarray(w)) <= 0).sum() for w in done.params]
    assert done.mistakes[-1].tolist() == counted
    losses = np.asarray(done.chains.losses, np.float64)
    assert done.prices[-1] == pytest.approx(np.float64(SHORT.gammas) @ (losses[:-1] - losses[1:]), rel=1e-12)
    assert 0 < done.certificate.value < 0.5 and done.certificate.status == "assumed"
    assert done.certificates["vote"].value == pytest.approx(min(1, 2 * done.certificates["mean"].value))
    assert done.certificates["chain"].certifies.startswith("the trained network of chain 0")


def test_order_of_the_points_does_not_matter():
    order = np.random.default_rng(1).permutation(N)
    one = path(linear, LINEAR, (X, Y), SHORT, KEY, chains=2)
    other = path(linear, LINEAR, (X[order], Y[order]), SHORT, KEY, chains=2)
    np.testing.assert_allclose(one.prices, other.prices, atol=1e-3)  # rounding of the mean, gamma = 40
    assert one.mistakes.tolist() == other.mistakes.tolist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_pure_noise_is_priced_exactly(kernel):
    """Labels are coins, so every network errs on 1/2, and E 1{k <= q} exp(-c) = P(Bin(n, 1/2) <= q) over all draws.

    Without c the same means are far above: the chains do fit the noise. Standard errors are 2 to 9 % of the rarest of
    these events (q = 1) and below 1 % of the commonest; 4.5 of them fail by chance once in 150,000. A price that is
    5 % too small fails at q = 4.
    """
    draws, n, events = 100_000, 12, np.arange(1, 7)
    schedule = AnnealingSchedule.power(8.0, 10, largest=0.5, step=2.0)
    potential = PredictorPotential(linear, LINEAR, jnp.float32(1.0))
    gammas, steps = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)

    @jax.jit
    @jax.vmap
    def train(key):
        k_x, k_y, k_start, k_run = jax.random.split(key, 4)
        data = jax.random.normal(k_x, (n, 2)), jax.random.rademacher(k_y, (n,), jnp.float32)
        now = start(potential, data, 2, 1, len(schedule), k_start, kernel)
        now = advance(potential, now, data, gammas, steps, k_run, 0, len(schedule), kernel, 8)
        _, mistakes = potential(now.z[0], data)
        return now.losses[:, 0], now.increments[:, 0], mistakes

    losses, increments, mistakes = jax.device_get(train(jax.random.split(jax.random.key(5), draws)))
    some = start(potential, (X, Y), 2, 1, 1, KEY)
    chains = eqx.tree_at(lambda chains: (chains.losses, chains.increments), some, (losses.T, increments.T))
    c = prices(chains, schedule, len(schedule), kernel)
    occurs = mistakes <= events[:, None]
    weights, chance = occurs * np.exp(-c), binom.cdf(events, n, 0.5)
    error = weights.std(axis=1) / np.sqrt(draws)
    assert np.all(np.abs(weights.mean(axis=1) - chance) < 4.5 * error)
    assert np.all(error < [0.1, 0.05, 0.02, 0.02, 0.02, 0.02] * chance)
    assert np.all(occurs[:4].mean(axis=1) > 1.5 * chance[:4])  # what the price is paid for


def mlp():
    model = eqx.nn.MLP(2, "scalar", 4, 1, key=jax.random.key(1))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return (lambda params, x: jax.vmap(eqx.combine(params, static))(x)), GaussianPrior.standard(params, std=2.0)


def flax_module():
    linen = pytest.importorskip("flax.linen")
    model = linen.Sequential([linen.Dense(4), linen.tanh, linen.Dense(1)])
    return model.apply, GaussianPrior.standard(model.init(jax.random.key(0), X), std=2.0)


def dictionary():
    """Parameters as Flax keeps them, without Flax."""

    def apply(params, x):
        hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"][None])
        return hidden @ params["out"]["kernel"]

    zeros = {"hidden": {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)}, "out": {"kernel": jnp.zeros((4, 1))}}
    return apply, GaussianPrior.standard(zeros, std=2.0)


def layered():
    f = NetworkPredictor(LayeredResNet.create(KEY, inputs=2, depth=2, width=3, head_width=4, beta=10.0))
    return f, f.prior()


def continuous():
    f = NetworkPredictor(ContinuousResNet.create(KEY, particles=4, inputs=2, head_width=4, beta=10.0))
    return f, f.prior()


def embedded_head_only():
    model = LayeredResNet.create(KEY, inputs=2, embedding=3, depth=2, width=3, head_width=4, beta=10.0)
    f = NetworkPredictor(model, head_only=True)
    assert set(f.particles()) == {"head"}
    return f, f.prior()


@pytest.mark.parametrize(
    "make", [mlp, flax_module, dictionary, layered, continuous, embedded_head_only], ids=lambda f: f.__name__
)
def test_any_predictor(make):
    f, prior = make()
    done = path(f, prior, (X, Y), SHORT, KEY, certifies="chain")
    assert done.certificate.value < 0.5 and not done.warnings
    outputs = np.asarray(f(done.param(), jnp.asarray(X))).reshape(N)
    assert (outputs * Y <= 0).sum() == done.mistakes[-1, 0]


def test_several_classes_and_no_head():
    """Three classes; the state itself is the prediction."""
    model = LayeredResNet.create(KEY, inputs=2, embedding=3, outputs=3, depth=1, width=8, head=False, alpha=20.0)
    f = NetworkPredictor(model)
    classes = np.digitize(X[:, 0], [-0.5, 0.5])
    schedule = AnnealingSchedule.power(90.0, 150, exponent=4.0)
    one = path(f, f.prior(), (X, classes), schedule, KEY)
    hot = path(f, f.prior(), (X, np.eye(3)[classes]), schedule, KEY)
    assert one.certificate.value == hot.certificate.value < 2 / 3
    assert not one.certificate.vacuous
    predicted = np.asarray(f(one.param(), jnp.asarray(X))).argmax(axis=1)
    assert (predicted != classes).sum() == one.mistakes[-1, 0]


def test_softmax_surrogate_of_two_outputs_is_the_sigmoid_of_their_difference():
    f = jnp.asarray(np.random.default_rng(2).normal(size=(5, 2)))
    potential = PredictorPotential(linear, LINEAR, jnp.float32(1.7))
    two = potential.losses(f, jnp.ones(5, int))
    np.testing.assert_allclose(two, potential.losses(f[:, 1] - f[:, 0], jnp.ones(5)), rtol=1e-5)
    np.testing.assert_allclose(two, 1 - jax.nn.softmax(1.7 * f)[:, 1], rtol=1e-5)


@pytest.mark.parametrize(("kernel", "batch"), [("unadjusted", None), ("minibatch", 20)])
def test_other_kernels_are_certified_and_say_what_they_cost(kernel, batch):
    done = path(linear, LINEAR, (X, Y), SHORT, KEY, kernel=kernel, batch=batch, chains=4)
    assert done.certificate.value < 0.5 and done.certificate.status == "assumed"
    assert "discretisation" in str(done.certificate)
    assert 0 < done.certificate.details["rounding"] < 1e-2  # r is added up in float32


def test_recorded_times_are_paid_for():
    end = path(linear, LINEAR, (X, Y), SHORT, KEY)
    times = path(linear, LINEAR, (X, Y), SHORT, KEY, times=(30, 60))
    assert times.prices[1] == end.prices[0] and times.mistakes[1] == end.mistakes[0]
    assert times.certificate.details["times"] == 2


def test_pilot_chains_find_a_schedule_and_leave_the_certified_ones_alone():
    done = path(linear, LINEAR, (X, Y), None, KEY, steps=120, pilot_steps=200)
    given = path(linear, LINEAR, (X, Y), done.schedule, KEY)
    assert given.certificate.value == done.certificate.value < 0.4
    assert done.pilot is not None and len(done.schedule) == 120
    assert 0.2 < np.asarray(done.chains.acceptance)[60:].mean() < 1.0


def test_acceptance_near_0_or_1_is_reported_and_the_certificate_stays():
    wild = AnnealingSchedule(np.linspace(1, 4000, 40), np.full(40, 1.5))
    done = path(linear, LINEAR, (X, Y), wild, KEY)
    assert "lower the schedule's steps" in done.warnings[0] and done.certificate.status == "assumed"
    timid = AnnealingSchedule(np.linspace(1, 4, 40), np.full(40, 1e-6))
    done = path(linear, LINEAR, (X, Y), timid, KEY)
    assert "raise the schedule's steps" in done.warnings[0] and 0 < done.certificate.value <= 1


def test_chains_that_leave_the_finite_numbers_err_everywhere():
    def steep(w, x):
        return jnp.where(w[0] > 0, jnp.nan, x @ w)

    done = path(steep, LINEAR, (X, Y), SHORT, KEY, chains=6)
    failed = np.isnan(done.prices[-1])
    assert 0 < failed.sum() < 6 and np.all(done.mistakes[-1][failed] == N)
    assert f"{failed.sum()} of 6" in done.warnings[-1] and done.certificate.value > failed.mean()


def test_regression_is_certified_by_a_bounded_loss_only():
    target = np.tanh(X[:, 0])
    with pytest.raises(MfresnetError, match="only bounded losses"):
        path(linear, LINEAR, (X, target), SHORT, KEY)
    risk = lambda f, y: jnp.minimum(jnp.abs(f - y), 1.0)  # noqa: E731
    narrow = GaussianPrior.standard(jnp.zeros(2))
    call = partial(path, linear, narrow, (X, target), SHORT, KEY, surrogate=risk, risk=risk)
    done = call()
    assert done.certificate.details["form"] == "kl" and done.certificate.value < 0.6
    with pytest.raises(MfresnetError, match="counts mistakes"):
        call(form="tail")


BAD = {
    "labels 0 and 1": (lambda: path(linear, LINEAR, (X, (Y > 0).astype(int)), SHORT, KEY), "outside the classes -1"),
    "class 3 of 3": (lambda: labels([3], 1, (1, 3), None), "outside the classes 0 .. 2"),
    "too few labels": (lambda: path(linear, LINEAR, (X, Y[:-1]), SHORT, KEY), "do not fit 60 points"),
    "no chain": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, chains=0), "chains = 0"),
    "chain 2 of 2": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, chains=2, chain=2), "chain = 2"),
    "no prior": (lambda: path(linear, jnp.zeros(2), (X, Y), SHORT, KEY), "not a GaussianPrior"),
    "wrong tree": (lambda: path(linear, GaussianPrior.standard({"w": jnp.zeros(2)}), (X, Y), SHORT, KEY), "tree"),
    "wrong size": (lambda: path(linear, GaussianPrior.standard(jnp.zeros(3)), (X, Y), SHORT, KEY), "tree"),
    "std of other structure": (lambda: GaussianPrior({"w": jnp.zeros(2)}, jnp.ones(2)), "structure"),
    "std 0": (lambda: GaussianPrior(jnp.zeros(2), jnp.zeros(2)), "above 0"),
    "std of wrong shape": (lambda: GaussianPrior(jnp.zeros(2), jnp.ones(3)), "does not fit"),
    "integers": (lambda: GaussianPrior(jnp.zeros(2, int), jnp.ones(2)), "no Gaussian prior"),
    "one array": (lambda: path(linear, LINEAR, X, SHORT, KEY), "pair"),
    "times": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, times=(61,)), "between 1 and 60"),
    "surrogate": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, surrogate="hinge"), "unknown surrogate"),
    "scale": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, scale=0.0), "scale = 0"),
    "delta": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, delta=1.0), "delta = 1"),
    "settings": (lambda: path(linear, LINEAR, (X, Y), SHORT, KEY, settings=0), "settings = 0"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(name):
    call, words = BAD[name]
    with pytest.raises(MfresnetError, match=words):
        call()


@pytest.mark.parametrize(("chains", "devices"), [(3, 2), (2, 0), (64, 64)])
def test_devices_that_do_not_fit(chains, devices):
    with pytest.raises(MfresnetError, match=f"devices = {devices} is not allowed for {chains} chains"):
        path(linear, LINEAR, (X, Y), SHORT, KEY, chains=chains, devices=devices)


SHARED = """
import jax, jax.numpy as jnp, numpy as np
from mfresnet.certify import GaussianPrior, path
from mfresnet.flow import AnnealingSchedule
x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
prior, schedule = GaussianPrior.standard(jnp.zeros(2), std=3.0), AnnealingSchedule.power(40.0, 60)
one, other = (
    path(lambda w, x: x @ w, prior, (x, np.sign(x[:, 0])), schedule, jax.random.key(0), chains=8, devices=k)
    for k in (1, 4)
)
assert {shard.data.shape for shard in other.z.addressable_shards} == {(2, 2)} and len(other.z.sharding.device_set) == 4
assert other.chains.losses.addressable_shards[0].data.shape == (61, 2)
np.testing.assert_allclose(one.prices, other.prices, atol=1e-3)
np.testing.assert_array_equal(one.mistakes, other.mistakes)
"""


def test_chains_are_shared_out_over_devices():
    """Four devices of the host, in a process of its own: each holds two of eight chains, the same as on one."""
    four = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARED], env=four, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
