"""Settings chosen by the certificate, on training points alone, before a run; each one tried is paid for.

The grid is stated before the data (``certify.tune``). Every setting is trained and certified on the training set, which
is all that `tune` is given: test points cannot enter. The best one is run, with the number of settings in its union
bound, so its certificates hold although they chose it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import inf
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..bounds.checks import check_points
from ..config import Config, build, merged, nested
from ..data import Dataset, Split
from ..data.transform import Transform
from ..errors import MfresnetError
from ..fields import split_list
from ..messages import Say, print_message
from ..train.job import Job, assemble
from .learned_prior import prior_value
from .snapshots import Draws, Grid, certified, moment_of

NAMES = ("model.alpha", "model.beta", "train.time")  # and the standard deviations of the start
MOST = 1000  # settings


def settings_of(text: str) -> list[dict[str, float]]:
    """The product of the values of each setting, in order.

    Only settings that are numbers in the compiled program can be tuned: alpha, beta, the training time and the standard
    deviations of the start. All share one program then.

    >>> settings_of("model.alpha=1,2 model.beta=4")
    [{'model.alpha': 1.0, 'model.beta': 4.0}, {'model.alpha': 2.0, 'model.beta': 4.0}]
    """
    axes: dict[str, list[float]] = {}
    for part in text.split():
        name, _, values = part.partition("=")
        name = name.replace("-", "_")
        if name not in NAMES and not name.startswith("model.initial."):
            raise MfresnetError(
                f"certify.tune names {name!r}, which cannot be tuned: give {', '.join(NAMES)} or model.initial.GROUP."
            )
        if name in axes:
            raise MfresnetError(f"certify.tune names {name!r} twice: give all its values at once.")
        try:
            axes[name] = list(dict.fromkeys(float(value) for value in split_list(values)))
        except ValueError as error:
            raise MfresnetError(f"certify.tune has {part!r}: give numbers separated by commas.") from error
    found = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if len(found) > MOST:
        raise MfresnetError(f"certify.tune has {len(found)} settings: give at most {MOST}.")
    return found


def tune(
    config: Config,
    train: Dataset,
    transform: Transform,
    fitted_on: np.ndarray | None = None,
    *,
    say: Say = print_message,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Config, list[dict[str, Any]]]:
    """The configuration with the best of its ``certify.tune`` settings, and what each one reached.

    Compared is the PAC-Bayes certificate: with ``certify.prior_share`` that of the prior trained on a part, else the
    best over the recorded times with the Gaussian start as prior. ``certify.settings`` of the result is multiplied by
    the number of settings. A setting whose training fails counts all the same.

    Args:
        train: the training points; there is no argument for others.
        transform, fitted_on: the map of the inputs, for the record, and the rows that fixed it.
        say: told what each setting reached.
        stopped: asked before each setting.

    Raises:
        MfresnetError: settings that cannot be tuned, or none of which can be certified.
        KeyboardInterrupt: ``stopped`` said so.
    """
    grid = settings_of(config.certify.tune)
    check_points(len(train.x))
    paid = config.certify.settings * len(grid)
    rows: list[dict[str, Any]] = []
    found: list[Config] = []
    for number, one in enumerate(grid):
        if stopped():
            raise KeyboardInterrupt(
                f"stopped after {number} of {len(grid)} settings of certify.tune: nothing was written."
            )
        changes = nested(one | {"certify.settings": paid, "certify.tune": ""})
        found.append(build(merged(config.model_dump(), changes)))
        row: dict[str, Any] = dict(one)
        try:
            row["certificate"] = value_of(assemble(found[-1], Split(train, train, transform, (), fitted_on)))
        except MfresnetError as error:
            row |= {"certificate": inf, "refused": str(error)}
        rows.append(row)
        reached = row.get("refused") or f"certificate {row['certificate']:.4g}"
        say(f"setting {number + 1} of {len(grid)}, {_in_words(one)}: {reached}")
    best = min(range(len(grid)), key=lambda place: rows[place]["certificate"])
    if rows[best]["certificate"] == inf:
        raise MfresnetError(f"no setting of certify.tune can be certified: {rows[best]['refused']}")
    return found[best], rows


def chosen(rows: Sequence[dict[str, Any]]) -> str:
    """The best of the rows of `tune`, in words."""
    best = min(rows, key=lambda row: row["certificate"])
    names = {name: value for name, value in best.items() if name != "certificate"}
    return f"{_in_words(names)} (certificate {best['certificate']:.4g}, the best of {len(rows)})"


def _in_words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} = {value:g}" for name, value in values.items())


def value_of(job: Job) -> float:
    """The PAC-Bayes certificate of a job on its training points, with the grid of its settings paid for."""
    config = job.config
    if config.certify.prior_share > 0:
        return prior_value(job, config.certify.delta)
    grid = Grid.of(config, job.state.model.encoder.w.shape[0])
    pick, state, done, values = Draws.of(job, grid), job.state, 0, []
    every = config.record.metrics_every or 1
    while done < max(grid.steps):
        count = min(every, max(grid.steps) - done)
        state, _ = job.trainer.advance(state, job.train, job.key, jnp.asarray(count), every)
        done += count
        if done in grid.steps:
            values.append(pick.best(moment_of(job, state), certified(job), config.certify.delta)[0])
    return min(values)


class Watch:
    """Early stopping on the certificate: over when it has not improved for ``patience`` recorded times.

    It reads training points only, and its bounds are those of the certificate, in which every recorded time is paid
    for, reached or not.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.patience = job.config.certify.patience
        self.pick = Draws.of(job, Grid.of(job.config, job.state.model.encoder.w.shape[0]))
        self.values: list[float] = []

    def see(self, state: Any) -> None:
        """Take the certificate at a recorded time into account."""
        found = self.pick.best(moment_of(self.job, state), certified(self.job), self.job.config.certify.delta)
        self.values.append(found[0])

    @property
    def over(self) -> bool:
        """Whether training should stop.

        A certificate of 1 says nothing at all, so waiting begins at the first value below.
        """
        return waited(self.values) >= self.patience

    @property
    def reason(self) -> str:
        """Why training stops."""
        return f"the certificate has not improved for {self.patience} recorded times"


def waited(values: Sequence[float]) -> int:
    """How many values came after the smallest; 0 while all are 1.

    >>> waited([1.0, 1.0]), waited([0.9, 0.5, 0.6, 0.5])
    (0, 2)
    """
    if not values or min(values) >= 1.0:
        return 0
    return len(values) - 1 - list(values).index(min(values))
