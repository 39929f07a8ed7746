"""Certificates: from a network, snapshots of its laws, data and a specification to bounds on the error on new data.

The one pipeline behind the command line, the estimators and the benchmarks. The package is callable:
``mfresnet.certify(result)`` certifies what `mfresnet.fit` returned.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from ..flow.potential import GaussianPrior, PredictorPotential
from ..flow.predictor import NetworkPredictor
from .certificates import Certificates
from .data import Data, majority_error
from .draws import Choice, Draws
from .path_certificate import PathResult, path
from .path_pilot import Pilot, find_schedule
from .pipeline import CERTIFICATES, run
from .problem import PriorTraining, Problem
from .snapshots import Snapshot
from .spec import Grid, Spec
from .tuning import Patience, parse_settings, tune

__all__ = [
    "CERTIFICATES",
    "Certificates",
    "Choice",
    "Data",
    "Draws",
    "GaussianPrior",
    "Grid",
    "NetworkPredictor",
    "PathResult",
    "Patience",
    "Pilot",
    "PredictorPotential",
    "PriorTraining",
    "Problem",
    "Snapshot",
    "Spec",
    "find_schedule",
    "majority_error",
    "parse_settings",
    "path",
    "run",
    "tune",
]


@runtime_checkable
class Certifiable(Protocol):
    """What can be certified: a `mfresnet.train.fit.Result`."""

    def certificates(self, names: Any = None, **changes: Any) -> Certificates:
        """Its certificates, with other settings than its own where given."""
        ...


class CertifyPackage(ModuleType):
    """The type of this package, which makes it callable."""

    def __call__(self, result: Certifiable | Problem, names: Any = None, **changes: Any) -> Certificates:
        """Certify a training.

        Args:
            result: what `mfresnet.fit` returned, or a `Problem`.
            names: which certificates (keys of `CERTIFICATES`); None for all that apply.
            changes: instead of the configuration's section certify: delta, heads, residuals, settings, draws,
                prior_share, prior_steps; and ``earlier``, the grids of earlier certificates on the same points.

        Raises:
            MfresnetError: what was trained cannot be certified: its message says why.

        >>> import mfresnet
        >>> config = mfresnet.Config(
        ...     data={"n": 64, "n_test": 32}, model={"depth": 2, "width": 4, "head_width": 8},
        ...     train={"steps": 4, "solver": "euler", "probes": 4, "head_probes": 16},
        ... )
        >>> certificates = mfresnet.certify(mfresnet.fit(config), names=("pac_bayes", "held_out"), delta=0.1)
        >>> sorted(certificates), certificates["held_out"].confidence
        (['held_out', 'pac_bayes'], 0.9)
        """
        return run(result, names) if isinstance(result, Problem) else result.certificates(names, **changes)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = CertifyPackage
