"""How far a finite network is from its limit, against depth and width ([D21], [Ch25], [CCM26])."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import MfresnetError
from ...model import Particles
from ...threads import cores
from ...train.cost import PROCESS_BYTES, PRODUCTS, Cost, Machine, measure_machine
from ..experiment import Cell, Experiment, Pulse, Result, Row
from ..settings import FiniteSizeSettings
from .network import Networks, Scales, train
from .problem import Problem, fill_defaults, problem, reference_size, start

NETWORKS = 16  # most networks of one program
LAYER = 2.0  # overhead of a layer, in that of `mfresnet.train.cost`


class FiniteSize(Experiment):
    """Root-mean-square distance of the state after training to that of a much larger reference network.

        error(L, M)^2 ~ (c1 / L)^2 + (c2 sqrt(D) / sqrt(L M))^2        (bias of Euler's method, sampling error)

    Networks of one size that differ in their starts only tell the two apart (`finite_size.errors`). A cell is one
    network.
    """

    name = "finite-size"
    question = "How fast does a finite network approach its limit in depth and width?"
    settings: FiniteSizeSettings

    def __init__(self, settings: FiniteSizeSettings):
        settings = fill_defaults(settings)
        super().__init__(settings)
        self.depths, self.widths = settings.depth or (), settings.width or ()
        self.dimensions = settings.dimension or ()
        self.reference = reference_size(settings)
        (depth, width), deepest, widest = self.reference, max(self.depths), max(self.widths)
        if depth <= deepest:
            raise MfresnetError(
                f"reference = {depth} is not larger than the deepest network ({deepest}): "
                f"give a value above {deepest}, three times it or more."
            )
        if width < widest:
            raise MfresnetError(
                f"reference_width = {width} is smaller than the widest network ({widest}): give {widest} or more."
            )
        # stand-ins of width 1 and 3 cost little more than their own programs would, and compile once
        self.buckets = _half_decades(max(self.widths))
        # memory is laid out for the deepest network; the loop over layers ends where each network does
        self.longest = max(self.depths)

    def cells(self) -> list[dict[str, Any]]:
        s, cells = self.settings, []
        for draw in range(s.draws or 0):
            for dimension in self.dimensions:
                common = {"draw": draw, "dimension": dimension}
                references = s.embeddings if s.preset == "embedding" else 1
                cells += [
                    common
                    | {"kind": "reference", "depth": self.reference[0], "width": self.reference[1]}
                    | {"seed": s.seed + e}
                    for e in range(references)
                ]
                cells += [
                    common | {"kind": "network", "depth": depth, "width": width, "seed": s.seed + seed}
                    for depth in self.depths
                    for width in self.widths
                    for seed in range(s.seeds)
                ]
        return cells

    def batches(self, cells: Sequence[Cell]) -> list[list[int]]:
        """What one call trains, in rising order of work; a kill costs those that are under way."""
        return sorted(self._groups(cells), key=lambda group: sum(_work(cells[place]) for place in group))

    def memory(self, cells: Sequence[Cell]) -> int:
        particles = max(self.longest, cells[0]["depth"]) * len(cells) * self._padded_width(cells[0])
        # particles, their update and what is read while it is written
        return 3 * np.dtype(self.settings.precision).itemsize * particles * (2 * cells[0]["dimension"] + 1)

    def costs(self, cells: Sequence[Cell], batches: Sequence[Sequence[int]]) -> list[Cost]:
        machine = measure_machine()
        return [self._cost([cells[place] for place in batch], machine) for batch in batches]

    def _cost(self, cells: Sequence[Cell], machine: Machine) -> Cost:
        """Of the networks that one call trains: padded to one width, in a loop over the layers of this depth."""
        s, depth, dimension = self.settings, cells[0]["depth"], cells[0]["dimension"]
        double = 2 if s.precision == "float64" else 1
        particles = double * depth * len(cells) * self._padded_width(cells[0])
        parts = {
            "layers": depth * LAYER * machine.operation,
            "activations": s.points * particles * machine.element,
            "products": s.points * particles * PRODUCTS * dimension * machine.product,
            # to read and write a number of a particle costs about as much as an activation
            "memory": particles * (2 * dimension + 1) * machine.element,
        }
        return Cost(
            counts={"networks": len(cells), "fields": s.steps},
            seconds=s.steps * sum(parts.values()),
            memory=PROCESS_BYTES + self.memory(cells),
            files=0,
            limit=max(parts, key=lambda name: parts[name]),
            exact=True,
        )

    def run(self, cells: Sequence[Cell], pulse: Pulse = lambda share: None) -> list[dict[str, Any]]:
        """Train the networks, batches of them side by side on the machine's cores."""
        groups = self.batches(cells)[::-1]  # so that the last to end is a small one
        rows: list[dict[str, Any]] = [{} for _ in cells]
        whole, done = sum(_work(cell) for cell in cells), 0
        # the loops of one network keep one core busy
        with ThreadPoolExecutor(cores()) as pool:
            waiting = {pool.submit(self._train, [cells[place] for place in group]): group for group in groups}
            try:
                for ready in as_completed(waiting):
                    for place, row in zip(waiting[ready], ready.result(), strict=True):
                        rows[place] = row
                        done += _work(cells[place])
                    pulse(done / whole)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return rows

    def _groups(self, cells: Sequence[Cell]) -> Iterable[list[int]]:
        """Places of the cells that one call trains: same problem, depth and bucket of widths."""

        def shared(place: int) -> tuple:
            cell = cells[place]
            return (cell["draw"], cell["dimension"], cell["depth"], self._padded_width(cell), self._embedding(cell))

        for _, group in groupby(sorted(range(len(cells)), key=shared), shared):
            places = list(group)
            yield from (places[first : first + NETWORKS] for first in range(0, len(places), NETWORKS))

    def _padded_width(self, cell: Cell) -> int:
        if cell["kind"] == "reference":
            return cell["width"]
        return next(bucket for bucket in self.buckets if bucket >= cell["width"])

    def _embedding(self, cell: Cell) -> int:
        """Which embedding: that of the references varies with the seed, that of the other networks is the first."""
        return cell["seed"] - self.settings.seed if cell["kind"] == "reference" else 0

    def problem(self, cell: Cell) -> Problem:
        """Data, readout and scales of a cell."""
        return problem(self.settings, cell["draw"], cell["dimension"], self._embedding(cell))

    def start(self, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
        """The particles (w, out) of a cell's network."""
        key = (cell["seed"], cell["draw"], cell["dimension"])
        return start(self.problem(cell), key, (cell["depth"], cell["width"]))

    def _train(self, cells: Sequence[Cell]) -> list[dict[str, Any]]:
        with jax.enable_x64(self.settings.precision == "float64"):  # belongs to the thread
            task, dtype = self.problem(cells[0]), np.dtype(self.settings.precision)
            depth, count = cells[0]["depth"], len(cells)
            shape = (depth if cells[0]["kind"] == "reference" else self.longest, count)
            width = self._padded_width(cells[0])
            w = np.zeros((*shape, task.inputs, width), dtype)
            out = np.zeros((*shape, task.z.shape[1], width), dtype)
            for place, cell in enumerate(cells):
                inner, outer = self.start(cell)
                w[:depth, place, :, : cell["width"]] = inner
                out[:depth, place, :, : cell["width"]] = outer
            z, f, loss = train(
                Networks(jnp.asarray(w), jnp.asarray(out), _head(task, count, dtype)),
                jnp.asarray(task.z, dtype),
                jnp.asarray(task.y, dtype),
                jnp.asarray(depth),
                jnp.asarray([cell["width"] for cell in cells], dtype),
                jnp.asarray(self.settings.steps),
                Scales(**{name: jnp.asarray(value, dtype) for name, value in task.scales.items()}),
                readout=task.readout,
                bias=task.bias,
            )
            # what is compared: the state, or with a trained head the prediction, whose scale is the output's
            seen = np.asarray(f if task.readout == "particles" else z, np.float64)
            losses = np.asarray(loss, np.float64)
        return [
            {
                "status": "completed" if np.isfinite(value).all() else "diverged",
                "loss": float(last),
                "state": value.ravel().tolist() if np.isfinite(value).all() else None,
            }
            for value, last in zip(seen, losses, strict=True)
        ]

    def analyse(self, rows: Sequence[Row]) -> Result:
        from .analysis import analyse

        return analyse(self.settings, rows)


def _work(cell: Cell) -> int:
    return cell["depth"] * max(cell["width"], 10)


def _half_decades(largest: int) -> list[int]:
    """10, 32, 100, 316, ...: the widths that networks are padded to.

    >>> _half_decades(300)
    [10, 32, 100, 316]
    """
    sizes = [10]
    while sizes[-1] < largest:
        sizes.append(round(10 ** (1 + len(sizes) / 2)))
    return sizes


def _head(task: Problem, count: int, dtype: np.dtype) -> Any:
    if task.readout != "particles":
        return None if task.head is None else jnp.asarray(task.head, dtype)
    return Particles(*(jnp.asarray(np.broadcast_to(part, (count, *part.shape)), dtype) for part in task.head))
