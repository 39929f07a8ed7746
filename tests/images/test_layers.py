"""Convolution, normalisation and the sizes of the networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet import MfresnetError
from mfresnet.images import Architecture, BatchNorm, GroupNorm, ImageResNet, make_rule, norm
from mfresnet.images.convolution import by_parts, by_products, direct


@pytest.mark.parametrize(("size", "stride", "groups"), [(3, 1, 1), (3, 2, 2), (1, 2, 1)])
def test_both_convolutions_are_the_sum(size, stride, groups, x64):
    """Against the formula, written out over the kernel."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(size, size, 4 // groups, 6))
    pad = size // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = np.zeros((2, -(-5 // stride), -(-6 // stride), 6))
    for a in range(expected.shape[1]):
        for b in range(expected.shape[2]):
            patch = padded[:, a * stride : a * stride + size, b * stride : b * stride + size]
            for o in range(6):
                inputs = slice(o // (6 // groups) * (4 // groups), (o // (6 // groups) + 1) * (4 // groups))
                expected[:, a, b, o] = np.sum(patch[..., inputs] * kernel[..., o], (1, 2, 3))
    for way in (by_products, by_parts, direct):
        np.testing.assert_allclose(way(jnp.asarray(x), jnp.asarray(kernel), stride, groups), expected, atol=1e-12)


@pytest.mark.parametrize(("n", "size", "stride", "groups"), [(8, 3, 1, 1), (7, 3, 2, 2), (6, 1, 1, 1), (5, 3, 2, 1)])
def test_derivatives_of_a_convolution_by_parts(n, size, stride, groups, x64):
    """In parts of 4, of all 7, of 3 and of 5 images, against automatic differentiation of the whole."""
    kx, kw, ks = jax.random.split(jax.random.key(0), 3)
    x, w = jax.random.normal(kx, (n, 5, 6, 4)), jax.random.normal(kw, (size, size, 4 // groups, 6))
    slope = jax.random.normal(ks, by_products(x, w, stride, groups).shape)
    ways = [
        jax.grad(lambda x, w, way=way: jnp.vdot(slope, way(x, w, stride, groups)), (0, 1))(x, w)
        for way in (by_parts, by_products)
    ]
    for part, whole in zip(*ways, strict=True):
        np.testing.assert_allclose(part, whole, atol=1e-11)  # sums of up to 210 products, in another order


def test_batch_statistics(x64):
    """Training and evaluation against NumPy; running variance with the count less one."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 2, 5))
    scale, offset = np.arange(1.0, 6), np.arange(5.0)
    layer = eqx.tree_at(lambda n: (n.scale, n.offset), BatchNorm.create(5), (jnp.asarray(scale), jnp.asarray(offset)))
    y, state = layer(jnp.asarray(x), layer.start(), True)
    flat = x.reshape(-1, 5)
    expected = scale * (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5) + offset
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(state.mean, 0.1 * flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state.variance, 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-12)
    y, same = layer(jnp.asarray(x), state, False)
    expected = scale * (x - state.mean) / np.sqrt(np.asarray(state.variance) + 1e-5) + offset
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-10)
    assert same is state


def test_group_statistics(x64):
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 12))
    y, _ = GroupNorm.create(12)(jnp.asarray(x), (), True)  # 4 groups of 3
    parts = x.reshape(2, 3, 3, 4, 3)
    mean, var = parts.mean((1, 2, 4), keepdims=True), parts.var((1, 2, 4), keepdims=True)
    np.testing.assert_allclose(y, ((parts - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "millions"),
    # He et al. 2016 (deep residual learning, table 6; identity mappings, table 4), Xie et al. 2017 (table 7)
    [
        ("resnet20", 0.27),
        ("resnet32", 0.46),
        ("resnet44", 0.66),
        ("resnet56", 0.85),
        ("resnet110", 1.73),
        ("bottleneck164", 1.70),
        ("resnext29-8x64d", 34.4),
        ("resnext29-16x64d", 68.1),
    ],
)
def test_sizes_are_the_published_ones(name, millions):
    network = eqx.filter_eval_shape(ImageResNet.create, jax.random.key(0), Architecture.named(name))
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(network) if hasattr(leaf, "shape"))
    assert abs(count / 1e6 - millions) < 0.01 * millions + 0.01


def test_families_hold_what_keeps_its_shape():
    places = Architecture.named("resnet20").places
    assert [(place.first, place.count) for place in places] == [(1, 3), (5, 2), (8, 2)]
    assert [place.count for place in Architecture.named("bottleneck164").places] == [17, 17, 17]
    assert [place.count for place in Architecture.named("resnet8").places] == [1, 0, 0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Architecture.named("resnet21"), "6n \\+ 2 layers, such as 20 or 26"),
        (lambda: Architecture.named("bottleneck20000000"), "unknown model"),
        (lambda: Architecture.named("resnet2"), "such as 8 or 14"),
        (lambda: Architecture.named("vgg16"), "unknown model 'vgg16'"),
        (lambda: Architecture.named("resnext29"), "unknown model"),
        (lambda: Architecture.named("resnext29-0x64d"), "group without channels"),
        (lambda: make_rule("mean-feild"), "did you mean 'mean-field'"),
        (lambda: make_rule("plain", survival=0.5), "no option among survival"),
        (lambda: norm("layer", 3), "unknown norm 'layer'"),
    ],
)
def test_mistakes_are_one_sentence(call, words):
    with pytest.raises(MfresnetError, match=words):
        call()
