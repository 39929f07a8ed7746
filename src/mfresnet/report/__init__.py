"""Reports: one self-contained page per run, made from the files of its directory alone."""

from .page import SECTIONS, render, write_report
from .parts import Code, Facts, Figure, Fold, Frames, Notes, Section, Table
from .reading import Run

__all__ = [
    "SECTIONS",
    "Code",
    "Facts",
    "Figure",
    "Fold",
    "Frames",
    "Notes",
    "Run",
    "Section",
    "Table",
    "render",
    "write_report",
]
