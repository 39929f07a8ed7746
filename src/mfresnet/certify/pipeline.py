"""The one pipeline: from a problem to its certificates, each by the module that is registered under its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import jax

from ..bounds import Certificate
from ..errors import MfresnetError
from ..registry import Registry
from .certificates import Certificates
from .drawn import certify_drawn, course
from .gibbs import certify_gibbs
from .held_out import certify_held_out, certify_held_out_part
from .kernel import certify_kernel
from .kl_balls import certify_kl_ball, certify_theorem6
from .learned_prior import certify_learned_prior
from .problem import Problem

# In the order in which they are made and shown. A certificate of your own is a function from a problem, which raises
# `MfresnetError` with the reason where there is none.
CERTIFICATES: Registry[Callable[[Problem], Certificate]] = Registry(
    "certificate",
    "mfresnet.certificates",
    {
        "pac_bayes": certify_drawn,
        "held_out_part": certify_held_out_part,
        "pac_bayes_learned": certify_learned_prior,
        "gibbs": certify_gibbs,
        "kl_ball": certify_kl_ball,
        "theorem6": certify_theorem6,
        "kernel": certify_kernel,
        "held_out": certify_held_out,
    },
)
OF_PRIOR = ("held_out_part", "pac_bayes_learned")  # made by default only where a prior is to be trained


def run(problem: Problem, names: str | Sequence[str] | None = None) -> Certificates:
    """The certificates of a problem.

    Args:
        problem: network, laws, data and specification.
        names: keys of `CERTIFICATES`; None for all that apply.

    Raises:
        MfresnetError: an unknown name, or fewer than 8 points.
    """
    if names is None:
        names = [name for name in CERTIFICATES if problem.prior is not None or name not in OF_PRIOR]
    names = [names] if isinstance(names, str) else names
    made: dict[str, Certificate] = {}
    refused: dict[str, str] = {}
    with jax.enable_x64(True) if problem.data.dtype == "float64" else nullcontext():
        _ = problem.data.points  # too few points refuse every bound at once
        for name in names:
            make = CERTIFICATES[name]
            try:
                made[name] = make(problem)
            except MfresnetError as error:
                refused[name] = str(error)
        rows = course(problem) if "pac_bayes" in made else []
    return Certificates(made, refused, problem.spec.to_dict(), tuple(rows))
