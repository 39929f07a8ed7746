"""Inverse temperatures and steps of an annealed chain, fixed before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import MfresnetError

RISE = 0.8  # share of the steps in which the inverse temperature rises
EXPONENT = 3.0
LARGEST_STEP = 0.1


@dataclass(frozen=True, eq=False)
class AnnealingSchedule:
    """gamma_1 <= ... <= gamma_T, the inverse temperatures, and e_1 .. e_T, the Langevin steps in (0, 2).

    Args:
        gammas: non-negative and not decreasing, shape (T,), T >= 2; rounded to float32, which the chains use.
        steps: shape (T,).

    Raises:
        MfresnetError: what cannot be a schedule.

    >>> AnnealingSchedule.power(100.0, 10).gammas.round().tolist()[-4:]
    [67.0, 100.0, 100.0, 100.0]
    >>> AnnealingSchedule([2.0, 1.0], [0.1, 0.1])
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: the inverse temperatures fall at step 2 (2 to 1): give a schedule that rises.
    """

    gammas: np.ndarray
    steps: np.ndarray

    def __init__(self, gammas: Any, steps: Any) -> None:
        gammas, steps = (np.asarray(values, np.float64) for values in (gammas, steps))
        if gammas.ndim != 1 or gammas.shape != steps.shape or len(gammas) < 2:
            raise MfresnetError(
                f"a schedule of shapes {gammas.shape} and {steps.shape} is too short or of unequal lengths: give at "
                "least 2 inverse temperatures and as many steps."
            )
        if not (np.all(np.isfinite(gammas)) and gammas[0] >= 0):
            raise MfresnetError("the inverse temperatures must be finite and not negative: start at 0 or above.")
        falls = np.flatnonzero(np.diff(gammas) < 0)
        if len(falls):
            k = int(falls[0])
            raise MfresnetError(
                f"the inverse temperatures fall at step {k + 2} ({gammas[k]:g} to {gammas[k + 1]:g}): give a schedule "
                "that rises."
            )
        if not np.all((steps > 0) & (steps < 2)):
            raise MfresnetError(f"steps between {steps.min():g} and {steps.max():g}: give steps between 0 and 2.")
        # one value of gamma enters both the acceptance and the density ratio
        object.__setattr__(self, "gammas", gammas.astype(np.float32))
        object.__setattr__(self, "steps", steps.astype(np.float32))

    def __len__(self) -> int:
        return len(self.gammas)

    @classmethod
    def power(
        cls, final: float, length: int, *, step: float = 1.0, largest: float = LARGEST_STEP, exponent: float = EXPONENT
    ) -> AnnealingSchedule:
        """gamma_k = final min(1, k/(0.8 T))^exponent and e_k = min(largest, step/gamma_k).

        Slow at high temperature, where the price c falls most per step, and at rest for the last fifth.

        Raises:
            MfresnetError: a final inverse temperature that is not above 0, or fewer than 2 steps.
        """
        if not (np.isfinite(final) and final >= 0):
            raise MfresnetError(f"final inverse temperature {final} is not allowed: give a finite number >= 0.")
        if length < 2:
            raise MfresnetError(f"a schedule of {length} steps is too short: give at least 2.")
        k = np.arange(1, length + 1)
        gammas = final * np.minimum(1.0, k / (RISE * length)) ** exponent
        return cls(gammas, np.minimum(largest, step / np.maximum(gammas, step / largest)))
