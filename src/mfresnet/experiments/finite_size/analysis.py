"""Bias of depth and sampling error of particles, told apart, and the powers of L and M they follow (theory, section 9).

With e_s the state of seed s minus the reference, of N D entries, and <.,.> the mean of products of entries:

    error^2    = mean_s <e_s, e_s>                    what one network is away from the limit
    sampling^2 = mean_{s != t} <e_s - e_t, e_s - e_t> / 2
    bias^2     = mean_{s != t} <e_s, e_t>             (error^2 = bias^2 + sampling^2)

Both are unbiased: sampling errors of different seeds are independent. The reference has errors of its own: its
sampling error, extrapolated by the fitted law, is taken off bias^2; its bias c1/L_ref is in the regressor
1/L - 1/L_ref. Fits, in logarithms, with one constant for each draw of the data and common exponents:

    bias = c1 (1/L - 1/L_ref)^a,      sampling = c2 sqrt(D) L^-b M^-c,       theory: a = 1, b = c = 1/2.

Intervals are Student's over the fits of the single draws, whose data, starts and references are independent; a single
draw has a bootstrap over its seeds instead. (A percentile bootstrap over so few draws would cover less than it says:
about 75 % for 95 % at 3.)

Averages over widths that the bias needs are dominated by the widest networks, where it is known best: narrow ones
also have a bias of order 1/(L M), the second order of their sampling error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...stats import percentiles, student
from ..experiment import Plot, Result, Row, completed, diverged
from ..settings import FiniteSizeSettings
from .embedding import embedding_power, kernels, spreads

THEORY = {"bias.L": 1.0, "sampling.L": 0.5, "sampling.M": 0.5}
EMBEDDING = "embedding.D"
FITTED = (*THEORY, "c1", "c2")
MOST_WEIGHT = 100.0  # 1/(relative variance of bias^2): no depth counts for more than one known to 10 %
TOLERANCE = 0.1  # of a fitted exponent: the next orders of the expansion are in the data as well
Family = tuple[int, int]  # draw and dimension


@dataclass(frozen=True)
class Errors:
    """All networks of one draw and dimension.

    Args:
        depth, width: of each size, shape (sizes,).
        products: <e_s, e_t>, shape (sizes, seeds, seeds).
    """

    depth: np.ndarray
    width: np.ndarray
    products: np.ndarray

    def parts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """(error^2, sampling^2, bias^2) of each size, shape (3, sizes), seeds counted ``weights`` (sizes, seeds) times.

        Pairs of one seed with itself never enter, so that resampled seeds estimate the same thing.
        """
        sizes, seeds, _ = self.products.shape
        weights = np.ones((sizes, seeds)) if weights is None else weights
        own = np.einsum("kss->ks", self.products)
        pairs = weights[:, :, None] * weights[:, None, :] * (1 - np.eye(seeds))
        total = pairs.sum((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):  # one seed drawn every time: no pair, NaN
            bias = np.sum(pairs * self.products, axis=(1, 2)) / total
            apart = own[:, :, None] + own[:, None, :] - 2 * self.products
            sampling = np.sum(pairs * apart, axis=(1, 2)) / (2 * total)
        return np.stack([np.sum(weights * own, axis=1) / weights.sum(1), sampling, bias])


def collect(rows: Sequence[Row]) -> dict[Family, Errors]:
    """The errors of each draw and dimension whose reference and seeds are complete."""
    states: dict[Family, dict[tuple[int, int], list[np.ndarray]]] = {}
    references: dict[Family, np.ndarray] = {}
    for row in rows:
        family = (row["draw"], row["dimension"])
        state = np.asarray(row["state"], np.float64)
        if row["kind"] == "reference":
            references.setdefault(family, state)  # the first embedding's, which the others share
        else:
            states.setdefault(family, {}).setdefault((row["depth"], row["width"]), []).append(state)
    found = {}
    for family, of_size in states.items():
        most = max(len(group) for group in of_size.values())
        sizes = [size for size, group in of_size.items() if len(group) == most]
        if family not in references or most < 2:
            continue
        e = np.array([of_size[size] for size in sizes]) - references[family]
        depth, width = np.array(sizes, float).T
        found[family] = Errors(depth, width, np.einsum("ksx,ktx->kst", e, e) / e.shape[-1])
    return found


def fit(families: Sequence[tuple[Family, Errors, np.ndarray]], reference: int, least: int) -> dict[str, float]:
    """Exponents and constants; constants are geometric means over draws. And "left_out": depths without a bias.

    A depth whose estimate of bias^2 is not positive has no logarithm and is left out of the bias's fit.

    Args:
        families: (draw and dimension, sizes, parts) of each.
    """
    if not families:
        return dict.fromkeys(FITTED, np.nan) | {"left_out": 0}
    parts = [part for *_, part in families]
    rows, values, group = [], [], []
    for index, ((_, dimension), errors, (_, sampling, _)) in enumerate(families):
        use = (errors.depth >= least) & (errors.depth * errors.width >= least**2) & (sampling > 0)
        rows += list(zip(-np.log(errors.depth[use]), -np.log(errors.width[use]), strict=True))
        values += list(0.5 * np.log(sampling[use]) - 0.5 * np.log(dimension))
        group += [index] * int(use.sum())
    slopes = _common(rows, values, group, len(families), slopes=2)
    found: dict[str, float] = dict(zip(("sampling.L", "sampling.M"), slopes, strict=True))

    rows, values, group, weights, left_out = [], [], [], [], 0
    for index, (_, errors, (_, sampling, bias)) in enumerate(families):
        scaled = sampling * errors.depth ** (2 * found["sampling.L"]) * errors.width ** (2 * found["sampling.M"])
        scaled = scaled[(errors.depth >= least) & np.isfinite(scaled)]
        own = float(scaled.mean() if len(scaled) else 0.0) * reference ** (
            -2 * (found["sampling.L"] + found["sampling.M"])
        )
        for depth in np.unique(errors.depth[errors.depth >= least]):
            at = (errors.depth == depth) & np.isfinite(bias) & np.isfinite(sampling)
            if not at.any():
                continue
            # the variance of bias^2 is about sampling^4 + 4 bias^2 sampling^2/ND: wide networks tell more
            weight = 1 / np.maximum(sampling[at], 1e-30) ** 2
            value = float(np.sum(weight * bias[at]) / np.sum(weight)) - own
            if value > 0:
                rows.append((np.log(1 / depth - 1 / reference),))
                values.append(0.5 * np.log(value))
                group.append(index)
                weights.append(value**2 * np.sum(weight))
            else:
                left_out += 1
    (found["bias.L"],) = _common(rows, values, group, len(families), slopes=1, weights=np.minimum(weights, MOST_WEIGHT))
    c1, c2 = np.array([_two_terms(f, e, p, least) for (f, e, _), p in zip(families, parts, strict=True)]).T
    with np.errstate(divide="ignore"):
        found |= {"c1": float(np.exp(np.mean(np.log(c1)))), "c2": float(np.exp(np.mean(np.log(c2))))}
    return found | {"left_out": left_out}


def _common(
    rows: list, values: list, group: list, groups: int, *, slopes: int, weights: Any = None
) -> tuple[float, ...]:
    """Least squares with an intercept for each group; the common slopes (NaN where the data does not fix them)."""
    if not values:
        return (np.nan,) * slopes
    x = np.array(rows, float)
    design = np.hstack([x, np.eye(groups)[group]])
    design = design[:, np.any(design != 0, axis=0) | (np.arange(design.shape[1]) < slopes)]
    root = np.ones(len(values)) if weights is None else np.sqrt(np.asarray(weights, float))
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return (np.nan,) * slopes
    solution = np.linalg.lstsq(design * root[:, None], np.asarray(values) * root, rcond=None)[0]
    return tuple(float(v) for v in solution[:slopes])


def _two_terms(family: Family, errors: Errors, parts: np.ndarray, least: int) -> tuple[float, float]:
    """c1, c2 >= 0 of error = c1/L + c2 sqrt(D)/sqrt(L M), least squares of relative errors over the fitted sizes."""
    from scipy.optimize import nnls

    use = (errors.depth >= least) & (errors.depth * errors.width >= least**2)
    error = np.sqrt(parts[0][use])
    depth, width = errors.depth[use], errors.width[use]
    if len(error) < 2:
        return np.nan, np.nan
    design = np.stack([1 / depth, np.sqrt(family[1] / (depth * width))], axis=1)
    c1, c2 = nnls(design / error[:, None], np.ones(len(error)))[0]
    return float(c1), float(c2)


def intervals(found: dict[Family, Errors], settings: FiniteSizeSettings) -> dict[str, tuple[float, float]]:
    """95 % intervals: Student's over the fits of the draws (constants: in logarithms); for one draw `resampled`."""
    draws = sorted({draw for draw, _ in found})
    if len(draws) < 2:
        return resampled(found, settings)
    reference, least = settings.reference or 0, settings.least
    fits = [fit([(f, e, e.parts()) for f, e in found.items() if f[0] == draw], reference, least) for draw in draws]
    intervals = {}
    for name in FITTED:
        values = np.array([one[name] for one in fits])
        if name in THEORY:
            mean, half = student(values[np.isfinite(values)])
            intervals[name] = (mean - half, mean + half)
        else:
            mean, half = student(np.log(values[values > 0]))
            intervals[name] = (float(np.exp(mean - half)), float(np.exp(mean + half)))
    return intervals


def resampled(found: dict[Family, Errors], settings: FiniteSizeSettings) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over the seeds of each size, resampled."""
    rng = np.random.default_rng(0)
    samples: list[dict[str, float]] = []
    for _ in range(settings.bootstrap):
        families = []
        for family, errors in found.items():
            sizes, seeds, _ = errors.products.shape
            weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=sizes)
            families.append((family, errors, errors.parts(weights)))
        samples.append(fit(families, settings.reference or 0, settings.least))
    return {name: percentiles([s[name] for s in samples]) for name in FITTED}


def analyse(settings: FiniteSizeSettings, rows: Sequence[Row]) -> Result:
    """Fits, their intervals, verdict and figures."""
    good = completed(rows)
    found = collect(good)
    why = "the expansion in 1/L and 1/(L M) has higher orders, which smaller networks show"
    if settings.preset != "own":
        why += "; and steps of size D make them oscillate, and which way they go is then decided by rounding"
    notes = [
        *diverged(rows, ", with all networks of its draw and size (a lost reference costs its whole draw)"),
        f"Sizes with L >= {settings.least} and L M >= {settings.least**2} enter the fits: {why}.",
    ]
    if not found:
        return Result("no size has its reference and two seeds or more", None, notes=notes)
    estimates = fit([(f, e, e.parts()) for f, e in found.items()], settings.reference or 0, settings.least)
    left_out = estimates.pop("left_out")
    if left_out:
        notes.append(
            f"{left_out:g} depths (over draws and dimensions) have no positive estimate of bias^2 and are left out of "
            "the bias's fit, which may flatten it."
        )
    spread = intervals(found, settings)
    draws = len({draw for draw, _ in found})
    notes.append(
        f"Intervals: Student's over the fits of {draws} draws."
        if draws > 1
        else "Intervals: bootstrap over the seeds of one draw; another draw of the data has another constant."
    )
    values: dict[str, Any] = {name: {"value": value, "interval_95": spread[name]} for name, value in estimates.items()}
    for name, power in THEORY.items():
        values[name]["theory"] = power
    theory, embedded = THEORY, ""
    if settings.preset == "embedding":
        of_embeddings = kernels(good, settings)
        estimates[EMBEDDING], spread[EMBEDDING] = embedding_power(of_embeddings, settings.bootstrap)
        values[EMBEDDING] = {"value": estimates[EMBEDDING], "interval_95": spread[EMBEDDING], "theory": 0.5}
        values["embedding.kernel"] = spreads(of_embeddings)
        if np.isfinite(estimates[EMBEDDING]):
            theory = THEORY | {EMBEDDING: 0.5}
            embedded = f", spread over embeddings ~ D^-{_said(EMBEDDING, estimates, spread)}"
            notes.append(
                "embedding.D: exponent of D in the spread of the state's kernel over embeddings; its interval shrinks "
                "with the number of draws, hardly with that of embeddings."
            )
        else:
            notes.append(
                "embedding.D is not judged: its exponent needs two dimensions or more, with two embeddings or more of "
                "each."
            )
    passed, judged = judge(estimates, spread, theory)
    sentence = (
        f"bias ~ L^-{_said('bias.L', estimates, spread)}, sampling error ~ L^-{_said('sampling.L', estimates, spread)} "
        f"M^-{_said('sampling.M', estimates, spread)}{embedded}: "
        + judged
        + f"; error = {estimates['c1']:.3g}/L + {estimates['c2']:.3g} sqrt(D)/sqrt(L M)"
    )
    points = [
        {"draw": draw, "dimension": dimension, "depth": int(depth), "width": int(width)}
        | {name: _root(value) for name, value in zip(("error", "sampling", "bias"), part, strict=True)}
        for (draw, dimension), errors in found.items()
        for depth, width, part in zip(errors.depth, errors.width, errors.parts().T, strict=True)
    ]
    return Result(sentence, passed, values, points, [_figure(points, name) for name in ("sampling", "bias")], notes)


def judge(
    estimates: Mapping[str, float], spread: Mapping[str, tuple[float, float]], theory: Mapping[str, float] = THEORY
) -> tuple[bool | None, str]:
    """Yes: all exponents are within `TOLERANCE` of the theory, and known that well. No: one is not, beyond doubt.

    Known: the half-width of the interval is at most `TOLERANCE`. Beyond doubt: the interval excludes the theory.
    """
    if not all(np.isfinite(estimates[name]) for name in theory):
        return None, "too few sizes for a verdict"
    stated = ", ".join({1.0: "1", 0.5: "1/2"}[power] for power in theory.values())
    off = [name for name, power in theory.items() if abs(estimates[name] - power) > TOLERANCE]
    wide = [name for name in theory if not spread[name][1] - spread[name][0] <= 2 * TOLERANCE]
    if not off and wide:
        return None, f"near {stated}, but the interval of {' and '.join(wide)} is too wide for a verdict"
    if not off:
        return True, f"agrees with {stated} to {TOLERANCE:g}"
    if any(not spread[name][0] <= theory[name] <= spread[name][1] for name in off):
        return False, f"does not agree with {stated} to {TOLERANCE:g}"
    return None, f"{stated} lie in the intervals, which are too wide for a verdict"


def _root(square: float) -> float | None:
    """The root of a squared quantity; None where noise left it negative."""
    return float(np.sqrt(square)) if square > 0 else None


def _said(name: str, estimates: dict[str, float], spread: dict[str, tuple[float, float]]) -> str:
    low, high = spread[name]
    return f"{estimates[name]:.3f} [{low:.3f}, {high:.3f}]"


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
