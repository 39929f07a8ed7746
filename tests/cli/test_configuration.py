"""The tree of settings: every value by flag and by file, and no input that breaks it."""

from __future__ import annotations

import argparse
import json
from typing import get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfresnet.cli.parsing import Parser
from mfresnet.cli.parsing import settings as tree_of
from mfresnet.cli.training import train_arguments
from mfresnet.config import Config, allowed, build, leaves, merge, nest
from mfresnet.errors import MfresnetError

NAMES = [name for name, _ in leaves()]


def parsed(*argv: str) -> Config:
    """The configuration of ``mfresnet train ARGV``."""
    parser = Parser(prog="mfresnet train")
    train_arguments(parser)
    options, unknown = parser.parse_known_args([str(a) for a in argv])
    assert not unknown
    return build(tree_of(options, given={"data.name": options.data}))


def value_of(config: Config, name: str):
    for part in name.split("."):
        config = getattr(config, part)
    return config


def same(found: object, value: object) -> bool:
    return found == value if isinstance(value, tuple) else found is value


def example(name: str, field) -> object:
    """An allowed value that is not the default."""
    default = field.get_default(call_default_factory=True)
    kinds = get_args(field.annotation) or (field.annotation,)
    for value in (True, False, 7, 0.25, "adam", "7", "model.beta=1,2", "circles", (3, 9), ("transport",), *kinds):
        try:
            if value != default and same(value_of(build(nest({name: value})), name), value):
                return value
        except MfresnetError:
            continue
    raise AssertionError(name)


@pytest.mark.parametrize(("name", "field"), list(leaves()), ids=NAMES)
def test_every_value_by_flag_and_by_file(name, field, tmp_path):
    wanted = example(name, field)
    text = str(wanted).lower() if isinstance(wanted, bool) else str(wanted)
    text = ",".join(map(str, wanted)) if isinstance(wanted, tuple) else text
    for flag in (f"--{name}", f"--{name.replace('_', '-')}"):
        assert value_of(parsed(flag, text), name) == wanted
        assert value_of(parsed(f"{flag}={text}"), name) == wanted
    file = tmp_path / "settings.toml"
    section, _, last = name.rpartition(".")
    file.write_text((f"[{section}]\n" if section else "") + f"{last} = {json.dumps(wanted)}\n")
    assert value_of(parsed("--config", file), name) == wanted
    assert field.description
    assert allowed(field)


def test_flag_beats_file_and_the_rest_stays(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('seed = 3\n[model]\ndepth = 5\nwidth = 6\n[data]\nname = "circles"\n')
    config = parsed("--config", file, "--model.depth", 9)
    assert (config.seed, config.model.depth, config.model.width, config.data.name) == (3, 9, 6, "circles")
    assert parsed("digits", "--config", file).data.name == "digits"


def test_out_of_range_at_both_ends():
    for name, field in leaves():
        for rule in field.metadata:
            for key, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                if hasattr(rule, key):
                    wrong = getattr(rule, key) + step
                    with pytest.raises(MfresnetError, match=f"^{name} = .* is not allowed: give "):
                        build(nest({name: wrong}))


def test_merged_writes_over_section_by_section():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}}) == {"a": {"b": 4, "c": 2}, "d": 3}


SECTIONS = sorted({part for name in NAMES for part in name.split(".")})
KEYS = st.sampled_from(SECTIONS) | st.text(max_size=5)
ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("a number of 5001 digits").map(lambda _: 10**5000)
    | st.sampled_from([10**400, "1e999", "nan", "-0", "euler", "adam", "optax:adam", "\x00", "\ud800", "7"])
)
TREES = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))


def one_sentence(error: MfresnetError) -> None:
    assert str(error)
    assert "\n" not in str(error)


@settings(max_examples=400, deadline=None)
@given(tree=st.dictionaries(KEYS, TREES, max_size=5) | TREES | st.dictionaries(st.sampled_from(NAMES), ATOMS).map(nest))
def test_any_tree_is_a_configuration_or_a_sentence(tree):
    try:
        config = build(tree)
    except MfresnetError as error:
        one_sentence(error)
    else:
        again = json.loads(json.dumps(config.model_dump()))
        assert build(again) == config


ARGUMENTS = (
    st.sampled_from([f"--{name}" for name in NAMES] + ["--out", "--config", "--quiet", "--", "-", "circles"])
    | st.tuples(st.sampled_from(NAMES), st.text(max_size=6)).map(lambda pair: f"--{pair[0]}={pair[1]}")
    | st.text(max_size=6)
    | st.sampled_from(["3", "0.5", "-1", "1e400", "nan", "true", "euler"])
)


@settings(max_examples=300, deadline=None)
@given(argv=st.lists(ARGUMENTS, max_size=5))
def test_any_arguments_are_a_configuration_or_a_sentence(argv):
    parser = Parser(prog="mfresnet train", add_help=False)
    train_arguments(parser)
    try:
        options, _ = parser.parse_known_args(argv)
        assert isinstance(options, argparse.Namespace)
        build(tree_of(options, given={"data.name": options.data}))
    except MfresnetError as error:
        one_sentence(error)


def test_literals_are_listed():
    for name, field in leaves():
        if get_origin(field.annotation) is not None and "one of" in allowed(field):
            with pytest.raises(MfresnetError, match=f"{name} = 'x' is not allowed: give one of "):
                build(nest({name: "x"}))
