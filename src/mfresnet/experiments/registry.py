"""Every experiment by name. Loading this module is quick; an experiment is imported when it is asked for.

A further experiment is a subclass of `mfresnet.experiments.Experiment` with a typed settings tree in a module that
imports nothing heavy, and a line here (in a package of your own: an `Entry` under the entry-point group
``mfresnet.experiments``):

- ``cells()`` lists the cells, flat mappings of JSON's own types, in a fixed order;
- ``batches(cells)`` says which of them run as one piece of work (by default each alone);
- ``run(cells, pulse)`` returns each cell's measured values, with "status" "completed" or "diverged", and calls
  ``pulse(share done)`` now and then, which may raise `Stopped`;
- ``resume(cells, pulse, checkpoints)``, where a batch takes hours: `run`, from its checkpoints (by default anew);
- ``analyse(rows)`` turns all rows into a `Result`: verdict, fit, points, figures, notes.

`mfresnet sweep NAME`, the sweep directory, resuming, the Ray executor, tables and report follow from these.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..config import Section, build
from ..registry import Registry
from .experiment import Experiment


@dataclass(frozen=True)
class Entry:
    """Where an experiment lives.

    Args:
        summary: one line for help.
        settings: "package.module:Class" of its settings (".module" is below this package), quick to import.
        experiment: "package.module:Class" of the experiment.
    """

    summary: str
    settings: str
    experiment: str

    def settings_type(self) -> type[Section]:
        """The class of the settings."""
        return _load(self.settings)

    def create(self, settings: Section) -> Experiment:
        """The experiment with these settings."""
        return _load(self.experiment)(settings)


_BUILT_IN = {
    "rate": Entry("test error against the number of training points", ".settings:RateSettings", ".rate:Rate"),
    "phase": Entry("lazy or feature learning, over (alpha, beta)", ".settings:PhaseSettings", ".phase:Phase"),
    "transfer": Entry(
        "does the best learning rate stay where depth and width grow?",
        ".settings:TransferSettings",
        ".transfer:Transfer",
    ),
    "own-transfer": Entry(
        "does the best learning rate of your own model stay where it grows?",
        ".settings:OwnTransferSettings",
        ".own_model:OwnTransfer",
    ),
    "kl": Entry("how far the laws move against beta/n (Theorem 5)", ".settings:KlSettings", ".kl:Kl"),
    "table1": Entry(
        "image networks, plain and mean-field, row by row of the table of [L20]",
        ".table1.settings:Table1Settings",
        ".table1.experiment:Table1",
    ),
    "finite-size": Entry(
        "distance to the limit against depth and width",
        ".settings:FiniteSizeSettings",
        ".finite_size.experiment:FiniteSize",
    ),
    "certificate": Entry(
        "the path certificate of Langevin training against n or any other settings",
        ".settings:CertificateSettings",
        ".certificate:CertificateSweep",
    ),
    "grid": Entry("any settings against each other, on any data set", ".settings:GridSettings", ".grid:Grid"),
}
EXPERIMENTS: Registry[Entry] = Registry("experiment", "mfresnet.experiments", _BUILT_IN, base=Entry)


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises:
        MfresnetError: an unknown name.

    >>> entry("rate").summary
    'test error against the number of training points'
    """
    return EXPERIMENTS[name]


def create(name: str, settings: Mapping[str, Any] | Section | None = None) -> Experiment:
    """An experiment from its name and settings (a mapping of those that differ from the defaults, or the whole tree).

    Raises:
        MfresnetError: an unknown name or setting, or a value that is not allowed.

    >>> len(create("rate", {"n": "8,16", "seeds": 2}).cells())
    4
    """
    chosen = entry(name)
    tree = settings if isinstance(settings, Section) else build(settings or {}, chosen.settings_type())
    return chosen.create(tree)


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module, __package__), attribute)
