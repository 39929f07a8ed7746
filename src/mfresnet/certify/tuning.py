"""Settings chosen by the certificate on training points alone, and early stopping on it; every choice is paid for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import inf
from typing import Any

from ..errors import MfresnetError
from ..fields import split_list
from ..messages import Say, print_message
from .held_out import certify_held_out_part
from .problem import Problem
from .snapshots import Snapshot

NAMES = ("model.alpha", "model.beta", "train.time")  # and the standard deviations of the start
MOST = 1000  # settings


def parse_settings(text: str) -> list[dict[str, float]]:
    """The product of the values of each setting, in order.

    Only settings that are numbers in the compiled program can be tuned: alpha, beta, the training time and the standard
    deviations of the start. All share one program then.

    >>> parse_settings("model.alpha=1,2 model.beta=4")
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
    settings = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if len(settings) > MOST:
        raise MfresnetError(f"certify.tune has {len(settings)} settings: give at most {MOST}.")
    return settings


def tune(
    settings: Sequence[Mapping[str, float]],
    train: Callable[[Mapping[str, float]], Problem],
    *,
    say: Say = print_message,
    stopped: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """What each setting reached: a row with its values and its ``certificate``, infinite where there is none.

    Compared is `quick_value`. A setting whose training fails counts all the same.

    Args:
        settings: all that are tried; the ``spec`` of each problem must count them.
        train: trains one setting. It is given training points only: there is no way in for others.
        say: told what each setting reached.
        stopped: asked before each setting.

    Raises:
        MfresnetError: no setting can be certified.
        KeyboardInterrupt: ``stopped`` said so.
    """
    rows: list[dict[str, Any]] = []
    for number, one in enumerate(settings):
        if stopped():
            raise KeyboardInterrupt(
                f"stopped after {number} of {len(settings)} settings of certify.tune: nothing was written."
            )
        row: dict[str, Any] = dict(one)
        try:
            row["certificate"] = quick_value(train(one))
        except MfresnetError as error:
            row |= {"certificate": inf, "refused": str(error)}
        rows.append(row)
        reached = row.get("refused") or f"certificate {row['certificate']:.4g}"
        say(f"setting {number + 1} of {len(settings)}, {describe(one)}: {reached}")
    best = rows[best_row(rows)]
    if best["certificate"] == inf:
        raise MfresnetError(f"no setting of certify.tune can be certified: {best['refused']}")
    return rows


def best_row(rows: Sequence[Mapping[str, Any]]) -> int:
    """The place of the best of the rows of `tune`."""
    return min(range(len(rows)), key=lambda place: rows[place]["certificate"])


def describe(values: Mapping[str, float]) -> str:
    """Settings in words."""
    return ", ".join(f"{name} = {value:g}" for name, value in values.items())


def describe_best(rows: Sequence[dict[str, Any]]) -> str:
    """The best of the rows of `tune`, in words."""
    best = rows[best_row(rows)]
    names = {name: value for name, value in best.items() if name != "certificate"}
    return f"{describe(names)} (certificate {best['certificate']:.4g}, the best of {len(rows)})"


def quick_value(problem: Problem) -> float:
    """The certificate by which settings are compared.

    With a trained prior the held-out bound of that prior, else the PAC-Bayes certificate of the first draws, the best
    over the snapshots.
    """
    if problem.prior is not None:
        return certify_held_out_part(problem).value
    return min(snapshot_value(problem, snapshot) for snapshot in problem.snapshots)


def snapshot_value(problem: Problem, snapshot: Snapshot) -> float:
    """The PAC-Bayes certificate of the first draws at one time, with the whole grid paid for."""
    return problem.draws.search(snapshot, problem.data.points, problem.spec.delta, problem.spec.size)[0]


class Patience:
    """Early stopping on the certificate: over when it has not improved for ``patience`` recorded times.

    It reads training points only, and its bounds are those of the certificate, in which every recorded time is paid
    for, reached or not.

    Args:
        problem: data and specification; its snapshot gives the number of probes.
        patience: recorded times.
    """

    def __init__(self, problem: Problem, patience: int) -> None:
        self.problem, self.patience = problem, patience
        self.values: list[float] = []

    def add(self, snapshot: Snapshot) -> None:
        """Take the certificate at a recorded time into account."""
        self.values.append(snapshot_value(self.problem, snapshot))

    @property
    def over(self) -> bool:
        """Whether training should stop.

        A certificate of 1 is no information, so waiting begins at the first value below.
        """
        return times_since_best(self.values) >= self.patience

    @property
    def reason(self) -> str:
        """Why training stopped."""
        return f"the certificate has not improved for {self.patience} recorded times"


def times_since_best(values: Sequence[float]) -> int:
    """How many values came after the smallest; 0 while all are 1.

    >>> times_since_best([1.0, 1.0]), times_since_best([0.9, 0.5, 0.6, 0.5])
    (0, 2)
    """
    if not values or min(values) >= 1.0:
        return 0
    return len(values) - 1 - list(values).index(min(values))
