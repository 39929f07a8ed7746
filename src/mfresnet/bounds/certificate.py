"""What every bound returns: a number, its parts, and how sure each hypothesis behind it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import fsum, inf, isfinite, nan
from typing import Any, Literal, get_args

from ..errors import MfresnetError

Status = Literal["proved", "computed", "assumed", "estimated", "violated"]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True)
class Hypothesis:
    """One thing a certificate rests on.

    Args:
        statement: what must be true.
        status: "proved" (a theorem, or true by construction), "computed" (checked on the numbers at hand,
            up to rounding), "assumed" (up to the source of the data or to the user's conduct, which no program sees),
            "estimated" (from samples, with an error), "violated".
        error: size of the estimation error, where there is one.
        note: how it was checked, or what to do about it.

    >>> Hypothesis("n >= 8", "computed").status
    'computed'
    """

    statement: str
    status: Status
    error: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise MfresnetError(f"status = {self.status!r} is not allowed: give one of {', '.join(STATUSES)}.")


@dataclass(frozen=True)
class Certificate:
    """An upper bound on the error on unseen data.

    Args:
        name: of the bound, as keys of summaries use it ("pac_bayes", "kl_ball", ...).
        value: the bound itself; additive bounds may exceed 1.
        confidence: 1 - delta.
        terms: parts that add up to ``value``, in the order of a waterfall.
        hypotheses: what it rests on.
        vacuous: whether the value is at or above the error of guessing (see `build`).
        reading: one paragraph in plain words.
        certifies: the object whose error is bounded.
        details: further numbers and words (n, the KL, the chosen grid point ...).

    >>> terms = {"test error": 0.1, "confidence": 0.1}
    >>> c = Certificate("held_out", 0.2, 0.95, terms, (), False, "Fine.", "the network")
    >>> Certificate.from_dict(c.to_dict()) == c
    True
    >>> c.status
    'proved'
    """

    name: str
    value: float
    confidence: float
    terms: dict[str, float]
    hypotheses: tuple[Hypothesis, ...]
    vacuous: bool
    reading: str
    certifies: str
    details: dict[str, float | int | str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        total = fsum(self.terms.values()) if all(map(isfinite, self.terms.values())) else nan
        if isfinite(total) and abs(total - self.value) > 1e-9 * max(1.0, abs(self.value)):
            raise MfresnetError(
                f"the terms of the certificate {self.name!r} add up to {total:g}, not to its value {self.value:g}: "
                "give terms that add up."
            )

    @property
    def status(self) -> str:
        """The weakest of its hypotheses: "violated", "estimated", "assumed", or "proved" where none of these occurs.

        A certificate that rests on one estimate is estimated, and one that rests on what a user did (no choice by the
        test points, every trial counted) is assumed. Independent points (`INDEPENDENT`) are the premise of every
        bound: listed, not counted.
        """
        statuses = {h.status for h in self.hypotheses if h.statement != INDEPENDENT.statement}
        return next((status for status in ("violated", "estimated", "assumed") if status in statuses), "proved")

    def with_hypotheses(self, *more: Hypothesis, guessing: float = 0.5) -> Certificate:
        """The same bound with further hypotheses, and the reading that follows from all."""
        hypotheses = (*self.hypotheses, *more)
        largest = max(self.terms, key=lambda name: self.terms[name])
        reading = reading_of(self.value, 1 - self.confidence, self.certifies, guessing, hypotheses, largest)
        return replace(self, hypotheses=hypotheses, reading=reading)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that JSON lacks become the strings "inf", "-inf" and "nan"."""
        return {
            "name": self.name,
            "value": _encode(self.value),
            "confidence": self.confidence,
            "status": self.status,
            "vacuous": self.vacuous,
            "certifies": self.certifies,
            "reading": self.reading,
            # a list of pairs, because readers of JSON may not keep the order of an object's keys
            "terms": [[name, _encode(value)] for name, value in self.terms.items()],
            "hypotheses": [
                {"statement": h.statement, "status": h.status, "error": _encode(h.error), "note": h.note}
                for h in self.hypotheses
            ],
            "details": {name: _encode(value) for name, value in self.details.items()},
        }

    @classmethod
    def from_dict(cls, record: Any) -> Certificate:
        """The certificate a dictionary of `to_dict` describes.

        Raises:
            MfresnetError: something is missing or of the wrong kind.
        """
        try:
            return cls(
                name=record["name"],
                value=_decode(record["value"]),
                confidence=float(record["confidence"]),
                terms={name: _decode(value) for name, value in record["terms"]},
                hypotheses=tuple(
                    Hypothesis(h["statement"], h["status"], _decode(h["error"]), h["note"])
                    for h in record["hypotheses"]
                ),
                vacuous=bool(record["vacuous"]),
                reading=record["reading"],
                certifies=record["certifies"],
                details={name: _decode(value) for name, value in record["details"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, MfresnetError):
                raise
            raise MfresnetError(f"this is no certificate record ({error!r}): give what to_dict returned.") from error

    def __str__(self) -> str:
        head = f"{self.name}: error <= {self.value:.4g} with probability {self.confidence:g} ({self.status}"
        lines = [head + (", vacuous)" if self.vacuous else ")"), f"  certifies {self.certifies}"]
        wide = max((len(name) for name in self.terms), default=0)
        lines += [f"  {name:<{wide}}  {value:10.4g}" for name, value in self.terms.items()]
        for h in self.hypotheses:
            error = "" if h.error is None else f" (error {h.error:.2g})"
            lines.append(f"  [{h.status}{error}] {h.statement}" + (f": {h.note}" if h.note else ""))
        return "\n".join(lines)


def reading_of(
    value: float, delta: float, certifies: str, guessing: float, hypotheses: tuple[Hypothesis, ...], largest: str
) -> str:
    """The paragraph of a certificate in plain words; it never calls an estimate or an assumption proved.

    >>> reading_of(0.7, 0.05, "the network", 0.5, (), "complexity")
    'This bound is vacuous: 0.7 is not below the error of guessing (0.5), mostly because of complexity.'
    """
    if not value < guessing:
        return (
            f"This bound is vacuous: {value:.3g} is not below the error of guessing ({guessing:.3g}), "
            f"mostly because of {largest}."
        )
    text = (
        f"On new data from the same source, {certifies} errs on at most {100 * value:.3g} % of the points; over "
        f"repetitions of the whole procedure this statement fails in at most {100 * delta:.3g} % of them."
    )

    def statements(*statuses: str) -> str:
        return "; ".join(h.statement for h in hypotheses if h.status in statuses and h != INDEPENDENT)

    if statements("violated"):
        weak = statements("violated", "estimated")
        return f"{text} But a hypothesis is violated, so the number is not a guarantee: {weak}."
    if statements("estimated"):
        return f"{text} Part of it is estimated from samples: {statements('estimated')}."
    if statements("assumed"):
        return f"{text} It assumes what the data cannot show: {statements('assumed')}."
    return f"{text} Every hypothesis but the independence of the data is proved or computed."


def build(
    name: str,
    terms: dict[str, float],
    delta: float,
    hypotheses: tuple[Hypothesis, ...],
    certifies: str,
    *,
    guessing: float = 0.5,
    value: float | None = None,
    details: dict[str, float | int | str | None] | None = None,
) -> Certificate:
    """The certificate with these terms: value (their sum), vacuousness and reading follow.

    Args:
        guessing: error of the best constant guess, 1 minus the share of the largest class, at or above which a bound
            is vacuous. Where that share is the one among the points of the bound it is itself a number of the data: it
            decides about the word "vacuous", never about the value.
    """
    total = fsum(terms.values()) if value is None else value
    largest = max(terms, key=lambda key: terms[key])
    reading = reading_of(total, delta, certifies, guessing, hypotheses, largest)
    return Certificate(
        name, total, 1 - delta, terms, hypotheses, not total < guessing, reading, certifies, details or {}
    )


# Class counts that are fixed in proportion (a stratified split, alternating labels) do no harm. Given the classes the
# points are independent, so the errors of a fixed predictor are a sum of indicators with means p_i = e_c(i).
# - For convex g, E g(sum) is Schur-concave in (p_i): two of them enter as I + (p_i + p_j) D + p_i p_j D^2, D the
#   forward difference, and D^2 g >= 0. So it is largest where all are p = sum_c (n_c/n) e_c, for Bin(n, p) (Hoeffding
#   1956): the moment of Maurer (2004) holds, with p the error at the class proportions of the sample. So do lower tails
#   below n p - 1 (Hoeffding 1956), and bounds by bounded differences, which ask for independence alone.
# - Of n rows of an i.i.d. table of r n, one from each of n random blocks of r is an i.i.d. sample; blocks of one class
#   each give the stratified one. The means of random blocks are majorised by those of pure blocks, so the stratified
#   sample is dominated by the i.i.d. one. Counts are in proportion up to rounding, less than 1/n for each class.
INDEPENDENT = Hypothesis(
    "the data points are independent draws of one distribution, the one new data come from",
    "assumed",
    note="class counts may be fixed, as by a stratified split or alternating labels: fixed counts in proportion only "
    "narrow the number of errors (Hoeffding 1956)",
)


def _encode(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    return number if isfinite(number) else str(number)


def _decode(value: Any) -> Any:
    return {"inf": inf, "-inf": -inf, "nan": nan}.get(value, value) if isinstance(value, str) else value
