"""Rademacher complexity of a ball of laws around the Gaussian start, and the margin bound it gives.

Theory, section 8(a). The class is of *limit* predictors f = beta E_tau[a sigma0(w . Z_nu + b)] with
KL(tau || tau_0) <= r_tau and mean over depth of KL(nu_s || nu_0) <= r_nu. A finite set of particles has infinite
KL to a Gaussian and is not in it: what is certified is the predictor of the laws, not the finite network.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, sqrt
from typing import Any

import numpy as np

from ..errors import MfresnetError
from ..model import Activation
from .certificate import INDEPENDENT, Certificate, Hypothesis, build
from .checks import check_activation, check_count, check_delta, check_points, check_values

# Stated before any data: radii in nats, and margins in units of beta (|f| is of the order of beta).
RADII = tuple(2.0**k for k in range(-16, 7))
MARGINS = tuple(2.0**-k for k in range(0, 11))


def psi(r: Any) -> np.ndarray:
    """psi(r) = min_{0<c<1} (r - log(1 - c^2)/2)/c, about sqrt(2 r) for small r and r + O(log r) for large r.

    With c^2 = t/(1+t) the minimum is where t - log(1+t)/2 = r, and there psi = sqrt(t (1+t)).

    >>> psi([0.0, 0.01, 1.0]).round(6)
    array([0.      , 0.142122, 1.882265])
    """
    r = np.asarray(r, dtype=np.float64)
    if not np.all(r >= 0):
        raise MfresnetError("the radius has a negative or undefined value: give numbers >= 0.")
    # The equation is convex and increasing, and 2 r + log(1 + 2 r) lies above its root: Newton's steps then fall
    # to it from above, and a point above the root still gives a valid (larger) bound.
    t = 2 * r + np.log1p(2 * r)
    finite = np.isfinite(r)
    t = np.where(finite, t, 1.0)
    for _ in range(50):
        t = np.maximum(t - (t - 0.5 * np.log1p(t) - np.where(finite, r, 1.0)) / (1 - 0.5 / (1 + t)), 0.0)
    return np.where(finite, np.sqrt(t * (1 + t)), inf)


def rademacher_bound(head_radius: Any, encoder_radius: Any, n: int, *, alpha: float, beta: float) -> np.ndarray:
    """beta psi(r_tau) (1/sqrt(n) + alpha sqrt(2 r_nu)): bounds the empirical Rademacher complexity of any n inputs.

    For a class with sup over f of (1/n) sum_i eps_i f(x_i), standard Gaussian start, |sigma0|, |sigma0'| <= 1.
    Head at z = x: Donsker-Varadhan, E_a exp, then E_eps exp(t S^2/2) <= (1 - t n)^(-1/2) for the sub-Gaussian
    S = sum_i eps_i s_i. Encoder: |Z_nu(x, 1) - x| <= alpha sqrt(2 r_nu) =: D, and (1/n) sum_i |w . (Z_i - x_i)| has
    square <= w^T M w with trace M <= D^2, whose Gaussian moment generating function is largest at rank one.
    Nothing is asked of |x|, and Euler in depth obeys the same bound as the depth equation.

    >>> float(rademacher_bound(0.1, 0.0, 100, alpha=1.0, beta=2.0).round(6))
    0.093578
    """
    n = check_count(n)
    _positive(alpha=alpha, beta=beta)
    encoder = np.asarray(encoder_radius, dtype=np.float64)
    if not np.all(encoder >= 0):
        raise MfresnetError("the encoder radius has a negative or undefined value: give numbers >= 0.")
    return beta * psi(head_radius) * (1 / sqrt(n) + alpha * np.sqrt(2 * encoder))


def ramp_loss(margins: Any, gamma: float) -> float:
    """Mean of min(1, max(0, 1 - y f / gamma)): 1 for a wrong sign, 0 beyond the margin, 1/gamma-Lipschitz.

    Args:
        margins: y_i f(x_i), labels -1/+1.

    >>> ramp_loss([-1.0, 0.5, 3.0], 1.0)
    0.5
    """
    _positive(gamma=gamma)
    return float(np.mean(np.clip(1 - check_values(margins, "margins") / gamma, 0.0, 1.0)))


def confidence_term(n: int, delta: float, form: str = "mean") -> float:
    """What the margin bound adds for confidence.

    form "mean": sqrt(log(1/delta)/(2n)), with the mean Rademacher complexity; "sample": 3 sqrt(log(2/delta)/(2n)),
    with the empirical one (Mohri et al., Foundations of Machine Learning, Theorem 5.8). `rademacher_bound` holds
    for every sample, so it bounds the mean too, and "mean" applies.

    >>> round(confidence_term(400, 0.05), 4), round(confidence_term(400, 0.05, "sample"), 4)
    (0.0612, 0.2037)
    """
    n, delta = check_count(n), check_delta(delta)
    if form == "mean":
        return sqrt(log(1 / delta) / (2 * n))
    if form == "sample":
        return 3 * sqrt(log(2 / delta) / (2 * n))
    raise MfresnetError(f"form = {form!r} is not allowed: give 'mean' or 'sample'.")


def kl_ball_certificate(
    margins: Any,
    *,
    head_kl: float,
    encoder_kl: float,
    alpha: float,
    beta: float,
    sigma: Activation,
    delta: float = 0.05,
    head_error: float = 0.0,
    encoder_error: float = 0.0,
    radii: Sequence[float] = RADII,
    relative_margins: Sequence[float] = MARGINS,
    form: str = "mean",
    margin_error: float | None = None,
    settings: int = 1,
    standard_start: bool = True,
) -> Certificate:
    """Error <= ramp loss at margin gamma + (2/gamma) Rademacher + confidence, for all grid points at once.

    Theory, section 8(a); Theorem 6 of [C24] with its constant made explicit. The grid of (r_tau, r_nu, gamma) is
    fixed before the data; the measured radii are rounded up to it and the best gamma is taken.

    Args:
        margins: y_i f(x_i) on the n training points, of the predictor of the laws (many probes), two classes.
        head_kl, encoder_kl: upper limits of KL(tau_t || tau_0) and of the mean over depth of KL(nu_t || nu_0).
        head_error, encoder_error: their estimation errors, for the record (already inside the limits).
        relative_margins: gamma / beta.
        margin_error: root mean square over the points of the standard error of f, which finitely many particles
            stand for; None where it was not taken.
        form: see `confidence_term`.
        settings: number of configurations tried on these data (alpha, beta ...), each paid by the union bound.
        standard_start: whether the laws start at standard Gaussians (all initial scales 1).

    Raises:
        MfresnetError: an activation outside |sigma0|, |sigma0'| <= 1, several outputs, another start, bad numbers.

    >>> from mfresnet.model import activation
    >>> c = kl_ball_certificate(np.full(100_000, 0.5), head_kl=0.04, encoder_kl=1e-6, alpha=1.0, beta=1.0,
    ...                         sigma=activation("tanh"))
    >>> round(c.value, 3), c.vacuous, c.status
    (0.02, False, 'estimated')
    """
    margins, n, delta = check_ball(
        margins, alpha=alpha, beta=beta, sigma=sigma, delta=delta, standard_start=standard_start
    )
    settings = check_count(settings, name="settings")
    radii = tuple(sorted(float(r) for r in radii))
    r_head, r_encoder = round_up(head_kl, radii, "head"), round_up(encoder_kl, radii, "encoder")
    gammas = [beta * relative for relative in relative_margins]
    grid = len(radii) ** 2 * len(gammas) * settings
    confidence = confidence_term(n, delta / grid, form)
    complexity = float(rademacher_bound(r_head, r_encoder, n, alpha=alpha, beta=beta))
    head_part = float(rademacher_bound(r_head, 0.0, n, alpha=alpha, beta=beta))
    totals = [ramp_loss(margins, gamma) + 2 / gamma * complexity for gamma in gammas]
    gamma = gammas[int(np.argmin(totals))]
    terms = {
        f"ramp loss at margin {gamma:.3g}": ramp_loss(margins, gamma),
        "complexity of the head": 2 / gamma * head_part,
        "complexity of the encoder": 2 / gamma * (complexity - head_part),
        "confidence": confidence,
    }
    hypotheses = (
        *hypotheses_of_balls(sigma, (r_head, r_encoder), (head_error, encoder_error)),
        about_margins(margin_error, gamma),
        Hypothesis("the grid of radii and margins was fixed before the data", "assumed", note=f"{grid} points"),
    )
    return build(
        "kl_ball",
        terms,
        delta,
        hypotheses,
        "the limit predictor of the trained laws (infinitely many particles), not the finite network",
        details={
            "n": n,
            "margin": gamma,
            "head_radius": r_head,
            "encoder_radius": r_encoder,
            "head_kl": float(head_kl),
            "encoder_kl": float(encoder_kl),
            "rademacher": complexity,
            "rademacher.head": head_part,
            "grid": grid,
        },
    )


def check_ball(
    margins: Any, *, alpha: float, beta: float, sigma: Activation, delta: float, standard_start: bool
) -> tuple[np.ndarray, int, float]:
    """(margins, n, delta) where the hypotheses of the KL ball hold, or a sentence that says which one does not.

    >>> from mfresnet.model import activation
    >>> options = {"alpha": 1.0, "beta": 1.0, "delta": 0.05, "standard_start": True}
    >>> check_ball(np.ones(9), sigma=activation("tanh"), **options)[1]
    9
    """
    check_activation(sigma)
    _positive(alpha=alpha, beta=beta)
    margins = check_values(margins, "margins")
    if margins.ndim != 1:
        raise MfresnetError(
            f"margins has shape {margins.shape}, but the KL-ball bound is for two classes with one output: "
            "use the PAC-Bayes certificate for several."
        )
    if not standard_start:
        raise MfresnetError(
            "the KL-ball bound needs standard Gaussian initial laws (all initial scales 1): "
            "set them to 1, or use the PAC-Bayes certificate."
        )
    return margins, check_points(len(margins)), check_delta(delta)


def hypotheses_of_balls(
    sigma: Activation, radii: tuple[float, float], errors: tuple[float, float]
) -> tuple[Hypothesis, ...]:
    """What bounds over a ball of laws rest on; ``radii`` and ``errors`` of head and encoder."""
    (r_head, r_encoder), (head_error, encoder_error) = radii, errors
    return (
        INDEPENDENT,
        Hypothesis("|sigma0| <= 1 and |sigma0'| <= 1", "proved", note=f"known of {sigma.name}"),
        Hypothesis("the laws start at standard Gaussians", "proved", note="by construction"),
        Hypothesis("KL(tau_t || tau_0) <= r_tau", "estimated", head_error, f"r_tau = {r_head:g}"),
        Hypothesis("mean over depth of KL(nu_t || nu_0) <= r_nu", "estimated", encoder_error, f"r_nu = {r_encoder:g}"),
    )


def about_margins(margin_error: float | None, gamma: float) -> Hypothesis:
    """That finitely many particles stand for the laws in the ramp loss, which moves by at most mean |df|/gamma.

    >>> about_margins(0.1, 0.5).error
    0.2
    """
    if margin_error is not None and not margin_error >= 0:
        raise MfresnetError(f"margin_error = {margin_error} is not allowed: give a number >= 0, or None.")
    return Hypothesis(
        "the margins are those of the predictor of the laws",
        "estimated",
        None if margin_error is None else min(1.0, margin_error / gamma),
        "read off finitely many particles; the error is that of the ramp loss, at most that of f over the margin",
    )


def round_up(kl: float, radii: tuple[float, ...], part: str) -> float:
    """The smallest radius of the grid that holds the KL."""
    if not np.isfinite(kl):
        raise MfresnetError(f"the KL of the {part} is {kl}: give the upper limit of a finite estimate.")
    rounded = next((r for r in radii if r >= kl), None)
    if rounded is None:
        raise MfresnetError(
            f"the KL of the {part} is {kl:g}, above the largest radius {radii[-1]:g} of the grid: "
            "give a grid that reaches it (chosen without the data)."
        )
    return rounded


def _positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not (np.isfinite(value) and value > 0):
            raise MfresnetError(f"{name} = {value} is not allowed: give a positive number.")
