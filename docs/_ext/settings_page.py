"""The configuration reference, made from the settings classes."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from mfresnet.config import Section
from mfresnet.fields import allowed

TREES = {
    "train": ("mfresnet.config", "Config"),
    "image": ("mfresnet.images", "ImageConfig"),
}


def text(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return str(value) if value != "" else '""'


def cell(words: str) -> str:
    """Text that a Markdown table leaves as it is."""
    for mark in "\\|*_<>[$":
        words = words.replace(mark, "\\" + mark)
    return words


def table(section: type[Section], prefix: str, command: str) -> list[str]:
    """Rows of the values of one section, then its sections."""
    rows, below = [], []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            below += ["", f"({command}-{prefix}{name})=".replace(".", "-"), f"### {prefix}{name}", ""]
            below += [kind.__doc__.partition("\n")[0] if kind.__doc__ else "", ""]
            below += table(kind, f"{prefix}{name}.", command)
        else:
            default = text(field.get_default(call_default_factory=True))
            shown = f"`{default}`" if default else ""
            rows.append(f"| `{prefix}{name}` | {shown} | {cell(allowed(field))} | {cell(field.description or '')} |")
    head = ["| Setting | Default | Allowed | Meaning |", "|---|---|---|---|"]
    return [*(head + rows if rows else []), *below]


def write(app: Sphinx) -> None:
    """Write the page's tables."""
    folder = Path(app.srcdir) / "_settings"
    folder.mkdir(exist_ok=True)
    for command, (module, name) in TREES.items():
        tree = getattr(importlib.import_module(module), name)
        body = "\n".join(table(tree, "", command)) + "\n"
        path = folder / f"{command}.txt"
        if not path.exists() or path.read_text(encoding="utf-8") != body:
            path.write_text(body, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Write the tables before pages are read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
