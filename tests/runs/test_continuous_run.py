"""A continuous model from the command line: run directory, resume to the bit, measuring and report."""

import json
import shutil

import pytest
from small_runs import flags, same

from mfresnet.cli import main
from mfresnet.runs import checkpoint, measure, resume
from mfresnet.runs.directory import RunDirectory

SETTINGS = {"model__kind": "continuous", "diagnostics__gram_every": 12, "diagnostics__kl_every": 12}


@pytest.fixture(scope="module")
def run(quick, tmp_path_factory):
    out = tmp_path_factory.mktemp("continuous") / "run"
    more = {"train__solver": "euler", "diagnostics__landscape": True, "record__report": True}
    assert main(["train", *flags(**SETTINGS | more), "--out", str(out), "--quiet"]) == 0
    return out


def test_what_is_measured_and_what_is_refused(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["gram.final.lambda_min.total"] is not None
    assert 0 <= summary["landscape.depth"] <= 1
    rows = RunDirectory.open(run).metrics()
    assert rows[0]["displacement.places"] == 0 and rows[-1]["displacement.places"] > 0
    assert (run / "report.html").is_file()
    said = []
    assert len(measure(run, say=said.append)) >= 2
    assert said == ["KL: not measured, probes belong to a layer, which a continuous model does not have."]


@pytest.mark.exact
def test_resumed_to_the_bit(run, tmp_path):
    again = tmp_path / "run"
    shutil.copytree(run, again)
    for name in ("summary.json", "report.html", "measure.jsonl"):
        (again / name).unlink(missing_ok=True)
    checkpoint.discard_after(again / "checkpoints", 4)
    resume(again, quiet=True, say=lambda message: None)
    same(again, run)


@pytest.mark.parametrize(
    ("name", "value"), [("shared", True), ("scheme", "rk4"), ("antithetic", True)], ids=lambda v: str(v)
)
def test_settings_without_meaning(name, value, tmp_path, capsys):
    argv = ["train", *flags(**SETTINGS | {f"model__{name}": value}), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(argv) == 2
    assert f"model.{name} = {value!r} has no meaning for a continuous model" in capsys.readouterr().err
