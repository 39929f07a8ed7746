"""Formulas as MathML, converted from LaTeX while building: no script, and one local font for every browser."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from docutils import nodes
from latex2mathml import exceptions
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

FONT = "STIXTwoMath-Regular.ttf"
BAR = '<mo stretchy="false">&#x0007C;</mo>'  # of an absolute value; browsers space it like a relation
FAULTS = tuple(fault for fault in vars(exceptions).values() if isinstance(fault, type) and issubclass(fault, Exception))


def to_mathml(latex: str, display: str) -> str:
    """The formula as a <math> element."""
    try:
        return convert(latex, display=display).replace(BAR, BAR.replace(">", ' lspace="0" rspace="0">', 1))
    except FAULTS as error:
        raise ExtensionError(f"the formula {latex!r} cannot be converted: {error}") from error


def visit_inline(self, node: nodes.math) -> None:
    """Write an inline formula."""
    self.body.append(to_mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node: nodes.math_block) -> None:
    """Write a displayed formula with its number."""
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({node["number"]})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    latex = node.astext()
    if "\\\\" in latex and "\\begin" not in latex:
        latex = rf"\begin{{aligned}}{latex}\end{{aligned}}"
    self.body.append(to_mathml(latex, "block"))
    self.body.append("</div>")
    raise nodes.SkipNode


def copy_font(app: Sphinx, error: Exception | None) -> None:
    """Put the font beside the style sheet."""
    if error is None and app.builder.format == "html":
        with as_file(files("ziamath") / "fonts" / FONT) as font:
            shutil.copy(font, Path(app.outdir) / "_static" / FONT)


def setup(app: Sphinx) -> dict:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("build-finished", copy_font)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
