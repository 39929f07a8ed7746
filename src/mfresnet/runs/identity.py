"""Whether what is about to go on is what was begun: the same settings, the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..assembly import Job, data_facts
from ..data import describe_datasets
from ..errors import MfresnetError
from .console import Say
from .files import plain


def check_data(stored: Mapping[str, Any], job: Job, say: Say) -> None:
    """Refuse to continue on a file that changed; the sum of generated data may differ between machines."""
    now, then = data_facts(job.split), stored.get("data", {})
    if now["sha256"] == then.get("sha256", now["sha256"]):
        return
    if now["name"] not in dict(describe_datasets()):
        raise MfresnetError(
            f"the data of {now['name']!r} changed since the run began: put the file back as it was, or train a new run."
        )
    say(f"the data set {now['name']!r} is not the run's to the bit on this machine: numbers may differ.")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings: a checkpoint carries it, so that it is continued under its own only."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:16]
