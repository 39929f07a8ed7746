"""Fields of the configuration: settings of several values, and what a field accepts, in words.

Several values are a tuple in Python and a list in TOML. On the command line, and in the ``config.json`` of older runs,
they are one text with commas; `split_list` is the one place that reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MinLen
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

MOST = 10**15


def split_list(text: str) -> tuple[str, ...]:
    """The values of a text with commas between them; blank ones are left out.

    >>> split_list("8, 16,32")
    ('8', '16', '32')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _in_order(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(values)))


def _once(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


WholeNumbers = Annotated[tuple[Annotated[int, Ge(1), Le(10**7)], ...], MinLen(1), AfterValidator(_in_order)]
Sizes = Annotated[tuple[Annotated[int, Ge(2), Le(MOST)], ...], MinLen(1), AfterValidator(_in_order)]
PositiveNumbers = Annotated[tuple[Annotated[float, Ge(1e-12), Le(MOST)], ...], MinLen(1), AfterValidator(_in_order)]
Names = Annotated[tuple[str, ...], MinLen(1), AfterValidator(_once)]


def item_of(field: FieldInfo) -> Any:
    """The type of one value of a field that takes several, or None.

    >>> item_of(FieldInfo(annotation=tuple[str, ...]))
    <class 'str'>
    """
    for kind in (field.annotation, *get_args(field.annotation)):
        while get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        if get_origin(kind) is tuple:
            return get_args(kind)[0]
    return None


def is_repeated(field: FieldInfo) -> bool:
    """Whether each value has a flag of its own on the command line, instead of one text with commas."""
    return bool(extra(field).get("repeated"))


def split_lists(values: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The values of a section, texts of fields that take several divided at the commas."""
    out = dict(values)
    for name, value in values.items():
        if isinstance(value, str) and name in fields and item_of(fields[name]) is not None:
            out[name] = (value,) if is_repeated(fields[name]) else split_list(value)
    return out


def allowed(field: FieldInfo) -> str:
    """The values a field accepts, in words: ``a whole number >= 1 and <= 10`` or ``one of euler, rk4``."""
    if "allowed" in extra(field):
        return str(extra(field)["allowed"])
    item = item_of(field)
    if item is None:
        return _in_words(field.annotation, field.metadata)
    kind, *rules = get_args(item) if get_origin(item) is Annotated else (item,)
    return _in_words(kind, rules, several=True)


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The names that a field accepts, () where it is no choice of names."""
    kind = item_of(field) or field.annotation
    named = get_args(kind) if get_origin(kind) is Literal else ()
    return tuple(extra(field).get("choices", named))


def _in_words(kind: Any, rules: Iterable[Any], several: bool = False) -> str:
    tail = ", several separated by commas" if several else ""
    if get_origin(kind) is Literal:
        return f"{'some' if several else 'one'} of {', '.join(get_args(kind))}{tail}"
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [(sign, getattr(rule, key, None)) for rule in rules for key, sign in signs.items()]
    words = [
        f"{sign} {bound if isinstance(bound, int) else f'{bound:g}'}" for sign, bound in bounds if bound is not None
    ]
    return f"{type_name(kind, several)} {' and '.join(words)}".strip() + tail


def type_name(kind: Any, several: bool = False) -> str:
    """The type of a value, or of several, in a word a user knows.

    >>> type_name(int), type_name(float, several=True)
    ('a whole number', 'numbers')
    """
    names = [t for t in (get_args(kind) or (kind,)) if t is not type(None)]
    words = {
        int: ("a whole number", "whole numbers"),
        float: ("a number", "numbers"),
        str: ("text", "names"),
        bool: ("true or false", "true or false"),
    }
    return words[names[0]][several] if names[0] in words else str(names[0])


def extra(field: FieldInfo) -> Mapping[str, Any]:
    """What a field says of its values beyond type and range: ``choices`` (names), ``allowed`` (words), ``repeated``."""
    schema = field.json_schema_extra
    return schema if isinstance(schema, Mapping) else {}


def shorten(value: Any) -> str:
    """A value for a message: never longer than a line."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."
