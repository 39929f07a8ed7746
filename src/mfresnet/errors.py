"""Errors a user can act on: one sentence that names the thing, the value and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MfresnetError(ValueError):
    """A mistake in the input, the configuration or the environment.

    The command line prints the message as one sentence and exits with code 2; in Python it is an
    ordinary ``ValueError``.

    >>> issubclass(MfresnetError, ValueError)
    True
    """


class DivergedError(MfresnetError):
    """Training left the range of finite numbers; the message says where, why and what to change.

    >>> issubclass(DivergedError, MfresnetError)
    True
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> MfresnetError:
    """The error for a name nobody knows, with the closest known ones.

    >>> str(unknown_name("activation", "tanhh", ["tanh", "relu"]))
    "unknown activation 'tanhh': did you mean 'tanh'? Known: relu, tanh."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return MfresnetError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(names)}.")
