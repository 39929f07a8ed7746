"""What the networks of the finite-size experiment are trained on, and how they start ([Ch25], arXiv 2509.10167)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..settings import FiniteSizeSettings

Size = tuple[int, int]  # depth L and width M
DATA, READOUT, PARTICLES = range(3)  # streams of random numbers of a draw


def fill_defaults(settings: FiniteSizeSettings) -> FiniteSizeSettings:
    """The settings with the defaults of their preset filled in.

    >>> fill_defaults(FiniteSizeSettings(preset="embedding")).reference
    316
    """
    sizes, wide = (1, 3, 10, 32, 100), settings.preset == "embedding"
    sizes = sizes if wide else (*sizes, 316)
    defaults = {"depth": sizes, "width": sizes, "reference": 316 if wide else 1000, "draws": 6 if wide else 3}
    defaults |= {"dimension": (16, 32, 64) if wide else (10,)}
    return settings.model_copy(update={n: v for n, v in defaults.items() if getattr(settings, n) is None})


def reference_size(settings: FiniteSizeSettings) -> tuple[int, int]:
    """Depth and width of the reference."""
    depth = settings.reference or 0
    return depth, settings.reference_width or depth


class Problem(NamedTuple):
    """Data, readout and scales: all that the networks of one draw and dimension share.

    Args:
        z: states at s = 0, shape (N, D).
        y: targets, shape (N, C).
        readout: "state", "linear" or "particles" (`finite_size.network.READOUTS`).
        head: of the readout: None, R (D, C), or the particles (a, w, b) of the head.
        scales: alpha, gain, rate, beta and head_rate (`finite_size.network.Scales`).
        std: of the particles' entries at the start.
        bias: whether the particles have one.
    """

    z: np.ndarray
    y: np.ndarray
    readout: str
    head: Any
    scales: dict[str, float]
    std: float
    bias: bool

    @property
    def inputs(self) -> int:
        """Entries of an input weight, the bias included."""
        return self.z.shape[1] + self.bias


def problem(settings: FiniteSizeSettings, draw: int, dimension: int, embedding: int = 0) -> Problem:
    """The problem of a draw of (X, Y).

    - ``chizat`` [Ch25]: the state is the prediction, X, Y and the particles Gaussian, the last with entries of standard
      deviation sqrt(D), gain 1/D, step size D.
    - ``embedding`` [CCM26]: the same after z_0 = E x, E of entries N(0, 1/d), with a fixed readout f = R^T z_L / D, R
      of entries N(0, 1); both are drawn from ``embedding``.
    - ``own``: the scaled ResNet of [C24] with bias and head on points of the sphere with labels -1 and 1. Every
      network of a draw starts with the same head, so that the limit L, M -> infinity has that head too. A step of
      size h = step N/(20 beta^2) follows the gradient flow by Euler's method.
    """
    rng, n = np.random.default_rng([settings.seed, draw, DATA]), settings.points
    if settings.preset == "own":
        x = rng.normal(size=(n, dimension))
        rng_head, k = np.random.default_rng([settings.seed, draw, READOUT]), settings.head_width
        h = settings.step * n / (20 * settings.beta**2)
        return Problem(
            z=x / np.linalg.norm(x, axis=1, keepdims=True),
            y=np.where(np.arange(n) % 2, 1.0, -1.0)[:, None],
            readout="particles",
            head=tuple(rng_head.normal(size=shape) for shape in ((k, 1), (k, dimension), (k,))),
            scales={"alpha": settings.alpha, "gain": 1.0, "rate": settings.alpha * h}
            | {"beta": settings.beta, "head_rate": h},
            std=1.0,
            bias=True,
        )
    scales = {"alpha": settings.alpha, "gain": 1 / dimension, "rate": settings.step * dimension}
    scales |= {"beta": 1.0, "head_rate": 0.0}
    if settings.preset == "chizat":
        x, y = rng.normal(size=(2, n, dimension))
        return Problem(x, y, "state", None, scales, dimension**0.5, bias=False)
    inputs = settings.inputs
    x, y = rng.normal(size=(2, n, inputs))
    own = np.random.default_rng([settings.seed, draw, READOUT, dimension, embedding])
    e, r = own.normal(size=(2, dimension, inputs))
    return Problem(x @ e.T / inputs**0.5, y, "linear", r, scales, dimension**0.5, bias=False)


def start(problem: Problem, key: tuple[int, ...], size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Independent Gaussian particles w (L, I, M) and out (L, D, M) of one network, in float32.

    They depend on ``key`` and the size alone: a network is the same one whatever runs beside it, in any precision.
    """
    (depth, width), state = size, problem.z.shape[1]
    rng = np.random.default_rng([*key, PARTICLES, depth, width])
    scale = np.float32(problem.std)
    w = rng.standard_normal((depth, problem.inputs, width), np.float32) * scale
    return w, rng.standard_normal((depth, state, width), np.float32) * scale
