"""Images in: archives, Parquet, folders and the generated stand-in; one sentence for everything that cannot be used."""

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mfresnet.data.images import ImageSet, ImageSplit, archives, decoding, download, load_images
from mfresnet.errors import MfresnetError

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


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


def silent(line):
    pass


def png(array, mode=None, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8), mode).save(buffer, kind, **options)
    return buffer.getvalue()


def colours(n, size=(4, 5), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3)).astype(np.uint8)


def parquet(file, images, labels, **columns):
    pl.DataFrame({"img": [{"bytes": b, "path": None} for b in images], "label": labels, **columns}).write_parquet(file)
    return str(file)


# --- archives


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


# --- parquet


def test_parquet_is_decoded_exactly_and_kept(tmp_path):
    x, labels = colours(40), [i % 4 for i in range(40)]
    file = parquet(tmp_path / "own.parquet", [png(a) for a in x], labels)
    said = []
    split = load_images(file, cache=tmp_path / "c", seed=1, say=said.append)
    assert len(said) == 1 and "a quarter" not in split.notes[0] and "10 of 40 images were set aside" in split.notes[0]
    both = {a.tobytes(): y for part in (split.train, split.test) for a, y in zip(part.x, part.y, strict=True)}
    assert both == {a.tobytes(): y for a, y in zip(x, labels, strict=True)}  # a partition, each with its label
    assert np.bincount(split.train.y).tolist() in ([8, 8, 7, 7], [7, 7, 8, 8], [8, 7, 8, 7], [7, 8, 7, 8])
    assert split.train.classes == ("0", "1", "2", "3") and split.train.x.shape == (30, 4, 5, 3)
    again = load_images(file, cache=tmp_path / "c", seed=1, say=pytest.fail)
    np.testing.assert_array_equal(again.train.x, split.train.x)
    other = load_images(file, cache=tmp_path / "c", seed=2, say=pytest.fail)
    assert (other.test.x != split.test.x).any()


def test_damaged_cache_is_found_and_made_again(tmp_path):
    file = parquet(tmp_path / "own.parquet", [png(a) for a in colours(8)], [0, 1] * 4)
    first = load_images(file, cache=tmp_path / "c", say=silent)
    (kept,) = (tmp_path / "c").iterdir()
    whole = kept.read_bytes()
    for place in (3, 40, len(whole) // 2, len(whole) - 1):
        kept.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        said = []
        again = load_images(file, cache=tmp_path / "c", say=said.append)
        assert "is damaged: decoding again" in said[0], place
        np.testing.assert_array_equal(again.train.x, first.train.x)
    load_images(file, cache=tmp_path / "c", say=pytest.fail)
    (tmp_path / "file").write_bytes(b"")
    said = []
    again = load_images(file, cache=tmp_path / "file", say=said.append)  # a cache that cannot be written
    assert "are not kept" in said[-1]
    np.testing.assert_array_equal(again.test.x, first.test.x)


def test_plain_bytes_text_labels_and_a_pair_of_files(tmp_path):
    folder = tmp_path / "pair"
    folder.mkdir()
    encoded = [png(a, kind="JPEG", quality=95) for a in colours(6, (16, 16))]
    pl.DataFrame({"image": encoded, "label": ["dog", "cat"] * 3}).write_parquet(folder / "train.parquet")
    pl.DataFrame({"image": encoded[:2], "label": ["cat", "cat"]}).write_parquet(folder / "test.parquet")
    split = load_images(str(folder), cache=tmp_path / "c", say=silent)
    assert split.train.classes == split.test.classes == ("cat", "dog") and split.train.name == "pair"
    assert split.train.y.tolist() == [1, 0] * 3 and split.test.y.tolist() == [0, 0] and split.notes == ()
    with Image.open(io.BytesIO(encoded[1])) as image:
        np.testing.assert_array_equal(split.train.x[1], np.asarray(image))
    pl.DataFrame({"image": encoded[:2], "label": ["cat", "cow"]}).write_parquet(folder / "test.parquet")
    with pytest.raises(MfresnetError, match=r"row 1 .* has label 'cow', a class that no training image has"):
        load_images(str(folder), cache=tmp_path / "c", say=silent)
    parquet(folder / "test.parquet", [png(a) for a in colours(2)], [0, 1])
    with pytest.raises(MfresnetError, match="training images of 'pair' have size 16x16x3, the test images 4x5x3"):
        load_images(str(folder), cache=tmp_path / "c", say=silent)


GOOD = [png(a) for a in colours(8)]
LABELS = [0, 1] * 4
BAD_PARQUET = {
    "no image column": (pl.DataFrame({"label": LABELS}), "has no column 'img': .* it has label"),
    "no label column": (pl.DataFrame({"img": GOOD}), "has no column 'label'"),
    "no rows": (pl.DataFrame({"img": GOOD, "label": LABELS}).clear(), "has no rows"),
    "numbers for images": (pl.DataFrame({"img": LABELS, "label": LABELS}), "column 'img' .* holds Int64, not encoded"),
    "missing bytes": (pl.DataFrame({"img": [*GOOD[:7], None], "label": LABELS}), "row 7 .* has no image bytes"),
    "missing label": (pl.DataFrame({"img": GOOD, "label": [*LABELS[:7], None]}), "row 7 .* has no label"),
    "negative": (pl.DataFrame({"img": GOOD, "label": [*LABELS[:7], -1]}), "row 7 .* has label -1, .* out of range"),
    "not whole": (pl.DataFrame({"img": GOOD, "label": [0.0] * 7 + [0.5]}), "row 7 .* label 0.5, .* not a whole number"),
    "nan": (pl.DataFrame({"img": GOOD, "label": [0.0] * 7 + [float("nan")]}), "row 7 .* label nan, .* not a whole"),
    "gap": (pl.DataFrame({"img": GOOD, "label": [*LABELS[:7], 7]}), "row 7 .* label 7, .* no image has label 2"),
    "huge": (pl.DataFrame({"img": GOOD, "label": [*LABELS[:7], 2**62]}), "row 7 .* out of range"),
    "dates": (
        pl.DataFrame({"img": GOOD, "label": pl.Series(LABELS, dtype=pl.Int32).cast(pl.Date)}),
        "labels of .* are Date",
    ),
    "one class": (pl.DataFrame({"img": GOOD, "label": [0] * 8}), r"has 1 class\(es\): at least 2"),
    "lonely": (pl.DataFrame({"img": GOOD, "label": [0] * 7 + [1]}), "class '1' .* has 1 image"),
}


def test_declared_class_names_are_taken_and_bind_the_labels(tmp_path):
    def write(labels, names):
        text = json.dumps({"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}})
        file = tmp_path / "a.parquet"
        pl.DataFrame({"img": GOOD, "label": labels}).write_parquet(file, metadata={"huggingface": text})
        return load_images(str(file), cache=tmp_path / "c", say=silent).train.classes

    assert write(LABELS, ["cat", "dog"]) == ("cat", "dog")
    for unusable in (["cat", "cat"], ["cat"], [1, 2], "cat", None):
        assert write(LABELS, unusable) == ("0", "1")
    with pytest.raises(MfresnetError, match=r"row 1 .* has label 3, .* the labels of 3 classes are 0 to 2"):
        write([0, 3] * 4, ["cat", "dog", "cow"])


@pytest.mark.parametrize("case", BAD_PARQUET)
def test_bad_parquet(tmp_path, case):
    frame, message = BAD_PARQUET[case]
    frame.write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(MfresnetError, match=message):
        load_images(str(tmp_path / "bad.parquet"), cache=tmp_path / "c", say=silent)


def test_a_damaged_parquet_file_is_one_sentence(tmp_path):
    whole = Path(parquet(tmp_path / "a.parquet", GOOD, LABELS)).read_bytes()
    for content in (whole[:-50], whole[100:], b"PAR1" + bytes(100), b""):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(MfresnetError, match="cannot be read as Parquet"):
            load_images(str(tmp_path / "a.parquet"), cache=tmp_path / "c", say=silent)


# --- decoding


def sixteen_bit(channels):
    """A PNG with 16 bits a channel, which Pillow cannot write in colour: grey, with the type of colour changed."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 2 if channels == 3 else 0, 0, 0, 0)
    rows = (b"\0" + bytes(5 * 2 * channels)) * 4
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


FULL = Image.fromarray(colours(1)[0])
ALPHA = FULL.copy()
ALPHA.putalpha(255)
HOLE = ALPHA.copy()
HOLE.putpixel((1, 1), (1, 2, 3, 254))
BAD_IMAGES = {
    "text": (b"no image", "neither PNG nor JPEG"),
    "empty": (b"", r"cannot be decoded \(0 bytes\)"),
    "truncated": (GOOD[1][: len(GOOD[1]) // 2], "cannot be decoded"),
    "gif": (saved(FULL, "GIF"), "neither PNG nor JPEG"),
    "size": (png(colours(1, (5, 4))[0]), r"has 4 x 5 pixels \(width x height\), the first image has 5 x 4"),
    "cmyk": (saved(FULL.convert("CMYK"), "JPEG"), "colour mode CMYK: save it as RGB"),
    "16 bits": (sixteen_bit(1), "more than 8 bits a channel: .*save it with 8 bits"),
    "16 bits in colour": (sixteen_bit(3), "more than 8 bits a channel"),
    "transparent": (saved(HOLE), "has transparent pixels: put it on a background"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_that_cannot_be_used_is_named(case):
    content, message = BAD_IMAGES[case]
    with pytest.raises(MfresnetError, match=f"^row 6 {message}|^row 6 .*{message}"):
        decoding.decode_images([*GOOD[:6], content, b"", GOOD[7]], lambda i: f"row {i}")


@quick
@given(st.data())
def test_damaged_images_end_in_one_sentence(data):
    content = bytearray(png(colours(1, (8, 8))[0], kind=data.draw(st.sampled_from(["PNG", "JPEG"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    try:
        x, _ = decoding.decode_images([bytes(content)], lambda i: f"row {i}")
    except MfresnetError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
    else:
        assert x.dtype == np.uint8 and x.ndim == 4


def test_harmless_modes_are_converted_and_told():
    grey = FULL.convert("L")
    x, notes = decoding.decode_images([saved(FULL), saved(ALPHA), saved(grey)], lambda i: f"row {i}")
    np.testing.assert_array_equal(x[0], x[1])
    np.testing.assert_array_equal(x[2], np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    assert "1 image had an alpha channel, opaque everywhere, which was dropped." in notes
    assert "1 grey images among colour ones were repeated to 3 channels." in notes
    palette = FULL.quantize(20)  # 20 pixels: no colour is lost
    x, notes = decoding.decode_images([saved(palette)], lambda i: f"row {i}")
    np.testing.assert_array_equal(x[0], np.asarray(palette.convert("RGB")))
    assert notes == ("1 image with a palette became RGB.",)
    x, notes = decoding.decode_images([saved(grey), saved(grey.convert("1"))], lambda i: f"row {i}")
    assert x.shape == (2, 4, 5, 1) and set(np.unique(x[1])) <= {0, 255} and len(notes) == 1


def test_a_decompression_bomb_is_an_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)  # 20 pixels: Pillow itself would only warn
    with pytest.raises(MfresnetError, match=r"row 0 claims more than 15 pixels, .* decompression bomb"):
        decoding.decode_images(GOOD, lambda i: f"row {i}")


# --- folders


def folder(root, parts):
    for part, kinds in parts.items():
        for kind, images in kinds.items():
            (root / part / kind).mkdir(parents=True)
            for i, content in enumerate(images):
                (root / part / kind / f"{i:02}.png").write_bytes(content)
    return str(root)


def test_folder_with_and_without_a_test_part(tmp_path):
    name = folder(tmp_path / "a", {"train": {"dog": GOOD[:4], "cat": GOOD[4:]}, "test": {"cat": GOOD[:1]}})
    (tmp_path / "a/train/cat/.hidden.png").write_bytes(b"")
    (tmp_path / "a/train/cat/readme.txt").write_bytes(b"")
    split = load_images(name, cache=tmp_path / "c")
    assert split.train.classes == ("cat", "dog") and split.train.y.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(split.train.x, colours(8)[[4, 5, 6, 7, 0, 1, 2, 3]])
    assert len(split.test) == 1 and split.test.y.tolist() == [0]
    assert split.notes == ("1 file that are neither PNG nor JPEG were left out.",)
    split = load_images(folder(tmp_path / "b", {".": {"dog": GOOD[:4], "cat": GOOD[4:]}}), n_test=2)
    assert np.bincount(split.test.y).tolist() == [1, 1] and len(split.train) == 6
    assert "2 of 8 images were set aside to test" in split.notes[0]
    assert not (tmp_path / "c").exists()


BAD_FOLDERS = {
    "empty": ({}, "has no images: expected are train/CLASS"),
    "one class": ({"train": {"cat": GOOD[:2]}}, "the single class 'cat'"),
    "empty class": ({"train": {"cat": GOOD[:2], "dog": []}}, "dog' has no .png, .jpg, .jpeg files"),
    "other test class": ({"train": {"a": GOOD[:1], "b": GOOD[:1]}, "test": {"c": GOOD[:1]}}, "no training images"),
    "empty test": ({"train": {"a": GOOD[:1], "b": GOOD[:1]}, "test": {"a": []}}, "a' has no .png"),
    "no image": ({"train": {"a": GOOD[:1], "b": [b"text"]}}, "b/00.png' cannot be decoded"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(tmp_path, case):
    parts, message = BAD_FOLDERS[case]
    (tmp_path / "x").mkdir()
    with pytest.raises(MfresnetError, match=message):
        load_images(folder(tmp_path / "x", parts))


# --- names, sizes and the stand-in


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar11", {}, "unknown image data set 'cifar11': did you mean 'cifar1"),
        ("nowhere/images", {}, "'nowhere/images' does not exist"),
        ("none.parquet", {}, "'none.parquet' does not exist"),
        (__file__, {}, "is no .parquet file"),
        ("a\0b", {}, "unknown image data set|cannot be read"),
        ("", {}, "unknown image data set"),
        ("synthetic-images", {"n": 0}, "n = 0: at least one"),
        ("synthetic-images", {"n_test": -1}, "n_test = -1: at least one"),
        ("synthetic-images", {"n": 10**12}, "needs about"),
    ],
)
def test_bad_names_and_sizes(name, options, message):
    with pytest.raises(MfresnetError, match=message):
        load_images(name, **options)


def test_fewer_images_are_drawn_in_proportion(tmp_path):
    x = colours(60)
    file = parquet(tmp_path / "a.parquet", [png(a) for a in x], [0] * 40 + [1] * 20)

    def load(**options):
        return load_images(file, cache=tmp_path / "c", say=silent, **options)

    split = load(n=12, n_test=6)
    assert np.bincount(split.train.y).tolist() == [8, 4] and np.bincount(split.test.y).tolist() == [4, 2]
    assert not {a.tobytes() for a in split.train.x} & {a.tobytes() for a in split.test.x}
    np.testing.assert_array_equal(load(n=20, n_test=6).test.x, split.test.x)  # whatever n is
    for options, message in (
        ({"n": 55}, "55 training images were asked for, 'a.parquet' has 45"),
        ({"n": 1}, "n = 1 training images are fewer than the 2 classes"),
        ({"n_test": 59}, "fewer than one for each of the 2 classes are left"),
    ):
        with pytest.raises(MfresnetError, match=message):
            load(**options)


def test_sets_that_do_not_fit_are_refused():
    x, y = colours(4), np.array([0, 1, 0, 1], np.int32)
    good = ImageSet(x, y, ("a", "b"), "s")
    for arguments, message in (
        ((x.astype(np.float32), y, ("a", "b"), "s"), "must be uint8"),
        ((x[..., :2], y, ("a", "b"), "s"), "1 or 3"),
        ((x[:0], y[:0], ("a", "b"), "s"), "n >= 1"),
        ((x, y[:3], ("a", "b"), "s"), "4 images need as many int32 labels"),
        ((x, y + 1, ("a", "b"), "s"), "image 1 .* has label 2"),
        ((x, y * 0, ("a",), "s"), "at least 2"),
    ):
        with pytest.raises(MfresnetError, match=message):
            ImageSet(*arguments)
    with pytest.raises(MfresnetError, match="different classes"):
        ImageSplit(good, ImageSet(x, y, ("a", "c"), "s"))


def ridge_error(features, y, test_features, test_y):
    """Test error of least squares on one-hot targets with a small ridge."""
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-9
    a, b = (np.hstack([(f - mean) / std, np.ones((len(f), 1))]) for f in (features, test_features))
    weights = np.linalg.solve(a.T @ a + 0.1 * len(a) * np.eye(a.shape[1]), a.T @ np.eye(10)[y])
    return float(np.mean((b @ weights).argmax(axis=1) != test_y))


def test_the_stand_in_is_learnable_but_not_linearly():
    split = load_images("synthetic-images", n=1500, n_test=500, seed=3)
    train, test = split.train, split.test
    assert np.bincount(train.y).tolist() == [150] * 10 and train.x.std() > 20
    again = load_images("synthetic-images", n=1500, n_test=500, seed=3)
    np.testing.assert_array_equal(again.train.x, train.x)
    assert (load_images("synthetic-images", n=10, n_test=10, seed=4).train.x != train.x[:10]).any()
    assert (train.x[:500] != test.x).mean() > 0.9  # draws of their own

    def grey(images):
        return images.x.mean(axis=3)[:, ::2, ::2].reshape(len(images), -1) / 255

    def spectrum(images):
        """Power of the low frequencies, a square of linear features, which phase and sign do not move."""
        colour = images.x - images.x.mean(axis=(1, 2), keepdims=True)
        power = np.sum(np.abs(np.fft.rfft2(colour, axes=(1, 2)))[:, np.r_[-8:9], :9] ** 2, axis=3)
        return np.log(power.reshape(len(images), -1) + 1)

    linear = ridge_error(grey(train), train.y, grey(test), test.y)
    square = ridge_error(spectrum(train), train.y, spectrum(test), test.y)
    assert linear > 0.75  # chance is 0.9
    assert square < 0.1


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared CIFAR-10 files are not here")
def test_real_cifar10(tmp_path):
    """The test part alone: decoding all 60,000 takes a while."""
    split = load_images(str(REAL / "test.parquet"), cache=tmp_path, say=silent, n_test=1000)
    assert split.train.classes == TEN and split.train.x.shape == (9000, 32, 32, 3)
    assert np.bincount(split.test.y).tolist() == [100] * 10
    assert np.bincount(split.train.y).tolist() == [900] * 10
    frame = pl.read_parquet(REAL / "train.parquet", columns=["label"])
    assert frame["label"].value_counts(sort=True)["count"].to_list() == [5000] * 10
    # ships and airplanes stand before sky and water, deer and frogs do not: the names fit the pixels
    blue = split.train.x[..., 2].mean(axis=(1, 2)) - split.train.x[..., 0].mean(axis=(1, 2))
    order = [TEN[c] for c in np.argsort([blue[split.train.y == c].mean() for c in range(10)])]
    assert set(order[-2:]) == {"airplane", "ship"}
