"""Drawn sub-networks: exact laws of the draws, the naive forward pass, and convergence to the limit network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.bounds import (
    assemble,
    draw,
    draw_errors,
    draws,
    log_ratio_of,
    pool,
    predictions,
    probes_needed,
    sample_subnetwork,
    vote,
)
from mfresnet.bounds.subnetwork import _draws
from mfresnet.errors import MfresnetError
from mfresnet.flow import Probes
from mfresnet.model import LayeredResNet, Particles


def moved_pool(layers, count, heads, d=2, outputs=1, seed=0, bias=True):
    """Probes of a law that is no longer Gaussian: u and a lean on (w, b)."""
    rng = np.random.default_rng(seed)

    def particles(shape, out):
        w, b = rng.normal(size=(*shape, d)), rng.normal(size=shape)
        u = rng.normal(size=(*shape, out)) + np.tanh(w[..., :1] + b[..., None])
        return Particles(jnp.asarray(u), jnp.asarray(w), jnp.asarray(b) if bias else None)

    return Probes(particles((layers, count), d), particles((heads,), outputs) if heads else None)


def network(d=2, outputs=1, alpha=1.0, beta=2.0, **options):
    return LayeredResNet.create(
        jax.random.key(0), inputs=d, outputs=outputs, alpha=alpha, beta=beta, dtype="float64", **options
    )


@pytest.mark.parametrize("depths", ["stratified", "uniform"])
@pytest.mark.parametrize("case", [{}, {"bias": False}, {"heads": 0}, {"outputs": 3}])
def test_forward_equals_the_naive_loop_whatever_the_padding(x64, depths, case):
    case = dict(case)
    heads = case.pop("heads", 12)
    probes = moved_pool(3, 12, heads, **case)
    outputs = case.get("outputs", 1) if heads else 2
    model = network(outputs=outputs, bias=case.get("bias", True), head=bool(heads))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)))
    k = 4 if heads else 0
    chosen = draws(
        jax.random.key(3),
        6,
        **pool(probes),
        residuals=7,
        heads=k,
        most_residuals=9,
        most_heads=2 * k or None,
        depths=depths,
    )
    f = predictions(chosen, probes, model, x, batch=4)
    for i in range(6):
        z = np.array(x)
        for j in range(7):
            l, m = int(chosen.layer[i, j]), int(chosen.member[i, j])  # noqa: E741
            bias = 0 if probes.encoder.b is None else probes.encoder.b[l, m]
            s = np.tanh(z @ np.asarray(probes.encoder.w[l, m]) + bias)
            z = z + 1.0 / 7 * s[:, None] * np.asarray(probes.encoder.u[l, m])
        expected = z
        if heads:
            expected = 0
            for h in np.asarray(chosen.head[i, :4]):
                bias = 0 if probes.head.b is None else probes.head.b[h]
                s = np.tanh(z @ np.asarray(probes.head.w[h]) + bias)
                expected = expected + 2.0 / 4 * s[:, None] * np.asarray(probes.head.a[h])
        np.testing.assert_allclose(f[i], expected, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(assemble(jax.tree.map(lambda v: v[i], chosen), probes, model)(x), f[i], rtol=1e-12)  # noqa: B023


def test_the_embedding_is_applied(x64):
    model = network(d=3, embedding=2)
    probes = moved_pool(2, 8, 8)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3)))
    sub = sample_subnetwork(jax.random.key(0), probes, model, heads=3, residuals=4)
    plain = sample_subnetwork(jax.random.key(0), probes, network(), heads=3, residuals=4)
    np.testing.assert_allclose(sub(x), plain(x @ model.embedding.T), rtol=1e-13)


@pytest.mark.parametrize("depths", ["stratified", "uniform"])
@pytest.mark.parametrize("residuals", [1, 3, 7, 10])
def test_draws_are_sorted_distinct_and_uniform(depths, residuals):
    layers, count, runs = 4, 10, 2000
    options = {"layers": layers, "probes": count, "head_probes": 6, "most_residuals": 10}
    chosen = draws(jax.random.key(1), runs, **options, residuals=residuals, heads=3, depths=depths)
    chosen = chosen._replace(layer=chosen.layer[:, :residuals], member=chosen.member[:, :residuals])
    layer, member, head = (np.asarray(v) for v in (chosen.layer, chosen.member, chosen.head))
    assert np.all(np.diff(layer, axis=1) >= 0)
    code = np.sort(layer * count + member, axis=1)
    assert np.all(np.diff(code, axis=1) > 0)
    assert np.all(np.diff(np.sort(head, axis=1), axis=1) > 0)
    # each layer, each probe and each head probe equally often: 5 standard deviations
    for values, size, each in ((code, layers * count, residuals), (head, 6, 3)):
        frequency = np.bincount(values.ravel(), minlength=size) / runs
        assert np.all(np.abs(frequency - each / size) < 5 * np.sqrt(each / size / runs))


def test_uniform_depths_are_independent_and_stratified_ones_are_not():
    options = {"layers": 4, "probes": 8, "head_probes": 2, "residuals": 8, "heads": 1}
    spread = {}
    for depths in ("uniform", "stratified"):
        layer = np.asarray(draws(jax.random.key(0), 2000, **options, depths=depths).layer)
        spread[depths] = np.sum(layer == 0, axis=1).var()
    assert spread["uniform"] == pytest.approx(8 * 0.25 * 0.75, rel=0.15)  # binomial
    assert spread["stratified"] == 0


def test_disjoint_draws_share_nothing_and_the_others_may():
    options = {"layers": 3, "probes": 12, "head_probes": 20, "residuals": 6, "heads": 4}
    chosen = draws(jax.random.key(0), 5, **options, disjoint=True)
    assert len(np.unique(np.asarray(chosen.head))) == 20
    code = np.asarray(chosen.layer) * 12 + np.asarray(chosen.member)
    assert len(np.unique(code)) == 30
    with pytest.raises(MfresnetError, match="disjoint"):
        draws(jax.random.key(0), 6, **options, disjoint=True)


def test_probes_needed_is_never_exceeded_and_attained():
    for layers, residuals in [(10, 39), (5, 2)]:
        needed = probes_needed(residuals, layers)
        chosen = draws(
            jax.random.key(2), 300, layers=layers, probes=needed, head_probes=1, residuals=residuals, heads=1
        )
        most = max(np.bincount(row, minlength=layers).max() for row in np.asarray(chosen.layer))
        assert most <= needed and most >= needed - 1


def test_one_compiled_program_serves_the_grid(x64):
    probes, model = moved_pool(4, 30, 30), network()
    x = jnp.ones((3, 2))
    before, compiled = _draws._cache_size(), []
    for k, big in ((1, 2), (5, 9), (20, 20)):
        chosen = draws(jax.random.key(0), 4, **pool(probes), residuals=big, heads=k, most_residuals=20, most_heads=20)
        assert predictions(chosen, probes, model, x).shape == (4, 3, 1)
        compiled.append(_draws._cache_size() - before)
    assert compiled[-1] == compiled[0]


def test_the_mean_of_log_ratios_is_the_kl_of_the_pool():
    rng = np.random.default_rng(0)
    encoder, head = rng.normal(size=(4, 12)), rng.normal(size=15)
    chosen = draws(
        jax.random.key(0), 2000, layers=4, probes=12, head_probes=15, residuals=8, heads=5, most_residuals=11
    )
    ratios = log_ratio_of(chosen, encoder, head)
    expected = 8 * encoder.mean() + 5 * head.mean()
    assert ratios.mean() == pytest.approx(expected, abs=5 * ratios.std() / np.sqrt(2000))
    one = jax.tree.map(lambda v: v[0], chosen)
    naive = sum(encoder[one.layer[j], one.member[j]] for j in range(8)) + sum(head[one.head[k]] for k in range(5))
    assert log_ratio_of(one, encoder, head) == pytest.approx(naive)


def test_drawn_networks_converge_to_the_limit_network(x64):
    """RMS error against the network of the whole pool: 1/sqrt(k') and 1/sqrt(N'), stratified depths not worse."""
    layers, count = 4, 1000
    probes, model = moved_pool(layers, count, 4000), network()
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 2)))
    fine = 50  # the limit law is constant within a layer; Euler in 50 sub-steps of each
    z = x
    for layer in range(layers):
        one = probes.encoder.layer(layer)
        for _ in range(fine):
            z = z + 1.0 / (layers * fine * count) * jnp.tanh(z @ one.w.T + one.b[None]) @ one.u
    limit = 2.0 / 4000 * jnp.tanh(z @ probes.head.w.T + probes.head.b[None]) @ probes.head.a
    sizes, errors = np.array([16, 64, 256]), {}
    for depths in ("stratified", "uniform"):
        rms = []
        for size in sizes:
            chosen = draws(
                jax.random.key(5),
                100,
                **pool(probes),
                residuals=int(size),
                heads=int(size),
                most_residuals=256,
                most_heads=256,
                depths=depths,
            )
            rms.append(float(jnp.sqrt(jnp.mean((predictions(chosen, probes, model, x) - limit[None]) ** 2))))
        errors[depths] = np.array(rms)
        slope = np.polyfit(np.log(sizes), np.log(rms), 1)[0]
        print(depths, "rms", np.round(rms, 4), "slope", round(slope, 3))
        assert slope == pytest.approx(-0.5, abs=0.1)
    assert np.all(errors["stratified"] <= 1.1 * errors["uniform"])


def test_votes_and_errors():
    f = np.random.default_rng(0).normal(size=(9, 40, 1))
    ballots = (f[..., 0] > 0).sum(axis=0) > 4
    np.testing.assert_array_equal(vote(jnp.asarray(f)), ballots.astype(int))
    many = np.random.default_rng(1).normal(size=(9, 40, 3))
    counts = np.stack([(many.argmax(-1) == c).sum(0) for c in range(3)], -1)
    np.testing.assert_array_equal(vote(jnp.asarray(many)), counts.argmax(-1))
    # a vote errs at most twice as often as the voters
    labels = np.random.default_rng(2).integers(0, 3, 40)
    assert np.mean(np.asarray(vote(jnp.asarray(many))) != labels) <= 2 * np.mean(many.argmax(-1) != labels)


def test_draw_errors_count_mistakes(x64):
    probes, model = moved_pool(3, 10, 10), network()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(7, 2)))
    y = jnp.asarray(np.random.default_rng(1).choice([-1.0, 1.0], size=(7, 1)))
    chosen = draws(jax.random.key(0), 5, **pool(probes), residuals=4, heads=4)
    f = np.asarray(predictions(chosen, probes, model, x))
    np.testing.assert_array_equal(
        draw_errors(chosen, probes, model, x, y), np.mean(f[..., 0] * np.asarray(y)[None, :, 0] <= 0, axis=1)
    )


def test_too_few_probes_are_named():
    options = {"layers": 2, "probes": 4, "head_probes": 4}
    key = jax.random.key(0)
    for change, match in (
        ({"residuals": 9, "heads": 1}, "residual particles"),
        ({"residuals": 5, "heads": 1, "depths": "uniform"}, "residual particles"),
        ({"residuals": 2, "heads": 5}, "head particles"),
        ({"residuals": 0, "heads": 1}, "residuals"),
        ({"residuals": 2, "heads": 0}, "heads"),
        ({"residuals": 2, "heads": 1, "depths": "even"}, "depths"),
    ):
        with pytest.raises(MfresnetError, match=match):
            draw(key, **options, **change)
