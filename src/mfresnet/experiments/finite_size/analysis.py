"""What the networks say together: exponents and constants with their intervals, and a verdict on the exponents.

Values and intervals are of one estimator: the mean, and Student's interval, over the fits of the single draws, whose
data, starts and references are independent. A single draw has the jackknife over its seeds instead (three or more).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...stats import equivalence, finite_values, jackknife, student
from ..experiment import Plot, Result, Row, completed_rows, divergence_notes
from ..settings import FiniteSizeSettings
from .embedding import embedding_powers, kernels, spreads
from .errors import Errors, Family, collect
from .fits import FITTED, THEORY, fit
from .problem import reference_size

EMBEDDING = "embedding.D"
MARGIN = 0.1  # of a fitted exponent: the next orders of the expansion are in the data as well
LEVEL = 0.95

Samples = Mapping[str, np.ndarray]  # of each fitted number, independent values with that number as their mean


def samples(errors: Mapping[Family, Errors], settings: FiniteSizeSettings) -> Samples:
    """Each fitted number of every draw; of a single draw its pseudo-values over seeds, or one value for two seeds."""
    reference, least = reference_size(settings), settings.least
    draws = sorted({draw for draw, _ in errors})

    def of(draw: int, used: np.ndarray | None = None) -> np.ndarray:
        own = {family: group for family, group in errors.items() if family[0] == draw}
        if used is not None:
            own = {family: group.of_seeds(used) for family, group in own.items()}
        return fit(own, reference, least)

    seeds = min(group.seeds for group in errors.values())
    if len(draws) == 1 and seeds > 2:
        table = jackknife(lambda used: of(draws[0], used), seeds)
    else:
        table = np.array([of(draw) for draw in draws])
    return dict(zip(FITTED, table.T, strict=True))


def analyse(settings: FiniteSizeSettings, rows: Sequence[Row]) -> Result:
    """Fits, their intervals, verdict and figures."""
    good = completed_rows(rows)
    errors = collect(good)
    why = "the expansion in 1/L and 1/(L M) has higher orders, which smaller networks show"
    if settings.preset != "own":
        why += "; and steps of size D make them oscillate, and which way they go is then decided by rounding"
    notes = [
        *divergence_notes(rows, ", with all networks of its draw and size (a lost reference costs its whole draw)"),
        f"Sizes with L >= {settings.least} and L M >= {settings.least**2} enter the fits: {why}.",
    ]
    if not errors:
        return Result("no size has its reference and two seeds or more", None, notes=notes)
    theory, values = dict(THEORY), dict(samples(errors, settings))
    draws = len({draw for draw, _ in errors})
    over = f"over the fits of {draws} draws" if draws > 1 else "over the jackknife's values of the seeds of one draw"
    notes.append(f"Values and intervals: mean and Student's 95 % interval {over}.")
    fitted: dict[str, Any] = {}
    if settings.preset == "embedding":
        of_embeddings = kernels(good, settings)
        values[EMBEDDING], theory[EMBEDDING] = embedding_powers(of_embeddings), 0.5
        fitted["embedding.kernel"] = spreads(of_embeddings)
        notes.append(
            "embedding.D: exponent of D in the spread of the state's kernel over embeddings (two dimensions or more, "
            "with two embeddings or more of each); its interval shrinks with the number of draws, hardly with that of "
            "embeddings."
        )
        if not len(finite_values(values[EMBEDDING])):
            del values[EMBEDDING], theory[EMBEDDING]
    for name, own in values.items():
        mean, half = student(finite_values(own))
        fitted[name] = {"value": mean, "interval_95": (mean - half, mean + half) if np.isfinite(half) else None}
        if name in theory:
            fitted[name]["theory"] = theory[name]
        if len(finite_values(own)) < len(own):
            notes.append(f"{name} is not determined in {len(own) - len(finite_values(own))} of {len(own)} fits.")
    passed, judged = judge(values, theory)
    embedded = f", spread over embeddings ~ D^-{_format(fitted[EMBEDDING])}" if EMBEDDING in theory else ""
    notes.append(
        f"Passed: two one-sided t-tests at 5 % place every exponent within {MARGIN:g} of the theory's. Failed: a "
        "one-sided test places one outside, at 5 % for all together. Neither: the draws do not decide."
    )
    sentence = (
        f"bias ~ L^-{_format(fitted['bias.L'])}, sampling error ~ L^-{_format(fitted['sampling.L'])} "
        f"M^-{_format(fitted['sampling.M'])}{embedded}: {judged}; "
        f"error^2 = ({fitted['c1']['value']:.3g}/L)^2 + ({fitted['c2']['value']:.3g} sqrt(D)/sqrt(L M))^2"
    )
    points = [
        {"draw": draw, "dimension": dimension, "depth": int(depth), "width": int(width)}
        | {name: _root(value) for name, value in zip(("error", "sampling", "bias"), part, strict=True)}
        for (draw, dimension), group in errors.items()
        for depth, width, part in zip(group.depth, group.width, group.parts().T, strict=True)
    ]
    return Result(sentence, passed, fitted, points, [_figure(points, name) for name in ("sampling", "bias")], notes)


def judge(values: Samples, theory: Mapping[str, float] = THEORY) -> tuple[bool | None, str]:
    """Whether all exponents are equivalent to the theory's up to `MARGIN` (`mfresnet.stats.equivalence`)."""
    stated = ", ".join({1.0: "1", 0.5: "1/2"}[power] for power in theory.values())
    verdicts = {
        name: equivalence(finite_values(values[name]), power, MARGIN, level=LEVEL, tests=len(theory))
        for name, power in theory.items()
    }
    if all(verdicts.values()):
        return True, f"equivalent to {stated} within {MARGIN:g}"
    off, open_ = ([name for name, one in verdicts.items() if one is value] for value in (False, None))
    if off:
        return False, f"not {stated}: {' and '.join(off)} differs by more than {MARGIN:g}"
    return None, f"not decided whether {' and '.join(open_)} is within {MARGIN:g} of {stated}"


def _root(square: float) -> float | None:
    """The root of a squared quantity; None where noise left it negative."""
    return float(np.sqrt(square)) if square > 0 else None


def _format(number: Mapping[str, Any]) -> str:
    if number["interval_95"] is None:  # fewer than two fits
        return "(undetermined)"
    low, high = number["interval_95"]
    return f"{number['value']:.3f} [{low:.3f}, {high:.3f}]"


def _figure(points: Sequence[dict[str, Any]], name: str) -> Plot:
    """A part of the error of the first draw and dimension against depth, a line for each width."""
    first = [p for p in points if (p["draw"], p["dimension"]) == (points[0]["draw"], points[0]["dimension"])]
    data = []
    for index, width in enumerate(sorted({p["width"] for p in first})):
        own = sorted((p["depth"], p[name]) for p in first if p["width"] == width and p[name] is not None)
        data.append(
            {
                "x": [depth for depth, _ in own],
                "y": [value for _, value in own],
                "mode": "lines+markers",
                "name": f"M = {width}",
                "line": {"color": f"@class-{index % 8}"},
            }
        )
    word = {"sampling": "sampling error", "bias": "bias"}[name]
    axes = {"xaxis": {"title": {"text": "depth L"}, "type": "log"}, "yaxis": {"title": {"text": word}, "type": "log"}}
    return Plot(f"{word} of the state against depth", data, {**axes, "showlegend": True})
