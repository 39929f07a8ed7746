"""The output of the pipeline: certificates by name, refusals with their reasons, and what was paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import html
from ..bounds import Certificate


@dataclass(frozen=True, eq=False)  # equal like any other mapping
class Certificates(Mapping[str, Certificate]):
    """Certificates by name, each true with its own probability.

    Args:
        found: the certificates.
        refused: why there is none, by name.
        paid: the grid, the settings and the number of grid points that the union bounds pay for.
        course: what the PAC-Bayes certificate reached at each recorded time, for plots.

    >>> certificates = Certificates({}, {"kernel": "it needs two classes."})
    >>> len(certificates), certificates.refused["kernel"]
    (0, 'it needs two classes.')
    """

    found: Mapping[str, Certificate]
    refused: Mapping[str, str] = field(default_factory=dict)
    paid: Mapping[str, Any] = field(default_factory=dict)
    course: tuple[Mapping[str, Any], ...] = ()

    def __getitem__(self, name: str) -> Certificate:
        """The certificate of a name.

        Raises:
            KeyError: there is none; ``refused`` may say why.
        """
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "certificates": {name: certificate.to_dict() for name, certificate in self.found.items()},
            "refused": dict(self.refused),
            "points": dict(self.paid),
            "over_time": [dict(row) for row in self.course],
        }

    def _repr_html_(self) -> str:
        """Table for a notebook."""
        rows = [(name, c.value, "yes" if c.vacuous else "no", c.status, c.reading) for name, c in self.found.items()]
        rows += [(name, "", "", "refused", reason) for name, reason in self.refused.items()]
        return html.table("Certificates", rows, ("name", "bound", "vacuous", "status", "reading"))

    def __str__(self) -> str:
        lines = [str(certificate) for certificate in self.found.values()]
        return "\n".join([*lines, *(f"{name}: refused, {reason}" for name, reason in self.refused.items())])
