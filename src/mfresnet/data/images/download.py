"""Fetching an archive once: to a temporary file, checked, then under its name."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path

from ...errors import MfresnetError
from ..guard import call_reader
from .cache import Say, file_sha256, replacing

TIMEOUT = 30.0  # seconds without a byte
LARGEST = 512 * 2**20
BLOCK = 2**20


def fetch(url: str, sha256: str, file: Path, say: Say) -> Path:
    """The archive at ``file``, fetched from ``url`` unless it is there; its SHA-256 is compared either way.

    Raises:
        MfresnetError: no network, a transfer that breaks off, another checksum, a cache that cannot be written. The
            sentence says where to put the archive by hand.
    """
    if file.exists():
        if not file.is_file():
            raise MfresnetError(f"{str(file)!r} is not a file: remove it, so that the archive can be kept there.")
        if (got := call_reader(file, "an archive", lambda: file_sha256(file))) != sha256:
            raise MfresnetError(
                f"archive {str(file)!r} has SHA-256 {got[:12]}..., not {sha256[:12]}...: it is truncated, damaged or "
                "another file; remove it, so that it is fetched again."
            )
        return file
    by_hand = f"put the archive there by hand, as {str(file)!r}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise MfresnetError(
            f"the cache directory {str(file.parent)!r} cannot be made ({reason}): set MFRESNET_CACHE to another place."
        ) from error
    say(f"fetching {url} to {str(file)!r} (once).")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            _store(answer, url, sha256, file, by_hand, say)
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError is an OSError
        if isinstance(error, MfresnetError):
            raise
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        text = " ".join(str(reason).split())[:120].rstrip(". ") or type(error).__name__
        raise MfresnetError(f"{url} cannot be fetched ({text}): try again, or {by_hand}.") from error
    return file


def _store(answer, url: str, sha256: str, file: Path, by_hand: str, say: Say) -> None:
    """Copy the answer to ``file``; nothing is left of it when it is not what was asked for."""
    length = answer.headers.get("Content-Length") or ""
    total = int(length) if length.isdecimal() else None
    digest, size, told = hashlib.sha256(), 0, 0
    with replacing(file) as stream:
        while block := answer.read(BLOCK):
            size += len(block)
            if size > LARGEST:
                raise MfresnetError(f"{url} sends more than {LARGEST >> 20} MB, which is not the archive: {by_hand}.")
            digest.update(block)
            stream.write(block)
            if size - told >= 16 * BLOCK:
                told = size
                say(f"{size / 1e6:.0f} MB" + (f" of {total / 1e6:.0f} MB" if total else "") + " fetched.")
        if total is not None and size < total:
            raise MfresnetError(f"{url} broke off after {size} of {total} bytes: try again, or {by_hand}.")
        if (got := digest.hexdigest()) != sha256:
            raise MfresnetError(
                f"{url} sent a file with SHA-256 {got[:12]}..., not {sha256[:12]}...: it was not kept; try again, or "
                f"{by_hand}."
            )
    say(f"{str(file)!r} is complete ({size / 1e6:.0f} MB) and its checksum is right.")
