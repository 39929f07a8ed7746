"""The parts a section is made of: figures, tables, facts, notes, code.

A figure names its colours by role: ``"@ink"`` is the text's colour, ``"@class-0/40"`` the first
class's at 40 % opacity. The page resolves them from its style sheet, so that one figure serves
light, dark and paper, and the palette has one home.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from markupsafe import Markup

PALETTE = 10  # class colours in the style sheet
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "pentagon", "star", "hexagon", "triangle-down")


@dataclass(frozen=True)
class Frames:
    """Positions of some traces along a slider; the page interpolates between them.

    Args:
        label: the slider's quantity, e.g. "depth s".
        values: its value at each frame.
        traces: indices of the traces that move.
        x, y: for each of these traces, one row per frame.
    """

    label: str
    values: Sequence[float] | np.ndarray
    traces: Sequence[int]
    x: Sequence[np.ndarray]
    y: Sequence[np.ndarray]


@dataclass(frozen=True)
class Figure:
    """One Plotly figure.

    Args:
        title: stands above it and names it to a screen reader.
        data, layout: as Plotly takes them, colours by role.
        aspect: height over width of a figure whose shape matters; otherwise ``height`` counts.
        choices: what a section's control sets: {control: {option: {"layout": .., "data": [.., ..]}}}.
        frames: positions along a slider.
        wide: takes the whole width of the page.
    """

    kind: ClassVar[str] = "figure"
    title: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    aspect: float | None = None
    height: int = 340
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frames: Frames | None = None
    wide: bool = False

    def payload(self) -> Markup:
        """The figure as JSON that may stand inside a script element."""
        frames = self.frames and vars(self.frames)
        names = ("data", "layout", "aspect", "height", "choices")
        return embed_json({name: getattr(self, name) for name in names} | {"frames": frames})


def curve(
    name: str,
    x: Any,
    y: Any,
    colour: str,
    dash: str = "solid",
    *,
    width: float = 2,
    size: float | None = None,
    hover: str = "%{y:.3g}",
    **more: Any,
) -> dict[str, Any]:
    """One line of a figure, with markers where they have a ``size``; ``more`` as Plotly takes it.

    >>> curve("loss", [0, 1], [1.0, 0.5], "@ink", size=4)["mode"]
    'lines+markers'
    """
    marks = {} if size is None else {"marker": {"size": size}}
    return {
        "type": "scatter",
        "mode": "lines" if size is None else "lines+markers",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": colour, "dash": dash, "width": width},
        "hovertemplate": hover,
        **marks,
        **more,
    }


@dataclass(frozen=True)
class Table:
    """Rows under a head; ``code`` are the columns in fixed-width type."""

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    code: Sequence[int] = ()


@dataclass(frozen=True)
class Facts:
    """Terms and what they are."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Notes:
    """Sentences."""

    kind: ClassVar[str] = "notes"
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """A command or a listing."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class Fold:
    """A part that is closed until asked for."""

    kind: ClassVar[str] = "fold"
    summary: str
    part: Table | Facts | Notes | Code


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Args:
        title: what it is about.
        caption: what is seen, in a sentence or two.
        parts: in order.
        finding: what was found, as a heading; the title stands above it.
    """

    title: str
    caption: str
    parts: Sequence[Figure | Table | Facts | Notes | Code | Fold]
    finding: str = ""

    @property
    def controls(self) -> dict[str, list[str]]:
        """Options of each control that some figure listens to."""
        values: dict[str, dict[str, None]] = {}
        for part in self.parts:
            for control, options in getattr(part, "choices", {}).items():
                values.setdefault(control, {}).update(dict.fromkeys(options))
        return {control: list(options) for control, options in values.items() if len(options) > 1}

    @property
    def slider(self) -> Frames | None:
        """The frames of the section's slider, if a figure has any."""
        return next((frames for part in self.parts if (frames := getattr(part, "frames", None))), None)


def embed_json(value: Any) -> Markup:
    """JSON safe inside a script element: no ``<``, so no end tag; no NaN; arrays to five digits.

    >>> print(embed_json({"a": "</script>", "b": [float("nan"), np.float32(1 / 3)]}))
    {"a":"\\u003c/script\\u003e","b":[null,0.33333]}
    """
    text = json.dumps(_jsonable(value), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, list | tuple | range):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def plain(text: Any, most: int = 40) -> str:
    """Any text as Plotly shall show it: its mark-up and templates switched off, not longer than ``most``.

    >>> plain("<b>x</b>")
    '&lt;b&gt;x&lt;/b&gt;'
    """
    text = " ".join(str(text).split())
    text = text if len(text) <= most else text[: most - 1] + "…"
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("%{", "%\u200b{"), ("$", "$\u200b")):
        text = text.replace(sign, entity)
    return text


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, **more}


def log_axis(title: str, values: Any, **more: Any) -> dict[str, Any]:
    """A logarithmic axis: ticks at powers of ten, and between them where the values span at most three decades.

    >>> log_axis("", [0.2, 4.0])["ticktext"], log_axis("", [24.0, 48.0])["ticktext"]
    (['0.2', '0.5', '1', '2', '5'], ['20', '30', '40', '50', '60'])
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values) & (values > 0)]
    decades = math.log10(values.max() / values.min()) if len(values) else 0.0
    if not len(values) or decades > 3:
        return axis(title, type="log", dtick=1, exponentformat="power", tickmode="auto", **more)
    low, high = values.min() / 1.25, values.max() * 1.25
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = range(1, 10) if decades < 0.7 else (1, 2, 5)
    ticks = [d * 10.0**k for k in powers for d in digits if low <= d * 10.0**k <= high]
    if len(ticks) < 2:
        return axis(title, type="log", tickmode="auto", nticks=4, **more)
    texts = [f"{tick:.6g}" for tick in ticks]
    return axis(title, type="log", tickmode="array", tickvals=ticks, ticktext=texts, **more)


def square(first: str, second: str) -> dict[str, Any]:
    """A layout of two axes of the same scale."""
    return {
        "xaxis": axis(first, zeroline=False, showgrid=False),
        "yaxis": axis(second, zeroline=False, showgrid=False, scaleanchor="x", scaleratio=1),
    }


def class_colour(index: int, opacity: int | None = None) -> str:
    """The role of a class's colour; the palette repeats after ten."""
    return f"@class-{index % PALETTE}" + ("" if opacity is None else f"/{opacity}")


def class_symbol(index: int) -> str:
    """The marker of a class: shape tells classes apart where colour does not."""
    return SYMBOLS[index % len(SYMBOLS)]


def diverging(opacity: int = 100) -> list[list[Any]]:
    """Colours from the first class through the page to the second."""
    return [[0, class_colour(0, opacity)], [0.5, "@panel"], [1, class_colour(1, opacity)]]
