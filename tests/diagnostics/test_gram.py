"""The closed-form Gram matrices against their definition by the Jacobian (theory, section 4)."""

import importlib
import json
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfresnet.errors import MfresnetError
from mfresnet.kernels.gram import gram, gram_operator
from mfresnet.kernels.output_adjoint import output_adjoint
from mfresnet.kernels.precision import cast, double_precision
from mfresnet.model import LayeredResNet, Particles, activation

gram_module = importlib.import_module("mfresnet.kernels.gram")  # the package names its function so too

REFERENCE = Path(__file__).parents[1] / "reference" / "finite_network.json"

VARIANTS = {
    "plain": {},
    "three outputs": {"outputs": 3},
    "no bias": {"bias": False},
    "no head": {"head": False, "outputs": 3},
    "no head, no bias, embedding": {"head": False, "outputs": 4, "embedding": 4, "bias": False},
    "shared": {"shared": True},
    "shared, two outputs, no bias": {"shared": True, "outputs": 2, "bias": False},
    "embedding": {"embedding": 5, "outputs": 2},
    "one layer": {"depth": 1},
    "one particle": {"width": 1, "head_width": 1},
    "relu": {"sigma": "relu"},
    "wide (sum over layers)": {"width": 40, "inputs": 6},
}


def network(seed=1, **changes):
    sizes = {"inputs": 3, "depth": 4, "width": 6, "head_width": 7, "alpha": 1.7, "beta": 1.3} | changes
    return LayeredResNet.create(jax.random.key(seed), **sizes)


def points(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@partial(jax.jit, static_argnums=2)
def jacobians(model, x, argnums):
    """J_nu and J_tau of g = f / beta by automatic differentiation, rows (i, c)."""

    def outputs(encoder, head):
        moved = eqx.tree_at(lambda m: (m.encoder, m.head), model, (encoder, head), is_leaf=lambda v: v is None)
        values = moved(x).reshape(-1)
        return values if head is None else values / model.beta

    found = jax.jacrev(outputs, argnums=argnums)(model.encoder, model.head)
    return [[leaf.reshape(leaf.shape[0], -1) for leaf in jax.tree.leaves(part)] for part in found]


def by_definition(model, x):
    """G1 = (L M / alpha^2) J_nu J_nu^T and G2 = K J_tau J_tau^T."""
    with double_precision():
        exact = cast(model, jnp.float64)
        found = jacobians(exact, jnp.asarray(x), (0,) if model.head is None else (0, 1))
    j = [np.concatenate([np.asarray(leaf) for leaf in part], axis=1) for part in found]
    particles = model.encoder.w.shape[0] * model.encoder.width
    g1 = particles / float(model.alpha) ** 2 * j[0] @ j[0].T
    return g1, np.zeros_like(g1) if model.head is None else model.head.width * j[1] @ j[1].T


def close(found, wanted, relative=1e-10):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= relative * max(np.abs(wanted).max(), 1e-300)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_gram_is_the_jacobian_contraction_and_the_operator_its_product(changes):
    model = network(**changes)
    x = points(10, changes.get("inputs", 3))
    g1, g2 = by_definition(model, x)
    # two sets of points, in blocks whose last is not full
    result = gram(model, x[:7], block=3)
    outputs = result.outputs
    assert outputs == len(g1) // 10
    own, rest = slice(0, 7 * outputs), slice(7 * outputs, None)
    close(result.encoder, g1[own, own])
    close(result.head, g2[own, own])
    close(result.total, float(model.alpha) ** 2 * g1[own, own] + g2[own, own])
    for part, matrix in (("encoder", result.encoder), ("head", result.head), ("total", result.total)):
        assert np.linalg.matrix_rank(matrix) <= result.ranks[part] == gram_operator(model, x).ranks[part]
    cross = gram(model, x[:7], other=x[7:], block=3)
    close(cross.encoder, g1[own, rest])
    close(cross.head, g2[own, rest])
    operator = gram_operator(model, x)
    v = points(1, operator.shape[0], seed=2)[0]
    close(operator.matvec_head(v), g2 @ v)
    close(operator.matvec(v), float(model.alpha) ** 2 * (g1 @ v) + g2 @ v)
    if changes in ({}, VARIANTS["shared, two outputs, no bias"]):  # the total contains the encoder's part
        close(operator.matvec_encoder(v), g1 @ v)
        close(operator.part("encoder") @ v, g1 @ v)


def test_more_rows_than_parameters_have_the_rank_of_the_parameters():
    """u, w and b of 2 x 2 particles on 3 states are 28 numbers, a, w and b of 3 head particles 15."""
    model = network(depth=2, width=2, head_width=3)
    result = gram(model, points(60, 3))
    assert result.ranks == {"encoder": 28, "head": 15, "total": 43}
    found = [np.linalg.matrix_rank(matrix) for matrix in (result.encoder, result.head, result.total)]
    assert found == [28, 15, 43]


@settings(max_examples=4, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 5)] * 6),
    shared=st.booleans(),
    bias=st.booleans(),
    alpha=st.floats(0.1, 10),
    seed=st.integers(0, 2**16),
)
def test_gram_on_random_shapes(sizes, shared, bias, alpha, seed):
    inputs, depth, width, head_width, outputs, n = sizes
    model = network(
        seed, inputs=inputs, depth=depth, width=width, head_width=head_width, outputs=outputs, shared=shared,
        bias=bias, alpha=alpha,
    )  # fmt: skip
    x = points(n, inputs, seed)
    result = gram(model, x)
    g1, g2 = by_definition(model, x)
    close(result.encoder, g1)
    close(result.head, g2)


def test_reference_network():
    """The Gram matrices and adjoints of the reference come from central differences (error about 1e-9)."""
    known = json.loads(REFERENCE.read_text())
    d, width = known["d"], known["M"]
    with double_precision():
        nu, tau = (jnp.asarray(known[name], jnp.float64) for name in ("nu", "tau"))
        model = LayeredResNet(
            encoder=Particles(nu[..., :d], nu[..., d : 2 * d], nu[..., 2 * d]),
            head=Particles(tau[:, :1], tau[:, 1 : 1 + d], tau[:, 1 + d]),
            embedding=None,
            alpha=jnp.asarray(known["alpha"], jnp.float64),
            beta=jnp.asarray(known["beta"], jnp.float64),
            sigma=activation(known["activation"]),
            depth=known["L"],
        )
    assert model.encoder.width == width
    result = gram(model, known["x"])
    np.testing.assert_allclose(result.encoder, known["G1"], atol=1e-7)
    np.testing.assert_allclose(result.head, known["G2"], atol=1e-7)
    np.testing.assert_allclose(output_adjoint(model, known["x"])[:, :, 0], known["q"], atol=1e-8)


@pytest.mark.parametrize("changes", [{"outputs": 2}, {"shared": True}, {"width": 40, "inputs": 6}])
def test_blocks_change_nothing(changes):
    model, x = network(**changes), points(11, changes.get("inputs", 3))
    whole = gram(model, x, block=11)
    for block in (4, 100):
        parts = gram(model, x, block=block)
        close(parts.encoder, whole.encoder, 1e-12)
        close(parts.head, whole.head, 1e-12)
        np.testing.assert_array_equal(parts.total, parts.total.T)
    only = gram(model, x, hold="total")
    assert only.encoder is None and only.head is None
    close(only.total, whole.total, 1e-12)


@pytest.mark.parametrize("changes", [{"outputs": 2}, {"shared": True}, {"width": 40, "inputs": 6}])
def test_scarce_memory_changes_nothing(changes, monkeypatch):
    """Features computed again for each pair, and particles treated in small groups, give the same matrix."""
    model, x = network(**changes), points(9, changes.get("inputs", 3))
    ample = gram(model, x, block=5)
    monkeypatch.setattr(gram_module, "FEATURE_BYTES", 0)
    monkeypatch.setattr(gram_module, "CHUNK_BYTES", 5 * 2 * 7 * 8 * 4)
    close(gram(model, x, block=5).total, ample.total, 1e-12)


def test_float32_is_close_and_the_global_switch_stays():
    model, x = network(), points(6, 3)
    single = gram(model, x, dtype="float32")
    assert single.total.dtype == np.float32 and gram(model, x).total.dtype == np.float64
    close(single.total, gram(model, x).total, 1e-5)
    assert jnp.ones(1).dtype == jnp.float32


def test_without_residual_branch():
    """alpha = 0: the state does not move, q is the head's, and G = G2."""
    result = gram(network(alpha=0.0), points(5, 3))
    np.testing.assert_array_equal(result.total, result.head)
    assert np.linalg.eigvalsh(result.encoder)[0] > -1e-12


def test_one_point_half_precision_and_whole_numbers():
    model = network()
    assert gram(model, points(1, 3)).total.shape == (1, 1)
    half = points(3, 3).astype(np.float16)
    np.testing.assert_array_equal(gram(model, half).total, gram(model, half.astype(np.float64)).total)
    assert gram(model, [[1, 0, 2]]).total.shape == (1, 1)
    bfloat = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model)
    assert np.isfinite(gram(bfloat, half).total).all()


def test_equal_rows_are_named():
    x = points(5, 3)
    x[4] = x[1]
    assert "rows 1 and 4" in gram(network(), x).notes[0]
    assert "rows 1 and 4" in gram_operator(network(), x).notes[0]
    assert gram(network(), x[:4]).notes == ()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 2)), "x has 2 columns, but 3 are expected"),
        (np.zeros(3), "x has shape"),
        (np.zeros((0, 3)), "x has no rows"),
        ([[0, 0, 0], [0, float("nan"), 0]], "x has nan in row 1, column 1"),
        ([[0, 0, float("inf")]], "x has inf in row 0, column 2"),
        ([["a", "b", "c"]], "not a table of real numbers"),
        (np.zeros((2, 3), complex), "complex"),
    ],
)
def test_bad_inputs_are_one_sentence(x, message):
    for function in (gram, gram_operator, output_adjoint):
        with pytest.raises(MfresnetError, match=message):
            function(network(), x)


@pytest.mark.usefixtures("unchecked")
def test_bad_options_are_one_sentence():
    model, x = network(), points(3, 3)
    with pytest.raises(MfresnetError, match="empirical_gram"):
        gram(network(scheme="rk4"), x)
    with pytest.raises(MfresnetError, match="dtype = float16"):
        gram(model, x, dtype="float16")
    with pytest.raises(MfresnetError, match="block = 0"):
        gram(model, x, block=0)
    with pytest.raises(MfresnetError, match="hold"):
        gram(model, x, hold="some")
    with pytest.raises(MfresnetError, match="other has 2 columns"):
        gram(model, x, other=np.zeros((2, 2)))
    with pytest.raises(MfresnetError, match="length 4: give one of length 3"):
        gram_operator(model, x).matvec(np.ones(4))
    with pytest.raises(MfresnetError, match="part = 'body'"):
        gram_operator(model, x).part("body")
