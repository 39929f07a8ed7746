"""Which trainings run as one compiled program, and padded to how many points.

Trainings with the same `Program` differ only in arrays: seed, data, learning rate, alpha, beta, horizon of the flow.
The number of points may differ too, as points of weight 0 change nothing; but they are computed all the same, so the
sizes are put into buckets. A bucket costs a compilation, a padded point costs its share of every step: `buckets`
finds the cheapest partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import Config
from ..data import Split
from ..train.memory import activation_bytes, memory_estimate

BATCH_BYTES = 2**30  # of one batch; a constant, so that the same sweep has the same batches on every machine
BATCH_CELLS = 256  # most cells of one batch: what a kill can cost
# Measured on two cores: a compilation takes about 2 s, one particle on one point in one step 1.5 ns.
COMPILE_SECONDS, POINT_SECONDS = 2.0, 1.5e-9


@dataclass(frozen=True)
class Program:
    """What trainings of one compiled program share.

    Args:
        template: the configuration with a stand-in for all that may differ.
        inputs, outputs, task: of the data.
        n: points, where they must agree (mini-batches: every epoch has whole batches), else None.
    """

    template: Config
    inputs: int
    outputs: int
    task: str
    n: int | None

    @classmethod
    def of(cls, config: Config, split: Split) -> Program:
        """The program of a settled configuration (`mfresnet.train.job.settled`)."""
        train, model = config.train, config.model
        # every other section stays at its defaults
        template = Config.model_validate({}).model_copy(
            update={
                "model": model.model_copy(update={"alpha": 1.0, "beta": 1.0}),
                "train": train.model_copy(
                    update={
                        "learning_rate": None if train.rule == "gradient-flow" else 1.0,
                        "time": 1.0,
                        "time_unit": "plain",
                        "tolerance": 1e-3,
                    }
                ),
            }
        )
        n, inputs = split.train.x.shape
        exact = None if train.batch_size is None else n
        return cls(template, inputs, split.train.y.shape[1], split.train.task, exact)

    def point_cost(self) -> float:
        """Seconds that one point costs over the whole training, about."""
        model, train = self.template.model, self.template.train
        return POINT_SECONDS * (model.depth * model.width + model.head_width) * (train.steps or 1)

    def cell_bytes(self, n: int) -> int:
        """Memory of one training on ``n`` points, about: a floor doubled, and its activations."""
        points = min(n, self.template.train.batch_size or n)
        floor = memory_estimate(self.template, self.inputs, self.outputs, n)
        return 2 * floor + activation_bytes(self.template, self.inputs, points)


def buckets(sizes: Sequence[int], point_cost: float, compile_cost: float = COMPILE_SECONDS) -> list[int]:
    """The sizes to pad to: the partition of ``sizes`` into runs that costs least, each padded to its largest.

    Args:
        sizes: points of each training, in any order, repeated as often as they occur.
        point_cost: seconds of one point over a whole training.
        compile_cost: seconds of one more program.

    >>> buckets([8, 16, 1000], point_cost=1e-2)
    [16, 1000]
    >>> buckets([8, 16, 1000], point_cost=1e-9)
    [1000]
    """
    ordered = sorted(sizes)
    distinct = sorted(set(ordered))
    count = [sum(size <= limit for size in ordered) for limit in distinct]
    best: list[tuple[float, list[int]]] = [(0.0, [])]  # of the sizes up to the i-th distinct one
    for last, size in enumerate(distinct):
        choices = []
        for first in range(last + 1):
            cells = count[last] - (count[first - 1] if first else 0)
            cost, limits = best[first]
            choices.append((cost + compile_cost + cells * size * point_cost, [*limits, size]))
        best.append(min(choices))
    return best[-1][1]


def batches(programs: Sequence[Program], sizes: Sequence[int]) -> list[list[int]]:
    """Places of the trainings that run together: same program, same bucket, no more than fit into memory.

    The batches of one bucket have the same number of cells as far as possible, so that they share one compilation.
    """
    groups: list[list[int]] = []
    for program in dict.fromkeys(programs):
        places = [place for place, other in enumerate(programs) if other == program]
        lower = 0
        for limit in buckets([sizes[place] for place in places], program.point_cost()):
            inside = [place for place in places if lower < sizes[place] <= limit]
            most = min(BATCH_CELLS, max(1, BATCH_BYTES // program.cell_bytes(limit)))
            parts = -(-len(inside) // most)
            length = -(-len(inside) // parts)
            groups += [inside[start : start + length] for start in range(0, len(inside), length)]
            lower = limit
    return groups
