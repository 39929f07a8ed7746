"""Image sets: folders, names and sizes, the generated stand-in, and CIFAR-10 itself where it is at hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from image_files import GOOD, TEN, colours, parquet, png, silent

from mfresnet.data.images import ImageSet, ImageSplit, load_images
from mfresnet.errors import MfresnetError

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"


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
