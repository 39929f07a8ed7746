"""The sweep directory: plain files, each written once and whole.

config.json    experiment, complete settings, every cell, the batches, versions, platform, seed, command
cells/         one file a cell, NUMBER.json, written as it finishes
checkpoints/   of the batches at work, where an experiment keeps any; gone when their cells are done
cells.csv, cells.parquet    all cells as a table
result.json    verdict, fit, points, figures, notes
summary.json   status (completed, interrupted), counts, seconds
report.html    the picture
.lock          held by the process that runs it
"""

from __future__ import annotations

import io
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ...errors import MfresnetError
from ..files import holds, read_json, write_bytes, write_json, writing
from ..lock import NAME as LOCK

PARTS = ("experiment", "settings", "cells", "batches")


@dataclass(frozen=True)
class SweepDirectory:
    """A sweep's files.

    Args:
        path: of the directory.
        flags: of the command that continues it: where its cells run.
    """

    path: Path
    flags: tuple[str, ...] = ()

    @property
    def how_to_resume(self) -> str:
        """The command that continues the sweep, for messages."""
        return f"`mfresnet resume {shlex.join([str(self.path), *self.flags])}`"

    @staticmethod
    def is_sweep(path: Path) -> bool:
        """Whether a sweep lives there."""
        return holds(path / "config.json", PARTS)

    @classmethod
    def open(cls, path: Path, flags: tuple[str, ...] = ()) -> SweepDirectory:
        """An existing sweep.

        Raises:
            MfresnetError: there is none.
        """
        if not cls.is_sweep(path):
            raise MfresnetError(f"{str(path)!r} is no sweep directory: it has no config.json of a sweep.")
        return cls(path, flags)

    def check_free(self, overwrite: bool) -> None:
        """Refuse a place where something is already, unless it is a sweep that may be replaced.

        Raises:
            MfresnetError: naming what is there and the ways out.
        """
        if not self.path.exists():
            return
        if self.path.is_dir() and _is_bare(self.path):
            return
        if not self.is_sweep(self.path):
            raise MfresnetError(f"{str(self.path)!r} exists and is no sweep directory: choose another --out.")
        if not overwrite:
            raise MfresnetError(
                f"sweep directory {str(self.path)!r} exists: continue it with {self.how_to_resume}, replace it with "
                "--overwrite, or choose another --out."
            )

    def empty(self) -> None:
        """Remove what an earlier sweep left, config.json last: killed half-way it is still known as a sweep."""
        with writing(self.path):
            for item in sorted(self.path.iterdir(), key=lambda item: item.name == "config.json"):
                if item.name == LOCK:
                    continue
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
            (self.path / "cells").mkdir()

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return read_json(self.path / "config.json")

    @property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``, empty while there is none."""
        file = self.path / "summary.json"
        return read_json(file) if file.exists() else {}

    @property
    def result(self) -> dict[str, Any]:
        """The content of ``result.json``, empty while there is none."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else {}

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write ``NAME.json``."""
        write_json(self.path / f"{name}.json", value)

    def cell_file(self, place: int) -> Path:
        """The file of a cell."""
        return self.path / "cells" / f"{place:06d}.json"

    def write_cell(self, place: int, row: Mapping[str, Any]) -> None:
        """Write a cell that is done."""
        write_json(self.cell_file(place), row)

    def rows(self, count: int) -> dict[int, dict[str, Any]]:
        """The cells that are done, by place; a damaged file counts as not done."""
        stored = {}
        for place in range(count):
            file = self.cell_file(place)
            if file.exists():
                try:
                    stored[place] = read_json(file)
                except MfresnetError:
                    continue
        return stored

    def write_tables(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``cells.csv`` and ``cells.parquet``: one row a cell, one column a value; arrays stay with the cells."""
        names = list(dict.fromkeys(name for row in rows for name in row))
        arrays = {name for row in rows for name, value in row.items() if isinstance(value, list | Mapping)}
        flat = [{name: row.get(name) for name in names if name not in arrays} for row in rows]
        table = pl.DataFrame(flat, infer_schema_length=None, strict=False)
        for name, save in (("cells.csv", table.write_csv), ("cells.parquet", table.write_parquet)):
            stream = io.BytesIO()
            save(stream)
            write_bytes(self.path / name, stream.getvalue())


def _is_bare(path: Path) -> bool:
    """Whether a directory is empty, or holds no more than a sweep that was killed before it began."""
    inside = {item.name: item for item in path.iterdir() if item.name != LOCK}
    return inside.keys() <= {"cells", ".config.json.tmp"} and ("cells" not in inside or _is_empty(inside["cells"]))


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
