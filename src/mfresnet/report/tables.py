"""Configuration, data, and how to get the same run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config import Config, leaves
from ..images.configuration import ImageConfig
from .parts import Code, Facts, Fold, Notes, Section, Table
from .reading import Run, flat


def configuration(run: Run) -> Section | None:
    """What differs from the defaults, then every value with its meaning."""
    values = dict(flat(run.part("config")))
    if not values:
        return None
    kind = ImageConfig if run.record.get("kind") == "image" else Config
    defaults = dict(flat(kind.model_validate({}).model_dump()))
    meaning = {name: field.description or "" for name, field in leaves(kind)}
    changed = [
        (name, format_value(value), format_value(defaults.get(name)), meaning.get(name, ""))
        for name, value in values.items()
        if name not in defaults or format_value(defaults[name]) != format_value(value)
    ]
    everything = [(name, format_value(value), meaning.get(name, "")) for name, value in values.items()]
    parts: list[Any] = []
    if changed:
        parts.append(Table(("setting", "value", "default", "meaning"), changed, code=(0, 1, 2)))
    parts.append(Fold(f"All {len(everything)} settings", Table(("setting", "value", "meaning"), everything, (0, 1))))
    return Section("Configuration", "What differs from the defaults." if changed else "All defaults.", parts)


def data(run: Run) -> Section | None:
    """The data set, how it reached the network, and what the theory's assumptions say about it."""
    about = run.part("data")
    if not about:
        return None
    names = {"name": "data set", "n": "training points", "n_test": "held-out points", "task": "task"}
    names |= {"size": "size", "inputs": "inputs", "outputs": "outputs", "classes": "classes", "transform": "transform"}
    facts = [(word, format_value(about[key])) for key, word in names.items() if about.get(key) not in (None, [], "")]
    parts: list[Any] = [Facts(facts)]
    notes = about.get("notes")
    if isinstance(notes, list) and notes:
        parts.append(Notes([str(note) for note in notes]))
    return Section("Data", "", parts)


def reproduction(run: Run) -> Section | None:
    """The command, the versions and the machine."""
    parts: list[Any] = []
    command = run.record.get("command")
    if command:
        parts.append(Code(str(command)))
    facts = [("created", format_value(run.record["created"]))] if run.record.get("created") else []
    seed = run.part("config").get("seed")
    facts += [("seed", format_value(seed))] if seed is not None else []
    facts += [(name, format_value(value)) for part in ("versions", "platform") for name, value in flat(run.part(part))]
    if facts:
        parts.append(Facts(facts))
    caption = "The same command, versions and kind of machine give the same run."
    return Section("Reproduce", caption if command else "", parts) if parts else None


def format_value(value: Any) -> str:
    """A value as a reader writes it.

    >>> format_value(True), format_value(None), format_value(0.001), format_value(["a", "b"])
    ('true', 'not set', '0.001', 'a, b')
    """
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {format_value(item)}" for key, item in value.items())
    return str(value)
