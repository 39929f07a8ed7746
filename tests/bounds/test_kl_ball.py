"""The KL-ball bound: each inequality of its proof by brute force, and its tightness against the exact supremum."""

import json
from math import log, sqrt
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from mfresnet.bounds import (
    confidence_term,
    head_rademacher,
    head_supremum,
    kl_ball_certificate,
    psi,
    rademacher_bound,
    ramp_loss,
)
from mfresnet.bounds.kl_ball import MARGINS, RADII, about_margins
from mfresnet.bounds.supremum import _dual
from mfresnet.errors import MfresnetError
from mfresnet.flow import states
from mfresnet.model import ACTIVATIONS, Activation, LayeredResNet, activation

TANH = activation("tanh")
REFERENCE = Path(__file__).parents[1] / "reference" / "initial_kernel.json"


def sphere(n, d, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, d))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_psi_equals_the_reference_and_its_definition():
    for r, value in json.loads(REFERENCE.read_text())["psi"].items():
        assert psi(float(r)) == pytest.approx(value, rel=1e-8)
    for r in (1e-8, 1e-3, 0.7, 30.0, 1e4):
        objective = lambda c, r=r: (r - 0.5 * np.log1p(-c * c)) / c  # noqa: E731
        found = minimize_scalar(objective, bounds=(1e-9, 1 - 1e-12), method="bounded", options={"xatol": 1e-13}).fun
        assert psi(r) == pytest.approx(found, rel=1e-6)
        assert np.all(psi(r) <= objective(np.linspace(0.001, 0.999, 999)) + 1e-12)
    assert psi(0.0) == 0 and psi(np.inf) == np.inf
    assert psi(1e-10) == pytest.approx(sqrt(2e-10), rel=1e-4)


def test_the_signed_sum_has_the_moment_the_head_term_uses():
    """E_eps exp(t S^2/2) <= (1 - t n)^(-1/2) for S = sum eps_i s_i, |s_i| <= 1: all sign vectors, several s."""
    n = 10
    signs = np.array(np.meshgrid(*[[-1, 1]] * n)).reshape(n, -1)
    for seed in range(5):
        s = np.random.default_rng(seed).uniform(-1, 1, n) if seed else np.ones(n)
        for t in np.array([0.1, 0.5, 0.9]) / n:
            assert np.mean(np.exp(t * (s @ signs) ** 2 / 2)) <= (1 - t * n) ** -0.5 + 1e-12


def test_duality_is_attained_and_never_exceeded():
    """On finitely many atoms the dual value is the mean of phi under the tilt of KL r; no law of that KL beats it."""
    rng = np.random.default_rng(0)
    phi = rng.normal(size=400)
    for r in (0.01, 0.3):
        dual = minimize_scalar(
            lambda u, r=r: (r + np.log(np.mean(np.exp(u * phi)))) / u, bounds=(1e-6, 20), method="bounded"
        )
        tilt = np.exp(dual.x * phi)
        tilt /= tilt.sum()
        assert tilt @ phi == pytest.approx(dual.fun, rel=1e-4)
        assert np.sum(tilt * np.log(tilt * 400)) == pytest.approx(r, rel=1e-2)
        for _ in range(200):
            q = rng.dirichlet(np.full(400, rng.uniform(0.5, 50)))
            if np.sum(q * np.log(np.maximum(q * 400, 1e-300))) <= r:
                assert q @ phi <= dual.fun + 1e-9


def test_head_supremum_against_plain_monte_carlo():
    x, signs = sphere(16, 2), np.random.default_rng(1).choice([-1.0, 1.0], 16)
    rng = np.random.default_rng(2)
    s = np.tanh(rng.normal(size=(200_000, 2)) @ x.T + rng.normal(size=(200_000, 1))) @ signs / 16
    for r in (0.01, 0.5):
        plain = minimize_scalar(
            lambda u, r=r: (r + np.log(np.mean(np.exp(0.5 * u**2 * s**2)))) / u, bounds=(1e-3, 100), method="bounded"
        ).fun
        found = head_supremum(x, signs, r, beta=3.0, sigma=TANH)
        assert found.value == pytest.approx(3 * plain, rel=5e-3)
        assert found.error < 0.01 * found.value


@pytest.mark.parametrize("r", [1e-3, 1e-2, 0.1, 1.0])
def test_the_bound_holds_and_is_tight_for_the_head(r):
    """Theory, section 8(a): bound/exact is 1.4 to 1.6 for r <= 0.1, n = 64."""
    exact = head_rademacher(sphere(64, 2), r, beta=2.0, sigma=TANH, samples=1024, replicates=3, draws=64)
    ratio = float(rademacher_bound(r, 0.0, 64, alpha=1.0, beta=2.0)) / exact.value
    relative = exact.error / exact.value
    print(f"r = {r}: bound/exact = {ratio:.3f} +- {ratio * relative:.3f}")
    assert ratio * (1 + 3 * relative) >= 1
    assert ratio < 2
    assert relative < 0.1


def test_no_signs_no_supremum():
    zero = head_supremum(np.ones((2, 2)), np.array([1.0, -1.0]), 0.3, beta=1.0, sigma=TANH)
    assert zero.value == 0.0  # equal inputs with opposite signs cancel
    assert head_supremum(np.eye(2), np.ones(2), 0.0, beta=1.0, sigma=TANH).value == 0.0


def tilted_encoder(rng, d, strength, samples=4000):
    """A law with u ~ N(g(w, b), I), (w, b) Gaussian: KL = E|g|^2/2; returns (g, w, b, KL)."""
    w, b = rng.normal(size=(samples, d)), rng.normal(size=samples)
    target, inputs = rng.normal(size=(3, d)), sphere(3, d, int(rng.integers(1e6)))
    g = strength * np.tanh(w @ inputs.T + b[:, None]) @ target
    return g, w, b, 0.5 * np.mean(np.sum(g**2, 1))


@pytest.mark.parametrize("seed", range(6))
def test_the_state_moves_at_most_alpha_sqrt_two_kl(seed):
    rng = np.random.default_rng(seed)
    d, alpha, depth = int(rng.integers(1, 5)), float(rng.uniform(0.2, 2)), 20
    x = sphere(5, d, seed)
    z, kls = x, []
    for _ in range(depth):  # a law of its own at each depth; u enters through its mean g
        g, w, b, kl = tilted_encoder(rng, d, float(rng.exponential(0.7)))
        kls.append(kl)
        z = z + alpha / depth * np.tanh(z @ w.T + b) @ g / len(g)
    moved = np.linalg.norm(z - x, axis=1).max()
    assert 0 < moved <= alpha * sqrt(2 * np.mean(kls)) * 1.0001


def test_the_displacement_bound_is_attained_in_the_limit_of_saturated_units():
    """u ~ N(m, I) with sigma0 = 1 everywhere: a network of many particles moves its state by alpha sqrt(2 KL).

    KL is the mean of the log-density ratios of these very particles; both have a standard error of 1/sqrt(L M) and
    m/sqrt(L M), and 4.5 of them together are exceeded with probability 1e-5.
    """
    depth, width, m, alpha = 5, 8000, np.array([0.3, -0.4]), 0.7
    rng = np.random.default_rng(0)
    model = LayeredResNet.create(
        jax.random.key(0), inputs=2, depth=depth, width=width, alpha=alpha,
        sigma=Activation.from_function("one", lambda v: jnp.ones_like(v)),
    )  # fmt: skip
    u = rng.normal(size=(depth, width, 2)) + m
    model = eqx.tree_at(lambda v: v.encoder.out, model, jnp.asarray(u, jnp.float32))
    x = jnp.asarray(sphere(3, 2), jnp.float32)
    moved = np.linalg.norm(np.asarray(states(model, x)[-1] - x), axis=1)
    kl = np.mean(u @ m - m @ m / 2)  # of N(m, I) against N(0, I)
    error = 1 / sqrt(depth * width)
    np.testing.assert_allclose(moved, alpha * sqrt(2 * kl), atol=4.5 * alpha * 2 * error)
    assert moved.min() > 0.9 * alpha * np.linalg.norm(m)


def test_the_error_of_the_margins_bounds_what_it_does_to_the_ramp_loss():
    rng = np.random.default_rng(0)
    margins, moved = rng.normal(0.2, 0.5, 500), 0.1 * rng.normal(size=500)
    change = abs(ramp_loss(margins + moved, 0.25) - ramp_loss(margins, 0.25))
    c = kl_ball_certificate(
        margins, head_kl=0.01, encoder_kl=1e-5, alpha=1.0, beta=0.25, sigma=TANH,
        margin_error=float(np.sqrt(np.mean(moved**2))), relative_margins=(1.0,),
    )  # fmt: skip
    (one,) = [h for h in c.hypotheses if h.statement.startswith("the margins")]
    assert one.status == "estimated" and 0 < change <= one.error
    assert about_margins(5.0, 0.5).error == 1.0  # the ramp loss has no further to go


@pytest.mark.parametrize("seed", range(4))
def test_the_encoder_term_bounds_moved_features_for_any_law_of_the_head(seed):
    """sup over tau of E a (1/n) sum eps_i (s(w.Z_i + b) - s(w.x_i + b)) <= psi(r) D for |Z_i - x_i| <= D."""
    rng = np.random.default_rng(seed)
    n, d, displacement = 12, 3, float(rng.uniform(0.05, 1.0))
    x = sphere(n, d, seed)
    # all points moved along one direction: the worst case of the trace argument
    move = np.zeros((n, d))
    move[:, 0] = displacement * (1 if seed % 2 else rng.choice([-1, 1], n))
    signs = np.sign(move[:, 0])
    w, b = rng.normal(size=(100_000, d)), 0.1 * rng.normal(size=(100_000, 1))
    s = (np.tanh(w @ (x + move).T + b) - np.tanh(w @ x.T + b)) @ signs / n
    for r in (0.01, 0.3):
        sup = _dual(s[None, :] ** 2, r)[0]
        assert 0.1 * float(psi(r)) * displacement < sup <= float(psi(r)) * displacement
    # with sigma0 the identity on the moved range the bound is an equality
    linear = minimize_scalar(
        lambda u: (0.3 - 0.5 * np.log1p(-((u * displacement) ** 2))) / u,
        bounds=(1e-9, (1 - 1e-9) / displacement),
        method="bounded",
        options={"xatol": 1e-12},
    ).fun
    assert linear == pytest.approx(float(psi(0.3)) * displacement, rel=1e-6)


def test_the_certificate_is_its_naive_transcription():
    rng = np.random.default_rng(0)
    n, alpha, beta, delta = 50_000, 0.5, 2.0, 0.05
    margins = rng.normal(1.0, 0.3, n)
    c = kl_ball_certificate(margins, head_kl=0.05, encoder_kl=1e-5, alpha=alpha, beta=beta, sigma=TANH, delta=delta)
    r, s = min(v for v in RADII if v >= 0.05), min(v for v in RADII if v >= 1e-5)
    grid = len(RADII) ** 2 * len(MARGINS)
    best = min(
        np.mean(np.clip(1 - margins / g, 0, 1))
        + 2 / g * beta * float(psi(r)) * (1 / sqrt(n) + alpha * sqrt(2 * s))
        + sqrt(log(grid / delta) / (2 * n))
        for g in beta * np.array(MARGINS)
    )
    assert c.value == pytest.approx(best, rel=1e-12)
    assert sum(c.terms.values()) == pytest.approx(c.value)
    assert c.status == "estimated" and "proved" not in c.reading
    assert "limit" in c.certifies
    paper = kl_ball_certificate(
        margins, head_kl=0.05, encoder_kl=1e-5, alpha=alpha, beta=beta, sigma=TANH, form="sample"
    )
    assert paper.value - c.value == pytest.approx(
        confidence_term(n, delta / grid, "sample") - confidence_term(n, delta / grid)
    )


def test_it_says_when_it_is_vacuous():
    c = kl_ball_certificate(np.ones(400), head_kl=1.0, encoder_kl=0.5, alpha=1.0, beta=4.0, sigma=TANH)
    assert c.vacuous and "vacuous" in c.reading and "encoder" in c.reading


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_outside_the_hypotheses_are_refused(name):
    sigma = activation(name)
    call = lambda: kl_ball_certificate(np.ones(10), head_kl=0, encoder_kl=0, alpha=1, beta=1, sigma=sigma)  # noqa: E731
    if name in ("tanh", "erf", "sigmoid", "sin"):
        assert call().value > 0
    else:
        with pytest.raises(MfresnetError, match=name):
            call()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"delta": 1.0}, "delta"),
        ({"margins": np.ones(7)}, "n = 7"),
        ({"margins": np.ones((10, 3))}, "two classes"),
        ({"margins": np.array([])}, "empty"),
        ({"margins": np.full(10, np.nan)}, "margins"),
        ({"head_kl": np.nan}, "head"),
        ({"encoder_kl": 1e9}, "grid"),
        ({"alpha": 0.0}, "alpha"),
        ({"standard_start": False}, "Gaussian"),
        ({"form": "guess"}, "form"),
    ],
)
def test_bad_input_is_named(change, match):
    options = {"margins": np.ones(20), "head_kl": 0.1, "encoder_kl": 0.1, "alpha": 1.0, "beta": 1.0, "sigma": TANH}
    options |= change
    with pytest.raises(MfresnetError, match=match):
        kl_ball_certificate(options.pop("margins"), **options)


def test_ramp_loss_lies_between_error_and_its_margin_error():
    margins = np.random.default_rng(0).normal(size=1000)
    for gamma in (0.1, 1.0):
        assert np.mean(margins <= 0) <= ramp_loss(margins, gamma) <= np.mean(margins <= gamma)
