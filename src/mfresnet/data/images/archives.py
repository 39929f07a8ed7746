"""CIFAR-10 and CIFAR-100 from their binary archives, read in memory by NumPy: no pickle, nothing extracted to disk."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from ...errors import MfresnetError
from .cache import Say, load_cached
from .download import fetch
from .sets import ImageSet, refuse_labels

PIXELS = 3 * 32 * 32
MEMBERS, UNPACKED = 64, 256 * 2**20  # what a whole archive may hold: the published ones have 8 files and 185 MB


@dataclass(frozen=True)
class Source:
    """One published archive.

    Args:
        name: of the data set.
        url: where it is fetched from.
        sha256: of the archive.
        train, test: members with records of ``labels`` bytes and 3072 bytes of pixels (red, green, blue planes).
        names: the member that lists the classes.
        labels: label bytes of a record; the last is used.
        classes: their number.
    """

    name: str
    url: str
    sha256: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    labels: int
    classes: int

    @property
    def file(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "cifar10": Source(
            "cifar10",
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
            ("test_batch.bin",),
            "batches.meta.txt",
            1,
            10,
        ),
        "cifar100": Source(
            "cifar100",
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            2,  # coarse, fine
            100,
        ),
    }
)


def cifar(name: str, cache: Path, say: Say) -> tuple[ImageSet, ImageSet, tuple[str, ...]]:
    """Training and test images of a published archive: from the cache, from the archive in it, or fetched.

    Raises:
        MfresnetError: an archive that cannot be fetched, has another checksum, or is not the published one.
    """
    source = SOURCES[name]
    kept: dict[str, ImageSet] = {}  # both parts come out of one reading

    def part(which: str) -> ImageSet:
        def decode() -> tuple[ImageSet, tuple[str, ...]]:
            if not kept:
                file = fetch(source.url, source.sha256, cache / source.file, say)
                say(f"reading {str(file)!r}.")
                kept.update(zip(("train", "test"), read_archive(file, source), strict=True))
            return kept[which], ()

        return load_cached(cache, f"{source.sha256}-{which}", name, decode, say)[0]

    return part("train"), part("test"), ()


def read_archive(file: Path, source: Source) -> tuple[ImageSet, ImageSet]:
    """The training and test images in an archive.

    Raises:
        MfresnetError: truncated or damaged, hostile (links, paths that lead outside, more content than the published
            archive), a missing member, a member of another size, a label out of range.
    """
    wanted = (*source.train, *source.test, source.names)
    what = f"archive {str(file)!r}"
    try:
        with file.open("rb") as raw, gzip.GzipFile(fileobj=raw) as plain:
            files = _members(_Bounded(plain, what), wanted, what)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OSError, ValueError, OverflowError) as error:
        if isinstance(error, MfresnetError):
            raise
        raise MfresnetError(
            f"{what} is truncated or damaged ({_reason(error)}): remove it, so that it is fetched again."
        ) from error
    if missing := [name for name in wanted if name not in files]:
        raise MfresnetError(f"{what} is not the published one: {missing[0]!r} is missing from it; remove it.")
    names = tuple(files[source.names].decode("utf-8", errors="replace").split())
    if len(names) != source.classes or len(set(names)) != source.classes:
        raise MfresnetError(f"{what}: {source.names!r} names {len(names)} classes, {source.classes} are expected.")
    return _images(files, source.train, names, source, what), _images(files, source.test, names, source, what)


class _Bounded(io.RawIOBase):
    """A stream that gives no more than `UNPACKED` bytes, whatever a header or the compression claims."""

    def __init__(self, stream: gzip.GzipFile, what: str):
        self.stream, self.what, self.left = stream, what, UNPACKED

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(data)
        if self.left < 0:
            raise MfresnetError(f"{self.what} unpacks to more than {UNPACKED >> 20} MB: it is not the published one.")
        return data


def _members(stream: _Bounded, wanted: tuple[str, ...], what: str) -> dict[str, bytes]:
    """The content of the wanted members, by their last name, after a look at every header."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # as a stream: forwards only, each byte once
        for count, member in enumerate(archive, start=1):
            path = PurePosixPath(member.name)
            shown = repr(member.name[:80])
            if count > MEMBERS:
                raise MfresnetError(f"{what} has more than {MEMBERS} members: it is not the published one; remove it.")
            if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
                raise MfresnetError(f"{what} holds {shown}, a path that leads outside: it is not the published one.")
            if not (member.isreg() or member.isdir()):
                raise MfresnetError(f"{what} holds {shown}, a link or device: it is not the published one; remove it.")
            if not 0 <= member.size <= UNPACKED:
                raise MfresnetError(f"{what} holds {shown} of {member.size} bytes: it is not the published one.")
            if not member.isreg() or path.name not in wanted:
                continue
            if path.name in files:
                raise MfresnetError(f"{what} holds {path.name!r} twice: it is not the published one; remove it.")
            content = archive.extractfile(member)
            data = content.read() if content is not None else b""
            if len(data) != member.size:
                raise MfresnetError(f"{what} ends inside {shown}: remove it, so that it is fetched again.")
            files[path.name] = data
    return files


def _images(
    files: dict[str, bytes], members: tuple[str, ...], names: tuple[str, ...], source: Source, what: str
) -> ImageSet:
    record = source.labels + PIXELS
    xs, ys = [], []
    for member in members:
        data = files[member]
        if not data or len(data) % record:
            raise MfresnetError(
                f"{what}: {member!r} has {len(data)} bytes, which is no multiple of {record}: images of another size."
            )
        rows = np.frombuffer(data, np.uint8).reshape(-1, record)
        y = rows[:, source.labels - 1].astype(np.int32)
        refuse_labels(y, source.classes, lambda i, m=member: f"{what}: {m!r}, record {i} (counted from 0),")
        xs.append(rows[:, source.labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        ys.append(y)
    return ImageSet(np.concatenate(xs), np.concatenate(ys), names, source.name)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:100].rstrip(". ") or type(error).__name__
