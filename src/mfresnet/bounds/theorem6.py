"""Theorem 6 of [C24], error <= C/sqrt(n) + 6 sqrt(log(2/delta)/(2n)), with its constant measured."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np

from ..errors import MfresnetError
from ..model import Activation
from .certificate import Certificate, Hypothesis, build
from .checks import check_count, check_delta, check_values
from .kl_ball import RADII, about_margins, check_ball, hypotheses_of_balls, rademacher_bound, ramp_loss, round_up

MARGIN = 0.5  # of labels -1/+1; stated before the data, so that no union over margins is needed


def theorem6_form(constant: float, n: int, delta: float = 0.05) -> float:
    """C/sqrt(n) + 6 sqrt(log(2/delta)/(2n)).

    >>> round(theorem6_form(1.0, 10_000), 4)
    0.0915
    """
    n, delta = check_count(n), check_delta(delta)
    return float(constant) / sqrt(n) + 6 * sqrt(log(2 / delta) / (2 * n))


def constant_from_radii(
    head_kl: float, encoder_kl: float, n: int, *, alpha: float, beta: float, margin: float = 1.0
) -> float:
    """The C that the measured KLs give: sqrt(n) (2/gamma) beta psi(r_tau) (1/sqrt(n) + alpha sqrt(2 r_nu)).

    It stays bounded in n only when r_nu falls like 1/n, which the theorem has for small movements.

    >>> round(constant_from_radii(0.1, 1e-4, 400, alpha=1.0, beta=1.0), 3)
    1.2
    """
    bound = rademacher_bound(head_kl, encoder_kl, n, alpha=alpha, beta=beta)
    return float(sqrt(n) * 2 / margin * bound)


def constant_from_gaps(n: Any, gaps: Any) -> float:
    """The least C with gap <= C/sqrt(n) at every measured size: what experiments need, without the confidence term.

    Args:
        n: sizes of training sets.
        gaps: test error minus train error at each.

    >>> constant_from_gaps([100, 400], [0.1, 0.06])
    1.2
    """
    sizes, gaps = check_values(n, "n", low=1.0), check_values(gaps, "gaps")
    return float(np.max(np.sqrt(sizes) * gaps))


def theorem6_certificate(
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
    margin_error: float | None = None,
    settings: int = 1,
    standard_start: bool = True,
) -> Certificate:
    """Error <= ramp loss at margin 1/2 + C/sqrt(n) + 6 sqrt(log(2/delta)/(2n)), C from the measured KLs.

    Theorem 6 of [C24] bounds the error of a fitted network by the last two terms; here C is `constant_from_radii` at
    the measured radii (rounded up to a grid) and what is not fitted yet is the first term. The margin bound with the
    empirical complexity needs 3 sqrt(log(2 |grid|/delta)/(2n)) for a grid of radii and settings, which is below the
    theorem's term exactly while |grid| <= (2/delta)^3: the 6 pays for the union bound.

    Args:
        margins, head_kl, encoder_kl, head_error, encoder_error, margin_error, settings, standard_start: as in
            `kl_ball_certificate`.

    Raises:
        MfresnetError: as `kl_ball_certificate`, or more grid points than the 6 pays for.

    >>> from mfresnet.model import activation
    >>> c = theorem6_certificate(np.full(10_000, 0.9), head_kl=0.04, encoder_kl=1e-6, alpha=1.0, beta=1.0,
    ...                          sigma=activation("tanh"))
    >>> round(c.value, 2), round(c.details["C"], 2), c.status
    (0.1, 2.26, 'estimated')
    """
    margins, n, delta = check_ball(
        margins, alpha=alpha, beta=beta, sigma=sigma, delta=delta, standard_start=standard_start
    )
    grid = len(RADII) ** 2 * check_count(settings, name="settings")
    if grid > (2 / delta) ** 3:
        raise MfresnetError(
            f"{grid} radii and settings are more than the (2/delta)^3 = {(2 / delta) ** 3:.3g} that the 6 of Theorem 6 "
            "pays for: use the KL-ball bound, whose confidence term counts them."
        )
    radii = round_up(head_kl, RADII, "head"), round_up(encoder_kl, RADII, "encoder")
    constant = constant_from_radii(*radii, n, alpha=alpha, beta=beta, margin=MARGIN)
    terms = {
        f"ramp loss at margin {MARGIN:g}": ramp_loss(margins, MARGIN),
        "C/sqrt(n)": constant / sqrt(n),
        "6 sqrt(log(2/delta)/(2n))": theorem6_form(0.0, n, delta),
    }
    hypotheses = (
        *hypotheses_of_balls(sigma, radii, (head_error, encoder_error)),
        about_margins(margin_error, MARGIN),
        Hypothesis("|grid| <= (2/delta)^3: the 6 pays for the union", "computed", note=f"{grid} radii and settings"),
    )
    return build(
        "theorem6",
        terms,
        delta,
        hypotheses,
        "the limit predictor of the trained laws (infinitely many particles), not the finite network",
        details={"n": n, "C": constant, "margin": MARGIN, "head_radius": radii[0], "encoder_radius": radii[1]},
    )
