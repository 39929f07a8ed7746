"""The user's own file: what is read, and one sentence for everything that cannot be."""

import io
import os
import zipfile

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfresnet.config import DataConfig
from mfresnet.data import load, read_file
from mfresnet.errors import MfresnetError

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = "1,2,no\n2,1,yes\n1,3,no\n3,1,yes\n"


def write(folder, content, name="data.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def arrays(folder, x, y, name="data.npz", **more):
    np.savez(folder / name, x=x, y=y, **more)
    return str(folder / name)


def test_csv_and_parquet_and_arrays_agree(tmp_path):
    x = np.random.default_rng(0).standard_normal((12, 2))
    kinds = ["no", "yes"] * 6
    frame = pl.DataFrame({"a": x[:, 0], "kind": kinds, "b": x[:, 1]})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_parquet(tmp_path / "t.parquet")
    np.savez(tmp_path / "t.npz", X=x, kind=np.array(kinds), y=np.zeros(12))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.array(kinds)[:, None])
    tables = [read_file(str(tmp_path / f"t.{s}"), target="kind") for s in ("csv", "parquet", "npz")]
    tables.append(read_file(str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy")))
    for table in tables:
        np.testing.assert_array_equal(table.x, x)
        assert table.classes == ("no", "yes") and table.task == "classification"
        np.testing.assert_array_equal(table.target, [0, 1] * 6)
    assert [t.feature_names for t in tables] == [("a", "b"), ("a", "b"), ("x0", "x1"), ("x0", "x1")]
    split = load(DataConfig(name=str(tmp_path / "t.csv"), target="kind"), seed=0)
    np.testing.assert_allclose(np.linalg.norm(split.train.x, axis=1), 1.0)
    assert split.transform.mean is not None and split.train.name == "t.csv"


@pytest.mark.parametrize(
    "text",
    [
        "a,b,kind\r\n" + ROWS.replace("\n", "\r\n"),
        "\ufeffa,b,kind\n" + ROWS,
        ("a,b,kind\n" + ROWS).replace("\n", "\r"),
        "\n\na,b,kind\n" + ROWS + "\n\n",
        "a, b ,kind\n" + ROWS.replace(",", ", ").replace("\n", "\n\n"),
        '"a","b","kind"\n' + ROWS.replace("no", '"no"'),
    ],
    ids=["crlf", "bom", "cr", "blank lines", "spaces", "quotes"],
)
def test_harmless_variations_of_csv_read_the_same(tmp_path, text):
    table = read_file(write(tmp_path, text), target="kind")
    np.testing.assert_array_equal(table.x, [[1, 2], [2, 1], [1, 3], [3, 1]])
    assert table.feature_names == ("a", "b") and table.target.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("y", "task", "expected", "classes"),
    [
        ([0, 1] * 5, "auto", "classification", ("0", "1")),
        ([-1.0, 1.0] * 5, "auto", "classification", ("-1", "1")),
        ([True, False] * 5, "auto", "classification", ("false", "true")),
        (["b", "a"] * 5, "auto", "classification", ("a", "b")),
        ([b"b", b"a"] * 5, "auto", "classification", ("a", "b")),
        ([10, 9, 2, 10, 9, 2, 10, 9, 2, 2], "auto", "classification", ("2", "9", "10")),
        (list(range(10)), "auto", "regression", ()),
        (np.linspace(0, 1, 10), "auto", "regression", ()),
        ([0.5, 1.5] * 5, "auto", "regression", ()),
        ([0.5, 1.5] * 5, "classification", "classification", ("0.5", "1.5")),
        ([0, 1] * 5, "regression", "regression", ()),
    ],
)
def test_the_kind_of_target(tmp_path, y, task, expected, classes):
    table = read_file(arrays(tmp_path, np.eye(10), np.array(y)), task=task)
    assert (table.task, table.classes) == (expected, classes)
    numeric = np.array(y).dtype.kind in "if"
    assert bool(table.notes) == (numeric and task == "auto")  # a choice that was made is told


def test_many_whole_numbers_are_a_regression(tmp_path):
    ages = np.arange(100) % 40
    table = read_file(arrays(tmp_path, np.random.default_rng(0).standard_normal((100, 2)), ages))
    assert table.task == "regression" and "set data.task to classification" in table.notes[0]


def test_regression_targets_are_mapped_and_can_be_mapped_back(tmp_path):
    x = np.random.default_rng(0).standard_normal((40, 2))
    y = 1000 + 50 * x[:, 0]
    split = load(DataConfig(name=arrays(tmp_path, x, y)), seed=0)
    assert split.train.y.min() == -1.0 and split.train.y.max() == 1.0
    back = np.sort(split.transform.invert_target(np.vstack([split.train.y, split.test.y])).ravel())
    np.testing.assert_allclose(back, np.sort(y), rtol=1e-12)


BAD_CSV = {
    "empty": ("", "is empty"),
    "only line ends": ("\n\n", "empty CSV"),
    "header only": ("a,b,kind\n", r"has 0 row\(s\)"),
    "one row": ("a,b,kind\n1,2,no\n", r"has 1 row\(s\)"),
    "text feature": (
        "a,b,kind\n1,2,no\n1,red,no\n",
        "column 'b', row 3, holds 'red', which is not a number: set --data.categories one-hot",
    ),
    "first bad column": ("a,b,kind\n1,red,no\nblue,1,no\n", "column 'a', row 3, holds 'blue'"),
    "row after blank lines": ("\na,b,kind\n\n1,2,no\n1,red,no\n", "column 'b', row 5, holds 'red'"),
    "missing": ("a,b,kind\n1,2,no\n1,,no\n", "column 'b', row 3, has a missing value: set --data.missing mean or drop"),
    "short row": ("a,b,kind\n1,2,no\n1\n", "column 'b', row 3, has a missing value"),
    "missing target": (
        "a,b,kind\n1,2,no\n1,2,\n",
        "target column 'kind', row 3, .* missing value: set --data.missing drop",
    ),
    "long row": ("a,b,kind\n1,2,no\n1,2,no,5\n", "row 3, has 4 fields, the header has 3"),
    "nan": ("a,b,kind\n1,2,no\nNaN,2,no\n", "column 'a', row 3, has a missing value"),
    "infinite": ("a,b,kind\n1,2,no\n-inf,2,no\n", "column 'a', row 3, is -inf"),
    "too large": ("a,b,kind\n1,2,no\n1e200,2,no\n", r"column 'a', row 3, is 1e\+200: values beyond 1e150 overflow"),
    "one class": ("a,b,kind\n1,2,no\n2,2,no\n", "target column 'kind' has the single value 'no'"),
    "lonely class": (
        "a,b,kind\n1,2,no\n2,2,no\n3,1,yes\n",
        "class 'yes' of .* has one member, row 4",
    ),
    "class of two lines": ('a,b,kind\n1,2,no\n2,2,no\n3,1,"ye\ns"\n', r"class 'ye\\ns' of target column 'kind'"),
    "free text": ("a,b,kind\n" + "".join(f"1,2,t{i}\n" for i in range(5)), "neither a set of classes nor numbers"),
    "duplicate names": ("a,a,kind\n1,2,no\n2,2,no\n", "column name 'a' appears twice"),
    "unnamed column": (",b,kind\n0,2,no\n1,2,no\n", "column 1 of .* has no name"),
    "no features": ("kind\nno\nyes\n", "has no feature columns beside the target 'kind'"),
    "wrong separator": ("a b kind\n1 2 no\n2 1 no\n", "has no column 'kind'"),
    "thousands": ("a;kind\n1,234;no\n2,000;no\n", r"'1,234', which may be 1.234 or 1234: write the numbers"),
    "wrong name": ("a,b,kinds\n1,2,no\n", "has no column 'kind': did you mean 'kinds'"),
    "latin-1": ("a,b,kind\n1,2,no\n1,2,n\xe9\n".encode("latin-1"), r"is not UTF-8 text \(line 3\)"),
    "utf-16": ("a,b,kind\n1,2,no\n".encode("utf-16"), "is not UTF-8 text"),
    "binary": (b"a,b\x00,kind\n", "NUL byte"),
    "open quote": ('a,b,kind\n"1,2,no\n', "cannot be read as CSV"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CSV.values(), ids=BAD_CSV)
def test_bad_csv_is_one_sentence(tmp_path, content, message):
    with pytest.raises(MfresnetError, match=message) as caught:
        load(DataConfig(name=write(tmp_path, content), target="kind"), seed=0)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_missing_target_setting_lists_the_columns(tmp_path):
    with pytest.raises(MfresnetError, match=r"data.target must name the column .*; columns: a, b, kind\."):
        read_file(write(tmp_path, "a,b,kind\n" + ROWS))
    with pytest.raises(MfresnetError, match=r"row 2, holds 'no': data.task = regression needs numbers"):
        read_file(write(tmp_path, "a,b,kind\n" + ROWS), target="kind", task="regression")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [[1.0], [2.0]], "y": [0, 1]}, r"column 'a' holds List\(Float64\) values"),
        ({"a": ["1", "u"], "y": [0, 1]}, r"column 'a', row 1 \(counted from 0\), holds 'u'"),
        ({"a": [1.0, None], "y": [0, 1]}, r"column 'a', row 1 \(counted from 0\), has a missing value"),
        ({"a": [1.0, float("nan")], "y": [0, 1]}, "column 'a', row 1 .* has a missing value"),
        ({"a": [1.0, 2.0], "y": [None, 1]}, "target column 'y', row 0 .* missing"),
        ({"y": [0, 1]}, "no feature columns"),
        ({"a": [1.0, 2.0], "y": [5, 5]}, "single value 5"),
    ],
)
def test_bad_parquet_is_one_sentence(tmp_path, columns, message):
    pl.DataFrame(columns).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(MfresnetError, match=message):
        read_file(str(tmp_path / "t.parquet"), target="y")


def test_parquet_categories_booleans_and_decimals_are_read(tmp_path):
    frame = pl.DataFrame({"a": [True, False] * 3, "b": list(range(6)), "y": ["u", "v"] * 3})
    frame.with_columns(pl.col("y").cast(pl.Categorical), pl.col("b").cast(pl.Decimal(10, 2))).write_parquet(
        tmp_path / "t.parquet"
    )
    table = read_file(str(tmp_path / "t.parquet"), target="y")
    assert table.classes == ("u", "v")
    np.testing.assert_array_equal(table.x, np.column_stack([[1, 0] * 3, np.arange(6)]))


X2, Y2 = np.eye(4), np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones(4), Y2, r"must have shape \(rows, features\), they have shape \(4,\)"),
        (np.ones((4, 2, 2)), Y2, "must have shape"),
        (np.ones((4, 0)), Y2, "must have shape"),
        (X2, np.ones((4, 2)), r"must have shape \(rows,\) or \(rows, 1\), it has shape \(4, 2\)"),
        (X2, np.array(1), "must have shape"),
        (X2, Y2[:3], "have 4 rows but array 'y' of .* has 3"),
        (X2 + 1j, Y2, "of type complex128, which are not numbers"),
        (X2.astype(str), Y2, "which are not numbers"),
        (np.where(X2 == 1, np.nan, X2), Y2, r"row 0, column 0 \(counted from 0\), is nan"),
        (X2 * 1e160, Y2, "beyond 1e150"),
        (X2, np.array([0, 1, np.inf, 1]), r"row 2 \(counted from 0\), is inf"),
        (X2, np.array(["a", "", "a", "a"]), "row 1 .* missing value"),
        (X2, np.array([b"a", b"\xff", b"a", b"a"]), "cannot be read as text"),
        (X2[:1], Y2[:1], "has 1 row"),
        (X2[:0], Y2[:0], "has 0 rows"),
        (X2, Y2.astype("M8[D]"), "of type datetime64"),
    ],
)
def test_bad_arrays_are_one_sentence(tmp_path, x, y, message):
    with pytest.raises(MfresnetError, match=message):
        load(DataConfig(name=arrays(tmp_path, x, y)), seed=0)


def test_pickle_is_never_read(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    objects = np.array([Trap(), Trap(), Trap(), Trap()], dtype=object)
    np.savez(tmp_path / "t.npz", x=np.eye(4), y=objects)
    np.save(tmp_path / "y.npy", objects)
    np.save(tmp_path / "x.npy", np.eye(4))
    with pytest.raises(MfresnetError, match=r"array 'y' of .* holds Python objects, and pickle is never read"):
        read_file(str(tmp_path / "t.npz"))
    with pytest.raises(MfresnetError, match="pickle is never read"):
        read_file(str(tmp_path / "x.npy"), labels=str(tmp_path / "y.npy"))
    with pytest.raises(MfresnetError, match=r"\(pickle is never read\)"):
        read_file(write(tmp_path, "x", "t.pkl"))
    assert not (tmp_path / "sprung").exists()


def test_the_wrong_file_is_named(tmp_path):
    csv_file = write(tmp_path, "a,b,kind\n" + ROWS)
    npz = arrays(tmp_path, X2, Y2)
    np.savez(tmp_path / "z.npz", z=X2)
    np.savez(tmp_path / "only_x.npz", x=X2)
    npy = str(tmp_path / "x.npy")
    np.save(npy, X2)
    cases = [
        ((str(tmp_path),), "is a directory"),
        ((str(tmp_path / "gone.csv"),), "does not exist"),
        (("a\0b.csv",), "does not exist"),
        (("n" * 5000 + ".csv",), "cannot be read: File name too long"),
        ((write(tmp_path, "x", "t.xlsx"),), "has an ending that cannot be read: use .csv"),
        ((csv_file, "kind", "y.npy"), "data.labels goes with an NPY file"),
        ((npy,), "holds inputs only: data.labels must name"),
        ((npy, "kind", npy), "data.target does not apply"),
        ((npy, None, csv_file), "is not an NPY file"),
        ((npy, None, str(tmp_path / "gone.npy")), "does not exist"),
        ((str(tmp_path / "z.npz"),), r"has no array 'x' or 'X' of inputs \(arrays in it: z\)"),
        ((str(tmp_path / "only_x.npz"),), "has no target array 'y'"),
        ((npz, "other"), r"has no target array 'other' \(arrays in it: x, y\)"),
        ((write(tmp_path, "PK garbage", "bad.npz"),), "cannot be read as NPZ: File is not a zip file"),
        ((write(tmp_path, "PAR1 garbage", "bad.parquet"), "y"), "cannot be read as Parquet"),
    ]
    for arguments, message in cases:
        with pytest.raises(MfresnetError, match=message):
            read_file(*arguments)


def test_a_forbidden_file_is_named(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, "a,y\n1,2\n")
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(MfresnetError, match=r"cannot be read as CSV: .*Permission denied"):
        read_file(file, target="y")


def test_a_claim_of_a_huge_array_is_refused(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**14, 8)})
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
        archive.writestr("y.npy", header.getvalue())
    write(tmp_path, header.getvalue(), "x.npy")
    for arguments in ((str(tmp_path / "t.npz"),), (str(tmp_path / "x.npy"), None, str(tmp_path / "x.npy"))):
        with pytest.raises(MfresnetError):
            read_file(*arguments)


# Fuzzing: whatever the bytes, a table of finite numbers or one sentence.


def only_sentences(file, **options):
    try:
        table = read_file(file, **options)
    except MfresnetError as error:
        assert "\n" not in str(error).replace(file, "")
        return
    assert np.isfinite(table.x).all() and len(table.x) == len(table.target) >= 2


@quick
@given(content=st.binary(max_size=200), suffix=st.sampled_from(["csv", "parquet", "npz", "npy"]))
def test_random_bytes(tmp_path, content, suffix):
    file = write(tmp_path, content, f"f.{suffix}")
    only_sentences(file, **({"labels": file} if suffix == "npy" else {"target": "y"}))


cells = st.sampled_from(["", "0", "1", "-2.5", "1e999", "nan", "x", '"', "'", " 3 ", "é", "1,2", "\r", "\n", "\ufeff"])


@quick
@given(rows=st.lists(st.lists(cells, min_size=1, max_size=4), max_size=6), names=st.sampled_from(["a,y", "y", "a,b,y"]))
def test_random_csv(tmp_path, rows, names):
    only_sentences(write(tmp_path, "\n".join([names, *map(",".join, rows)])), target="y")


@quick
@given(data=st.data(), suffix=st.sampled_from(["parquet", "npz", "npy"]))
def test_truncated_and_damaged_files(tmp_path, data, suffix):
    good = tmp_path / f"good.{suffix}"
    if suffix == "parquet":
        pl.DataFrame({"a": np.arange(20.0), "y": ["u", "v"] * 10}).write_parquet(good)
    elif suffix == "npz":
        np.savez(good, x=np.arange(20.0)[:, None], y=np.arange(20) % 2)
    else:
        np.save(good, np.arange(20)[:, None] % 2)
    content = bytearray(good.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] = data.draw(st.integers(0, 255))
    file = write(tmp_path, bytes(content), f"bad.{suffix}")
    options = {"parquet": {"target": "y"}, "npz": {}, "npy": {"labels": file}}[suffix]
    only_sentences(file, **options)
