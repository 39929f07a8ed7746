"""All networks of a run (rules x seeds), in as few compiled programs as memory allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import is_out_of_memory
from .minibatches import HostImages, ImageData, device_memory
from .program import StateTuple, Trainers, advance, concatenate, epoch_order, evaluate
from .training import ImageState, ImageTrainer

States = dict[str, ImageState]  # of the seeds of each rule
Group = tuple[tuple[str, ...], slice]  # rules, and which of the seeds
TEST_BATCH = 500
MEMORY_SHARE = 0.9  # share of the device's memory that a program may need


def group_networks(rules: Sequence[str], seeds: int, most: int) -> list[Group]:
    """Networks in groups of at most ``most``: whole rules where one fits, else seeds of one rule, evenly.

    >>> group_networks(["plain", "mean-field"], 3, 6)
    [(('plain', 'mean-field'), slice(0, 3, None))]
    >>> group_networks(["plain"], 3, 2)
    [(('plain',), slice(0, 2, None)), (('plain',), slice(2, 3, None))]
    """
    if most >= seeds:
        at_once = most // seeds
        return [(tuple(rules[k : k + at_once]), slice(0, seeds)) for k in range(0, len(rules), at_once)]
    size = -(-seeds // -(-seeds // most))
    return [((rule,), slice(k, min(k + size, seeds))) for rule in rules for k in range(0, seeds, size)]


@dataclass
class Ensemble:
    """The networks of a run and their images.

    Args:
        trainers: one for each rule; they differ in it only.
        seeds: the same under every rule.
        train, test: the images, on the device or on the host.
        at_once: most networks of a compiled program; None for as many as the device's memory holds.
    """

    trainers: dict[str, ImageTrainer]
    seeds: list[int]
    train: ImageData | HostImages
    test: ImageData | HostImages
    at_once: int | None = None
    _limit: int = field(default=0, init=False)

    @property
    def shared(self) -> ImageTrainer:
        """One of the trainers, for what all of them share."""
        return next(iter(self.trainers.values()))

    def init(self) -> States:
        """The states before the first step."""
        return {name: trainer.init(np.asarray(self.seeds, np.uint32)) for name, trainer in self.trainers.items()}

    @property
    def max_steps(self) -> int:
        """Most steps of one call of `advance`."""
        return self.train.window_steps(len(self.seeds), self.shared.batch) or self.shared.per_epoch

    def advance(self, states: States, count: int) -> States:
        """``count`` steps further, within one epoch and at most `max_steps`; the given states are used up."""
        done, first = int(next(iter(states.values())).step[0]), self.shared
        epoch, place = divmod(done, first.per_epoch)
        after: dict[str, list[ImageState]] = {name: [] for name in states}
        for rules, seeds in self.groups(states):
            trainers, own = self._select(states, rules, seeds)
            data, rows, start = self._window(own[0].seed, epoch, place)
            stepped = advance((trainers, data, rows, jnp.asarray(start, jnp.int32), jnp.asarray(count, jnp.int32)), own)
            for name, state in zip(rules, stepped, strict=True):
                after[name].append(state)
        return {name: concatenate(after[name]) for name in self.trainers if name in after}

    def evaluate(self, states: States) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean cross-entropy (without smoothing) and share of wrong classes in evaluation, each of shape (seeds,)."""
        batch = min(TEST_BATCH, len(self.test))
        results: dict[str, list[np.ndarray]] = {name: [] for name in states}
        for rules, seeds in self.groups(states):
            trainers, own = self._select(states, rules, seeds)
            networks = len(rules) * len(own[0].seed)
            totals = jnp.zeros(networks), jnp.zeros(networks, jnp.int32)
            for data, real in self.test.parts(batch):
                totals = evaluate(trainers, own, data, jnp.asarray(real, jnp.int32), totals, batch)
            means = np.stack([np.asarray(total, np.float64) / len(self.test) for total in totals])
            for name, part in zip(rules, np.split(means, len(rules), axis=1), strict=True):
                results[name].append(part)
        return {name: tuple(np.concatenate(results[name], axis=1)) for name in self.trainers if name in results}

    def groups(self, states: Mapping[str, ImageState]) -> list[Group]:
        """The groups that are trained as one program each, one after the other.

        Without ``at_once`` the program of all networks is compiled, and the memory that its compiler reports is
        compared with the device's; the number of networks is halved until it fits. One network is always tried.
        """
        # in the order of the rules: a tree that was restored or mapped has sorted names, and sums depend on the order
        names, seeds = [name for name in self.trainers if name in states], len(self.seeds)
        if self.at_once:
            return group_networks(names, seeds, self.at_once)
        if not self._limit:
            self._limit = len(names) * seeds
            while self._limit > 1 and not self._fits(states, group_networks(names, seeds, self._limit)[0]):
                self._limit = -(-self._limit // 2)
        return group_networks(names, seeds, self._limit)

    def _fits(self, states: Mapping[str, ImageState], group: Group) -> bool:
        needs = self._bytes_of(states, group)
        return needs is None or needs <= MEMORY_SHARE * device_memory()

    def program_bytes(self, states: Mapping[str, ImageState]) -> float | None:
        """Memory of the largest program, where the compiler reports it."""
        return self._bytes_of(states, self.groups(states)[0])

    def _bytes_of(self, states: Mapping[str, ImageState], group: Group) -> float | None:
        """Memory of a group's program; None where the compiler does not report it, infinite where it finds none."""
        trainers, own = self._select(states, *group)
        data, rows, _ = self._window(own[0].seed, 0, 0)
        number = jnp.zeros((), jnp.int32)
        try:
            program = advance.lower((trainers, data, rows, number, number), own).compile().compiled
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return float("inf")
        needs = program.memory_analysis()
        if needs is None:
            return None
        kept = needs.argument_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
        return kept + needs.temp_size_in_bytes

    def _select(
        self, states: Mapping[str, ImageState], rules: tuple[str, ...], seeds: slice
    ) -> tuple[Trainers, StateTuple]:
        own = tuple(states[name] for name in rules)
        if seeds != slice(0, len(self.seeds)):
            own = jax.tree.map(lambda leaf: leaf[seeds], own)
        return tuple(self.trainers[name] for name in rules), own

    def _window(self, seeds: jax.Array, epoch: int, place: int) -> tuple[ImageData, jax.Array, int]:
        """Images, the rows among them of the steps from ``place`` on, and which of these steps is the first."""
        batch, held = self.shared.batch, self.train.window_steps(len(self.seeds), self.shared.batch)
        rows = epoch_order(seeds, jnp.asarray(epoch, jnp.int32), self.shared.n)
        if held is None:
            return *self.train.window(rows), place
        # always the same number, for one program; rows past the epoch's end are not used
        wanted = jnp.arange(place * batch, (place + held) * batch)
        return *self.train.window(jnp.take(rows, wanted, axis=1, mode="clip")), 0
