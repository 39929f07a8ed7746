"""Whether what is about to go on is what was begun: the same settings, the same data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..data import describe_datasets
from ..data.images import describe_image_datasets
from ..errors import MfresnetError
from ..json_types import plain
from ..messages import Say
from ..train.job import Job, data_facts


def check_data(stored: Mapping[str, Any], job: Job, say: Say) -> None:
    """Refuse to continue on a file that changed; the sum of generated data may differ between machines."""
    now, then = data_facts(job.split), stored.get("data", {})
    if now["sha256"] != then.get("sha256", now["sha256"]):
        refuse_changed(now["name"], say, "run", "train a new run")


def check_sums(stored: Mapping[str, str], now: Mapping[str, str], say: Say) -> None:
    """The same for the data sets of a sweep, given by their sums; one that was not kept is not compared."""
    for name, sum_now in now.items():
        if stored.get(name, sum_now) != sum_now:
            refuse_changed(name, say, "sweep", "run a new sweep")


def refuse_changed(name: str, say: Say, what: str, instead: str) -> None:
    """Refuse a file that changed, and say so of generated data.

    Raises:
        MfresnetError: the data set is a file's.
    """
    if name not in {*dict(describe_datasets()), *dict(describe_image_datasets())}:
        raise MfresnetError(
            f"the data of {name!r} changed since the {what} began: put the file back as it was, or {instead}."
        )
    say(f"the data set {name!r} is not the {what}'s to the bit on this machine: numbers may differ.")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings: a checkpoint carries it, so that it is continued under its own only."""
    return hashlib.sha256(json.dumps(plain(settings), sort_keys=True).encode()).hexdigest()[:16]
