"""Runs on disk: the only writer of files."""

from .directory import RunDirectory, fresh_path
from .measuring import measure
from .training import resume, train

__all__ = ["RunDirectory", "fresh_path", "measure", "resume", "train"]
