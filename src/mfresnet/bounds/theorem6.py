"""Theorem 6 of [C24], error <= C/sqrt(n) + 6 sqrt(log(2/delta)/(2n)), with its constant measured."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np

from .checks import checked_count, checked_delta, checked_values
from .kl_ball import rademacher_bound


def theorem6_form(constant: float, n: int, delta: float = 0.05) -> float:
    """C/sqrt(n) + 6 sqrt(log(2/delta)/(2n)).

    >>> round(theorem6_form(1.0, 10_000), 4)
    0.0915
    """
    n, delta = checked_count(n), checked_delta(delta)
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
    sizes, gaps = checked_values(n, "n", low=1.0), checked_values(gaps, "gaps")
    return float(np.max(np.sqrt(sizes) * gaps))
