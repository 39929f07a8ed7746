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

# raised inside PyTorch by torch.func itself
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")


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
            y = torch.zeros(3)
            y += self.weight * x[0]
            return y[None]

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
