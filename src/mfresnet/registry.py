"""Objects that are chosen by name: built in, or added by an installed package.

Each kind of object (activation, loss, experiment, ...) has one `Registry`. A package adds its own through an entry
point of the registry's group, which in its ``pyproject.toml`` reads

    [project.entry-points."mfresnet.activations"]
    swish = "toy.activations:SWISH"

and ``package.module:ATTRIBUTE`` names an object of any module that can be imported. Nothing is imported before it is
asked for, so that listing names stays quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from .errors import MfresnetError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One built-in name of a registry.

    Args:
        target: the object, or where it is: ``"package.module:ATTRIBUTE"``, imported on first use.
        summary: one line for lists and ``--help``; of an added object, the first line of its docstring.
    """

    target: T | str
    summary: str = ""


class Registry(Generic[T]):
    """The objects of one kind, by name.

    Args:
        kind: the noun that messages use, such as "activation".
        group: the entry-point group that packages join, such as "mfresnet.activations".
        entries: the built-in objects: an `Entry`, or the object itself.
        base: the class that an object added from outside is an instance (or, for a class, a subclass) of; a string
            names it as ``"package.module:NAME"``; a tuple names several. None accepts every callable.

    >>> colours = Registry("colour", "mfresnet.colours", {"red": Entry(0xFF0000, "as a rose"), "green": 0x00FF00})
    >>> colours.names(), colours["red"], colours.summary("red")
    (('red', 'green'), 16711680, 'as a rose')
    >>> colours["gren"]
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: unknown colour 'gren': did you mean 'green' or 'red'? Known: green, red.
    """

    def __init__(self, kind: str, group: str, entries: Mapping[str, Entry[T] | T], base: Any = None):
        self.kind, self.group, self.base = kind, group, base
        self._built_in: dict[str, Entry[T]] = {
            name: cast("Entry[T]", entry) if isinstance(entry, Entry) else Entry(entry)
            for name, entry in entries.items()
        }

    def names(self) -> tuple[str, ...]:
        """Every name: the built-in ones first.

        Raises:
            MfresnetError: a package adds a name that is taken.
        """
        return (*self._built_in, *self._added())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._added()

    def __getitem__(self, name: str) -> T:
        """The object of that name, or the one at ``package.module:ATTRIBUTE``.

        Raises:
            MfresnetError: an unknown name, or an object that cannot be imported or is of another kind.
        """
        if name in self._built_in:
            target = self._built_in[name].target
            return cast("T", _load(target) if isinstance(target, str) else target)
        point = self._added().get(name)
        if point is None and ":" not in name:
            raise unknown_name(self.kind, name, self.names())
        try:
            added = _load(name if point is None else point.value)
        except (ImportError, AttributeError, ValueError) as error:
            raise MfresnetError(f"{self.kind} {name!r} cannot be loaded: {error}.") from error
        return self._check(name, added)

    def summary(self, name: str) -> str:
        """One line about the object of that name (loads it, if a package has added it)."""
        if name in self._built_in:
            return self._built_in[name].summary
        return (getattr(self[name], "__doc__", None) or "").strip().partition("\n")[0].rstrip(".")

    def _added(self) -> dict[str, EntryPoint]:
        added: dict[str, EntryPoint] = {}
        for point in _entry_points(self.group):
            if point.name in self._built_in or point.name in added:
                owner = "a package" if point.dist is None else f"the package {point.dist.name}"
                raise MfresnetError(
                    f"{owner} adds the {self.kind} {point.name!r}, a name that is taken: rename its entry point in "
                    f"{self.group}, or uninstall it."
                )
            added[point.name] = point
        return added

    def _check(self, name: str, added: Any) -> T:
        bases = tuple(_load(one) if isinstance(one, str) else one for one in _as_tuple(self.base))
        if not bases:
            fits, wanted = callable(added), "callable"
        else:
            fits = isinstance(added, bases) or (isinstance(added, type) and issubclass(added, bases))
            wanted = " or ".join(_describe(base) for base in bases)
        if not fits:
            raise MfresnetError(f"{self.kind} {name!r} is a {type(added).__name__}, not {wanted}.")
        return cast("T", added)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _describe(base: type) -> str:
    package = base.__module__.partition(".")[0]
    return f"{'an' if package[0] in 'aeiom' else 'a'} {package}.{base.__name__}"


@cache
def _entry_points(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of the installed packages, each once: a package may be on the path twice."""
    points = {(point.name, point.value): point for point in entry_points(group=group)}
    return tuple(sorted(points.values(), key=lambda point: point.name))


def _load(place: str) -> Any:
    """The object at ``package.module:ATTRIBUTE``."""
    module, _, attribute = place.partition(":")
    value: Any = importlib.import_module(module.strip())
    for part in attribute.strip().split("."):
        value = getattr(value, part)
    return value
