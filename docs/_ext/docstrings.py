"""Docstrings of the library as reStructuredText: their formulas become literal blocks, their symbols stay symbols."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Note|Notes|Example|Examples|Type parameters):\s*$")
ITEM = re.compile(r"^(\s*(?:\*{0,2}[\w.]+(?:, \*{0,2}[\w.]+)*|\S[^:]{0,60}):\s+)(.*)$")
LITERAL = re.compile(r"(``.*?``|`[^`]*`)")


def escape(text: str) -> str:
    """Text in which *, | and a trailing underscore mean themselves; what stands in backticks stays."""
    parts = LITERAL.split(text)
    for k in range(0, len(parts), 2):
        parts[k] = re.sub(r"([*|])", r"\\\1", parts[k])
        parts[k] = re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", parts[k])
    return "".join(parts)


def to_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring, ready for napoleon."""
    out: list[str] = []
    section, doctest, literal = False, False, False
    for line in lines:
        bare, indent = line.strip(), len(line) - len(line.lstrip())
        if not bare:
            doctest = False
            out.append("")
            continue
        if SECTION.match(line):
            section, literal = True, False
            out.append(line)
            continue
        if indent == 0 and section:
            section = False
        if indent == 0:
            literal = False
        if bare.startswith(">>>"):
            doctest = True
        if doctest or literal:
            out.append(line)
            continue
        if indent >= 4 and not section and out and out[-1] == "" and not bare.startswith(("- ", "* ")):
            out += ["::", ""]
            literal = True
            out.append(line)
            continue
        item = ITEM.match(line) if section and indent == 4 else None
        out.append(item[1] + escape(item[2]) if item else escape(line))
    return out


def process(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon sees it."""
    lines[:] = to_rst(lines)


def setup(app: Sphinx) -> dict:
    """Run ahead of napoleon."""
    app.connect("autodoc-process-docstring", process, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
