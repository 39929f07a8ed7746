"""KL of the laws: a case with a known answer, exact Jacobians, the OU identity, rates in the number of probes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.diagnostics.divergence import (
    feature_displacement,
    kl_to_start,
    log_density_ratios,
    summarise,
    talagrand,
)
from mfresnet.flow import Batch, OneToOne, Options, Trainer, field, flow
from mfresnet.model import InitialScales, LayeredResNet, Particles, trainable

SCALES = InitialScales()


def problem(seed=0, *, n=6, d=2, **model_options):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.sign(rng.normal(size=(n, 1)))
    options = {"depth": 3, "width": 5, "head_width": 6, "alpha": 1.5, "beta": 2.0} | model_options
    model = LayeredResNet.create(jax.random.key(seed), inputs=d, dtype="float64", **options)
    return model, Batch(jnp.asarray(x), jnp.asarray(y), jnp.ones(n))


def flowed(model, data, solver, *, steps=20, h=0.1, probes=(64, 256), freeze="none", seed=1, tolerance=1e-7):
    trainer = Trainer(flow(solver, h, tolerance), trainable(model, freeze=freeze))
    start = trainer.begin(model, jax.random.key(seed), len(data.x), probes=probes)
    return trainer.advance(start, data, jax.random.key(2), jnp.asarray(steps), steps)[0]


def test_known_answer_a_linear_flow_keeps_the_law_gaussian(x64):
    """With the identity the field is linear: omega_t = A omega_0, and KL(N(0, A A^T) || N(0, I)) is elementary."""
    model, data = problem(sigma="identity")
    state = flowed(model, data, "adaptive", probes=(0, 4000), freeze="encoder", steps=30)
    _, head = kl_to_start(state.ensemble, SCALES)
    before, after = state.ensemble.start.head.flat(), state.ensemble.probes.head.flat()
    a, residuals, *_ = np.linalg.lstsq(before, after, rcond=None)
    assert residuals.max() < 1e-8  # the map is linear indeed
    covariance = a.T @ a
    exact = 0.5 * (np.trace(covariance) - len(covariance) - np.linalg.slogdet(covariance)[1])
    assert exact > 0.05  # the law has moved
    assert abs(head.kl.value - exact) < 4 * head.kl.stderr
    assert head.kl.stderr < 0.1 * exact


@pytest.mark.parametrize("solver", ["euler", "heun", "adaptive"])
def test_log_density_change_is_minus_the_log_jacobian_of_the_flow_map(solver, x64):
    """Probes at omega_0 and at omega_0 + eps e_i give the Jacobian of the map by differences."""
    model, data = problem(1)
    h, steps, eps = 0.05, 40, 1e-6
    trainer = Trainer(flow(solver, h, 1e-9), trainable(model))
    start = trainer.begin(model, jax.random.key(0), len(data.x), probes=(12, 12))

    def cluster(p: Particles) -> Particles:
        """The first probe, and copies moved by eps along each axis (central differences)."""
        points = p.flat()
        dim = points.shape[-1]
        moves = np.concatenate([np.zeros((1, dim)), eps * np.eye(dim), -eps * np.eye(dim)])
        spread = points[..., :1, :] + moves[: points.shape[-2]]
        o = p.out.shape[-1]
        return Particles(*(jnp.asarray(v) for v in (spread[..., :o], spread[..., o:-1], spread[..., -1])))

    probes = eqx.tree_at(
        lambda e: (e.probes.encoder, e.probes.head, e.log_ratio.encoder, e.log_ratio.head),
        start.ensemble,
        (
            cluster(start.ensemble.probes.encoder),
            cluster(start.ensemble.probes.head),
            start.ensemble.log_ratio.encoder[:, :11],
            start.ensemble.log_ratio.head[:9],
        ),
    )
    probes = eqx.tree_at(lambda e: e.one_to_one, probes, OneToOne.of(probes.log_ratio))
    start = eqx.tree_at(lambda s: s.ensemble, start, probes)
    state = trainer.advance(start, data, jax.random.key(2), jnp.asarray(steps), steps)[0]
    # Heun integrates the Laplacian to second order in h = 0.05; the others are exact or solved to 1e-9
    tolerance = {"euler": 1e-6, "heun": 2e-3, "adaptive": 1e-6}[solver]
    for part, layers in (("encoder", range(3)), ("head", [()])):
        end = getattr(state.ensemble.probes, part).flat()
        dim = end.shape[-1]
        for layer in layers:
            block = end[layer]
            jacobian = (block[1 : dim + 1] - block[dim + 1 : 2 * dim + 1]) / (2 * eps)
            expected = -np.linalg.slogdet(jacobian)[1]
            found = float(np.asarray(getattr(state.ensemble.log_ratio, part))[layer][0])
            assert found == pytest.approx(expected, abs=tolerance)
            assert abs(expected) > 10 * tolerance  # something was there to find


def test_ornstein_uhlenbeck_identity(x64):
    """dKL/dt = E[ Laplacian phi - omega . grad phi ], by a difference of the estimated KL over a short time."""
    model, data = problem(2)
    trained = trainable(model)
    state = flowed(model, data, "adaptive", probes=(16, 64), steps=5, tolerance=1e-10)
    probes = state.ensemble.probes
    now = field(state.model, trained, data, Options(), probes, "laplacian")
    h = 1e-4
    trainer = Trainer(flow("adaptive", h, 1e-11), trained)
    after = trainer.step(state, data, jax.random.key(0))[0]
    for part in ("encoder", "head"):
        expected = np.mean(
            np.asarray(getattr(now.curvature, part))
            + np.sum(getattr(probes, part).flat() * getattr(now.probes, part).flat(), axis=-1)
        )

        def kl(ensemble, part=part):
            scale = getattr(SCALES, part)
            v = [getattr(t, part) for t in (ensemble.probes, ensemble.start, ensemble.log_ratio)]
            return log_density_ratios(*v, scale).mean()

        # a forward difference over h: the second derivative of KL times h/2
        assert (kl(after.ensemble) - kl(state.ensemble)) / h == pytest.approx(expected, rel=5e-3)


def test_standard_error_falls_like_the_root_of_the_probes(x64):
    model, data = problem(3)
    sizes = [64, 256, 1024, 4096]
    errors = []
    state = flowed(model, data, "heun", probes=(0, sizes[-1]), steps=15, h=0.2)
    ensemble = state.ensemble
    ratios = log_density_ratios(ensemble.probes.head, ensemble.start.head, ensemble.log_ratio.head, SCALES.head)
    for size in sizes:
        groups = ratios[: sizes[-1] // size * size].reshape(-1, size).mean(axis=1)
        errors.append(groups.std(ddof=1) if len(groups) > 1 else summarise(ratios, np.zeros(1)).kl.stderr)
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    # the spread of 4 group means has a relative error of 1/sqrt(6): 0.2 over two decades of size
    assert slope == pytest.approx(-0.5, abs=0.2)
    quoted = summarise(ratios[:256], np.zeros(1)).kl.stderr
    assert quoted == pytest.approx(errors[1], rel=0.6)  # 16 groups


def test_small_movements_are_quadratic_in_one_over_betabar(x64):
    """Theorem 5: KL = O(1/betabar^2). The time to fit scales as n/beta^2, the movement as n/beta."""
    kls = []
    betas = np.array([8.0, 16.0, 32.0])
    for beta in betas:
        # random labels are reached in the same number of natural units at every beta
        model, data = problem(4, n=4, beta=beta, head_width=400, width=60, alpha=1.0)
        state = flowed(model, data, "adaptive", probes=(64, 512), steps=20, h=1.0 * 4 / beta**2, tolerance=1e-5)
        encoder, head = kl_to_start(state.ensemble, SCALES)
        kls.append((encoder.nonnegative, head.nonnegative))
    # at the start f = O(beta/sqrt K) adds a beta-independent part to the residual: the slope tends to -2 from above
    slopes = np.polyfit(np.log(betas), np.log(kls), 1)[0]
    assert slopes[1] == pytest.approx(-2.0, abs=0.35)


def test_checks_hold_along_a_flow_and_scales_enter(x64):
    model, data = problem(5, width=100)
    state = flowed(model, data, "adaptive", probes=(64, 256))
    encoder, head = kl_to_start(state.ensemble, SCALES)
    assert talagrand(encoder).holds and talagrand(head).holds
    assert feature_displacement(model.sweep(data.x)[0], state.model.sweep(data.x)[0], 1.5, encoder).holds
    for found in (encoder, head):
        # E exp(-R) = 1 for exact probes
        assert abs(found.normalisation.value - 1) < 5 * found.normalisation.stderr + 0.02
    with pytest.raises(ValueError, match=r"biases start with standard deviation 0"):
        kl_to_start(state.ensemble, InitialScales(head_b=0.0))
