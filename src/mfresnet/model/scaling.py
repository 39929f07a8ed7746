"""Every factor of the mean-field scaling, in one place.

The network averages over particles and integrates over depth:

    z_{l+1} = z_l + alpha / (L M) sum_m u_lm sigma0(w_lm . z_l + b_lm)
    f = beta / K sum_k a_k sigma0(w_k . z_L + b_k)

(docs/theory.md, section 1). A gradient with respect to one particle is therefore O(1/(L M)) or O(1/K). The
Wasserstein gradient flow moves a particle with the gradient of the first variation, which is the
same gradient *per unit of mass* (docs/theory.md, section 3):

    v_theta = -L M dLoss/dtheta_lm,      v_omega = -K dLoss/domega_k.

A learning rate multiplies this velocity, so it means the same at every L, M and K.
"""

from __future__ import annotations

from jax import Array


def depth_step(depth: int) -> float:
    """Length 1/L of one depth step."""
    return 1.0 / depth


def residual(alpha: Array, particle_sum: Array, width: int) -> Array:
    """Velocity of the state: alpha times the mean over the M particles of a layer."""
    return alpha / width * particle_sum


def output(beta: Array, particle_sum: Array, width: int) -> Array:
    """The prediction: beta times the mean over the K head particles."""
    return beta / width * particle_sum


def encoder_mass(layers: int, width: int) -> float:
    """Reciprocal mass of one encoder particle, L M (one layer's worth where depth shares the law)."""
    return float(layers * width)


def head_mass(width: int) -> float:
    """Reciprocal mass of one head particle, K."""
    return float(width)


def time_unit(name: str, n: int, beta: float) -> float:
    """Length of one unit of training time: the loss decays at rate 2 beta^2 lambda / n (docs/theory.md, section 3).

    >>> time_unit("n/beta2", n=50, beta=10.0)
    0.5
    """
    return {"plain": 1.0, "1/beta2": 1.0 / beta**2, "n/beta2": n / beta**2}[name]
