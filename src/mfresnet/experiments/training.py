"""Experiments whose cells are training runs: the base of `rate`, `phase`, `transfer`, `kl` and `grid`."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar

from ..config import Config, DataConfig, build, merge, nest
from ..data import Split
from ..errors import MfresnetError
from ..flow import TrainState
from ..train.cost import Cost, measure_machine, predict_cost, total_cost
from ..train.job import data_facts, load_split
from . import batching
from .experiment import Cell, Experiment, Pulse
from .settings import SweepSettings
from .vectorised import Outcome, Training, train_together


class TrainingExperiment(Experiment):
    """Each cell is one training; what a cell measures beside its scores is the experiment's own.

    The values of a cell whose names have a dot, and "seed", are settings of its `mfresnet.config.Config`, over the
    sections ``data``, ``model`` and ``train`` of the experiment's settings.
    """

    settings: SweepSettings
    looks = 1  # how often `look` sees the state of a cell
    looks_at_states = False
    owned: ClassVar[Mapping[str, str]] = {}  # settings that the grid overwrites, and what to do instead

    def __init__(self, settings: SweepSettings):
        super().__init__(settings)
        self.refuse(self.owned)
        self._loaded: dict[tuple[DataConfig, int], Split] = {}

    def refuse(self, owned: Mapping[str, str]) -> None:
        """Refuse settings that would be ignored, as the grid has its own values for them.

        Raises:
            MfresnetError: one of ``owned`` differs from its default.
        """
        defaults = type(self.settings)()
        for name, instead in owned.items():
            value = attrgetter(name)(self.settings)
            if value != attrgetter(name)(defaults):
                raise MfresnetError(f"{name} = {value} has no effect, as {name} is the grid's: {instead}.")

    def config(self, cell: Cell) -> Config:
        """The configuration of a cell.

        Raises:
            MfresnetError: a value that is not allowed.
        """
        own = {name: value for name, value in cell.items() if "." in name or name == "seed"}
        common = self.settings.model_dump(include={"data", "model", "train"})
        return build(merge(common, nest(self.derived(own))))

    def derived(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The settings of a cell from its values; by default they are the settings."""
        return values

    def training(self, cell: Cell) -> Training:
        """The training of a cell."""
        return Training.of(self.config(cell), self.split(cell))

    def split(self, cell: Cell) -> Split:
        """The data of a cell, loaded once for all cells that share it."""
        config = self.config(cell)
        wanted = (config.data, config.seed)
        if wanted not in self._loaded:
            self._loaded[wanted] = load_split(config)
        return self._loaded[wanted]

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        trainings = [self.training(cell) for cell in cells]
        return batching.batches([training.program for training in trainings], [training.n for training in trainings])

    def data_sums(self, cells: Sequence[Cell]) -> dict[str, str]:
        for cell in cells:
            self.split(cell)
        sums: dict[str, Any] = {}
        for split in self._loaded.values():  # in the order of the cells
            sums.setdefault(split.train.name, hashlib.sha256()).update(data_facts(split)["sha256"].encode())
        return {name: content.hexdigest() for name, content in sums.items()}

    def costs(self, cells: Sequence[Cell], batches: Sequence[Sequence[int]]) -> list[Cost]:
        machine, costs = measure_machine(), []
        for batch in batches:
            trainings = [self.training(cells[place]) for place in batch]
            # points that pad the smaller data sets of a batch are computed, too
            n, program = max(training.n for training in trainings), trainings[0].program
            costs.append(
                total_cost([predict_cost(one.config, n, program.inputs, program.outputs, machine) for one in trainings])
            )
        return costs

    def memory(self, cells: Sequence[Cell]) -> int:
        trainings = [self.training(cell) for cell in cells]
        return len(trainings) * trainings[0].program.cell_bytes(max(training.n for training in trainings))

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        trainings = [self.training(cell) for cell in cells]
        look = self.look if self.looks_at_states else None
        outcomes = train_together(trainings, looks=self.looks, look=look, pulse=pulse)
        rows = []
        for training, outcome in zip(trainings, outcomes, strict=True):
            measured = self.measure(training, outcome) if outcome.status == "completed" else {}
            rows.append({**outcome.row(), **measured})
        return rows

    def look(self, state: TrainState) -> Any:
        """What is kept of a state while training (with ``looks_at_states``)."""
        return None

    def measure(self, training: Training, outcome: Outcome) -> dict[str, Any]:
        """What a completed training measures beside its scores; called in the precision of the diagnostics."""
        return {}

    @abc.abstractmethod
    def cells(self) -> list[dict[str, Any]]: ...


def check_grid(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells, unless there are none or more than anybody can want.

    Raises:
        MfresnetError: an empty grid, or one of more than a million cells.
    """
    if not cells:
        raise MfresnetError("the grid of this sweep is empty: give at least one value for each of its settings.")
    if len(cells) > 1_000_000:
        raise MfresnetError(f"the grid has {len(cells)} cells: give fewer values or seeds, at most 1000000 cells.")
    return cells
