"""Small models of users: a residual perceptron, a transformer and a convolutional net, drawn by fan-in."""

import jax
import jax.numpy as jnp

from mfresnet.experiments.own_transfer import Task

POINTS = 32


def drawn(key, *shape, fan_in):
    return jax.random.normal(key, shape) / fan_in**0.5


def norm(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def through(block, h, layers):
    return jax.lax.scan(lambda h, layer: (block(h, layer), None), h, layers)[0]


def task(params, stream, read, x, y, groups):
    def loss(params):
        return 0.5 * jnp.mean((read(params, stream(params, x)) - y) ** 2)

    return Task(params, loss, lambda params: stream(params, x[:8]), groups)


def perceptron(depth, width, seed):
    k = jax.random.split(jax.random.key(seed), 6)
    params = {
        "embed": drawn(k[0], 3, width, fan_in=3),
        "w": drawn(k[1], depth, width, width, fan_in=width),
        "b": jnp.zeros((depth, width)),
        "u": drawn(k[2], depth, width, width, fan_in=width),
        "out": drawn(k[3], width, 1, fan_in=width),
    }
    x = jax.random.normal(k[4], (POINTS, 3))

    def stream(p, x):
        return through(
            lambda h, layer: h + jnp.tanh(norm(h) @ layer["w"] + layer["b"]) @ layer["u"],
            x @ p["embed"],
            {n: p[n] for n in "wbu"},
        )

    groups = {"embed": "input", "w": "hidden", "b": "vector", "u": "residual", "out": "output"}
    return task(params, stream, lambda p, h: norm(h) @ p["out"], x, jnp.sign(x[:, :1] * x[:, 1:2]), groups)


def transformer(depth, width, seed):
    k = jax.random.split(jax.random.key(seed), 9)
    square = lambda key: drawn(key, depth, width, width, fan_in=width)  # noqa: E731
    params = {
        "embed": drawn(k[0], 4, width, fan_in=4),
        "layers": {name: square(key) for name, key in zip(("q", "k", "v", "o", "w", "u"), k[1:7], strict=True)},
        "out": drawn(k[7], width, 1, fan_in=width),
    }
    x = jax.random.normal(k[8], (POINTS, 6, 4))
    chosen = jnp.take_along_axis(x[:, :, 0], jnp.argmax(x[:, :, 1], axis=1)[:, None], axis=1)

    def block(h, layer):
        z = norm(h)
        weights = jax.nn.softmax((z @ layer["q"]) @ jnp.swapaxes(z @ layer["k"], 1, 2) / width, axis=-1)
        h = h + weights @ (z @ layer["v"]) @ layer["o"]
        return h + jnp.tanh(norm(h) @ layer["w"]) @ layer["u"]

    groups = {"embed": "input", "layers": "hidden", "layers.o": "residual", "layers.u": "residual", "out": "output"}
    return task(
        params, lambda p, x: through(block, x @ p["embed"], p["layers"]),
        lambda p, h: jnp.mean(norm(h), axis=1) @ p["out"], x, jnp.sign(chosen), groups,
    )  # fmt: skip


def convolution(depth, width, seed):
    k = jax.random.split(jax.random.key(seed), 5)
    params = {
        "embed": drawn(k[0], 3, 3, 1, width, fan_in=9),
        "layers": {
            "w": drawn(k[1], depth, 3, 3, width, width, fan_in=9 * width),
            "u": drawn(k[2], depth, 3, 3, width, width, fan_in=9 * width),
        },
        "out": drawn(k[3], width, 1, fan_in=width),
    }
    x = jax.random.normal(k[4], (POINTS, 6, 6, 1))
    y = jnp.sign(jnp.sum(x[:, 1:] * x[:, :-1], axis=(1, 2)))

    def conv(h, w):
        return jax.lax.conv_general_dilated(h, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def block(h, layer):
        return h + conv(jnp.tanh(conv(norm(h), layer["w"])), layer["u"])

    groups = {"embed": "input", "layers.w": "hidden", "layers.u": "residual", "out": "output"}
    return task(
        params, lambda p, x: through(block, conv(x, p["embed"]), p["layers"]),
        lambda p, h: jnp.mean(norm(h), axis=(1, 2)) @ p["out"], x, y, groups,
    )  # fmt: skip
