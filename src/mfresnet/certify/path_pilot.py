"""Pilot chains: the schedule of the certified chains, found on the same points with keys of their own.

The density ratio of a path is exact for any kernels that are fixed before the certified chains start, and only the end
of the path under P has to be free of the data. So the schedule may be chosen by looking at chains on the very points
that are certified, as long as the certified ones are fresh: the choice costs nothing (docs/path_certificate.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..bounds.path import path_bound
from ..flow.annealing import LARGEST_STEP, AnnealingSchedule
from ..flow.langevin import Chains, Kernel, Potential, advance, prices, start

TARGET = 0.6  # acceptance; the optimum of Langevin proposals is flat around 0.57
SEGMENT = 20  # steps between two adaptations of the pilot's step
GAIN = 1.5
SHORTER = 4.0  # every second step is so much shorter: a chain in a narrower mode than the pilots' goes on moving
REACH = 2.0  # the pilot anneals to gamma = REACH n
NEAR = 1.05  # pilots are short, so their prices are too large at large gamma: the last bound within this factor counts
WORSE = 1.5  # the pilot stops early, above gamma = n, where the bound exceeds its best by this factor


@dataclass(frozen=True, eq=False)
class Pilot:
    """What pilot chains saw at the ends of segments: gamma, the step that was accepted as wanted, the bound.

    Args:
        gammas, steps, bounds: shape (segments,).
        schedule: of the certified chains.
        gradients: evaluations of L and its gradient that were spent.
    """

    gammas: np.ndarray
    steps: np.ndarray
    bounds: np.ndarray
    schedule: AnnealingSchedule
    gradients: int


def find_schedule(
    potential: Potential,
    data: Any,
    size: int,
    n: int,
    key: Array,
    *,
    length: int,
    pilot_length: int,
    chains: int = 2,
    delta: float = 0.05,
    kernel: Kernel = "adjusted",
    batch: int = 0,
    leaps: int = 1,
    final: float | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Pilot:
    """The schedule of ``length`` steps that pilot chains of ``pilot_length`` steps suggest.

    The pilots anneal beyond the useful range, adapting the step to an acceptance of 0.6. The final inverse temperature
    is the largest at which the bound predicted from their mistakes and prices is within 5 % of its least value; the
    steps follow theirs, every second one a quarter of it.

    Args:
        final: the final inverse temperature, to which the pilots anneal; None leaves it to them.
    """
    whole = AnnealingSchedule.power(REACH * n if final is None else final, pilot_length)
    steps = np.array(whole.steps)
    k_start, key = jax.random.split(key)
    now = start(potential, data, size, chains, pilot_length, k_start, kernel)
    scale, seen, best = 1.0, [], 1.0
    for first in range(0, pilot_length, SEGMENT):
        last = min(first + SEGMENT, pilot_length)
        gamma = float(whole.gammas[last - 1])
        # the step that keeps the acceptance is about inverse to gamma
        steps[first:last] = step = min(LARGEST_STEP, scale / gamma)
        now = advance(
            potential, now, data, jnp.asarray(whole.gammas), jnp.asarray(steps), key, first, last, kernel, batch, leaps
        )
        accepted = _acceptance(now, whole, first, last, kernel)
        value = _predicted(now, AnnealingSchedule(whole.gammas, steps), first, last, n, delta, kernel)
        seen.append((gamma, step, value))
        best = min(best, value)
        say(f"gamma {gamma:.4g}, step {step:.3g}, acceptance {accepted:.2f}, bound {value:.4f}")
        if final is None and value > WORSE * best and gamma > n:
            break
        if step < LARGEST_STEP or accepted < TARGET:  # at the largest step, a high acceptance leaves the scale as it is
            scale = step * gamma * float(np.exp(GAIN * (accepted - TARGET)))
    gammas, used, bounds = (np.array(column) for column in zip(*seen, strict=False))
    smooth = _smooth(bounds)
    if final is None:
        final = float(gammas[int(np.flatnonzero(smooth <= NEAR * smooth.min())[-1])])
    return Pilot(gammas, used, bounds, _schedule(final, length, gammas, used), chains * leaps * SEGMENT * len(seen))


def _schedule(final: float, length: int, gammas: np.ndarray, steps: np.ndarray) -> AnnealingSchedule:
    plain = AnnealingSchedule.power(final, length)
    log_steps = np.interp(
        np.log(np.maximum(plain.gammas, 1e-9)), np.log(np.maximum(gammas, 1e-9)), np.log(_smooth(steps))
    )
    steps = np.minimum(np.exp(log_steps), LARGEST_STEP)
    steps[1::2] /= SHORTER
    return AnnealingSchedule(plain.gammas, steps)


def _acceptance(now: Chains, whole: AnnealingSchedule, first: int, last: int, kernel: Kernel) -> float:
    if kernel == "adjusted":
        return float(np.mean(np.asarray(now.acceptance[first:last])))
    # what an adjusted chain would accept: exp of the excess of the price over the fall of the potential
    losses = np.asarray(now.losses[first : last + 1], np.float64)
    fall = whole.gammas[first:last, None] * (losses[:-1] - losses[1:])
    return float(np.mean(np.exp(np.minimum(fall - np.asarray(now.increments[first:last]), 0.0))))


def _predicted(
    now: Chains, schedule: AnnealingSchedule, first: int, last: int, n: int, delta: float, kernel: Kernel
) -> float:
    """The bound of form "kl", which is quick, from the mean mistakes of a segment and the price at its end."""
    mistakes = np.nan_to_num(np.asarray(now.errors[first + 1 : last + 1], np.float64).mean(axis=0), nan=n)
    return path_bound(np.minimum(mistakes, n), prices(now, schedule, last, kernel), n, delta, form="kl")


def _smooth(values: np.ndarray, width: int = 5) -> np.ndarray:
    """Moving mean, the ends repeated."""
    width = min(width, len(values))
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")
