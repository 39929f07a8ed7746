"""Images from Parquet: decoded exactly, kept in the cache, and refused in one sentence."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from image_files import GOOD, LABELS, colours, parquet, png, silent
from PIL import Image

from mfresnet.data.images import load_images
from mfresnet.errors import MfresnetError


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
