"""PAC-Bayes certificates for sub-networks drawn from the trained laws (docs/theory.md, section 8(b)).

Posterior Q: k' head particles from tau_t and N' residual particles from nu_t; prior P: the same from a law that did
not see the n points of the bound. Two certificates:

- `gibbs_certificate` bounds the mean error over Q. It needs KL(Q || P) = k' KL(tau_t||tau_0) + N' KL(nu_t||nu_0),
  which is an expectation over probes: estimated.
- `drawn_certificate` bounds the mean error of the very networks that were drawn. It needs only log(dQ/dP) at these
  networks, which is 0 where Q is P, and as good as the density of the flow elsewhere (`Density`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np

from ..errors import MfresnetError
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import check_count, check_delta, check_points, check_values
from .density import Density
from .kl_estimate import KLEstimate, kl_estimate
from .kl_inverse import kl_inverse_upper

DATA_FREE = "the Gaussian start"

# Shares of delta: the bound itself, the sampling of sub-networks, the KL. The bound pays delta by log(1/share)/n,
# the sampling by log(1/share)/draws, so no share matters much.
SHARES = (0.5, 0.25, 0.25)


@dataclass(frozen=True)
class GibbsPoint:
    """One grid point of `gibbs_certificate`.

    Args:
        heads, residuals: k' and N'.
        errors: train error of each drawn network, shape (draws,).
        head_log_ratios: R of the head's probes, shape (P,), or None without head.
        encoder_log_ratios: R of the encoder's probes, shape (L, P).
        independent: how many of the draws are independent (share no probe); None for all. Draws that come in rounds
            of b disjoint ones count b: a mean over rounds has at least the concentration of one round (Hoeffding 1963,
            section 5, on U-statistics).
        time: training time.
        setting: which configuration (alpha, beta ...) it belongs to.
    """

    heads: int
    residuals: int
    errors: Any
    head_log_ratios: Any
    encoder_log_ratios: Any
    independent: int | None = None
    time: float = 0.0
    setting: str = ""


@dataclass(frozen=True)
class DrawnPoint:
    """One grid point of `drawn_certificate`.

    Args:
        heads, residuals: k' and N'.
        errors: train error of each drawn network, shape (draws,).
        log_ratios: log(dQ/dP) at each of them (`subnetwork.log_ratio_of`), shape (draws,).
        time, setting: as in `GibbsPoint`.
    """

    heads: int
    residuals: int
    errors: Any
    log_ratios: Any
    time: float = 0.0
    setting: str = ""


def budget(kl: Any, n: int, delta: float, grid_size: int = 1) -> np.ndarray:
    """(KL + log(2 sqrt(n) |grid| / delta)) / n: what kl(train error || true error) may be (Maurer 2004, n >= 8).

    A negative sum, which a sample of log-ratios can have, counts as 0.

    >>> float(budget(10.0, 400, 0.05, 20).round(4))
    0.0492
    """
    n, delta = check_points(n), check_delta(delta)
    grid_size = check_count(grid_size, name="grid_size")
    return np.maximum(np.asarray(kl, np.float64) + log(2 * sqrt(n) * grid_size / delta), 0.0) / n


def pac_bayes_bound(train_error: Any, kl: Any, n: int, delta: float, grid_size: int = 1) -> np.ndarray:
    """sup { p : kl(train error || p) <= budget }: with probability 1 - delta, for all Q at once, for |grid| priors.

    Args:
        train_error: mean error over Q of the n points.
        kl: KL(Q || P).
        grid_size: number of *priors* (k', N', settings) chosen among. Training times share a prior and are free,
            because the inequality holds for all Q at once.

    >>> float(pac_bayes_bound(0.05, 10.0, 400, 0.05, 20).round(3))
    0.148
    """
    return kl_inverse_upper(train_error, budget(kl, n, delta, grid_size))


def mean_upper(errors: Any, delta: float, *, independent: int | None = None, method: str = "kl") -> float:
    """Upper confidence limit of the mean of independent variables in [0, 1].

    "kl": sup { e : kl(mean || e) <= log(1/delta)/m } (Hoeffding 1963, Theorem 1; also valid for a mean over
    rounds of ``independent`` ones each); "bernstein": mean + sqrt(2 V log(2/delta)/m) + 7 log(2/delta)/(3 (m-1)) with
    the sample variance V (Maurer and Pontil 2009, Theorem 4), for independent draws only.

    >>> errors = np.full(500, 0.05)
    >>> round(mean_upper(errors, 0.01), 4), round(mean_upper(errors, 0.01, method="bernstein"), 4)
    (0.0852, 0.0748)
    """
    errors, delta = check_values(errors, "errors", low=0.0, high=1.0), check_delta(delta)
    m = check_count(errors.size if independent is None else independent, name="independent")
    if m > errors.size:
        raise MfresnetError(f"independent = {m} exceeds the {errors.size} draws: give at most their number.")
    mean = min(1.0, float(errors.mean()))
    if method == "kl":
        return float(kl_inverse_upper(mean, log(1 / delta) / m))
    if method == "bernstein" and m == errors.size and m >= 2:
        spread = sqrt(2 * float(errors.var(ddof=1)) * log(2 / delta) / m)
        return min(1.0, mean + spread + 7 * log(2 / delta) / (3 * (m - 1)))
    raise MfresnetError(
        f"method = {method!r} does not fit: give 'kl', or 'bernstein' with at least 2 draws that are all independent."
    )


def gibbs_certificate(
    points: Sequence[GibbsPoint],
    n: int,
    delta: float = 0.05,
    *,
    priors: int | None = None,
    tried: int | None = None,
    prior: str = DATA_FREE,
    train_method: str = "kl",
    density: Density | None = None,
    guessing: float = 0.5,
) -> Certificate:
    """Mean error over Q, minimised over the grid (docs/theory.md, section 8(b)).

    delta is split (`SHARES`): half for the inequality (union over priors), a quarter for the train error of Q and a
    quarter for the two KLs (unions over all points). The KL limit is an approximation, so the status is
    "estimated"; `drawn_certificate` needs no such step.

    Args:
        points: all grid points that were tried, not only the best.
        n: points of the bound; with a data-dependent prior only those the prior did not see.
        priors: number of priors; None counts the distinct (k', N', setting).
        tried: number of grid points that the given ones were chosen from; None counts ``points``. The confidence limits
            of train error and KL hold for all of them, also those never computed.
        prior: what P is, in words.
        density: where the log-ratios come from; None for Euler steps without folds.

    >>> rng = np.random.default_rng(0)
    >>> ratios = 0.1 * rng.normal(size=(4, 500)) + 0.005
    >>> point = GibbsPoint(10, 20, np.full(500, 0.05), ratios[0], ratios)
    >>> certificate = gibbs_certificate([point], 1000)
    >>> round(certificate.value, 2), certificate.status
    (0.12, 'estimated')
    """
    points, n, delta = _check_grid_points(points), check_points(n), check_delta(delta)
    priors = _check_grid_size(priors, len({(p.heads, p.residuals, p.setting) for p in points}), "priors")
    tried = _check_grid_size(tried, len(points), "tried")
    for_bound, for_train, for_kl = (share * delta for share in SHARES)
    bounds: list[tuple[float, GibbsPoint, tuple]] = []
    measured: dict[tuple[int, int], tuple[KLEstimate, KLEstimate | None]] = {}
    for p in points:
        key = (id(p.head_log_ratios), id(p.encoder_log_ratios))
        if key not in measured:  # the same probes serve every k' and N'
            each = for_kl / (2 * tried)
            encoder = kl_estimate(p.encoder_log_ratios, each)
            head = None if p.head_log_ratios is None else kl_estimate(p.head_log_ratios, each)
            measured[key] = (encoder, head)
        encoder, head = measured[key]
        heads = p.heads if head is not None else 0
        kl = p.residuals * max(encoder.value, 0.0) + (heads * max(head.value, 0.0) if head else 0.0)
        upper = p.residuals * encoder.upper + (heads * head.upper if head else 0.0)
        train = mean_upper(p.errors, for_train / tried, independent=p.independent, method=train_method)
        value = float(pac_bayes_bound(train, upper, n, for_bound, priors))
        bounds.append((value, p, (train, kl, upper, encoder, head)))
    value, p, (train, kl, upper, encoder, head) = min(bounds, key=lambda item: item[0])
    rate = float(np.mean(np.asarray(p.errors, np.float64)))
    alone = float(pac_bayes_bound(train, 0.0, n, for_bound, priors))
    complex_ = max(alone, float(pac_bayes_bound(train, min(kl, upper), n, for_bound, priors)))
    about = density or Density("euler", _normalisation_error(encoder, head))
    error = p.residuals * encoder.stderr + (p.heads * head.stderr if head else 0.0)
    hypotheses = (
        INDEPENDENT,
        *_about_prior(prior),
        Hypothesis("n >= 8 (Maurer 2004)", "computed", note=f"n = {n}"),
        Hypothesis(
            "KL(Q || P) is below its upper limit",
            "estimated",
            error,
            "from probes, by a limit corrected for skewness: log-density ratios are unbounded",
        ),
        *about.hypotheses,
        Hypothesis(
            "train error of Q",
            "proved",
            train - rate,
            "sampled, inside its own confidence limit, which is part of delta",
        ),
    )
    terms = {
        "train error": rate,
        "sampling of sub-networks": train - rate,
        "confidence": alone - train,
        "complexity": complex_ - alone,
        "error of the KL": value - complex_,
    }
    details = _details(p, n, kl, priors) | {"kl_upper": upper, "points": tried, "prior": prior}
    certifies = "a sub-network drawn at random from the trained laws (mean over draws)"
    return build("gibbs", terms, delta, hypotheses, certifies, guessing=guessing, details=details)


def drawn_certificate(
    points: Sequence[DrawnPoint],
    n: int,
    delta: float = 0.05,
    *,
    grid_size: int | None = None,
    prior: str = DATA_FREE,
    density: Density | None = None,
    guessing: float = 0.5,
) -> Certificate:
    """Mean error of the drawn networks h_1 .. h_m themselves, with nothing estimated but log(dQ/dP).

        kl( mean_j train error(h_j) || mean_j true error(h_j) )
            <= ( mean_j log(dQ/dP)(h_j) + log(2 sqrt(n) |grid|/delta) )/n

    with probability 1 - delta over data *and* draws. Proof: for each j, E exp(n kl(h_j) - log(dQ/dP)(h_j)) is at most
    E_S E_{h ~ P} exp(n kl(h)) <= 2 sqrt(n) (Maurer 2004); average over j, Markov, then Jensen for exp and for the
    jointly convex kl. The draws need not be independent of each other: they may share probes. For m = 1 it is
    the disintegrated bound of Catoni (2007) and Rivasplata et al. (2020, Theorem 1). Unlike `pac_bayes_bound` it
    holds for one Q at a time, so training times count in the grid.

    Args:
        points: all grid points that were tried, not only the best.
        grid_size: number of grid points; None counts ``points``.
        density: where the log-ratios come from; None for Euler steps without folds.

    >>> certificate = drawn_certificate([DrawnPoint(10, 20, np.full(50, 0.05), np.full(50, 1.0))], 1000)
    >>> round(certificate.value, 3), certificate.status
    (0.083, 'estimated')
    """
    points, n, delta = _check_grid_points(points), check_points(n), check_delta(delta)
    grid_size = _check_grid_size(grid_size, len(points), "grid_size")
    bounds: list[tuple[float, DrawnPoint, float, float]] = []
    for p in points:
        errors = check_values(p.errors, "errors", low=0.0, high=1.0)
        ratios = check_values(p.log_ratios, "log_ratios")
        if errors.shape != ratios.shape:
            raise MfresnetError(
                f"errors and log_ratios have shapes {errors.shape} and {ratios.shape}: give one of each per draw."
            )
        rate, kl = min(1.0, float(errors.mean())), float(ratios.mean())
        bounds.append((float(pac_bayes_bound(rate, kl, n, delta, grid_size)), p, rate, kl))
    value, p, rate, kl = min(bounds, key=lambda item: item[0])
    alone = max(rate, float(pac_bayes_bound(rate, min(kl, 0.0), n, delta, grid_size)))
    terms = {"train error": rate, "confidence": alone - rate, "complexity": value - alone}
    hypotheses = (
        INDEPENDENT,
        *_about_prior(prior),
        Hypothesis("n >= 8 (Maurer 2004)", "computed", note=f"n = {n}"),
        Hypothesis(
            "each network is an exact draw of Q",
            "proved",
            note="Q is the law of independent starts moved by the computed field of the network, which they do not "
            "change, so probes, taken without replacement, are exact draws of it; the error of the solver is in "
            "log(dQ/dP) alone",
        ),
        Hypothesis("train errors of the drawn networks", "computed"),
        *(density or Density()).hypotheses,
    )
    draws = np.size(p.errors)
    certifies = (
        "the drawn sub-network"
        if draws == 1
        else f"one of the {draws} drawn sub-networks, picked at random for each point"
    )
    details = _details(p, n, kl, grid_size) | {"draws": draws, "prior": prior, "vote": min(1.0, 2 * value)}
    return build("pac_bayes", terms, delta, hypotheses, certifies, guessing=guessing, details=details)


def _about_prior(prior: str) -> tuple[Hypothesis, ...]:
    return (
        Hypothesis(
            "the prior does not depend on the n points of the bound",
            "proved" if prior == DATA_FREE else "assumed",
            note=f"the prior is {prior}",
        ),
        Hypothesis("every grid point that was tried is counted", "assumed", note="also alpha, beta and other settings"),
    )


def _normalisation_error(encoder: KLEstimate, head: KLEstimate | None) -> float:
    """Largest deviation of E exp(-R) from 1."""
    return max(abs(part.normalisation - 1) for part in (encoder, head) if part is not None)


def _check_grid_points(points: Sequence[Any]) -> Sequence[Any]:
    if len(points) == 0:
        raise MfresnetError("there is no grid point: give at least one choice of k', N' and training time.")
    for p in points:
        check_count(p.residuals, name="residuals")
        check_count(p.heads, 0, name="heads")
    return points


def _check_grid_size(given: int | None, counted: int, name: str) -> int:
    size = counted if given is None else check_count(given, name=name)
    if size < counted:
        raise MfresnetError(f"{name} = {size} is smaller than the {counted} that are used: count all that were tried.")
    return size


def _details(p: Any, n: int, kl: float, grid: int) -> dict[str, float | int | str | None]:
    return {
        "n": n,
        "kl": kl,
        "heads": int(p.heads),
        "residuals": int(p.residuals),
        "time": float(p.time),
        "setting": p.setting,
        "grid": grid,
    }
