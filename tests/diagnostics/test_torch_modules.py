"""PyTorch modules: the same numbers as the JAX route, and a sentence for what has no Jacobian point by point."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet import MfresnetError, empirical_gram

torch = pytest.importorskip("torch")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from mfresnet import torch as bridge

pytestmark = pytest.mark.usefixtures("loose_promotion")


def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()


def as_jax(net):
    params = {name: jnp.asarray(leaf.detach().numpy()) for name, leaf in net.named_parameters()}

    def f(p, x):
        return jnp.tanh(x @ p["0.weight"].T + p["0.bias"]) @ p["2.weight"].T + p["2.bias"]

    return f, params


def test_gram_and_operator_are_those_of_jax(x64):
    net, rng = module(), np.random.default_rng(0)
    x, v = rng.normal(size=(7, 3)), rng.normal(size=14)
    f, params = as_jax(net)
    expected = empirical_gram(f, params, x)
    for block in (None, 3):
        np.testing.assert_allclose(bridge.gram(net, x, block=block), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bridge.gram(net, x, other=x[:2]), expected[:, :4], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(bridge.gram_operator(net, x, block=3).matvec(v), expected @ v, rtol=1e-12)
    lowest = bridge.lambda_min(net, x)
    assert abs(lowest.value - np.linalg.eigvalsh(expected)[0]) <= 2 * lowest.error
    net[0].requires_grad_(False)
    frozen = empirical_gram(f, params, x, groups={"last": "2"})["last"]
    np.testing.assert_allclose(bridge.gram(net, x), frozen, rtol=1e-12, atol=1e-13)


def test_what_has_no_jacobian_point_by_point():
    class InPlace(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x):
            y = torch.zeros(x.shape)
            y += self.weight * x
            return y

    x = torch.ones(2, 3)
    cases = {
        "BatchNorm1d '1' is in training mode": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)),
        "Dropout '1' is in training mode": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout()),
        "set inplace=False": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(inplace=True)),
        "in place": InPlace(),
        "no parameter of the module requires a gradient": torch.nn.Linear(3, 2).requires_grad_(False),
    }
    for sentence, net in cases.items():
        with pytest.raises(MfresnetError, match=sentence):
            bridge.gram(net, x)
    batch_norm = cases["BatchNorm1d '1' is in training mode"].eval()
    assert bridge.gram(batch_norm, x).shape == (4, 4)
    with pytest.raises(MfresnetError, match="NaN or infinite"):
        bridge.gram(torch.nn.Linear(3, 2), x * float("nan"))


class Own(torch.nn.Module):
    """A module with one parameter whose forward pass is a function."""

    def __init__(self, call):
        super().__init__()
        self.weight, self.call = torch.nn.Parameter(torch.ones(3)), call

    def forward(self, x):
        return self.call(x, self.weight)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda x, w: {}["lost"], r"in float64 at x of shape \(2, 3\), failed with KeyError \('lost'\)"),
        (lambda x, w: x @ torch.ones(3, 3) * w, "failed with RuntimeError"),
        (lambda x, w: (x * w, 1), "makes tuple of x"),
        (lambda x, w: (x * w).sum(), r"makes \(\) of x of shape \(2, 3\)"),
        (lambda x, w: (x * w).detach(), "have no derivative by its parameters"),
        (lambda x, w: torch.log(-torch.exp(x * w)), "returns NaN or infinity"),
        (lambda x, w: (x - x.mean(0)) * w, "couples the points of a batch"),
        (lambda x, w: torch.nn.functional.dropout(x * w, 0.5), "draws at random"),
        (lambda x, w: x * w if (x * w).sum().item() > 0 else -x * w, "failed with RuntimeError"),
    ],
)
def test_a_module_without_jacobian_is_one_sentence(call, sentence):
    x = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    with pytest.raises(MfresnetError, match=sentence):
        bridge.gram(Own(call), x)
    with pytest.raises(MfresnetError, match=sentence):
        bridge.gram_operator(Own(call), x).matvec(np.ones(6))


@pytest.mark.parametrize("block", [0, -1, 2.5])
def test_blocks_that_are_no_sizes(block):
    net, x = torch.nn.Linear(3, 1), torch.ones(4, 3)
    for call in (
        bridge.gram,
        bridge.gram_operator,
        lambda *parts, block: bridge.held_out(*parts, [1, -1] * 2, block=block),
    ):
        with pytest.raises(MfresnetError, match="give a whole number >= 1"):
            call(net, x, block=block)


def test_what_has_no_held_out_certificate():
    """A module in training mode would be another predictor in use, and its statistics would move."""
    net, x = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.BatchNorm1d(1)), torch.ones(4, 2)
    with pytest.raises(MfresnetError, match=r"BatchNorm1d '1' is in training mode"):
        bridge.held_out(net, x, [1, -1, 1, 1])
    assert float(net[1].running_mean) == 0
    for outputs, y, sentence in (
        (1, [0, 1, 1, 0], r"label 0, and a module with 1 outputs predicts -1 and \+1"),
        (3, [0, 1, 3, 0], "label 3, and a module with 3 outputs predicts 0 to 2"),
        (1, [np.nan, 1, 1, 1], "label nan"),
        (1, list("abcd"), "label 'a'"),
        (1, [1, 1, 1, 1], "all labels are 1"),
    ):
        with pytest.raises(MfresnetError, match=sentence):
            bridge.held_out(torch.nn.Linear(2, outputs), x, y)
    with pytest.raises(MfresnetError, match="give at least one point"):
        bridge.held_out(torch.nn.Linear(2, 1), x[:0], [])
    with pytest.raises(MfresnetError, match="the module failed with RuntimeError"):
        bridge.held_out(torch.nn.Linear(3, 1), x, [1] * 4)


def test_held_out_takes_arrays_of_any_precision():
    net, x, y = torch.nn.Linear(2, 1), torch.randn(6, 2), torch.tensor([1.0, -1, 1, -1, 1, 1], requires_grad=True)
    values = {bridge.held_out(net, points, y).value for points in (x, x.double(), x.double().numpy())}
    assert len(values) == 1


def test_predictors_of_tokens():
    net = torch.nn.Sequential(torch.nn.Embedding(5, 2), torch.nn.Flatten(), torch.nn.Linear(6, 1))
    f, prior = bridge.predictor(net)
    params = jax.tree.map(lambda leaf: np.ones_like(leaf), prior.mean)
    slopes = jax.grad(lambda p: jnp.sum(f(p, jnp.zeros((4, 3), jnp.int32))))(params)
    assert float(slopes["2.bias"][0]) == 4
    with pytest.raises(MfresnetError, match=r"the module, at x of shape \(4, 2\), failed with RuntimeError"):
        f(params, jnp.zeros((4, 2), jnp.int32))
    with pytest.raises(MfresnetError, match="std is a str"):
        bridge.predictor(net, "wide")


def test_held_out_counts_mistakes():
    net = torch.nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        net.weight[:] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-9.0, -9.0]])
    x = torch.tensor([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [float("nan"), 1.0]])
    certificate = bridge.held_out(net, x, [0, 1, 1, 0])
    assert certificate.details["errors"] == 2
    with pytest.raises(MfresnetError, match="4 points have 3 labels"):
        bridge.held_out(net, x, [0, 1, 1])


def test_the_predictor_of_a_module_is_that_of_jax():
    """Value and derivative, of one set of parameters and of several chains."""
    net = module().float()
    f, prior = bridge.predictor(net)
    g, _ = as_jax(net)
    params = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(leaf.size), (2, *leaf.shape)), prior.mean)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)

    def loss(h):
        return jax.jit(jax.vmap(jax.value_and_grad(lambda p: jnp.sum(h(p, x) ** 2))))

    for a, b in zip(*(jax.tree.leaves(loss(h)(params)) for h in (f, g)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    with pytest.raises(MfresnetError, match="std and the parameters differ in"):
        bridge.predictor(net, {"0.weight": 1.0})
