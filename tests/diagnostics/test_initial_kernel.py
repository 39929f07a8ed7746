"""The kernel at the start against the reference, its closed forms, quadrature and a wide network."""

import json
from fractions import Fraction
from pathlib import Path

import jax
import numpy as np
import pytest

from mfresnet.errors import MfresnetError
from mfresnet.kernels.gram import gram
from mfresnet.kernels.initial_kernel import hermite_weights, initial_kernel
from mfresnet.model import LayeredResNet

KNOWN = json.loads((Path(__file__).parents[1] / "reference" / "initial_kernel.json").read_text())
X = np.array(KNOWN["x"])
LONG = np.random.default_rng(0).normal(size=(5, 3))


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_reference(name):
    kernel = initial_kernel(X, name)
    np.testing.assert_allclose(kernel.gram, KNOWN[name], rtol=1e-8)
    assert abs(kernel.lambda_min.value - KNOWN[f"{name}_lambda_min"]) < 1e-8
    assert kernel.lambda_min.error < 1e-12
    short = initial_kernel(X, name, terms=60)
    assert abs(short.lower_bound - KNOWN[f"{name}_hermite_lower_bound_60_terms"]) < 1e-9
    assert abs(short.lambda_min.value - KNOWN[f"{name}_lambda_min"]) <= short.lambda_min.error + 1e-9
    assert 0 < kernel.lower_bound < kernel.row_bound < kernel.lambda_min.lower


@pytest.mark.parametrize("name", ["erf", "relu"])
@pytest.mark.parametrize("x", [X, LONG, 4 * LONG], ids=["sphere", "general", "long"])
def test_series_and_closed_form(name, x):
    closed, series = initial_kernel(x, name), initial_kernel(x, name, method="hermite")
    assert closed.method == "closed form"
    # the stated error holds, and it is what separates the two
    difference = np.abs(closed.gram - series.gram).sum(axis=1).max()
    assert difference <= series.lambda_min.error + 1e-12 * np.trace(closed.gram)
    assert abs(closed.lambda_min.value - series.lambda_min.value) <= series.lambda_min.error + closed.lambda_min.error
    np.testing.assert_allclose(series.gram, closed.gram, rtol=1e-5)


@pytest.mark.parametrize("name", ["tanh", "gelu", "softplus", "sigmoid", "sin"])
def test_series_and_quadrature(name):
    series, quadrature = (initial_kernel(LONG / 2, name, method=m) for m in ("hermite", "quadrature"))
    np.testing.assert_allclose(series.gram, quadrature.gram, atol=2e-4)
    assert series.lambda_min.error < 1e-3 * series.lambda_min.value


def test_a_wide_network_at_its_start():
    model = LayeredResNet.create(jax.random.key(0), inputs=4, depth=1, width=2, head_width=20_000, alpha=0.0)
    found = gram(model, X).head
    np.testing.assert_allclose(found, KNOWN["tanh"], atol=0.08)


@pytest.mark.parametrize("name", ["tanh", "erf", "relu", "gelu"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_bounds_are_below_the_eigenvalue(name, scale):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 40))
    x *= scale / np.linalg.norm(x, axis=1, keepdims=True)
    kernel = initial_kernel(x, name)
    assert 0 <= kernel.lower_bound <= kernel.row_bound <= kernel.lambda_min.value + kernel.lambda_min.error
    uneven = initial_kernel(x * rng.uniform(0.5, 1.5, size=(6, 1)), name)
    assert 0 <= uneven.lower_bound <= uneven.row_bound <= uneven.lambda_min.value + uneven.lambda_min.error


def test_hermite_weights_of_relu():
    """relu(s t) = s relu(t): c_0 = s / sqrt(2 pi), c_1 = s / 2, c_2 = s / sqrt(4 pi), c_3 = 0."""
    found = hermite_weights("relu", [3.0], 4)[0] / np.sqrt(1 + np.arange(4))
    np.testing.assert_allclose(found, [3 / np.sqrt(2 * np.pi), 1.5, 3 / np.sqrt(4 * np.pi), 0], atol=1e-13)


def exact_relu_entry(x: np.ndarray, i: int, j: int) -> float:
    """Cho & Saul's kernel with the angle from rational arithmetic, for i != j."""
    rows = [[Fraction(float(v)) for v in row] for row in x]
    v = [[sum((a * b for a, b in zip(r, s, strict=True)), Fraction(1)) for s in rows] for r in rows]
    angle = np.arcsin(np.sqrt(float(1 - v[i][j] ** 2 / (v[i][i] * v[j][j]))))  # below pi/2: inputs nearly parallel
    return (np.sqrt(float(v[i][i] * v[j][j])) * np.sin(angle) + 2 * float(v[i][j]) * (np.pi - angle)) / (2 * np.pi)


@pytest.mark.parametrize("angle", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("method", ["closed form", "hermite"])
def test_the_error_contains_the_rounding_of_the_entries(angle, method):
    """Of nearly parallel inputs rho is 1 up to rounding, where relu's kernel is steep."""
    x = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    kernel = initial_kernel(x, "relu", method=method)
    exact = np.array([[x[i] @ x[i] + 1 if i == j else exact_relu_entry(x, i, j) for i in (0, 1)] for j in (0, 1)])
    (a, b), (_, c) = exact
    lowest = (a + c) / 2 - np.hypot((a - c) / 2, b)
    assert abs(kernel.lambda_min.value - lowest) <= kernel.lambda_min.error
    if method == "closed form":
        assert kernel.lambda_min.error < 1e-14 / angle + 1e-12  # a few eps/angle: d angle = d rho / sin(angle)


def test_one_point_and_equal_points():
    one = initial_kernel(X[:1], "tanh")
    assert one.gram.shape == (1, 1)
    assert one.lambda_min.value == pytest.approx(KNOWN["tanh"][0][0], rel=1e-8)
    assert one.lower_bound == pytest.approx(one.lambda_min.value, rel=1e-6)
    twice = initial_kernel(np.concatenate([X, X[1:2]]), "tanh")
    assert "rows 1 and 5" in twice.notes[0]
    assert abs(twice.lambda_min.value) <= twice.lambda_min.error and twice.lower_bound == 0


def test_bad_input_is_one_sentence():
    with pytest.raises(MfresnetError, match="nan in row 0, column 1"):
        initial_kernel([[0.0, np.nan]], "tanh")
    with pytest.raises(MfresnetError, match="unknown activation"):
        initial_kernel(X, "tanhh")
    with pytest.raises(MfresnetError, match="no closed form"):
        initial_kernel(X, "tanh", method="closed form")
    with pytest.raises(MfresnetError, match="method = 'guess'"):
        initial_kernel(X, "tanh", method="guess")
    with pytest.raises(MfresnetError, match="terms = 1"):
        initial_kernel(X, "tanh", terms=1)


@pytest.mark.parametrize("length", [1e2, 1e4, 1e8])
def test_long_inputs(length):
    """Inputs in raw units make the activation a step, whose slope lives on an interval of length 1/|x|."""
    x = length * LONG
    v = np.sum(x**2, axis=1) + 1
    exact = 2 / np.pi * (np.arctan2(v, np.sqrt(1 + 2 * v)) + v / np.sqrt(1 + 2 * v))
    closed, series = (initial_kernel(x, "erf", method=m) for m in ("closed form", "hermite"))
    for kernel in (closed, series):
        np.testing.assert_allclose(np.diag(kernel.gram), exact, rtol=1e-12)
    assert abs(closed.lambda_min.value - series.lambda_min.value) <= series.lambda_min.error + closed.lambda_min.error


def test_quadrature_that_does_not_resolve_the_activation_is_in_the_error():
    """E[sin^2 + v cos^2] = (1 + v - (1 - v) exp(-2 v))/2 of one input; at |x| = 1e3 no rule of these nodes knows it."""
    for length in (3.0, 1e3):
        v = length**2 + 1
        kernel = initial_kernel([[length]], "sin", method="hermite")
        assert abs(kernel.lambda_min.value - (1 + v - (1 - v) * np.exp(-2 * v)) / 2) <= kernel.lambda_min.error
