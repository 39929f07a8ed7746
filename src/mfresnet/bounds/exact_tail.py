r"""Bounds for drawn predictors of known density ratio: PAC-Bayes-kl, and the binomial tail with its price.

A predictor h is drawn from a law Q_S that depends on the n points S; c = log dQ_S/dP is known at the draw, P has no
part in S, and k is the number of mistakes of h on S. Let v(k, p) >= 0 have E v(Bin(n, p), p) <= 1 for every p. Then

    P( log v(k, R(h)) > c + log(1/delta) ) <= delta,      R(h) the true error,                                    (1)

since E_Q[ v exp(-c) ] <= E_P[ v ] <= 1 (under P, k given h is Bin(n, R(h))), and by Markov's inequality. Two choices:

    "kl"    log v = n kl(k/n || p) - log xi(n),      xi(n) = sum_k C(n, k) (k/n)^k (1 - k/n)^(n-k)
    "tail"  log v = log sum_{j >= k} w_j / F(j; p),   F(j; p) = P(Bin(n, p) <= j),   w_j = 1/((j + 1) H_{n+1})

xi(n) is E exp(n kl(k/n || p)) for every p in (0, 1) (Maurer 2004, who bounds it by 2 sqrt(n)). For the tail
E 1{k <= j}/F(j; p) = 1, and the w_j add up to 1 (H_n is the n-th harmonic number). For one j it is the binomial tail at
level delta exp(-c) for a number of mistakes named in advance; the weights pay for not naming it (the union over
hypotheses of Blanchard and Fleuret 2007, here over k, and Rivasplata et al. 2020, Theorem 1, in general).

**Price.** The sum is at least its first term: log v >= log(1/F(k; p)) - log((k + 1) H_{n+1}). Against n kl the tail
itself is sharper by about log(2 pi k)/2 (Stirling; 0 at k = 0), so that the net price is about log H_n + log(k + 1)/2,
against log xi(n) = log(pi n/2)/2: the tail is better by about log(n/k)/2 - log log n, hence for small errors.
A calibrator of the p-value u = F(k; p) pays more: kappa u^(kappa - 1) at its best kappa costs log(c) + 1, and the best
kappa must be known in advance. Neither kappa nor w may depend on S: under P they would make v and k dependent.

Both v are convex in k (for the tail because w_j and 1/F(j; p) fall in j), so that by Hoeffding (1956, Theorem 3) they
hold as well for independent points that are not identically distributed, p their mean error: classes drawn in turn.

**Means.** For m draws, dependent or not, E mean_j v_j exp(-c_j) <= 1; Jensen's inequality gives, with probability 1 -
delta,

    mean_j log v(k_j, R_j) <= mean_j c_j + log(1/delta),                                                          (2)

and log v is convex in p (F(j; .) is the tail of a beta law with a log-concave density), so that the largest mean_j R_j
under (2) is a convex program, solved by its dual: any multiplier gives a valid bound. kl is jointly convex, so there
mean_j R_j obeys the bound of the means. Draws that failed are left out of the mean and count as errors everywhere:
with m' of m left the budget grows by log(m/m').

Sources: Maurer (2004, arXiv cs/0411099); Langford (2005), "Tutorial on Practical Prediction Theory"; Blanchard and
Fleuret (2007); Rivasplata et al. (2020, arXiv 2006.13057); Hoeffding (1956), "On the distribution of the number of
successes".
"""

from __future__ import annotations

from collections.abc import Callable
from math import lgamma
from typing import Any, Literal, get_args

import numpy as np

from ..errors import MfresnetError
from .checks import check_count
from .kl_inverse import kl_bernoulli, kl_inverse_upper

Form = Literal["tail", "kl"]
FORMS: tuple[str, ...] = get_args(Form)
HALVINGS = 60
COARSE, FINE, ROUNDS = 200, 25, 3  # intervals, refinement and rounds of the grids of `mean_bound`
GOLDEN = (5**0.5 - 1) / 2


def log_xi(n: int) -> float:
    """log xi(n), exactly: E exp(n kl(k/n || p)) for k ~ Bin(n, p) and any p in (0, 1).

    >>> round(log_xi(1), 4), round(log_xi(400), 3)  # log(2 sqrt(400)) is 3.689
    (0.6931, 3.248)
    """
    n = check_count(n)
    k = np.arange(1, n)
    middle = _log_choose(n)[1:-1] + k * np.log(k / n) + (n - k) * np.log1p(-k / n)
    return float(np.log(np.exp(middle).sum() + 2.0))


def log_weights(n: int) -> np.ndarray:
    """log w_j of the module's tail, j = 0 .. n; the w_j add up to 1.

    >>> round(float(np.exp(log_weights(10)).sum()), 12)
    1.0
    """
    falling = 1.0 / np.arange(1, n + 2)
    return np.log(falling / falling.sum())


def log_evidence(n: int, p: Any) -> np.ndarray:
    """log sum_{j >= k} w_j / F(j; n, p) for k = 0 .. n along the last axis, shape (len(p), n + 1); inf at p = 1, k < n.

    >>> log_evidence(4, [0.5]).round(3).tolist()
    [[2.095, 0.111, -0.875, -1.588, -2.435]]
    """
    p = np.asarray(p, np.float64)[:, None]
    k = np.arange(n + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        pmf = _log_choose(n) + k * np.log(p) + (n - k) * np.log1p(-p)
        pmf[p[:, 0] == 0.0] = np.where(k == 0, 0.0, -np.inf)
        pmf[p[:, 0] == 1.0] = np.where(k == n, 0.0, -np.inf)
        log_cdf = np.minimum(np.logaddexp.accumulate(pmf, axis=1), 0.0)
        log_cdf[:, -1] = 0.0
        terms = log_weights(n) - log_cdf
        return np.logaddexp.accumulate(terms[:, ::-1], axis=1)[:, ::-1]


def drawn_bound(mistakes: int, n: int, price: float, form: Form = "tail") -> float:
    """sup { p : log v(mistakes, p) <= price }, inequality (1) solved for the true error of one drawn predictor.

    Args:
        mistakes: k.
        n: points.
        price: c + log(1/delta); infinite or undefined prices give 1.
        form: "tail" or "kl", fixed before the draw.

    >>> round(drawn_bound(10, 400, 18.1), 4), round(drawn_bound(10, 400, 18.1, "kl"), 4)
    (0.1087, 0.1117)
    """
    return mean_bound([mistakes], n, price, form)


def mean_bound(mistakes: Any, n: int, price: float, form: Form = "tail") -> float:
    """The largest mean true error of predictors with these mistakes under (2).

    Args:
        mistakes: k_j, shape (m,); whole numbers for "tail", any numbers in [0, n] for "kl".
        n: points.
        price: mean c_j + log(1/delta).

    Returns:
        The bound; the training error where no errors satisfy (2) or only smaller ones, as happens with probability
        delta at most.

    >>> one, mean = drawn_bound(4, 400, 12.0), mean_bound([4, 4, 4], 400, 12.0)
    >>> bool(0.0 <= mean - one < 1e-4)
    True
    """
    n, k = check_count(n), _check_mistakes(mistakes, n, form)
    if not np.isfinite(price):
        return 1.0
    if form == "kl":
        return float(kl_inverse_upper(min(1.0, k.mean() / n), max(price + log_xi(n), 0.0) / n))
    if np.all(k == k[0]):
        value = _solve(lambda p: log_evidence(n, [p])[0, int(k[0])], price, float(k[0]) / n)
    else:
        value = _dual(k.astype(int), n, price)
    return max(value, float(k.mean()) / n)


def log_v(mistakes: Any, n: int, p: Any, form: Form = "tail") -> np.ndarray:
    """log v(k_j, p_j) of the module's two forms, entry by entry.

    >>> float(log_v([0], 10, [0.5], "kl").round(4)[0]) - round(10 * float(np.log(2)) - log_xi(10), 4)
    0.0
    """
    k, p = np.broadcast_arrays(np.atleast_1d(mistakes), np.atleast_1d(np.asarray(p, np.float64)))
    k = _check_mistakes(k, n, form)
    if form == "kl":
        return n * kl_bernoulli(k / n, p) - log_xi(n)
    return np.take_along_axis(log_evidence(n, p), k.astype(int)[:, None], axis=1)[:, 0]


def _solve(rising: Callable[[float], float], level: float, low: float) -> float:
    """sup { p in [0, 1] : rising(p) <= level }, the upper end of the last interval."""
    low, high = (low, 1.0) if rising(low) <= level else (0.0, low)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) <= level else (low, middle)
    return high


def _dual(k: np.ndarray, n: int, price: float) -> float:
    """max mean_j p_j under mean_j h_j(p_j) <= price, h_j = log v(k_j, .), from above.

    The dual at a multiplier r is r price + mean_j sup_p (p - r h_j(p)); on each interval of a grid the supremum is at
    most where the lines through the intervals beside it meet, because h_j is convex. Round by round the grid is refined
    where the suprema lie.
    """
    values, inverse = np.unique(k, return_inverse=True)
    share = np.bincount(inverse) / len(k)
    grid = np.linspace(0.0, 1.0, COARSE + 1)
    h = log_evidence(n, grid)[:, values]
    for _ in range(ROUNDS):
        low, high = -18.0, 3.0
        for _ in range(HALVINGS):  # golden section over log r: the dual is convex in r
            left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            better = _dual_at(left, price, grid, h, share)[0] <= _dual_at(right, price, grid, h, share)[0]
            low, high = (low, right) if better else (left, high)
        value, places = _dual_at(0.5 * (low + high), price, grid, h, share)
        inner = np.linspace(grid[np.maximum(places - 1, 0)], grid[np.minimum(places + 2, len(grid) - 1)], FINE)
        new = np.setdiff1d(inner, grid)
        order = np.argsort(np.concatenate([grid, new]))
        grid = np.concatenate([grid, new])[order]
        h = np.concatenate([h, log_evidence(n, new)[:, values]])[order]
    return min(1.0, value)


def _dual_at(
    log_r: float, price: float, grid: np.ndarray, h: np.ndarray, share: np.ndarray
) -> tuple[float, np.ndarray]:
    """The dual at log r from above, and the intervals of the grid that hold the suprema."""
    r, lengths = float(np.exp(log_r)), np.diff(grid)[:, None]
    gains = grid[:, None] - r * h  # concave, of slope 1 at most; -inf at p = 1
    slopes = np.maximum(np.diff(gains, axis=0) / lengths, -1e300)
    left = np.maximum(np.concatenate([np.ones_like(slopes[:1]), slopes[:-1]]), 0.0)
    right = np.minimum(np.concatenate([slopes[1:], np.full_like(slopes[:1], -1e300)]), -1e-300)
    # where the two lines meet
    place = np.clip(((slopes - right) / (left - right)) * lengths, 0.0, lengths)
    most = gains[:-1] + left * place
    return r * price + float(share @ most.max(axis=0)), np.unique(most.argmax(axis=0))


def _log_choose(n: int) -> np.ndarray:
    factorials = np.array([lgamma(k + 1) for k in range(n + 1)])
    return factorials[-1] - factorials - factorials[::-1]


def _check_mistakes(mistakes: Any, n: int, form: str) -> np.ndarray:
    if form not in FORMS:
        raise MfresnetError(f"form = {form!r} is not allowed: give 'tail' or 'kl'.")
    k = np.atleast_1d(np.asarray(mistakes, np.float64))
    if k.size == 0 or not np.all((k >= 0) & (k <= n)):
        raise MfresnetError(f"mistakes = {mistakes} are not allowed: give at least one number between 0 and n = {n}.")
    if form == "tail" and np.any(k != np.round(k)):
        raise MfresnetError("the binomial tail counts mistakes: give whole numbers, or form 'kl' for other losses.")
    return k
