"""How well log(dQ/dP) of a posterior is known: what a certificate that uses it rests on (docs/theory.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import MfresnetError
from .certificate import Hypothesis

Kind = Literal["same", "euler", "solver"]


@dataclass(frozen=True)
class Density:
    """Where the log-density ratios R of the probes come from.

    The determinants of Euler steps, theta <- theta - h grad Phi(theta), give the density of the law that the steps
    make only if each is one-to-one; else it is a sum over preimages, R is too small, and so is a bound that grows with
    it. Nothing shows it for the whole space, because the Hessian of Phi grows with the outer weight. So it is
    estimated, from the mean of exp(-R), and counted as violated where a probe saw a matrix I - h Hess Phi that is not
    positive definite: positive definite everywhere, it would make the step one-to-one.

    Args:
        kind: "same" (Q is P, so that the ratio is 1 whatever the flow did), "euler", or "solver" (of the flow itself).
        normalisation_error: deviation of the mean of exp(-R) from 1, see `normalisation_error_of`.
        not_one_to_one: number of probes at which a step is not one-to-one (`flow.Ensemble.not_one_to_one`).
        tolerance: of the solver, where it has one.

    >>> [Density("euler", 0.02, count).hypotheses[-1].status for count in (0, 1)]
    ['estimated', 'violated']
    """

    kind: Kind = "euler"
    normalisation_error: float | None = None
    not_one_to_one: int = 0
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise MfresnetError(f"kind = {self.kind!r} is not allowed: give one of {', '.join(get_args(Kind))}.")

    @property
    def hypotheses(self) -> tuple[Hypothesis, ...]:
        """What the densities rest on, with how sure it is."""
        if self.kind == "same":
            return (Hypothesis("log(dQ/dP)", "proved", note="Q is the prior itself: it is 0"),)
        if self.kind == "solver":
            at = "" if self.tolerance is None else f" {self.tolerance:g}"
            note = f"integrated by a solver to its tolerance{at}; the error is the deviation of E exp(-R) from 1"
            return (Hypothesis("log-densities along the flow", "estimated", self.normalisation_error, note),)
        statement = "each Euler step is one-to-one"
        if self.not_one_to_one:
            note = (
                f"{self.not_one_to_one} probes saw a step that is not one-to-one, where the density is a sum over "
                "preimages of which one is known: take shorter steps"
            )
            one_to_one = Hypothesis(statement, "violated", self.normalisation_error, note)
        else:
            note = "so at every probe; the error is the deviation of E exp(-R), the mean number of preimages, from 1"
            one_to_one = Hypothesis(statement, "estimated", self.normalisation_error, note)
        return Hypothesis("log-determinants of the Euler steps", "computed"), one_to_one


def normalisation_error_of(*ratios: Any) -> float:
    """Largest deviation from 1 of the mean of exp(-R) over the probes of a part; parts that are None count for nothing.

    For Euler steps T from a density p, E exp(-R) = int p(T x) |det DT(x)| dx = int p(y) N(y) dy: the mean over P of the
    number N of preimages of a point, 1 where the steps are one-to-one and onto.

    >>> round(normalisation_error_of(np.log([2.0, 2.0]), None), 3)
    0.5
    """
    with np.errstate(over="ignore"):
        return float(max(abs(np.mean(np.exp(-np.asarray(r, np.float64))) - 1) for r in ratios if r is not None))
