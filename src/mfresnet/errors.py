"""Errors a user can act on: one sentence that names the thing, the value and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


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
    """The error for an unknown name, with the closest known ones.

    >>> str(unknown_name("activation", "tanhh", ["tanh", "relu"]))
    "unknown activation 'tanhh': did you mean 'tanh'? Known: relu, tanh."
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(c) for c in close)}? " if close else ""
    return MfresnetError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(names)}.")


@contextmanager
def calling(what: str, way_out: str = "correct it") -> Iterator[None]:
    """An exception of a user's own function is a sentence that names the function; the exception stays its cause.

    >>> with calling("the factory"):
    ...     {}["width"]
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: the factory failed with KeyError ('width'): correct it.
    """
    try:
        yield
    except MfresnetError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or [""])[0].rstrip(".")
        raise MfresnetError(f"{what} failed with {type(error).__name__} ({said}): {way_out}.") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this process or a device of JAX had no memory left.

    >>> is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: ..")), is_out_of_memory(OSError())
    (True, False)
    """
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


@contextmanager
def within_memory(way_out: str) -> Iterator[None]:
    """Running out of memory inside is a sentence that names ``way_out``; every other error stays itself.

    >>> with within_memory("lower --seeds."):
    ...     raise MemoryError
    Traceback (most recent call last):
    mfresnet.errors.MfresnetError: out of memory: lower --seeds.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise MfresnetError(f"out of memory: {way_out}") from error
