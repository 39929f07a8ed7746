"""One self-contained page from the directory of a run or a sweep."""

from __future__ import annotations

import hashlib
import os
import shlex
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..errors import MfresnetError
from .certificates import certificates
from .chain import chain
from .depth import depth
from .headline import headline
from .images import IMAGE_SECTIONS, image_headline, is_images
from .kernel import kernel
from .laws import laws
from .particles import particles
from .parts import Section
from .reading import Run
from .regions import prediction, regions
from .sweep import SWEEP_SECTIONS, sweep_headline
from .tables import configuration, data, reproduction
from .training import training

# A further section is a function of the run in a module of its own, and its name here.
SECTIONS: list[Callable[[Run], Section | None]] = [
    training,
    chain,
    regions,
    depth,
    particles,
    laws,
    kernel,
    certificates,
    configuration,
    data,
    reproduction,
]

NAME = "report.html"
Part = TypeVar("Part")


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write ``report.html`` of a run directory, from its files alone, and return its path.

    The page needs no network and no other file. It appears complete or not at all: a reader never
    sees half of it.

    Args:
        run: the run directory.
        out: the file to write (default: ``report.html`` in the run directory), or a directory for it.

    Raises:
        MfresnetError: the directory holds no run, or the file cannot be written.

    >>> import json, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "summary.json").write_text(json.dumps({"status": "completed", "train.loss": 0.5}))
    ...     page = write_report(folder).read_text(encoding="utf-8")
    >>> "metrics.jsonl is missing" in page
    True
    """
    path = Path(run if out is None else out)
    path = path / NAME if path.is_dir() else path
    text = render(Run.read(run))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses that too
            temporary.unlink(missing_ok=True)
        raise MfresnetError(
            f"cannot write {str(path)!r}: {error.strerror}; free space, or write it elsewhere with "
            f"`mfresnet report {shlex.quote(str(run))} --out FILE`."
        ) from error
    return path


def render(run: Run) -> str:
    """The page of a run as text."""
    sections: list[Section] = []
    problems = [problem for problem in run.problems if not (is_images(run) and "arrays of the figures" in problem)]
    swept, images = run.kind == "sweep", is_images(run)
    for section in SWEEP_SECTIONS if swept else IMAGE_SECTIONS if images else SECTIONS:
        if (parts := _attempt(section, run, problems)) is not None:
            sections.append(parts)
    picture = None if swept or images else _attempt(prediction, run, problems)
    library, script = Markup(get_plotlyjs()), Markup(_asset("page.js"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html")).render(
        run=run,
        headline=sweep_headline(run) if swept else image_headline(run) if images else headline(run),
        picture=picture,
        sections=sections,
        problems=problems,
        style=Markup(_asset("page.css")),
        library=library,
        script=script,
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in (library, script)),
    )


def _attempt(part: Callable[[Run], Part | None], run: Run, problems: list[str]) -> Part | None:
    """A part of the page; a strange array in one must not cost the reader the others."""
    try:
        return part(run)
    except Exception as error:
        problems.append(f"The section {part.__name__!r} could not be drawn: {type(error).__name__}: {error}.")
        return None


def _asset(name: str) -> str:
    return (files("mfresnet.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls a script: nothing but these two may run in the page."""
    return b64encode(hashlib.sha256(text.encode()).digest()).decode()
