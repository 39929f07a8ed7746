"""Archives of images: read as they are published, fetched once, and refused in one sentence."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import tarfile
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import TEN, quick, silent

from mfresnet.data.images import archives, download, load_images
from mfresnet.errors import MfresnetError


def records(n, labels=1, classes=10, seed=0):
    """Records as they are published: label bytes, then the red, the green and the blue plane."""
    rows = np.random.default_rng(seed).integers(0, 256, (n, labels + 3072)).astype(np.uint8)
    rows[:, labels - 1] = np.arange(n) % classes
    return rows


def members(source, n=20, **changed):
    files = {name: records(n, source.labels, source.classes, i).tobytes() for i, name in enumerate(source.train)}
    files |= {name: records(n, source.labels, source.classes, 9).tobytes() for name in source.test}
    names = TEN if source.classes == 10 else [f"kind_{c}" for c in range(source.classes)]
    return {**files, source.names: ("\n".join(names) + "\n\n").encode(), **changed}


def packed(files, extra=(), folder="cifar-10-batches-bin/"):
    """A .tar.gz of these files, and of ``extra`` (TarInfo, content) before them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for info, content in extra:
            archive.addfile(info, io.BytesIO(content))
        for name, content in files.items():
            info = tarfile.TarInfo(folder + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def published(monkeypatch):
    """Says that this content is the published archive, at this address."""

    def publish(content, name="cifar10", url="http://127.0.0.1:9/cifar-10-binary.tar.gz"):
        changed = dataclasses.replace(archives.SOURCES[name], url=url, sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(archives, "SOURCES", {**archives.SOURCES, name: changed})
        return changed

    return publish


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_archive_is_read_as_published_and_a_second_time_from_the_cache(tmp_path, published, name):
    source = archives.SOURCES[name]
    n = 20 if name == "cifar10" else 100
    content = packed(members(source, n))
    source = published(content, name)
    (tmp_path / source.file).write_bytes(content)
    split = load_images(name, cache=tmp_path, say=silent)
    assert len(split.train) == n * len(source.train) and len(split.test) == n and split.train.name == name
    raw = records(n, source.labels, source.classes, 9)
    for i, row, column, channel in ((0, 0, 0, 0), (3, 31, 2, 1), (7, 5, 30, 2)):
        place = source.labels + channel * 1024 + row * 32 + column
        assert split.test.x[i, row, column, channel] == raw[i, place]
    np.testing.assert_array_equal(split.test.y, raw[:, source.labels - 1])
    assert split.train.classes[0] == ("airplane" if name == "cifar10" else "kind_0")
    (tmp_path / source.file).unlink()
    again = load_images(name, cache=tmp_path, say=pytest.fail)  # without the archive, without a word
    np.testing.assert_array_equal(again.train.x, split.train.x)
    np.testing.assert_array_equal(again.test.y, split.test.y)


def entry(name, kind=tarfile.REGTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


HOSTILE = {
    "parent": ([(entry("cifar/../../evil", size=4), b"evil")], "leads outside"),
    "absolute": ([(entry("/etc/evil", size=4), b"evil")], "leads outside"),
    "backslash": ([(entry("..\\evil", size=4), b"evil")], "leads outside"),
    "symbolic link": ([(entry("test_batch.bin", tarfile.SYMTYPE, link="/etc/passwd"), b"")], "a link or device"),
    "hard link": ([(entry("test_batch.bin", tarfile.LNKTYPE, link="x"), b"")], "a link or device"),
    "device": ([(entry("x", tarfile.CHRTYPE), b"")], "a link or device"),
    "pipe": ([(entry("x", tarfile.FIFOTYPE), b"")], "a link or device"),
    "twice": ([(entry("other/test_batch.bin", size=4), b"evil")], "'test_batch.bin' twice"),
    "many": ([(entry(f"x{i}"), b"") for i in range(70)], "more than 64 members"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_members_are_refused_and_nothing_is_written(tmp_path, published, case):
    extra, message = HOSTILE[case]
    content = packed(members(archives.SOURCES["cifar10"], 1), extra)
    source = published(content)
    (tmp_path / source.file).write_bytes(content)
    with pytest.raises(MfresnetError, match=message):
        load_images("cifar10", cache=tmp_path, say=silent)
    assert [f.name for f in tmp_path.iterdir()] == [source.file]


def test_bombs_are_refused(tmp_path, monkeypatch):
    """A header that claims terabytes, content that unpacks without end, and a long name of any length."""
    source, file = archives.SOURCES["cifar10"], tmp_path / "bomb"
    file.write_bytes(gzip.compress(entry("x", size=2**42).tobuf(tarfile.GNU_FORMAT) + bytes(10240)))
    with pytest.raises(MfresnetError, match="of 4398046511104 bytes"):
        archives.read_archive(file, source)
    monkeypatch.setattr(archives, "UNPACKED", 2**20)
    for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        file.write_bytes(gzip.compress(entry("x", kind, size=2**20).tobuf() + bytes(2**22)))
        with pytest.raises(MfresnetError, match="unpacks to more than 1 MB"):
            archives.read_archive(file, source)


BAD_CONTENT = {
    "missing member": ({"test_batch.bin": None}, "'test_batch.bin' is missing"),
    "empty member": ({"test_batch.bin": b""}, "has 0 bytes"),
    "other size of image": ({"data_batch_2.bin": bytes(3074)}, "'data_batch_2.bin' has 3074 bytes.*another size"),
    "label out of range": ({"test_batch.bin": b"\x0a" + bytes(3072)}, "record 0 .* has label 10, .* out of range"),
    "too few names": ({"batches.meta.txt": b"cat\ndog\n"}, "names 2 classes, 10 are expected"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_archives_of_other_content_are_refused(tmp_path, case):
    changed, message = BAD_CONTENT[case]
    source = archives.SOURCES["cifar10"]
    files = {k: v for k, v in members(source, 1, **changed).items() if v is not None}
    (tmp_path / "a").write_bytes(packed(files))
    with pytest.raises(MfresnetError, match=message):
        archives.read_archive(tmp_path / "a", source)


SMALL = packed(members(archives.SOURCES["cifar10"], 1))
PLAIN = gzip.decompress(SMALL)


def survives(file, content):
    """Reading ends, with images or one sentence."""
    file.write_bytes(content)
    try:
        train, test = archives.read_archive(file, archives.SOURCES["cifar10"])
    except MfresnetError as error:
        assert str(error).endswith((".", "again.")) and "\n" not in str(error)
    else:
        assert len(train) and len(test)


@quick
@given(st.data())
def test_damaged_archives_end_in_one_sentence(tmp_path, data):
    content = bytearray(SMALL)
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    survives(tmp_path / "a", bytes(content))


@quick
@given(st.data())
def test_damaged_headers_end_in_one_sentence(tmp_path, data):
    """Damage inside the compression, in the first header, with its checksum made right again."""
    header = bytearray(PLAIN[:512])
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    survives(tmp_path / "a", gzip.compress(bytes(header) + PLAIN[512:], 1))


def test_wrong_checksum_and_truncation_name_the_way_out(tmp_path, published):
    source = published(SMALL)
    for content in (SMALL[:-100], SMALL + b"x", b""):
        (tmp_path / source.file).write_bytes(content)
        with pytest.raises(MfresnetError, match=r"has SHA-256 .*truncated, damaged or another file; remove it"):
            load_images("cifar10", cache=tmp_path)
    (tmp_path / "a").write_bytes(SMALL[: len(SMALL) // 2])
    with pytest.raises(MfresnetError, match=r"is truncated or damaged .*: remove it"):
        archives.read_archive(tmp_path / "a", source)


# --- fetching


@pytest.fixture
def serve():
    """Answers one request at an address of this machine."""
    servers = []

    def start(content, length=None, status=200):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format, *args):
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        server.timeout = 10
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/cifar-10-binary.tar.gz"

    yield start
    for server, thread in servers:
        thread.join(10)
        server.server_close()


def test_archive_is_fetched_once_and_said_aloud(tmp_path, published, serve, monkeypatch, capsys):
    monkeypatch.setenv("MFRESNET_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("no_proxy", "*")
    source = published(SMALL, url=serve(SMALL))
    split = load_images("cifar10")
    assert len(split.train) == 5
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"fetching {source.url} to ") and "checksum is right" in said[1]
    assert (tmp_path / "kept" / source.file).read_bytes() == SMALL
    for decoded in (tmp_path / "kept").glob("*.safetensors"):
        decoded.unlink()
    load_images("cifar10")  # the server answers one request only
    assert len(list((tmp_path / "kept").iterdir())) == 3  # no temporary file is left


@pytest.mark.parametrize(
    ("content", "length", "status", "message"),
    [
        (
            b"another file",
            None,
            200,
            "sent a file with SHA-256 .* not kept; try again, or put the archive there by hand",
        ),
        (SMALL[:1000], len(SMALL), 200, f"broke off after 1000 of {len(SMALL)} bytes: try again, or put"),
        (b"gone", None, 404, r"cannot be fetched \(Not Found\): try again, or put the archive there by hand, as '"),
    ],
    ids=["other", "truncated", "gone"],
)
def test_failed_transfers_leave_nothing(tmp_path, published, serve, monkeypatch, content, length, status, message):
    monkeypatch.setenv("no_proxy", "*")
    published(SMALL, url=serve(content, length, status))
    with pytest.raises(MfresnetError, match=message):
        load_images("cifar10", cache=tmp_path, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_an_answer_without_end_is_cut(tmp_path, published, serve, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "LARGEST", len(SMALL) - 1)
    published(SMALL, url=serve(SMALL))
    with pytest.raises(MfresnetError, match=r"sends more than .* MB, which is not the archive"):
        load_images("cifar10", cache=tmp_path, say=silent)
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_sentence_says_where_to_put_the_archive(tmp_path, published, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    source = published(SMALL)  # port 9, where nobody answers
    with pytest.raises(MfresnetError, match=f"put the archive there by hand, as '{tmp_path}/{source.file}'"):
        load_images("cifar10", cache=tmp_path, say=silent)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(MfresnetError, match=r"cannot be made .*set MFRESNET_CACHE"):  # a cache that is a file
        load_images("cifar10", cache=tmp_path / "file", say=silent)
