r"""Certificates from the density ratio of a path: for one chain, for the mean over chains, for their vote.

An annealed Langevin chain (`mfresnet.flow.langevin`) starts at a draw of the data-free prior p_0 and ends in the
trained network; c = log dQ/dP is known exactly for its path, and the end of the path has law p_0 under P, whatever the
data. The expectation under P of any function of the data and the *end* of the path is therefore that for a network
which knows nothing of the data, so that (1) and (2) of `mfresnet.bounds.exact_tail` hold for the trained network
itself.

**The vote.** Where the vote of m networks errs, at least half of them err (the right class has no more votes than
another; ties count as errors): error of the vote <= 2 mean error (Markov). The bound through pairs (Masegosa et al.
2020) pays 2c and four times the share of points where both err; for networks trained on the same points, which err
together, it is larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any, Literal, get_args

import numpy as np

from ..errors import MfresnetError
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import check_count, check_delta
from .exact_tail import Form, mean_bound

Which = Literal["chain", "mean", "vote"]
WHICH: tuple[str, ...] = get_args(Which)


def path_bound(
    mistakes: Any, prices: Any, n: int, delta: float, *, form: Form = "tail", paid: int = 1, rounding: float = 0.0
) -> float:
    """Upper bound on the mean true error of the ends of m paths, with probability 1 - delta.

    Args:
        mistakes: of each chain on the n points, shape (m,).
        prices: c of each chain, shape (m,); not finite for a chain that failed, which then errs everywhere.
        n: points.
        form: "tail" or "kl" (`mfresnet.bounds.exact_tail`), fixed before the chains.
        paid: number of alternatives the chains were chosen from (times, settings): a union over them.
        rounding: largest error of c, added to it.

    >>> round(path_bound([10], [15.0], 400, 0.05), 4)
    0.1084
    >>> path_bound([0], [float("nan")], 400, 0.05)
    1.0
    """
    mistakes, prices = (np.atleast_1d(np.asarray(v, np.float64)) for v in (mistakes, prices))
    if mistakes.shape != prices.shape or mistakes.ndim != 1:
        raise MfresnetError(f"mistakes and prices have shapes {mistakes.shape} and {prices.shape}: give one per chain.")
    delta, paid = check_delta(delta), check_count(paid, name="paid")
    finite = np.isfinite(prices)
    left = int(finite.sum())
    if not left:
        return 1.0
    price = float(prices[finite].mean()) + rounding + log(len(prices) / left * paid / delta)
    share = left / len(prices)
    return min(1.0, share * mean_bound(mistakes[finite], n, price, form) + (1 - share))


def path_certificate(
    mistakes: Any,
    prices: Any,
    n: int,
    delta: float = 0.05,
    *,
    certifies: Which = "mean",
    chain: int = 0,
    form: Form = "tail",
    settings: int = 1,
    rounding: float = 0.0,
    times: Sequence[int] | None = None,
    kernel: Hypothesis | None = None,
    more: Sequence[Hypothesis] = (),
    guessing: float = 0.5,
) -> Certificate:
    """The certificate of trained chains from their mistakes and prices; the best recorded time, all paid for.

    Args:
        mistakes, prices: of each chain at each recorded time, shape (times, m) or (m,).
        certifies: "chain" (the one of index ``chain``), "mean" (one picked at random for each new point) or "vote".
        settings: number of settings of prior and network that were tried on these points.
        times: steps after which the chains were looked at; None numbers them.
        kernel: how the density ratio is known; None for reversible kernels.
        more: further hypotheses.
        guessing: error of guessing, at or above which the bound is vacuous.

    >>> certificate = path_certificate([8, 10], [14.0, 15.0], 400)
    >>> round(certificate.value, 3), certificate.status
    (0.102, 'assumed')
    """
    if certifies not in WHICH:
        raise MfresnetError(f"certifies = {certifies!r} is not allowed: give one of {', '.join(WHICH)}.")
    mistakes, prices = (np.atleast_2d(np.asarray(v, np.float64)) for v in (mistakes, prices))
    settings, delta = check_count(settings, name="settings"), check_delta(delta)
    which = (
        f"the trained network of chain {chain} (named in advance)" if mistakes.shape[1] > 1 else "the trained network"
    )
    if certifies == "chain":
        if not 0 <= chain < mistakes.shape[1]:
            raise MfresnetError(f"chain = {chain} is not one of the {mistakes.shape[1]} chains: give one, from 0.")
        mistakes, prices = mistakes[:, chain : chain + 1], prices[:, chain : chain + 1]
    paid = settings * len(mistakes)
    values = [
        path_bound(k, c, n, delta, form=form, paid=paid, rounding=rounding)
        for k, c in zip(mistakes, prices, strict=False)
    ]
    best = int(np.argmin(values))
    k, c, mean = mistakes[best], prices[best], values[best]
    failed = ~np.isfinite(c)
    errors = np.where(failed, float(n), k)
    rate = float(errors.mean()) / n
    free = path_bound(k, np.where(failed, c, 0.0), n, delta, form=form, paid=paid)
    alone = min(max(rate, free), mean)
    terms = {"train error": rate, "confidence": alone - rate, "price of the path": mean - alone}
    value = min(1.0, 2 * mean) if certifies == "vote" else mean
    if certifies == "vote":
        terms["vote"] = value - mean
    place = best if times is None else int(times[best])
    hypotheses = [
        INDEPENDENT,
        Hypothesis("the prior and the map from parameters to predictions do not depend on the points", "assumed",
                   note=f"{settings} setting{'s' if settings > 1 else ''} tried on these points, paid for"),
        kernel or Hypothesis("every step is reversible for its temperature, so c is the log-density ratio", "proved"),
        Hypothesis("schedule and potential were fixed before the certified chains started", "proved",
                   note="they may depend on the same points: only the prior may not"),
        Hypothesis("rounding of c", "computed", rounding, "added to the price"),
        Hypothesis("mistakes of the trained networks", "computed"),
        *more,
    ]  # fmt: skip
    if failed.any():
        hypotheses.append(
            Hypothesis("all chains stayed finite", "computed",
                       note=f"{int(failed.sum())} of {failed.size} did not: each counts as an error on every point")
        )  # fmt: skip
    details: dict[str, float | int | str | None] = {
        "n": n,
        "chains": int(k.size),
        "failed": int(failed.sum()),
        "c": float(c[~failed].mean()) if not failed.all() else None,
        "c_min": float(c[~failed].min()) if not failed.all() else None,
        "c_max": float(c[~failed].max()) if not failed.all() else None,
        "form": form,
        "times": len(mistakes),
        "time": place,
        "settings": settings,
        "rounding": rounding,
    }
    names = {
        "chain": which,
        "mean": f"one of the {k.size} trained networks, picked at random for each point" if k.size > 1
        else "the trained network",
        "vote": f"the vote of the {k.size} trained networks",
    }  # fmt: skip
    return build(
        "path", terms, delta, tuple(hypotheses), names[certifies], guessing=guessing, value=value, details=details
    )
