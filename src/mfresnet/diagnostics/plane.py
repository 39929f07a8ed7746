"""The plane in which decision regions are drawn, and the way back from it to the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 1000  # points that fix the principal axes: enough for a picture
MARGIN = 0.12  # of the data's range, around it


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and the first two principal axes (2, d), signs fixed so that pictures repeat.

    >>> mean, axes = principal_axes(np.array([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]]))
    >>> axes
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    if len(x) > SAMPLE:
        x = x[np.linspace(0, len(x) - 1, SAMPLE).round().astype(int)]
    x = np.asarray(x, np.float64)
    mean = x.mean(axis=0)
    axes = np.linalg.svd(x - mean, full_matrices=False)[2][:2]
    if len(axes) < 2:  # a single point spans nothing: any two axes serve
        axes = np.eye(2, x.shape[1])
    largest = axes[np.arange(2), np.argmax(np.abs(axes), axis=1)]
    return mean, axes * np.sign(largest)[:, None] + 0.0  # + 0.0 turns -0 into 0


@dataclass(frozen=True)
class Plane:
    """Coordinates (first, second) = axes @ x of inputs, and one input for each pair of coordinates.

    Two inputs are drawn as they are. Otherwise the axes are the first two principal axes and the
    input of a pair lies in the plane through the data's mean; when all data has one norm (the
    sphere), its part outside the two axes is stretched until the input has that norm too, so that
    the network is only asked about places where data can be.

    Args:
        origin: part of the data's mean that is orthogonal to the axes, (d,).
        axes: orthonormal, (2, d).
        radius: the norm of the data, or 0 where it has no single norm.

    >>> x = np.random.default_rng(0).normal(size=(50, 3)) + 2
    >>> plane = Plane.of(x / np.linalg.norm(x, axis=1, keepdims=True))
    >>> places, inside = plane.points(np.array([[0.1, 0.2], [2.0, 0.0]]))
    >>> float(round(np.linalg.norm(places[0]), 6)), inside.tolist()
    (1.0, [True, False])
    """

    origin: np.ndarray
    axes: np.ndarray
    radius: float

    @classmethod
    def of(cls, x: np.ndarray) -> Plane:
        """The plane of these training inputs (n, d), d >= 2."""
        if x.shape[1] == 2:
            return cls(np.zeros(2), np.eye(2), 0.0)
        mean, axes = principal_axes(x)
        norms = np.linalg.norm(x, axis=1)
        on_sphere = norms.max() > 0 and np.ptp(norms) <= 1e-4 * norms.max()
        origin = mean - axes.T @ (axes @ mean)
        if on_sphere and np.linalg.norm(origin) < 1e-3 * norms.max():
            # data all around the sphere has no side of its own: look at it along a third axis
            residual = x - (x @ axes.T) @ axes
            origin = residual[np.argmax(np.linalg.norm(residual, axis=1))]
        return cls(origin, axes, float(norms.mean()) if on_sphere else 0.0)

    def coordinates(self, x: np.ndarray) -> np.ndarray:
        """Where inputs (n, d) are drawn, (n, 2)."""
        return x @ self.axes.T

    def points(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The input (n, d) of each pair of coordinates (n, 2), and whether there is one on the sphere."""
        flat = pairs @ self.axes
        if self.radius == 0:
            return flat + self.origin, np.ones(len(pairs), bool)
        rest = self.radius**2 - np.sum(flat**2, axis=1)
        length = np.linalg.norm(self.origin)
        away = self.origin / length if length > 0 else self.origin
        return flat + np.sqrt(np.maximum(rest, 0))[:, None] * away, rest >= 0

    def grid(self, x: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Grid coordinates that cover the data with a margin, square cells, the longer side ``side``."""
        places = self.coordinates(x)
        low, high = places.min(axis=0), places.max(axis=0)
        centre, half = (low + high) / 2, (high - low).max() * (0.5 + MARGIN) or 1.0
        return tuple(np.linspace(c - half, c + half, side) for c in centre)

    def arrays(self) -> dict[str, np.ndarray]:
        """The plane as arrays by name."""
        return {"plane.origin": self.origin, "plane.axes": self.axes, "plane.radius": np.array([self.radius])}
