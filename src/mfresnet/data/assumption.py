"""Assumption 1 of [C24] (docs/theory.md, section 2), checked on the training data that are actually used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .transform import norms

UNIT = 1e-9  # a norm this close to 1 is 1
PARALLEL = 1e-8  # 1 - cosine below this: lambda_min(G) is lost in rounding


@dataclass(frozen=True)
class Assumption1:
    """What the check found.

    Args:
        max_cosine: largest <x_i, x_j>/(|x_i||x_j|) over i != j (zero rows count as 0); C_max on the sphere.
        pair: the closest two training rows, 0-based (on the sphere: those of the largest cosine).
        min_distance: their distance |x_i - x_j|.
        duplicates: rows that repeat an earlier row exactly.
        norm_min, norm_max: of the inputs.
        target_max: largest |y_i|.
        holds: whether Assumption 1 holds with C_max = max_cosine.
        sentences: the findings in words.
    """

    max_cosine: float
    pair: tuple[int, int]
    min_distance: float
    duplicates: int
    norm_min: float
    norm_max: float
    target_max: float
    holds: bool
    sentences: tuple[str, ...]


def check_assumption_1(
    x: np.ndarray, y: np.ndarray, *, block: int = 512, limit: int = 20_000, sample: int = 5_000
) -> Assumption1:
    """Whether |x_i| = 1, |y_i| <= 1 and <x_i, x_j> <= C_max < 1 for i != j ([C24], Assumption 1).

    Duplicated or nearly parallel inputs make lambda_min(G) = 0, so the worst pair is named. All pairs are compared
    in blocks (memory O(block n)) up to ``limit`` rows; above it exact duplicates are still all assumption, but
    near-parallel pairs are searched in ``sample`` rows drawn at random, and the sentence says so.

    Args:
        x: training inputs, shape (n, d), n >= 2.
        y: training targets, shape (n, C).
        block, limit, sample: see above.

    Source: [C24], Assumption 1; docs/theory.md, section 2.

    >>> assumption = check_assumption_1(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.ones((3, 1)))
    >>> assumption.holds, assumption.pair, assumption.duplicates
    (False, (0, 2), 1)
    """
    x = x + 0.0  # -0.0 and 0.0 are the same input, but not the same bytes
    length = norms(x)
    low, high, target = float(length.min()), float(length.max()), float(norms(y).max())
    repeats, duplicate = _duplicates(x)
    sampled = len(x) > limit
    rows = np.arange(len(x))
    if sampled:
        rows = np.sort(np.random.default_rng(0).choice(len(x), size=min(sample, len(x)), replace=False))
    cosine, near = _closest(x[rows], length[rows], block)
    pair = duplicate or (int(rows[near[0]]), int(rows[near[1]]))
    if duplicate:
        cosine = max(cosine, 1.0) if length[duplicate[0]] > 0 else cosine
    distance = float(norms(x[[pair[0]]] - x[[pair[1]]])[0])
    on_sphere = abs(low - 1) <= UNIT and abs(high - 1) <= UNIT
    if on_sphere and not sampled:
        cosine = 1 - distance**2 / 2  # the same number, without the rounding of the inner product

    sentences = []
    named = f"training rows {pair[0]} and {pair[1]}"
    if not on_sphere:
        sentences.append(
            f"Assumption 1 asks |x_i| = 1: the training inputs have norms from {low:.6g} to {high:.6g}, "
            "so results that rest on it are not certified."
        )
    if target > 1 + UNIT:
        sentences.append(f"Assumption 1 asks |y_i| <= 1: the largest training target has norm {target:.6g}.")
    parallel = False
    if repeats:
        sentences.append(
            f"{repeats} training row{'s repeat' if repeats > 1 else ' repeats'} an earlier one (first {named}), "
            "which makes the smallest eigenvalue of the Gram matrix zero."
        )
    elif on_sphere and cosine >= 1 - PARALLEL:
        parallel = True
        sentences.append(
            f"{named.capitalize()} are nearly parallel (1 - cosine = {1 - cosine:.1e}), which brings the smallest "
            "eigenvalue of the Gram matrix to zero."
        )
    elif not on_sphere and distance <= 1e-4 * high:
        sentences.append(
            f"{named.capitalize()} are nearly equal (distance {distance:.1e}), which brings the smallest eigenvalue "
            "of the Gram matrix near zero."
        )
    holds = on_sphere and target <= 1 + UNIT and not repeats and not parallel
    searched = f"among {len(rows)} of {len(x)} training rows drawn at random" if sampled else "over all pairs"
    if holds:
        sentences.append(
            f"Assumption 1 holds: |x_i| = 1, |y_i| <= 1 and <x_i, x_j> <= {cosine:.9g} for i != j "
            f"({searched}; closest {named})."
        )
    elif sampled:
        sentences.append(f"Exact duplicates were searched everywhere, near-parallel training rows {searched}.")
    return Assumption1(cosine, pair, distance, repeats, low, high, target, holds, tuple(sentences))


def _duplicates(x: np.ndarray) -> tuple[int, tuple[int, int] | None]:
    """How many rows repeat an earlier one, and the first such pair."""
    rows = np.ascontiguousarray(x).view(np.dtype((np.void, x.dtype.itemsize * x.shape[1]))).ravel()
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(x)))
    if not len(repeated):
        return 0, None
    return len(repeated), (int(first[which[repeated[0]]]), int(repeated[0]))


def _closest(x: np.ndarray, length: np.ndarray, block: int) -> tuple[float, tuple[int, int]]:
    """Largest cosine over pairs, and the pair of smallest distance; upper triangle, block by block."""
    unit = x / np.where(length > 0, length, 1.0)[:, None]
    square = length**2
    # |x_i - x_j|^2 - |x_i|^2 as one product, (x_i, 1).(-2 x_j, |x_j|^2): passes over the block are what costs.
    left, right = np.hstack([x, np.ones((len(x), 1))]), np.hstack([-2 * x, square[:, None]])
    best_cosine, best_distance, pair = -np.inf, np.inf, (0, 1)
    for start in range(0, len(x) - 1, block):
        stop = min(start + block, len(x))
        earlier = np.tril_indices(stop - start)  # the diagonal, and pairs seen from the other side
        cosine = unit[start:stop] @ unit[start:].T
        cosine[earlier] = -np.inf
        best_cosine = max(best_cosine, float(cosine.max()))
        gap = left[start:stop] @ right[start:].T
        gap[earlier] = np.inf
        nearest = gap.argmin(axis=1)
        distance = gap[np.arange(stop - start), nearest] + square[start:stop]
        i = int(np.argmin(distance))
        if distance[i] < best_distance:
            best_distance, pair = distance[i], (start + i, start + int(nearest[i]))
    return min(best_cosine, 1.0), pair
