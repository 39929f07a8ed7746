"""Damaged, missing and half-written files of a run: noticed, said, and got round; and divergence."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_runs import finite, flags, same
from tqdm import tqdm

from mfresnet.cli import main
from mfresnet.config import build
from mfresnet.errors import MfresnetError
from mfresnet.flow import first_bad_step
from mfresnet.runs import RunDirectory, checkpoint

ADAM = {"train__rule": "adam", "train__batch_size": 8}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A completed run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", *flags(**ADAM), "--out", str(run), "--quiet"]) == 0
    return run


@pytest.fixture
def cut(whole, tmp_path):
    """A copy of the completed run as a kill before its end would have left it: up to step 8 of 12."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    (run / "arrays" / "portrait.safetensors").unlink()
    checkpoint.discard_after(run / "checkpoints", 8)
    RunDirectory.open(run).truncate_metrics(8)
    assert len(checkpoint.steps(run / "checkpoints")) >= 3
    return run


def state(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:09d}"


def resumed(run: Path, capsys, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["resume", str(run)]) == code
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


def test_completed_run_says_so(whole, capsys):
    before = (whole / "metrics.jsonl").read_bytes()
    assert f"'{whole}' is completed already: nothing to do." in resumed(whole, capsys)
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_config_is_complete(whole):
    stored = RunDirectory.open(whole).config
    assert json.loads(json.dumps(build(stored["config"]).model_dump())) == stored["config"]


def truncated(place: Path) -> None:
    file = place / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flipped(place: Path) -> None:
    file = place / "state.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def without_sum(place: Path) -> None:
    (place / "SHA256").unlink()


def emptied(place: Path) -> None:
    shutil.rmtree(place)
    place.mkdir()


@pytest.mark.parametrize("harm", [truncated, flipped, without_sum, emptied])
def test_damaged_checkpoint_is_named_and_passed_over(harm, cut, whole, capsys):
    harm(state(cut, 8))
    said = resumed(cut, capsys)
    assert re.search(r"checkpoint '.*step-000000008' is damaged: .*\. The one before it is used\.", said)
    same(cut, whole)


def test_two_damaged_and_leftovers(cut, whole, capsys):
    """Damaged checkpoints after the one that is used do not crowd out sound ones."""
    steps = checkpoint.steps(cut / "checkpoints")
    flipped(state(cut, steps[-1]))
    without_sum(state(cut, steps[-2]))
    (cut / "checkpoints" / ".step-000000009.tmp").mkdir()
    (cut / "checkpoints" / ".step-000000009.tmp" / "state.safetensors").write_bytes(b"half")
    assert resumed(cut, capsys).count("is damaged") == 2
    same(cut, whole)
    assert not list((cut / "checkpoints").glob(".*"))


def test_all_damaged_is_one_sentence(cut, capsys):
    for step in checkpoint.steps(cut / "checkpoints"):
        truncated(state(cut, step))
    last = resumed(cut, capsys, code=2).splitlines()[-1]
    assert last == f"mfresnet: no sound checkpoint is left in '{cut}/checkpoints': train again with --overwrite."


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_noticed(whole, tmp_path, data):
    """At every position of both files, or cut anywhere: read() refuses."""
    shutil.rmtree(tmp_path / "step-000000012", ignore_errors=True)
    shutil.copytree(state(whole, 12), tmp_path / "step-000000012")
    name = data.draw(st.sampled_from(["state.safetensors", "SHA256"]))
    file = tmp_path / "step-000000012" / name
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    file.write_bytes(content)
    with pytest.raises(MfresnetError, match="is damaged"):
        checkpoint.read(tmp_path, 12)


@pytest.mark.parametrize("harm", ["torn", "garbled", "last row lost"])
def test_torn_metrics_are_made_again(harm, cut, whole, capsys):
    file = cut / "metrics.jsonl"
    text = file.read_text()
    lines = text.splitlines(keepends=True)
    if harm == "torn":
        file.write_text(text + '{"step": 10, "wall')
    elif harm == "garbled":
        file.write_bytes("".join(lines[:-1]).encode() + b'{"step": \xff\x00 8,\n')
    else:
        file.write_text("".join(lines[:-1]))
    said = resumed(cut, capsys)
    assert "lost" not in said
    same(cut, whole)


def test_missing_metrics_are_said(cut, whole, capsys):
    (cut / "metrics.jsonl").unlink()
    assert "metrics.jsonl has lost 4 rows" in resumed(cut, capsys)
    rows = RunDirectory.open(cut).metrics()
    assert [row["step"] for row in rows] == [8, 10, 12]
    assert checkpoint.read(cut / "checkpoints", 12)[0].keys() == checkpoint.read(whole / "checkpoints", 12)[0].keys()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"config": 3, "versions": {}}', b"\xff\xfe"])
def test_damaged_config_is_one_sentence(content, cut, capsys):
    (cut / "config.json").write_bytes(content)
    said = resumed(cut, capsys, code=2)
    assert len(said.splitlines()) == 1
    assert "config.json' is damaged: " in said


def test_changed_settings_and_data_are_refused(cut, capsys, tmp_path):
    file = cut / "config.json"
    stored = json.loads(file.read_text())
    stored["config"]["model"]["alpha"] += 1
    file.write_text(json.dumps(stored))
    assert "were changed since the run began" in resumed(cut, capsys, code=2)

    table, run = tmp_path / "points.csv", tmp_path / "table"
    random = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'yes' if a > b else 'no'}\n" for a, b in random.normal(size=(48, 2))]
    table.write_text("a,b,kind\n" + "".join(rows))
    values = flags(data__n=None, data__n_test=None, **ADAM)
    assert main(["train", str(table), "--data.target", "kind", *values, "--out", str(run)]) == 0
    (run / "summary.json").unlink()
    assert "changed" not in resumed(run, capsys)
    (run / "summary.json").unlink()
    table.write_text("a,b,kind\n" + "".join([*rows[:-1], "9.0,1.0,yes\n"]))
    assert "changed since the run began: put the file back" in resumed(run, capsys, code=2)


def test_other_versions_are_said(cut, capsys):
    file = cut / "config.json"
    stored = json.loads(file.read_text())
    stored["versions"]["jax"] = "0.0.1"
    file.write_text(json.dumps(stored))
    assert "versions differ from the run's (jax 0.0.1 -> " in resumed(cut, capsys)


@pytest.mark.parametrize(("name", "call"), [("replace", 1), ("replace", 3), ("fsync", 2), ("fsync", 9)])
def test_full_disk_at_a_write(name, call, whole, tmp_path, monkeypatch, capsys):
    """Writing fails at one call or another; what has its final name is whole, and the run can be finished."""
    run, real, calls = tmp_path / "run", getattr(os, name), []

    def full(*args):
        calls.append(args)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        assert main(["train", *flags(**ADAM), "--out", str(run)]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"mfresnet: cannot write '.*': No space left on device; (free space, or use a directory that can be written"
        r"|what is written is kept: free space, then go on with `mfresnet resume .*`)\.",
        last,
    )
    assert not (run / "summary.json").exists()
    for step in checkpoint.steps(run / "checkpoints"):
        checkpoint.read(run / "checkpoints", step)
    if (run / "config.json").exists():
        resumed(run, capsys)
    else:
        assert main(["train", *flags(**ADAM), "--out", str(run)]) == 0
    same(run, whole)


def test_directory_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        assert main(["train", *flags(**ADAM), "--out", str(out)]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert "cannot write" in said[0]


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_bar_is_for_terminals(quiet, cut, monkeypatch, capsys):
    """tqdm judges by itself (disable=None) whether it writes to a terminal; --quiet silences it there too."""
    asked = []
    monkeypatch.setattr("mfresnet.runs.progress.tqdm", lambda **options: asked.append(options) or tqdm(**options))
    assert main(["resume", str(cut), *(["--quiet"] if quiet else [])]) == 0
    assert [options["disable"] for options in asked] == [True if quiet else None]
    assert "step" not in capsys.readouterr().err


def advice(said: str) -> list[str]:
    flag, value = re.search(r"set (--train\.[a-z-]+) ([0-9.e+-]*[0-9])", said).groups()
    return [flag, value]


@pytest.mark.parametrize(
    "values",
    [
        {"train__rule": "sgd", "train__learning_rate": 30, "train__steps": 400, "record__metrics_every": 20},
        {
            "train__solver": "euler",
            "train__time": 1,
            "train__steps": 8,
            "record__metrics_every": 100,
            "train__time_unit": "n/beta2",
        },
    ],
    ids=["sgd", "euler"],
)
def test_divergence_names_cause_and_cure(values, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *flags(**values), "--out", str(run)]) == 1
    said = capsys.readouterr().err
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "diverged"
    assert f"training diverged at step {summary['diverged.step']}: a step of " in said
    assert "is longer than the stable 2n/(beta^2 lambda_max(G)) = " in said
    assert summary["diverged.message"] in said
    assert finite(run)
    start = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["train.loss"]
    # the cure, as it stands in the message, cures
    flag, value = advice(said)
    changed = {"train__steps": None} if flag == "--train.steps" else {"train__learning_rate": None}
    assert main(["train", *flags(**values | changed), flag, value, "--out", str(run), "--overwrite"]) == 0
    assert json.loads((run / "summary.json").read_text())["train.loss"] < 0.5 * start


def test_adaptive_solver_that_gives_up(tmp_path, capsys):
    run = tmp_path / "run"
    values = {"model__alpha": 1e6, "model__initial.u": 1000, "train__time": 1e9, "model__activation": "identity"}
    code = main(["train", *flags(**values, model__beta=1e-3), "--out", str(run)])
    said = capsys.readouterr().err
    assert code == 1, said
    assert "training diverged at step" in said


def test_loss_not_finite_from_the_start(tmp_path, capsys):
    """Numbers that are not finite are null in the files, and not a mistake of the program."""
    run = tmp_path / "run"
    values = {"model__alpha": 1e6, "model__beta": 1e6, "model__initial.u": 1000, "model__activation": "identity"}
    for command in (["train", *flags(**values, **ADAM), "--out"], ["resume"]):
        assert main([*command, str(run)]) == 1
        out, err = capsys.readouterr()
        assert "training diverged at step 0: the loss is not finite before the first step; lower model.alpha" in err
        assert "train.loss   " in out
        assert json.loads((run / "summary.json").read_text(), parse_constant=pytest.fail)["train.loss"] is None


def test_first_bad_step():
    assert first_bad_step(np.array([1.0, 2.0]), 1.0) is None
    assert first_bad_step(np.array([1.0, 2e4, np.nan]), 1.0) == 1
    assert first_bad_step(np.array([1.0, 2e4]), 10.0) is None
    assert first_bad_step(np.array([1.0, -np.inf]), 1.0) == 1
