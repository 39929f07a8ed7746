"""Learning rates over training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from ..errors import unknown_name

MILESTONES = (0.5, 0.75)  # of the epochs: 80 and 120 of 160, 150 and 225 of 300 (theory, section 10)
SCHEDULES = ("step", "cosine", "constant")


def schedule(name: str, rate: Any, steps: int, warmup: int = 0) -> Callable[[Any], Array]:
    """The learning rate of each step 0 .. steps - 1.

        step:      rate, divided by 10 at steps/2 and at 3 steps/4
        cosine:    rate (1 + cos(pi step/steps))/2
        constant:  rate

    times (step + 1)/warmup in the first ``warmup`` steps.

    Raises:
        MfresnetError: nobody knows the name.

    >>> rates = schedule("step", 0.1, 160)
    >>> [round(float(rates(step)), 6) for step in (0, 79, 80, 120)]
    [0.1, 0.1, 0.01, 0.001]
    """
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)

    def at(step: Any) -> Array:
        step = jnp.asarray(step)
        if name == "step":
            passed = sum((step >= round(part * steps)).astype(jnp.int32) for part in MILESTONES)
            value = rate * 0.1**passed
        elif name == "cosine":
            value = rate * (1 + jnp.cos(jnp.pi * step / steps)) / 2
        else:
            value = jnp.asarray(rate)
        return value * jnp.minimum(1.0, (step + 1) / warmup) if warmup else value * jnp.ones(())

    return at
