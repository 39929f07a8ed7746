"""Tables as people have them: separators, decimal commas, gzip, text columns and missing values."""

import gzip
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mfresnet.config import DataConfig
from mfresnet.data import Encoding, Transform, load, read_file, read_inputs
from mfresnet.errors import MfresnetError
from mfresnet.train.job import data_facts

quick = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLOURS = ("red", "green", "blue", "grey")


def write(folder, content, name="data.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


@pytest.fixture
def people(tmp_path):
    """200 rows: two columns of numbers, one of text, gaps in both kinds; the classes follow the text."""
    rng = np.random.default_rng(0)
    colour = rng.choice(COLOURS[:3], 200).astype(object)
    colour[rng.choice(200, 4, replace=False)] = "grey"
    size, age = rng.normal(size=200).round(3).astype(object), rng.integers(20, 60, 200).astype(object)
    kind = np.where(colour == "red", "yes", "no")
    for column, place in ((colour, 7), (size, 11), (size, 50), (age, 50), (age, 90)):
        column[place] = None
    frame = pl.DataFrame(
        {
            "colour": pl.Series(colour.tolist(), dtype=pl.String),
            "size": pl.Series(size.tolist(), dtype=pl.Float64),
            "age": pl.Series(age.tolist(), dtype=pl.Int64),
            "kind": kind.tolist(),
        }
    )
    frame.write_csv(tmp_path / "people.csv")
    frame.write_parquet(tmp_path / "people.parquet")
    return frame, str(tmp_path / "people.csv")


EXPECTED = [[1.5, 2], [2, -1.25], [1e-3, 3], [3, 1]]
FORMS = {
    "semicolons": "a;b;kind\n1.5;2;no\n2;-1.25;yes\n1e-3;3;no\n3;1;yes\n",
    "tabs": "a\tb\tkind\n1.5\t2\tno\n2\t-1.25\tyes\n1e-3\t3\tno\n3\t1\tyes\n",
    "bars": "a|b|kind\n1.5|2|no\n2|-1.25|yes\n1e-3|3|no\n3|1|yes\n",
    "decimal commas": "a;b;kind\n1,5;2;no\n2;-1,25;yes\n1e-3;3;no\n3;1;yes\n",
    "decimal commas in quotes": '"a"\t"b"\t"kind"\n"1,5"\t"2"\tno\n"2,0"\t"-1,25"\tyes\n"0,001"\t3\tno\n3\t1\tyes\n',
    "a comma in a name": '"a";"b";"kind"\n1.5;2;no\n2;-1.25;yes\n1e-3;3;no\n3;1;yes\n',
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".csv.gz"])
def test_separators_decimal_commas_and_gzip_are_recognised(tmp_path, text, ending):
    content = gzip.compress(text.encode()) if ending.endswith("gz") else text
    table = read_file(write(tmp_path, content, f"t{ending}"), target="kind")
    np.testing.assert_array_equal(table.x, EXPECTED)
    assert table.feature_names == ("a", "b") and table.target.tolist() == [0, 1, 0, 1]
    assert "separated by" in table.notes[0]
    assert any("decimal comma" in note for note in table.notes) == ("1,5" in text)


def test_a_comma_that_may_divide_thousands_is_not_guessed(tmp_path):
    with pytest.raises(MfresnetError, match=r"column 'a', row 2, holds '1,234', which may be 1.234 or 1234"):
        read_file(write(tmp_path, "a;kind\n1,234;no\n5;yes\n2,500;no\n4;yes\n"), target="kind")
    table = read_file(write(tmp_path, "a;kind\n1,234;no\n5;yes\n0,5;no\n4;yes\n"), target="kind")
    assert table.x[:, 0].tolist() == [1.234, 5, 0.5, 4]  # one value settles it


@pytest.mark.parametrize("cells", [("1.234", "950", "2.500", "4"), ("1.234", "9,5", "2.500", "4,25")])
def test_a_point_that_may_divide_thousands_is_not_guessed_beside_decimal_commas(tmp_path, cells):
    """1.234 is 1234 to whoever writes 1,5: read as 1.234 it would be smaller than 950."""
    rows = list(zip(cells, ("1,5", "2", "2,25", "1"), ("no", "yes", "no", "yes"), strict=True))
    text = "a;b;kind\n" + "".join(";".join(row) + "\n" for row in rows)
    with pytest.raises(MfresnetError, match=r"column 'a', row 2, holds '1.234', which may be 1.234 or 1234: .*a separ"):
        read_file(write(tmp_path, text), target="kind")
    plain = "a;b;kind\n" + "".join(";".join((a, b[0], c)) + "\n" for a, b, c in rows)
    if "9,5" not in cells:
        assert read_file(write(tmp_path, plain), target="kind").x[0, 0] == 1.234  # no decimal comma, no doubt
    versions = "a;b;kind\n" + "".join(";".join((a, b, c)) + "\n" for (a, b, c) in [*rows, ("v1.200", "1", "no")] * 3)
    table = read_file(write(tmp_path, versions), target="kind", categories="one-hot")
    assert table.levels[0] is not None  # text


def test_damaged_and_huge_gzip_is_one_sentence(tmp_path, monkeypatch):
    packed = gzip.compress(b"a,kind\n1,no\n2,yes\n1,no\n2,yes\n")
    for bad in (packed[:-9], packed[:15] + b"\xff\xff" + packed[17:]):
        with pytest.raises(MfresnetError, match="cannot be read as"):
            read_file(write(tmp_path, bad, "t.csv.gz"), target="kind")
    bomb = gzip.compress(b"a" * 10**7)

    class Memory:
        available = 2 * 10**7

    monkeypatch.setattr("mfresnet.data.guard.psutil.virtual_memory", Memory)
    with pytest.raises(MfresnetError, match="unpacked, needs about"):
        read_file(write(tmp_path, bomb, "t.csv.gz"), target="kind")


@pytest.mark.parametrize("mark", ["", "NA", "nan", "NULL", "?", "-"])
def test_marks_of_missing_values_in_columns_of_numbers(tmp_path, mark):
    text = f"a,b,kind\n1,2,no\n{mark},1,yes\n1,3,no\n3,1,yes\n"
    with pytest.raises(MfresnetError, match=r"column 'a', row 3, has a missing value: set --data.missing mean or drop"):
        read_file(write(tmp_path, text), target="kind")
    assert np.isnan(read_file(write(tmp_path, text), target="kind", missing="mean").x[1, 0])


def test_in_a_text_column_a_mark_is_a_value(tmp_path):
    text = "region,b,kind\nNA,2,no\nEU,1,yes\nNA,3,no\nEU,1,yes\n"
    table = read_file(write(tmp_path, text), target="kind", categories="one-hot")
    assert table.levels == (("EU", "NA"), None) and not np.isnan(table.x).any()


def one_hot(frame, rows, names):
    """A naive transcription: indicators of the values among ``rows``, then means of what is there among ``rows``."""
    columns = []
    for name in names:
        values = frame[name].to_list()
        if isinstance(next(v for v in values if v is not None), str):
            for level in sorted({values[i] for i in rows if values[i] is not None}):
                columns.append([None if v is None else float(v == level) for v in values])
        else:
            columns.append([None if v is None else float(v) for v in values])
    for column in columns:
        mean = np.mean([column[i] for i in rows if column[i] is not None])
        column[:] = [mean if v is None else v for v in column]
    return np.array(columns).T


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_one_hot_columns_and_means_are_those_of_the_rows_that_fix_the_map(people, share, ending):
    frame, file = people
    config = DataConfig(
        name=file.replace(".csv", ending), target="kind", categories="one-hot", missing="mean", map_share=share
    )
    split = load(config, seed=3)
    assert len(split.fitted_on) == round(share * len(split.train.x))
    table = read_file(config.name, "kind", categories="one-hot", missing="mean")
    rows = rows_of(split, table)
    fitted = [rows[i] for i in split.fitted_on]
    expected = one_hot(frame, fitted, ("colour", "size", "age"))
    np.testing.assert_allclose(split.encoding.apply(table.x, table.levels), expected, rtol=1e-14)
    chosen = expected[fitted]
    std = chosen.std(axis=0)
    scale = np.where(std > 0, std, 1.0)
    if share < 1:  # a map that a part of the rows fixes
        quarter = np.ptp(chosen, axis=0) / 4
        wide = np.maximum(std, quarter)
        scale = np.where(quarter > 0, wide, np.median(wide[quarter > 0]))
    scaled = (expected[rows] - chosen.mean(axis=0)) / scale
    np.testing.assert_allclose(
        split.train.x, scaled / np.linalg.norm(scaled, axis=1, keepdims=True), rtol=1e-10, atol=1e-14
    )
    assert split.train.feature_names == split.encoding.names and "size" in split.encoding.names


def rows_of(split, table):
    """The rows of the table that are training rows: each mapped row is that of one row of the table."""
    mapped = split.transform.apply(split.encoding.apply(table.x, table.levels))
    place = {row.tobytes(): i for i, row in enumerate(mapped)}
    return [place[row.tobytes()] for row in split.train.x]


def test_values_that_no_row_of_the_fit_has_are_all_zero_and_are_counted(people):
    _, file = people
    config = DataConfig(name=file, target="kind", categories="one-hot", missing="drop", map_share=0.05)
    for seed in range(20):
        split = load(config, seed=seed)
        if "colour=grey" not in split.encoding.names:
            break
    noted = [note for note in split.notes if "'colour'" in note and "columns are all 0" in note]
    table = read_file(file, "kind", categories="one-hot", missing="drop")
    grey = table.levels[0].index("grey")
    assert sum(int(note.split()[0]) for note in noted) == (table.x[:, 0] == grey).sum() == 4
    encoded = split.encoding.apply(table.x, table.levels)[table.x[:, 0] == grey]
    assert not encoded[:, : len(split.encoding.levels[0])].any()


def test_drop_leaves_out_incomplete_rows_and_says_how_many(people):
    frame, file = people
    split = load(DataConfig(name=file, target="kind", categories="one-hot", missing="drop"), seed=0)
    complete = frame.drop_nulls()
    assert len(split.train.x) + len(split.test.x) == len(complete) == 196
    assert any(note.startswith("4 of 200 rows have a missing value") for note in split.notes)


def test_the_bound_leaves_out_the_rows_that_fixed_a_one_hot_map(people):
    """Without standardisation, too: the values of a text column are read off the rows."""
    _, file = people
    config = DataConfig(name=file, target="kind", categories="one-hot", missing="mean", transform="lift", map_share=0.5)
    assert len(load(config, seed=0).fitted_on) == 75
    numbers = config.model_copy(update={"map_share": 1.0})
    assert len(load(numbers, seed=0).fitted_on) == 150


def test_what_config_json_records_maps_new_rows_to_the_same_bits(people, tmp_path):
    frame, file = people
    config = DataConfig(name=file, target="kind", categories="one-hot", missing="mean")
    split = load(config, seed=1)
    recorded = json.loads(json.dumps(data_facts(split)))["map"]
    encoding, transform = Encoding.from_dict(recorded["encoding"]), Transform.from_dict(recorded["transform"])
    x, notes = read_inputs(file, encoding, transform)
    place = {row.tobytes() for row in x}
    assert {row.tobytes() for part in (split.train, split.test) for row in part.x} == place and notes == ()
    # columns in another order, no target, one row, a value that was never there
    new = frame[5:7].select("age", "colour", "size").with_columns(pl.Series("colour", [frame["colour"][5], "pink"]))
    new.write_csv(tmp_path / "new.csv", separator=";")
    one, notes = read_inputs(str(tmp_path / "new.csv"), encoding, transform)
    assert one[0].tobytes() == x[5].tobytes() and len(notes) == 1 and notes[0].startswith("1 of 2 rows")
    new.drop("age").write_csv(tmp_path / "short.csv")
    with pytest.raises(MfresnetError, match="has no column 'age', which the network was trained on"):
        read_inputs(str(tmp_path / "short.csv"), encoding, transform)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "column 'colour', row 9, has a missing value: set --data.missing mean or drop"),
        (
            {"missing": "drop"},
            "column 'colour', row 2, holds 'blue', which is not a number: set --data.categories one-hot",
        ),
        ({"categories": "one-hot"}, "has a missing value: set --data.missing mean or drop"),
    ],
)
def test_the_message_names_the_flag(people, change, message):
    with pytest.raises(MfresnetError, match=message):
        load(DataConfig(name=people[1], target="kind", **change), seed=0)


def test_settings_that_do_not_apply_and_columns_that_cannot_be_used(tmp_path):
    with pytest.raises(MfresnetError, match=r"data.categories = 'one-hot' does not apply to 'wine'"):
        load(DataConfig(name="wine", categories="one-hot"))
    rows = [f"{i},name {i},{'no' if i % 2 else 'yes'}" for i in range(60)]
    file = write(tmp_path, "\n".join(["a,who,kind", *rows]))
    with pytest.raises(MfresnetError, match="column 'who' holds text with 60 different values in 60 rows"):
        load(DataConfig(name=file, target="kind", categories="one-hot"))
    file = write(tmp_path, "a,b,kind\n" + "1,,no\n2,,yes\n" * 4)
    with pytest.raises(MfresnetError, match="column 'b' has no value in the 6 rows that fix the map"):
        load(DataConfig(name=file, target="kind", missing="mean"))
    with pytest.raises(MfresnetError, match=r"has 0 row\(s\)"):
        load(DataConfig(name=file, target="kind", missing="drop"))


def test_missing_values_of_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2))
    y = np.arange(40) % 2.0
    x[3, 1] = x[8, 0] = y[20] = np.nan
    np.savez(tmp_path / "t.npz", x=x, y=y)
    with pytest.raises(MfresnetError, match=r"row 3, column 1 .*: set --data.missing mean or drop"):
        read_file(str(tmp_path / "t.npz"))
    table = read_file(str(tmp_path / "t.npz"), missing="drop")
    np.testing.assert_array_equal(table.x, np.delete(x, [3, 8, 20], axis=0))
    with pytest.raises(MfresnetError, match=r"row 20 .* is nan"):
        read_file(str(tmp_path / "t.npz"), missing="mean")
    y[20] = 0
    np.savez(tmp_path / "t.npz", x=x, y=y)
    split = load(DataConfig(name=str(tmp_path / "t.npz"), missing="mean"))
    np.testing.assert_array_equal(split.encoding.apply(x)[3], [x[3, 0], split.encoding.fill[1]])


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: float(f"{v:.6g}"))
words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6).map("w{}".format)
tables = st.integers(4, 12).flatmap(
    lambda n: st.tuples(
        st.lists(st.none() | numbers, min_size=n, max_size=n), st.lists(st.none() | words, min_size=n, max_size=n)
    )
)


@quick
@given(columns=tables, separator=st.sampled_from(",;\t|"), comma=st.booleans(), packed=st.booleans())
def test_what_is_written_is_read_back(tmp_path, columns, separator, comma, packed):
    """Any numbers and words, with gaps, in any of the dialects, come back as they were."""
    size, colour = columns
    size[0], colour[0] = 0.5, "w"  # a value in each column, and a decimal comma that divides no thousands
    comma = comma and separator != ","
    frame = pl.DataFrame(
        {"size": size, "colour": colour, "kind": [("no", "yes")[i % 2] for i in range(len(size))]},
        schema={"size": pl.Float64, "colour": pl.String, "kind": pl.String},
    )
    content = frame.write_csv(separator=separator, decimal_comma=comma).encode()
    file = write(tmp_path, gzip.compress(content) if packed else content, "t.csv.gz" if packed else "t.csv")
    table = read_file(file, target="kind", categories="one-hot", missing="mean")
    np.testing.assert_array_equal(table.x[:, 0], np.array(size, float))
    back = [None if np.isnan(code) else table.levels[1][int(code)] for code in table.x[:, 1]]
    assert back == colour and table.target.tolist() == [i % 2 for i in range(len(size))]


@quick
@given(columns=tables, data=st.data())
def test_an_encoding_survives_json_and_gives_finite_numbers_for_any_row(tmp_path, columns, data):
    size, colour = columns
    size[0], colour[0] = 0.5, "w"
    frame = pl.DataFrame(
        {"size": size, "colour": colour, "kind": ["no", "yes"] * (len(size) // 2) + ["no"] * (len(size) % 2)}
    )
    frame.write_csv(tmp_path / "t.csv")
    table = read_file(str(tmp_path / "t.csv"), target="kind", categories="one-hot", missing="mean")
    rows = np.array(sorted({0, *data.draw(st.lists(st.integers(0, len(size) - 1)))}))
    encoding = Encoding.fit(table, rows, missing="mean")
    again = Encoding.from_dict(json.loads(json.dumps(encoding.to_dict())))
    encoded = encoding.apply(table.x, table.levels)
    assert np.isfinite(encoded).all() and encoded.tobytes() == again.apply(table.x, table.levels).tobytes()
    assert encoded.shape[1] == len(encoding.names)
    indicators = encoded[:, 1:]
    known = np.array([c is None or c in encoding.levels[1] for c in colour])
    np.testing.assert_allclose(indicators.sum(axis=1), known, atol=1e-12)  # shares of a gap sum to 1, too
