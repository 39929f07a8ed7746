"""Checkpoints: the training state as safetensors with a SHA-256, written whole or not at all.

A checkpoint is a directory ``step-000000100`` with ``state.safetensors`` (every array of the state,
and where training stood in its header) and ``SHA256``. It is made under a temporary name, flushed
and renamed, so that what has its final name is complete; what was damaged later is found by the sum.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as parse_tensors
from safetensors.numpy import save as tensors_bytes

from ..errors import MfresnetError
from .files import flush_directory, writing

T = TypeVar("T")
NAMES = {"ensemble.one_to_one.": "ensemble.unfolded."}  # what checkpoints call a part of the state, where it differs


def leaf_names(tree: Any) -> list[str]:
    """A name for every array of a tree: its path, such as ``model.encoder.w``."""
    paths = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, eqx.is_array))[0]
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    for own, written in NAMES.items():
        names = [name.replace(own, written) for name in names]
    return names


def save(folder: Path, step: int, state: Any, facts: Mapping[str, Any]) -> Path:
    """Write the checkpoint of ``step``; ``facts`` (JSON) travel in its header."""
    leaves = jax.tree.leaves(eqx.filter(state, eqx.is_array))
    # np.ascontiguousarray would give a scalar an axis
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in zip(leaf_names(state), leaves, strict=True)}
    data = tensors_bytes(arrays, metadata={"facts": json.dumps(dict(facts))})
    place, temporary = folder / f"step-{step:09d}", folder / f".step-{step:09d}.tmp"
    with writing(place):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, content in (
                ("state.safetensors", data),
                ("SHA256", hashlib.sha256(data).hexdigest().encode()),
            ):
                with (temporary / name).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            flush_directory(temporary)
            if place.exists():  # a damaged one of the same step
                shutil.rmtree(place)
            os.replace(temporary, place)
            flush_directory(folder)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return place


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    return sorted(int(p.name[5:]) for p in folder.glob("step-*") if p.name[5:].isdigit())


def read(folder: Path, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a checkpoint.

    Raises:
        MfresnetError: a file is missing or its SHA-256 does not match.
    """
    place = folder / f"step-{step:09d}"
    try:
        data = (place / "state.safetensors").read_bytes()
        expected = (place / "SHA256").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MfresnetError(f"checkpoint {str(place)!r} is damaged: a file cannot be read.") from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise MfresnetError(f"checkpoint {str(place)!r} is damaged: its SHA-256 does not match.")
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        return parse_tensors(data), json.loads(header["__metadata__"]["facts"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise MfresnetError(f"checkpoint {str(place)!r} was not written by mfresnet: {error}.") from error


def restore(like: T, arrays: Mapping[str, np.ndarray]) -> T:
    """A state of the shape of ``like`` with these arrays.

    Raises:
        MfresnetError: an array is missing or has another shape.
    """
    names = leaf_names(like)
    dynamic, static = eqx.partition(like, eqx.is_array)
    leaves, structure = jax.tree.flatten(dynamic)
    values = []
    for name, leaf in zip(names, leaves, strict=True):
        value = arrays.get(name)
        if value is None or value.shape != leaf.shape or value.dtype != leaf.dtype:
            what = "is missing" if value is None else f"is {_kind(value)}, not {_kind(leaf)}"
            raise MfresnetError(f"array {name!r} of the checkpoint {what}: it is of another configuration or version.")
        values.append(jax.numpy.asarray(value))
    return eqx.combine(jax.tree.unflatten(structure, values), static)


def _kind(array: Any) -> str:
    return f"{array.dtype} of shape {array.shape}"


def latest(folder: Path, like: T, say: Callable[[str], None]) -> tuple[T, dict[str, Any]] | None:
    """The newest sound checkpoint, or None where none was written yet; damaged ones are named aloud and passed over.

    Raises:
        MfresnetError: there are checkpoints and all are damaged, or they belong to another configuration.
    """
    present = steps(folder)
    for step in reversed(present):
        try:
            arrays, facts = read(folder, step)
        except MfresnetError as error:
            say(f"{error} The one before it is used." if step != present[0] else str(error))
            continue
        return restore(like, arrays), facts
    if present:
        raise MfresnetError(f"no sound checkpoint is left in {str(folder)!r}: train again with --overwrite.")
    return None


def discard_after(folder: Path, step: int) -> None:
    """Remove what a resumed run makes again: checkpoints after ``step`` (damaged ones) and half-written ones.

    Left in place, a damaged checkpoint would count among the newest, and `prune` would keep it for a sound one.
    """
    for later in steps(folder):
        if later > step:
            shutil.rmtree(folder / f"step-{later:09d}", ignore_errors=True)
    for temporary in folder.glob(".step-*.tmp"):
        shutil.rmtree(temporary, ignore_errors=True)


def prune(folder: Path, keep: Collection[int], newest: int = 2) -> None:
    """Remove all checkpoints but the steps in ``keep`` and the ``newest`` ones."""
    for step in steps(folder)[:-newest]:
        if step not in keep:
            shutil.rmtree(folder / f"step-{step:09d}", ignore_errors=True)
