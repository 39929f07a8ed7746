"""Settings of several values: tuples in Python, lists in TOML, a text with commas on the command line."""

import argparse
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfresnet.cli.parsing import Parser, setting_arguments, settings
from mfresnet.config import Config, build, leaves
from mfresnet.errors import MfresnetError
from mfresnet.experiments.settings import FiniteSizeSettings, GridSettings, RateSettings, TransferSettings
from mfresnet.experiments.table1.settings import Table1Settings
from mfresnet.fields import item_of
from mfresnet.images.configuration import ImageConfig

KINDS = (Config, ImageConfig, RateSettings, TransferSettings, FiniteSizeSettings, GridSettings, Table1Settings)


def parse(kind, *argv):
    parser = Parser(prog="mfresnet")
    setting_arguments(parser, kind)
    options: argparse.Namespace = parser.parse_args(list(argv))
    return build(settings(options, kind), kind)


def test_one_value_in_every_spelling(tmp_path):
    (tmp_path / "run.toml").write_text("[certify]\nheads = [64, 8, 8]\n")
    expected = Config(certify={"heads": (8, 64)})
    assert expected.certify.heads == (8, 64)
    for config in (
        Config(certify={"heads": [64, 8]}),
        build({"certify": {"heads": "64,8"}}),  # config.json of an older run
        parse(Config, "--certify.heads", "64, 8"),
        parse(Config, "--config", str(tmp_path / "run.toml")),
        build(json.loads(json.dumps(expected.model_dump()))),
    ):
        assert config == expected
    assert parse(GridSettings, "--set", "model.depth=4,8", "--set", "model.width=2").set == (
        "model.depth=4,8",
        "model.width=2",
    )
    assert parse(ImageConfig, "--blocks.rules", "plain,mean-field").blocks.names == ("plain", "mean-field")
    assert parse(FiniteSizeSettings).depth is None and parse(FiniteSizeSettings, "--depth", "3,1").depth == (1, 3)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_defaults_are_valid_and_survive_the_command_line_and_json(kind):
    """A default is not validated when a section is made: here it is."""
    default = kind()
    assert build(json.loads(json.dumps(default.model_dump())), kind) == default
    several = [name for name, field in leaves(kind) if item_of(field) is not None]
    assert several
    for name in several:
        value = default
        for part in name.split("."):
            value = getattr(value, part)
        if value and name != "set":
            assert parse(kind, f"--{name}", ",".join(f"{one}" for one in value)) == default


@pytest.mark.parametrize(
    ("kind", "tree", "message"),
    [
        (Config, {"certify": {"heads": "8,x"}}, "certify.heads = 'x' is not allowed: give whole numbers >= 1 and <= 1"),
        (Config, {"certify": {"heads": [8, 0]}}, "certify.heads = 0 is not allowed: give whole numbers >= 1"),
        (Config, {"certify": {"heads": []}}, "certify.heads is empty: give whole numbers >= 1"),
        (Config, {"certify": {"heads": 8}}, "certify.heads = 8 is not allowed: give whole numbers"),
        (Config, {"certify": {"heads": {"a": 1}}}, "certify.heads = {'a': 1} is not allowed"),
        (TransferSettings, {"decays": "none,linaer"}, "unknown decays 'linaer': did you mean 'linear'"),
        (TransferSettings, {"rates": [0.1, float("inf")]}, "rates = inf is not allowed: give numbers >= 1e-12"),
        (Table1Settings, {"rows": ","}, "rows is empty: give names"),
    ],
)
def test_mistakes_are_one_sentence(kind, tree, message):
    with pytest.raises(MfresnetError) as caught:
        build(tree, kind)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=8))
def test_any_list_reads_the_same_in_any_form(values):
    expected = tuple(sorted(set(values)))
    for form in (values, tuple(values), ",".join(map(str, values)), [str(value) for value in values]):
        assert build({"certify": {"residuals": form}}).certify.residuals == expected
