"""The loop of image training: all rules of a job, breath by breath, from any state to the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import jax
import numpy as np

from .ensemble import Everyone
from .job import ImageJob
from .training import ImageState

BREATH = 2.0  # seconds between looks at the clock and at Ctrl-C


def lost_seeds(state: ImageState) -> np.ndarray:
    """Which seeds left the finite numbers: a network that did never comes back."""
    return ~np.isfinite(np.asarray(state.tally.loss))


@dataclass
class Loop:
    """Rules advance side by side; one that has no seed left ends with its epoch, and the others go on.

    Everything but the pace is a function of the states, so that a loop begun from a checkpoint goes on to the bit.

    Args:
        states: of each rule; they are used up.
    """

    job: ImageJob
    states: Everyone
    pace: float = field(default=1.0, init=False)  # steps that fill a breath

    @property
    def done(self) -> int:
        """Steps so far, of the rules that go on."""
        return max(int(state.step[0]) for state in self.states.values())

    @property
    def epoch(self) -> int:
        """Whole epochs so far."""
        return self.done // self.job.networks.first.per_epoch

    @property
    def between_epochs(self) -> bool:
        """Whether an epoch has just ended."""
        return self.done % self.job.networks.first.per_epoch == 0

    @property
    def going(self) -> list[str]:
        """The rules that are not at their end."""
        return [name for name in self.job.trainers if not self._ended(self.states[name])]

    def _ended(self, state: ImageState) -> bool:
        done, first = int(state.step[0]), self.job.networks.first
        return done == first.steps or (bool(lost_seeds(state).all()) and done % first.per_epoch == 0)

    def advance(self) -> list[str]:
        """About one breath of steps, within the epoch, to the end on the device; returns the rules that moved."""
        networks, going = self.job.networks, self.going
        rest = networks.first.per_epoch - self.done % networks.first.per_epoch
        count = int(np.clip(self.pace, 1, min(rest, networks.longest)))
        begun = time.perf_counter()
        self.states = self.states | networks.advance({name: self.states[name] for name in going}, count)
        jax.block_until_ready([self.states[name].step for name in going])
        self.pace = max(1.0, count * BREATH / max(time.perf_counter() - begun, 1e-6))
        return going
