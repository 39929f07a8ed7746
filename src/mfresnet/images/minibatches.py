"""Minibatches: from the whole set on the device as bytes or, where that does not fit, from rows sent by the host.

Either way a compiled program reads a window: images on the device, and the rows among them that each step of each seed
takes. The numbers are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax import Array
from jaxtyping import Int, UInt8

DATA_SHARE = 0.5  # of the device's memory that the images may take
WINDOW = 2**26  # bytes of images sent at once


class ImageData(eqx.Module):
    """Images as bytes and their labels, on the device."""

    x: UInt8[Array, "n height width channels"]
    y: Int[Array, " n"]

    def __len__(self) -> int:
        return self.y.shape[0]

    def window_steps(self, seeds: int, batch: int) -> int | None:
        """Steps that a window holds; None where it holds an epoch."""
        return None

    def window(self, rows: Int[Array, "seeds steps*batch"]) -> tuple[ImageData, Array]:
        """The images, and the rows among them."""
        return self, rows

    def parts(self, batch: int) -> Iterator[tuple[ImageData, int]]:
        """The set in pieces that the device holds, each with the number of its images that count."""
        yield self, len(self)


@dataclass(frozen=True)
class HostImages:
    """Images that stay in the memory of the host; a window holds the rows of a few steps.

    >>> host = HostImages(np.zeros((6, 4, 4, 3), np.uint8), np.arange(6))
    >>> data, rows = host.window(jnp.array([[4, 1], [2, 4]]))
    >>> data.y[rows].tolist()
    [[4, 1], [2, 4]]
    """

    x: np.ndarray
    y: np.ndarray
    most: int = WINDOW

    def __len__(self) -> int:
        return len(self.y)

    def window_steps(self, seeds: int, batch: int) -> int | None:
        """Steps that a window of ``most`` bytes holds, at least one and at most an epoch."""
        return max(1, min(len(self) // batch, self.most // (seeds * batch * self.x[0].nbytes)))

    def window(self, rows: Int[Array, "seeds steps*batch"]) -> tuple[ImageData, Array]:
        """The images of these rows, sent to the device, and the rows among them."""
        wanted = np.asarray(rows).ravel()
        return to_device(self.x[wanted], self.y[wanted]), jnp.arange(len(wanted), dtype=rows.dtype).reshape(rows.shape)

    def parts(self, batch: int) -> Iterator[tuple[ImageData, int]]:
        """Pieces of one size, a multiple of ``batch``; the last is filled up with images that do not count."""
        size = batch * max(1, min(-(-len(self) // batch), self.most // (batch * self.x[0].nbytes)))
        for start in range(0, len(self), size):
            rows = np.arange(start, start + size)
            yield to_device(self.x.take(rows, 0, mode="clip"), self.y.take(rows, mode="clip")), len(self) - start


def to_device(x: np.ndarray, y: np.ndarray) -> ImageData:
    """A set on the device."""
    return ImageData(jnp.asarray(x, jnp.uint8), jnp.asarray(y, jnp.int32))


def device_memory() -> int:
    """Bytes of the device that this process may use; of a CPU those of the machine."""
    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit") or psutil.virtual_memory().total)
