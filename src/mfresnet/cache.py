"""The user's cache directory: archives and decoded images, and the programs that JAX has compiled."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path

from .errors import MfresnetError

MOST_BYTES = 2**29  # of compiled programs: those of some hundred commands
OFF = "JAX_ENABLE_COMPILATION_CACHE"  # JAX's own switch; "false" switches the cache off


def cache_directory(cache: Path | str | None = None) -> Path:
    """Where archives, decoded images and compiled programs are kept (nothing is created).

    The first that is given of: ``cache``, the environment variable ``MFRESNET_CACHE``, ``$XDG_CACHE_HOME/mfresnet``
    (absolute paths only, as that standard asks), ``~/.cache/mfresnet``.

    Raises:
        MfresnetError: there is no home directory either.

    >>> cache_directory("here").name
    'here'
    """
    if cache is not None:
        return Path(cache)
    if named := os.environ.get("MFRESNET_CACHE"):
        return Path(named)
    if os.path.isabs(shared := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(shared) / "mfresnet"
    try:
        return Path.home() / ".cache" / "mfresnet"
    except RuntimeError as error:
        raise MfresnetError("there is no home directory to keep data in: set MFRESNET_CACHE to a directory.") from error


def enable_compilation_cache(directory: Path | str | None = None, most_bytes: int = MOST_BYTES) -> Path | None:
    """Keep compiled programs on disk, so that a second start of the same computation does not compile again.

    The command line calls it; a process of your own (with estimators, say) calls it itself, because it sets JAX's
    persistent compilation cache, which holds for all that the process and its children compile. Settings of JAX that
    are made already (a directory, the switch ``JAX_ENABLE_COMPILATION_CACHE``) stay.

    A program is found by its own content, its options and the versions of JAX and XLA; the directory is one of this
    kind of processor. So nothing stale is ever used.

    Args:
        directory: instead of ``compiled`` in the cache directory of the user (`MFRESNET_CACHE`).
        most_bytes: what is kept; programs that were not used for longest are removed first, at this call. (JAX's own
            bound reads the whole directory at every compilation.)

    Returns:
        The directory, or None: switched off, or no directory that can be written, which costs time and nothing else.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory:  # doctest: +SKIP
    ...     mfresnet.enable_compilation_cache(directory)
    """
    if os.environ.get(OFF, "").lower() in ("0", "false", "off", "no", "f", "n"):
        return None
    if own := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(own)
    try:
        place = (Path(directory) if directory is not None else cache_directory() / "compiled") / _processor()
        place.mkdir(parents=True, exist_ok=True)
        _remove_oldest(place, most_bytes)
    except (OSError, MfresnetError):
        return None
    if not os.access(place, os.W_OK | os.X_OK):
        return None
    settings = {"JAX_COMPILATION_CACHE_DIR": str(place), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    given = {name: os.environ.setdefault(name, value) for name, value in settings.items()}  # children inherit it
    if "jax" in sys.modules:  # it has read its environment
        import jax
        from jax.experimental.compilation_cache import compilation_cache

        own = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
        if own is not None:
            return Path(own)
        jax.config.update("jax_compilation_cache_dir", given["JAX_COMPILATION_CACHE_DIR"])
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", float(given["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
        )
        compilation_cache.reset_cache()  # it looks for a directory once
    return place


def _processor() -> str:
    """A name for this kind of processor: programs use the instructions that it has."""
    described = platform.machine() + platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        described += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.machine() or 'any'}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"


def _remove_oldest(directory: Path, most: int) -> None:
    """Remove the files that were not used for longest, until the rest is within ``most`` bytes."""
    found = []
    for file in directory.iterdir():
        with suppress(OSError):  # another process has removed it
            facts = file.stat()
            found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, file))
    total = sum(size for _, size, _ in found)
    for _, size, file in sorted(found):
        if total <= most:
            return
        with suppress(OSError):
            file.unlink()
        total -= size
