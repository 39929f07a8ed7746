"""Scaling rules of any model: the sizes that the table promises, and best rates that carry over in depth."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_factories import convolution, perceptron, transformer

from mfresnet import MfresnetError, scaling
from mfresnet.experiments import create
from mfresnet.experiments.own_transfer import Task, coordinate_check, transfer
from mfresnet.scaling import GROUPS, Growth, adam, factors, initialise, label, sgd

PARAMS = {"a": jnp.ones((2, 3)), "b": {"w": jnp.ones(3), "u": jnp.ones(2)}}


def test_at_growth_one_nothing_changes():
    labels = label(PARAMS, {"a": "input", "b": "hidden", "b.u": "residual"})
    gradient = jax.tree.map(lambda leaf: leaf * jnp.arange(1.0, leaf.size + 1).reshape(leaf.shape), PARAMS)
    for mine, theirs in ((adam(0.1, labels, Growth()), optax.adam(0.1)), (sgd(0.1, labels, Growth()), optax.sgd(0.1))):
        found, expected = (way.update(gradient, way.init(PARAMS))[0] for way in (mine, theirs))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(
                one, other, rtol=3e-7
            )  # an ulp or two: the order of operations is the compiler's
    assert all(map(np.array_equal, jax.tree.leaves(initialise(PARAMS, labels, Growth())), jax.tree.leaves(PARAMS)))


def test_factors_follow_from_the_table():
    """Update and gradient of each group, as powers of the growths m and k; Adam's rate is the update, its epsilon the
    gradient, and SGD's rate their quotient."""
    table = {  # (power of m, power of k) of update, gradient
        "input": ((0, 0), (0, -1)),
        "hidden": ((0, -1), (-1, -1)),
        "vector": ((0, 0), (-1, -1)),
        "residual": ((-1, -1), (0, -1)),
        "residual-vector": ((-1, 0), (0, -1)),
        "output": ((0, -1), (0, 0)),
    }
    growth = Growth(depth=3.0, width=5.0)
    for group, powers in table.items():
        update, gradient = (3.0**m * 5.0**k for m, k in powers)
        of_adam, of_sgd = (factors(name, growth)[group] for name in ("adam", "sgd"))
        assert of_adam.rate == pytest.approx(update) and of_adam.epsilon == pytest.approx(gradient)
        assert of_sgd.rate == pytest.approx(update / gradient) and of_sgd.start == of_adam.start
    assert set(table) == set(GROUPS)


def test_gradients_have_the_sizes_of_the_table():
    """Of the perceptron at its scaled start: slopes in log-log over two sizes, within 0.35 of the powers.

    A gradient is a sum of random terms at a few sizes, so its slope is no whole number.
    """

    def sizes(depth, width, growth):
        found = []
        for seed in range(4):
            task = perceptron(depth, width, seed)
            labels = label(task.params, task.groups)
            gradient = jax.grad(task.loss)(initialise(task.params, labels, growth))
            found.append([float(jnp.sqrt(jnp.mean(leaf**2))) for leaf in jax.tree.leaves(gradient)])
        names = jax.tree.leaves(labels)
        return dict(zip(names, np.log(np.mean(found, axis=0)), strict=True))

    # large enough for the random sum of branches, 1/sqrt(L), and the output at the start, 1/sqrt(N), to be small
    base = sizes(64, 32, Growth(16.0, 16.0))
    deeper, wider = sizes(512, 32, Growth(128.0, 16.0)), sizes(64, 256, Growth(16.0, 128.0))
    for axis, grown in (("depth", deeper), ("width", wider)):
        expected = factors("adam", Growth(**{axis: 8.0}))
        for group in base:
            slope = (grown[group] - base[group]) / np.log(8)
            assert slope == pytest.approx(np.log(expected[group].epsilon) / np.log(8), abs=0.35), (axis, group)


@pytest.mark.parametrize(("optimiser", "rate"), [("adam", 0.01), ("sgd", 0.1)])
@pytest.mark.parametrize(("axis", "sizes", "other"), [("depth", (4, 16, 64), 16), ("width", (32, 128, 512), 4)])
def test_coordinates_do_not_depend_on_the_size(optimiser, rate, axis, sizes, other):
    found = coordinate_check(perceptron, sizes, rate, axis=axis, other=other, optimiser=optimiser)
    assert found.stable, found.slopes
    plain = coordinate_check(perceptron, sizes, rate, axis=axis, other=other, optimiser=optimiser, scaled=False)
    assert not plain.stable or abs(found.slopes[1]) < abs(plain.slopes[1]), plain.slopes


@pytest.mark.slow
@pytest.mark.parametrize("factory", [transformer, convolution])
def test_the_best_rate_carries_over_from_depth_4_to_64(factory):
    """By at most one step (a factor of 2) with the rules, by at least two without, over two seeds.

    Six seeds and depth 16 between them: benchmarks/own_models.py.
    """
    rates = [2.0**-k for k in range(1, 12)]
    scaled, plain = (transfer(factory, (4, 64), rates, other=8, steps=40, seeds=2, scaled=on) for on in (True, False))
    print(factory.__name__, "scaled", scaled.best, scaled.losses.round(3), "plain", plain.best, plain.losses.round(3))
    assert abs(scaled.best[-1] - scaled.best[0]) <= 1
    assert abs(plain.best[-1] - plain.best[0]) >= 2


def test_what_is_refused():
    with pytest.raises(MfresnetError, match=r"no group covers the parameter b\.u"):
        label(PARAMS, {"a": "input", "b.w": "hidden"})
    with pytest.raises(MfresnetError, match="groups names c, which no parameter's path contains"):
        label(PARAMS, {"a": "input", "b": "hidden", "c": "output"})
    with pytest.raises(MfresnetError, match="group 'middle' of 'a' is unknown"):
        label(PARAMS, {"a": "middle"})
    with pytest.raises(MfresnetError, match="parameter n is of type int32"):
        label({"n": jnp.arange(3)}, {"n": "input"})
    with pytest.raises(MfresnetError, match="parameter n is of type float: leave it out"):
        label({"n": 1.0}, {"n": "input"})
    with pytest.raises(MfresnetError, match="groups is a NoneType: give a mapping"):
        label(PARAMS, None)  # pyright: ignore[reportArgumentType]
    for options, sentence in (
        ({"rates": [0.1]}, "is no grid"),
        ({"rates": [0.0, 0.1]}, "is no grid"),
        ({"seeds": 0}, "give values >= 1"),
        ({"sizes": (0, 8)}, "give at least two different ones, from 1"),
    ):
        with pytest.raises(MfresnetError, match=sentence):
            transfer(perceptron, **({"sizes": (4, 8), "rates": [0.1, 0.2], "steps": 1, "other": 4} | options))
    with pytest.raises(MfresnetError, match="it ignores its depth"):
        coordinate_check(lambda depth, width, seed: perceptron(3, width, seed), (4, 8), 0.1)
    with pytest.raises(MfresnetError, match="optimiser = 'lion' is not allowed"):
        coordinate_check(perceptron, (4, 8), 0.1, optimiser="lion")
    with pytest.raises(MfresnetError, match="give values > 0"):
        scaling.Growth(depth=0.0)

    def lost(depth, width, seed):
        task = perceptron(depth, width, seed)
        return Task(task.params, lambda p: jnp.nan * task.loss(p), task.features, task.groups)

    def flat(depth, width, seed):
        task = perceptron(depth, width, seed)
        return Task(task.params, lambda p: 0.0 * task.loss(p), task.features, task.groups)

    def rooted(depth, width, seed):
        task = perceptron(depth, width, seed)
        return Task(task.params, lambda p: jnp.sqrt(jnp.sum(p["b"] ** 2)), task.features, task.groups)

    def several(depth, width, seed):
        task = perceptron(depth, width, seed)
        return Task(task.params, lambda p: p["embed"][0], task.features, task.groups)

    def changed(**parts):
        return lambda depth, width, seed: replace(perceptron(depth, width, seed), **parts)

    for factory, sentence in (
        (lambda depth: None, r"the factory, called with \(4, 4, 0\), failed with TypeError"),
        (changed(loss=lambda p: p["lost"]), r"the loss of the factory failed with KeyError \('lost'\)"),
        (changed(loss=lambda p: np.sum(np.asarray(p["w"]))), "the loss of the factory failed with Tracer"),
        (changed(features=lambda p: p["lost"]), "features of the factory failed with KeyError"),
        (changed(features=lambda p: (p["w"], 1)), "features of the factory are a tuple"),
        (changed(params={}, groups={}), "parameters of the factory are an empty tree"),
        (lost, "loss of the factory is NaN or infinite"),
        (flat, "no rate lowers the loss at depth 4"),
        (rooted, "gradient of the loss of the factory is NaN or infinite"),
        (several, r"loss of the factory has shape \(4,\): return one number"),
        (lambda depth, width, seed: 1.0, "the factory made a float"),
    ):
        with pytest.raises(MfresnetError, match=sentence):
            transfer(factory, (4, 8), [0.1, 0.2], steps=1, other=4)


def test_labels_of_an_equinox_module():
    net = eqx.filter(eqx.nn.MLP(2, 1, width_size=3, depth=2, key=jax.random.key(0)), eqx.is_inexact_array)
    groups = {
        "layers.0": "input",
        "layers.1.weight": "residual",
        "layers.1.bias": "residual-vector",
        "layers.2": "output",
    }
    labels = label(net, groups)
    assert (labels.layers[1].weight, labels.layers[1].bias, labels.layers[2].weight) == (
        "residual", "residual-vector", "output",
    )  # fmt: skip
    scaled = initialise(net, labels, Growth(depth=4.0))
    np.testing.assert_allclose(scaled.layers[1].weight, net.layers[1].weight / 4)
    optimiser = adam(0.1, labels, Growth(depth=4.0))
    update, _ = optimiser.update(net, optimiser.init(net), net)
    assert jax.tree.structure(update) == jax.tree.structure(net)


def test_the_sweep_of_a_users_factory(tmp_path):
    """Over two small sizes; its rows are the losses of `transfer`."""
    settings = {
        "factory": "own_factories:perceptron",
        "sizes": (2, 4),
        "other": 4,
        "steps": 2,
        "rates": (0.01, 0.1, 1.0),
    }
    experiment = create("own-transfer", settings)
    cells = experiment.cells()
    rows = [cell | row for cell, row in zip(cells, experiment.run(cells), strict=True)]
    found = experiment.analyse(rows)
    for scaling_name, on in (("scaled", True), ("plain", False)):
        expected = transfer(perceptron, (2, 4), (0.01, 0.1, 1.0), other=4, steps=2, scaled=on)
        losses = [
            [row[f"loss.{rate:g}"] for rate in (0.01, 0.1, 1.0)] for row in rows if row["scaling"] == scaling_name
        ]
        np.testing.assert_allclose(losses, expected.losses, rtol=1e-5)
        assert found.fit["steps_moved"][scaling_name] == expected.steps_moved
        check = coordinate_check(perceptron, (2, 4), 0.1, other=4, scaled=on)
        slopes = found.fit["coordinates"][scaling_name]
        assert (slopes["features"], slopes["updates"]) == pytest.approx(check.slopes, rel=1e-4)
        assert slopes["stable"] == check.stable
    for changes, sentence in (
        ({"factory": ""}, "no factory: give --factory"),
        ({"factory": "own_factories:nothing"}, "cannot be loaded"),
        ({"sizes": (4,)}, "has one value"),
    ):
        with pytest.raises(MfresnetError, match=sentence):
            create("own-transfer", settings | changes)
    with pytest.raises(MfresnetError, match="factory 'math:hypot' made a float: return an mfresnet"):
        create("own-transfer", settings | {"factory": "math:hypot"}).run(cells[:1])


def test_a_flax_model_takes_the_rules():
    """Variables of Flax by their own names, from depth 4 to 16: with the rules the change of the features is flat but
    for the random sum of branches, which is not small at depth 4 (measured slope -0.32), without it grows (0.88)."""
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        depth: int
        width: int

        @nn.compact
        def __call__(self, x, stream=False):
            h = nn.Dense(self.width, use_bias=False, name="embed")(x)
            for k in range(self.depth):
                z = nn.LayerNorm(use_bias=False, use_scale=False)(h)
                h = h + nn.Dense(self.width, name=f"u{k}")(jnp.tanh(nn.Dense(self.width, name=f"w{k}")(z)))
            return h if stream else nn.Dense(1, use_bias=False, name="out")(h)

    def factory(depth, width, seed):
        net, x = Net(depth, width), jax.random.normal(jax.random.key(9), (16, 3))
        groups = {"embed": "input", "out": "output"}
        for k in range(depth):
            groups |= {f"w{k}.kernel": "hidden", f"w{k}.bias": "vector"}
            groups |= {f"u{k}.kernel": "residual", f"u{k}.bias": "residual-vector"}
        return Task(
            net.init(jax.random.key(seed), x),
            lambda p: 0.5 * jnp.mean((net.apply(p, x) - jnp.sign(x[:, :1])) ** 2),
            lambda p: net.apply(p, x, stream=True),
            groups,
        )

    assert label(factory(1, 4, 0).params, factory(1, 4, 0).groups)["params"]["u0"] == {
        "bias": "residual-vector",
        "kernel": "residual",
    }
    found, plain = (coordinate_check(factory, (4, 16), 0.01, other=32, steps=2, scaled=on) for on in (True, False))
    assert max(map(abs, found.slopes)) < 0.45 and plain.slopes[1] > 0.6, (found.slopes, plain.slopes)
