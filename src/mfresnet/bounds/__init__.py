"""Generalization bounds, one module per theorem; each returns a `Certificate` (docs/theory.md, section 8)."""

from .binomial import clopper_pearson, clopper_pearson_lower, clopper_pearson_upper, held_out_certificate
from .certificate import Certificate, Hypothesis
from .density import Density
from .exact_tail import drawn_bound, log_v, log_xi, mean_bound
from .kernel import kernel_bound, kernel_certificate, kernel_complexity, kernel_energy
from .kl_ball import confidence_term, kl_ball_certificate, psi, rademacher_bound, ramp_loss
from .kl_estimate import KLEstimate, kl_estimate
from .kl_inverse import kl_bernoulli, kl_inverse_lower, kl_inverse_upper
from .nested import errors_by_heads, log_ratios_by_heads, mistakes_by_heads
from .pac_bayes import (
    DrawnPoint,
    GibbsPoint,
    budget,
    drawn_certificate,
    gibbs_certificate,
    mean_upper,
    pac_bayes_bound,
)
from .path import path_bound, path_certificate
from .prior import PulledBack, pull_back
from .subnetwork import (
    Draw,
    Subnetwork,
    assemble,
    draw,
    draw_errors,
    draws,
    log_ratio_of,
    pool,
    predictions,
    probes_needed,
    sample_subnetwork,
    vote,
)
from .supremum import Supremum, head_rademacher, head_supremum
from .theorem6 import constant_from_gaps, constant_from_radii, theorem6_certificate, theorem6_form

__all__ = [
    "Certificate",
    "Density",
    "Draw",
    "DrawnPoint",
    "GibbsPoint",
    "Hypothesis",
    "KLEstimate",
    "PulledBack",
    "Subnetwork",
    "Supremum",
    "assemble",
    "budget",
    "clopper_pearson",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "confidence_term",
    "constant_from_gaps",
    "constant_from_radii",
    "draw",
    "draw_errors",
    "drawn_bound",
    "drawn_certificate",
    "draws",
    "errors_by_heads",
    "gibbs_certificate",
    "head_rademacher",
    "head_supremum",
    "held_out_certificate",
    "kernel_bound",
    "kernel_certificate",
    "kernel_complexity",
    "kernel_energy",
    "kl_ball_certificate",
    "kl_bernoulli",
    "kl_estimate",
    "kl_inverse_lower",
    "kl_inverse_upper",
    "log_ratio_of",
    "log_ratios_by_heads",
    "log_v",
    "log_xi",
    "mean_bound",
    "mean_upper",
    "mistakes_by_heads",
    "pac_bayes_bound",
    "path_bound",
    "path_certificate",
    "pool",
    "predictions",
    "probes_needed",
    "psi",
    "pull_back",
    "rademacher_bound",
    "ramp_loss",
    "sample_subnetwork",
    "theorem6_certificate",
    "theorem6_form",
    "vote",
]
