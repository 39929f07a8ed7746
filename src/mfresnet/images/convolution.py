"""Convolution of images (n, height, width, channels), with padding (k - 1)/2 on every side.

Two ways to the same numbers. On an accelerator the compiler's own convolution is the fast one. On a CPU that
convolution is two orders of magnitude slower inside a loop, and a `lax.scan` over blocks or minibatches is a loop;
there k matrix products, one for each row of the kernel, take its place.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Images = Float[Array, "n height width channels"]
Kernel = Float[Array, "k k inputs outputs"]  # inputs of one group


def convolve(x: Images, kernel: Kernel, stride: int = 1, groups: int = 1) -> Images:
    """Cross-correlation with a k x k kernel, k odd, in the number format of x.

        y[n, a, b, o] = sum_{i, j, c} x[n, s a + i - p, s b + j - p, c] kernel[i, j, c, o],    p = (k - 1)/2

    Args:
        x: shape (n, H, W, C).
        kernel: shape (k, k, C/groups, outputs).
        stride: s; the output has shape (n, ceil(H/s), ceil(W/s), outputs).
        groups: the channels are split into this many groups, each with its own outputs.

    >>> convolve(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1)))[0, :, :, 0]
    Array([[4., 4.],
           [4., 4.]], dtype=float32)
    """
    by = by_products if jax.default_backend() == "cpu" else direct
    return by(x, kernel.astype(x.dtype), stride, groups)


def direct(x: Images, kernel: Kernel, stride: int = 1, groups: int = 1) -> Images:
    """`convolve` by the compiler's convolution."""
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(pad, pad), (pad, pad)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def by_products(x: Images, kernel: Kernel, stride: int = 1, groups: int = 1) -> Images:
    """`convolve` by one matrix product for each row of the kernel: three times the memory of x for k = 3."""
    k, _, inputs, outputs = kernel.shape
    _, height, width, _ = x.shape
    pad = k // 2
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0))) if pad else x

    def columns(x: Images) -> Images:
        parts = [x[:, :, j : j + width : stride] for j in range(k)]
        return jnp.concatenate(parts, axis=-1) if k > 1 else parts[0]

    def products(x: Images, kernel: Kernel) -> Images:
        x = columns(x)
        rows = [x[:, i : i + height : stride] @ kernel[i].reshape(k * inputs, -1) for i in range(k)]
        return sum(rows[1:], rows[0])

    if groups == 1:
        return products(x, kernel)
    apart = jnp.moveaxis(x.reshape(*x.shape[:3], groups, inputs), 3, 0)
    kernels = jnp.moveaxis(kernel.reshape(k, k, inputs, groups, outputs // groups), 3, 0)
    y = jax.vmap(products)(apart, kernels)
    return jnp.moveaxis(y, 0, 3).reshape(*y.shape[1:4], outputs)
