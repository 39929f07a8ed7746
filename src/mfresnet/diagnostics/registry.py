"""Diagnostics of one state by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..flow import Ensemble
from ..model import AbstractResNet
from ..registry import Entry, Registry
from .record import Probe

Diagnostic = Callable[[AbstractResNet, Ensemble | None, Probe], Mapping[str, Any]]

# A diagnostic is a function from a state (network, and probes of its laws or None) and the fixed points to entries of
# the recorded row; it raises `MfresnetError` with the reason where it cannot be taken.
DIAGNOSTICS: Registry[Diagnostic] = Registry(
    "diagnostic (diagnostics.also)",
    "mfresnet.diagnostics",
    {
        "laws": Entry("mfresnet.diagnostics.record:law_row", "KL and displacement of the laws"),
        "gram": Entry("mfresnet.diagnostics.record:gram_row", "Gram matrices: eigenvalues, dissipation, regime"),
        "transport": Entry("mfresnet.diagnostics.record:transport_row", "Wasserstein distance of the laws"),
    },
)
