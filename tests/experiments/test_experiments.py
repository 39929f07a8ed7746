"""A contract over every registered experiment, and one sentence for settings that cannot be."""

from __future__ import annotations

import json

import pytest

from mfresnet import MfresnetError
from mfresnet.config import leaves
from mfresnet.experiments import EXPERIMENTS, Experiment, Result, create
from mfresnet.json_types import plain

SMALL = {"depth": 2, "width": 4, "head_width": 4}
# Every experiment at a size that takes a second: an experiment without an entry here fails the contract.
TINY = {
    "rate": {"n": "8,16", "seeds": 2, "train": {"steps": 5}, "model": SMALL, "data": {"n_test": 8}},
    "phase": {
        "alpha": "1,3",
        "beta": "1,10",
        "seeds": 1,
        "model": SMALL,
        "data": {"n": 8, "n_test": 8},
        "train": {"steps": 2, "time": 2},
    },
    "transfer": {
        "depth": "2,3",
        "width": "4",
        "rates": "0.01,0.1",
        "horizons": "4",
        "decays": "linear",
        "seeds": 1,
        "model": {"depth": 2, "width": 4},
        "data": {"n": 8, "n_test": 8},
    },
    "kl": {
        "betabar": "1,10",
        "seeds": 2,
        "model": SMALL,
        "data": {"n": 8, "n_test": 8, "dimension": 3},
        "train": {"steps": 2, "time": 1, "probes": 4, "head_probes": 8},
    },
    "finite-size": {
        **{"depth": "1,3", "width": "1,4", "reference": 6, "draws": 1, "seeds": 2, "points": 4, "dimension": "3"},
        **{"inputs": 3, "embeddings": 1, "head_width": 5, "steps": 3},
    },
    "table1": {"rows": "resnet20", "seeds": 2},
    "certificate": {
        "set": ["data.n=16,24", "train.freeze=none,encoder"],
        "seeds": 1,
        "model": SMALL,
        "data": {"n_test": 8},
        "train": {"steps": 5},
    },
    "own-transfer": {
        "factory": "own_factories:perceptron",
        **{"sizes": "2,3", "other": 4, "rates": "0.01,0.1", "steps": 3},
    },
    "grid": {
        "set": ["train.learning_rate=0.01,0.1", "model.alpha=1,2"],
        "seeds": 2,
        "model": SMALL,
        "data": {"n": 8, "n_test": 8},
        "train": {"steps": 5},
    },
}

REQUIRED = {"own-transfer": {"factory": "own_factories:perceptron"}}  # settings without a default
TRAINED_ELSEWHERE = ("table1",)  # image networks take long to compile: tests/images runs and judges its rows


def run(experiment: Experiment) -> list[dict]:
    """All rows of an experiment, batch by batch, as a sweep keeps them: through JSON."""
    cells = experiment.cells()
    rows: list = [None] * len(cells)
    for batch in experiment.batches(cells):
        for place, row in zip(batch, experiment.run([cells[i] for i in batch]), strict=True):
            rows[place] = json.loads(json.dumps(plain({**cells[place], **row})))
    return rows


@pytest.fixture(scope="module")
def rows():
    """The rows of each experiment, made when first asked for."""
    made: dict[str, list[dict]] = {}

    def get(name: str) -> list[dict]:
        if name not in made:
            made[name] = run(create(name, TINY[name]))
        return made[name]

    return get


@pytest.mark.parametrize("name", EXPERIMENTS)
class TestContract:
    def test_settings(self, name):
        kind = EXPERIMENTS[name].settings_type()
        assert kind.command == f"sweep {name}"
        assert all(field.description for _, field in leaves(kind))
        experiment = create(name, REQUIRED.get(name, {}))
        assert (experiment.name, bool(experiment.question)) == (name, True)
        with pytest.raises(MfresnetError, match="unknown setting 'no_such'"):
            create(name, {"no_such": 1})

    def test_cells_and_batches(self, name):
        experiment = create(name, TINY[name])
        cells = experiment.cells()
        assert json.loads(json.dumps(cells)) == cells == create(name, TINY[name]).cells()
        batches = experiment.batches(cells)
        assert sorted(place for batch in batches for place in batch) == list(range(len(cells)))

    def test_result(self, name, rows):
        if name in TRAINED_ELSEWHERE:
            pytest.skip("run by tests/images")
        experiment, found = create(name, TINY[name]), rows(name)
        assert {row["status"] for row in found} == {"completed"}
        result = experiment.analyse(found)
        assert isinstance(result, Result) and result.verdict
        assert json.loads(json.dumps(plain(result.as_dict())))["verdict"] == result.verdict
        assert result.points and result.figures
        assert plain(experiment.analyse(found).as_dict()) == plain(result.as_dict())

    def test_diverged_cells_are_named_and_left_out(self, name, rows):
        if name in TRAINED_ELSEWHERE:
            pytest.skip("run by tests/images")
        experiment, cells = create(name, TINY[name]), create(name, TINY[name]).cells()
        lost = {**cells[0], "status": "diverged", "diverged.step": 3}
        notes = experiment.analyse([lost, *rows(name)[1:]]).notes
        assert any(note.startswith(f"1 of {len(cells)} cells diverged") for note in notes)
        everything = [{**cell, "status": "diverged", "diverged.step": 0} for cell in cells]
        assert experiment.analyse(everything).passed in (False, None)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("rate", {"n": ""}, "n is empty: give whole numbers >= 2"),
        (
            "rate",
            {"n": "8,x"},
            "n = 'x' is not allowed: give whole numbers >= 2 and <= 1000000000000000, several separated by commas",
        ),
        ("rate", {"n": "1"}, "n = '1' is not allowed: give whole numbers >= 2"),
        ("rate", {"n": "8,9999999999999999"}, "n = '9999999999999999' is not allowed: give whole numbers"),
        ("rate", {"data": {"n": 9}}, "data.n = 9 has no effect, as data.n is the grid's: give --n."),
        (
            "phase",
            {"model": {"alpha": 2}},
            "model.alpha = 2.0 has no effect, as model.alpha is the grid's: give --alpha",
        ),
        ("phase", {"model": {"beta": 2}}, "give --beta"),
        ("kl", {"model": {"beta": 2}}, "give --betabar"),
        ("transfer", {"model": {"head_width": 7}}, "give --width"),
        ("transfer", {"train": {"steps": 7}}, "give --horizons"),
        ("transfer", {"model": {"alpha": 2}}, "leave it out, or set --scalings mean-field"),
        ("transfer", {"train": {"encoder_rate": 2}}, "leave it out, or set --scalings mean-field"),
        ("grid", {"set": ["model.depth=2"], "model": {"depth": 3}}, "its values are those of --set"),
        ("rate", {"train": {"rule": "sdg"}}, "unknown train.rule 'sdg'"),
        ("phase", {"beta": "nan"}, "beta = 'nan' is not allowed: give numbers >= 1e-12"),
        ("kl", {"train": {"rule": "adam"}}, "set --train.rule gradient-flow"),
        ("kl", {"model": {"activation": "relu"}}, "second derivative of the activation, which 'relu' does not have"),
        ("kl", {"model": {"kind": "continuous"}}, "a continuous model does not have: set --model.kind layered"),
        ("transfer", {"scalings": "mup"}, "unknown scalings 'mup'"),
        ("transfer", {"decays": ","}, "decays is empty: give some of none, linear, cosine"),
        ("transfer", {"train": {"rule": "gradient-flow"}}, "has no learning rate to transfer"),
        ("grid", {}, "the grid is empty: give settings and values"),
        ("grid", {"set": ["model.depth"]}, "give NAME=VALUE,VALUE such as model.depth=4,8"),
        ("grid", {"set": ["model.dpth=1"]}, "did you mean model.depth or"),
        ("grid", {"set": ["model.depth="]}, "is an empty grid"),
        ("grid", {"set": ["model.depth=2,0"]}, "model.depth = '0' is not allowed: give a whole number >= 1"),
        ("grid", {"set": ["model.depth=2", "model.depth=3"]}, "is given twice"),
        ("grid", {"set": ["model.depth=2"], "measure": "f1"}, "measure = 'f1' is not allowed: give one of train.loss"),
    ],
)
def test_bad_settings_are_one_sentence(name, settings, words):
    with pytest.raises(MfresnetError) as error:
        create(name, settings).cells()
    assert words in str(error.value) and "\n" not in str(error.value)
