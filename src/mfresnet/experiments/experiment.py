"""What an experiment is: cells that can be run in any order, and what their results say together.

A sweep (`mfresnet.runs.sweeps`) drives an experiment: it asks for the cells and for the batches that run as one
piece of work, runs what is missing, keeps each cell's row, and has the rows analysed. An experiment itself touches
no file and prints nothing, and all it knows is in its settings, so that a cell is the same cell on every machine.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ..config import Section

if TYPE_CHECKING:
    from ..train.cost import Cost

Cell = Mapping[str, Any]  # what tells one cell from another: flat, in JSON's own types
Row = Mapping[str, Any]  # a cell and what came out: "status" ("completed" or "diverged") and measured values, flat
Pulse = Callable[[float], None]  # told the share of a batch that is done; may raise `Stopped`


class Stopped(Exception):
    """Somebody asked to stop: a batch is left where it is, its cells are not done."""


@runtime_checkable
class Checkpoints(Protocol):
    """Where a long batch saves its state, so that it goes on from there (`Experiment.resume`)."""

    def newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, a tree of the structure of ``like``, and its facts; None where there is none."""

    def save(self, step: int, state: Any, facts: Mapping[str, Any]) -> None:
        """Save a tree of arrays, and facts in JSON's own types."""


class NoCheckpoints:
    """Saves nothing."""

    def newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """Nothing."""
        return None

    def save(self, step: int, state: Any, facts: Mapping[str, Any]) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Plot:
    """A figure of a result, as Plotly takes it; colours by role, as in `mfresnet.report.parts`."""

    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    aspect: float | None = None


@dataclass(frozen=True)
class Result:
    """What the cells say together.

    Args:
        verdict: one sentence.
        passed: whether the question of the experiment was answered with yes; None where it is none of yes and no.
        fit: fitted numbers by name, each with its interval.
        points: the numbers behind the figures, one flat row a point.
        figures: pictures.
        notes: what a reader should know: cells that diverged, rules that were applied.
    """

    verdict: str
    passed: bool | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    points: Sequence[Mapping[str, Any]] = ()
    figures: Sequence[Plot] = ()
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, Any]:
        """The result in JSON's own types (numbers may still be NaN)."""
        return asdict(self)


class Experiment(abc.ABC):
    """A question, its cells and its answer.

    Args:
        settings: the experiment's own typed tree; its class is named in `mfresnet.experiments.registry`.
    """

    name: ClassVar[str]
    question: ClassVar[str]

    def __init__(self, settings: Section):
        self.settings = settings

    @abc.abstractmethod
    def cells(self) -> list[dict[str, Any]]:
        """Every cell, in a fixed order; its place is its name.

        Raises:
            MfresnetError: an empty grid, or settings that contradict each other.
        """

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        """Which cells run together, as places in ``cells``; each cell in exactly one batch.

        A batch is always run whole, so that its numbers do not depend on what was done before.
        """
        return [[place] for place in range(len(cells))]

    def data_sums(self, cells: Sequence[Cell]) -> dict[str, str]:
        """SHA-256 of each data set by name, as far as it may change between two runs of the same cells."""
        return {}

    def costs(self, cells: Sequence[Cell], batches: Sequence[Sequence[int]]) -> list[Cost] | None:
        """What each batch costs on this machine; None where no model of it is known."""
        return None

    def memory(self, cells: Sequence[Cell]) -> int:
        """Bytes that a batch of these cells needs, about; 0 where that is little."""
        return 0

    @abc.abstractmethod
    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        """The measured values of each cell, with its "status"; a cell that diverges says so and harms no other."""

    def resume(self, cells: Sequence[Cell], pulse: Pulse, checkpoints: Checkpoints) -> list[dict[str, Any]]:
        """`run`, from where a batch was left that was stopped or killed; one of few minutes starts again."""
        return self.run(cells, pulse)

    @abc.abstractmethod
    def analyse(self, rows: Sequence[Row]) -> Result:
        """What all rows (cell and measured values, in order) say; diverged ones among them are named."""


def divergence_notes(rows: Sequence[Row], of: str = " of fits") -> list[str]:
    """A sentence about the rows that diverged, or nothing.

    >>> divergence_notes([{"status": "completed"}, {"status": "diverged"}])
    ['1 of 2 cells diverged and is left out of fits.']
    """
    bad = sum(row["status"] == "diverged" for row in rows)
    return [f"{bad} of {len(rows)} cells diverged and {'is' if bad == 1 else 'are'} left out{of}."] if bad else []


def completed_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows that did not diverge."""
    return [row for row in rows if row["status"] == "completed"]
