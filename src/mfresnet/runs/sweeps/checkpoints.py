"""Checkpoints of the batches at work, for experiments whose batches take hours: ``checkpoints/batch-NUMBER``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MfresnetError
from ...json_types import plain
from ...messages import Say
from .. import checkpoint


@dataclass(frozen=True)
class BatchCheckpoints:
    """How far a batch is (`mfresnet.experiments.Checkpoints`).

    Args:
        settings: fingerprint of the sweep's settings; a checkpoint of others is passed over.
    """

    folder: Path
    settings: str
    say: Say

    def newest(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest sound checkpoint; where none is left, the batch starts again, which is said."""
        try:
            latest = checkpoint.latest(self.folder, like, self.say)
            if latest is not None and latest[1].get("config") != self.settings:
                raise MfresnetError(f"the checkpoints in {str(self.folder)!r} are of other settings.")
        except MfresnetError as error:
            self.say(f"{error} The batch starts again.")
            shutil.rmtree(self.folder, ignore_errors=True)
            return None
        if latest is not None:
            checkpoint.discard_after(self.folder, latest[1]["step"])
        return latest

    def save(self, step: int, state: Any, facts: Mapping[str, Any]) -> None:
        """Write a checkpoint and remove all but the two newest."""
        checkpoint.save(self.folder, step, state, {"step": step, "config": self.settings, **plain(facts)})
        checkpoint.prune(self.folder, set())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a sweep in the directory ``path``."""

    path: Path
    settings: str
    say: Say

    def of(self, batch: Sequence[int]) -> BatchCheckpoints:
        """Those of a batch."""
        return BatchCheckpoints(self.path / "checkpoints" / f"batch-{batch[0]:06d}", self.settings, self.say)

    def forget(self, batch: Sequence[int]) -> None:
        """Remove those of a batch whose cells are done."""
        shutil.rmtree(self.of(batch).folder, ignore_errors=True)

    def forget_all(self) -> None:
        """Remove what is left of a sweep that is done."""
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
