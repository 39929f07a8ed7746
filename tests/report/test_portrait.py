"""Figures: the network as it is, seen in the plane."""

from __future__ import annotations

from types import SimpleNamespace as Box

import jax
import numpy as np
import pytest

from mfresnet.diagnostics import figures as module
from mfresnet.diagnostics.figures import network_figures
from mfresnet.diagnostics.plane import Plane, principal_axes
from mfresnet.model import LayeredResNet


def split(inputs, outputs=1, n=40, task="binary", sphere=False):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, inputs)) + 1.0
    if sphere:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = rng.choice([-1.0, 1.0], size=(n, 1)) if outputs == 1 else np.eye(outputs)[rng.integers(0, outputs, n)]
    return Box(train=Box(x=x, y=y, task=task), test=Box(x=x[:10], y=y[:10], task=task))


def network(seed=0, **options):
    defaults = {"inputs": 2, "depth": 5, "width": 4, "head_width": 3, "alpha": 2.0, "beta": 2.0}
    return LayeredResNet.create(jax.random.key(seed), **(defaults | options))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "SIDE", 7)
    monkeypatch.setattr(module, "SMALLEST_SIDE", 5)


def test_grid_is_the_network_on_the_plane():
    start, end, data = network(0), network(1), split(2)
    arrays = network_figures(start, end, data)
    mesh = np.stack(np.meshgrid(arrays["grid.first"], arrays["grid.second"]), -1).reshape(-1, 2)
    for when, model in (("start", start), ("end", end)):
        np.testing.assert_allclose(arrays[f"grid.{when}.value"].ravel(), model(mesh)[:, 0], atol=1e-5)
    correct = np.sign(np.asarray(end(data.train.x.astype(np.float32)))) == data.train.y
    np.testing.assert_array_equal(arrays["points.train.correct"], correct[:, 0])


@pytest.mark.parametrize(
    ("scheme", "shared", "depth"),
    [("euler", False, 1), ("rk4", False, 3), ("euler", False, 90), ("midpoint", True, 90)],
)
def test_states_are_the_sweeps_at_the_named_depths(scheme, shared, depth):
    model, data = network(scheme=scheme, shared=shared, depth=depth), split(2)
    arrays = network_figures(model, model, data)
    layers = np.round(arrays["depth.s"] * depth).astype(int)
    assert layers[0] == 0 and layers[-1] == depth and len(layers) == min(depth + 1, 41)
    whole = np.asarray(model.states(data.train.x.astype(np.float32)))
    np.testing.assert_allclose(arrays["depth.end.state"], whole[layers], rtol=1e-4, atol=1e-5)


def test_many_classes_are_labelled_by_the_largest_output():
    model = network(inputs=3, outputs=4)
    arrays = network_figures(model, model, split(3, outputs=4, task="multiclass"))
    plane = Plane(arrays["plane.origin"], arrays["plane.axes"], float(arrays["plane.radius"][0]))
    mesh = np.stack(np.meshgrid(arrays["grid.first"], arrays["grid.second"]), -1).reshape(-1, 2)
    f = np.asarray(model(plane.points(mesh)[0].astype(np.float32)))
    np.testing.assert_array_equal(arrays["grid.end.label"].ravel(), f.argmax(1))
    ordered = np.sort(f, axis=1)
    np.testing.assert_allclose(arrays["grid.end.margin"].ravel(), ordered[:, -1] - ordered[:, -2], atol=1e-5)


def test_sphere_data_is_only_asked_about_on_the_sphere():
    data = split(3, sphere=True)
    plane = Plane.of(data.train.x)
    assert plane.radius == pytest.approx(1.0)
    upper = data.train.x[data.train.x @ plane.origin > 0]
    places, inside = plane.points(plane.coordinates(upper))
    assert inside.all()
    np.testing.assert_allclose(places, upper, atol=1e-7)  # three inputs: a point is drawn exactly where it lies
    arrays = network_figures(network(inputs=3), network(inputs=3), data)
    first, second = np.meshgrid(arrays["grid.first"], arrays["grid.second"])
    np.testing.assert_array_equal(np.isnan(arrays["grid.end.value"]), first**2 + second**2 > plane.radius**2)


def test_sphere_data_on_all_sides_still_has_a_plane():
    x = np.concatenate([np.eye(3), -np.eye(3)])
    plane = Plane.of(x)
    places, _ = plane.points(np.zeros((1, 2)))
    assert np.linalg.norm(places) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("inputs", "options", "task"),
    [
        (1, {}, "regression"),
        (1, {"bias": False}, "binary"),
        (2, {"head": False, "outputs": 2}, "regression"),
        (3, {"embedding": 5, "outputs": 3}, "multiclass"),
        (5, {"shared": True}, "binary"),
    ],
)
def test_every_kind_of_network_has_figures(inputs, options, task):
    model = network(inputs=inputs, **options)
    arrays = network_figures(model, model, split(inputs, options.get("outputs", 1), task=task))
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in arrays.values())
    assert all(np.isfinite(a).all() for name, a in arrays.items() if not name.startswith("grid"))
    assert ("particles.head.end.w" in arrays) == options.get("head", True)
    assert arrays["displacement.encoder"].max() == 0


def test_displacement_is_the_root_mean_square_of_each_layer():
    start = network()
    moved = start.encoder.w.at[2].add(0.5)
    end = LayeredResNet(
        type(start.encoder)(start.encoder.out, moved, start.encoder.b),
        start.head,
        None,
        start.alpha,
        start.beta,
        start.sigma,
        start.depth,
    )
    arrays = network_figures(start, end, split(2))
    np.testing.assert_allclose(arrays["displacement.encoder"], [0, 0, np.sqrt(0.5), 0, 0], atol=1e-6)


def test_low_precision_and_float64_networks_are_drawn_alike():
    data, model = split(2), network()
    reference = network_figures(model, model, data)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype("float64"), model)
        arrays = network_figures(double, double, data)
    np.testing.assert_allclose(arrays["grid.end.value"], reference["grid.end.value"], atol=1e-5)
    half = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), model)
    assert network_figures(half, half, data)["grid.end.value"].dtype == np.float32


def test_costly_networks_get_a_coarser_grid(monkeypatch):
    monkeypatch.setattr(module, "BUDGET", 1.0)
    model = network()
    assert network_figures(model, model, split(2))["grid.end.value"].shape == (5, 5)


def test_large_data_is_thinned_and_repeats():
    data, model = split(2, n=3000), network()
    first, second = network_figures(model, model, data), network_figures(model, model, data)
    assert first["points.train.place"].shape == (900, 2) and first["depth.end.state"].shape[1] == 400
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


def test_principal_axes_of_one_point_are_still_two():
    mean, axes = principal_axes(np.ones((1, 4)))
    assert mean.shape == (4,) and axes.shape == (2, 4)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
