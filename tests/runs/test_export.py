"""A run in an experiment tracker has the rows, settings and summary of the run directory."""

import json
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing

import pytest

from mfresnet import Config, MfresnetError
from mfresnet.cli import main
from mfresnet.runs import export, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "toy"
    config = Config(
        data={"n": 16, "n_test": 8},
        model={"depth": 2, "width": 4},
        train={"rule": "adam", "steps": 4},
        diagnostics={"gram_every": 0, "landscape": False},
    )
    train(config, folder)
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Kept:
    def __init__(self):
        self.steps, self.ended = {}, None

    def begin(self, name, config):
        self.name, self.config = name, config

    def log(self, step, row):
        self.steps[step] = row

    def close(self, summary):
        self.ended = summary


def test_a_tracker_of_ones_own(run):
    kept = Kept()
    export(run, kept)
    assert kept.name == "toy" and kept.config["model.depth"] == 2
    assert {step: row["train.loss"] for step, row in kept.steps.items()} == {
        r["step"]: r["train.loss"] for r in rows(run)
    }
    assert kept.ended["test.error"] == json.loads((run / "summary.json").read_text())["test.error"]


def test_tensorboard(run, tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import directory_check  # noqa: F401  (the package is whole)

    assert main(["export", str(run), "--to", "tensorboard", "--out", str(tmp_path / "tb")]) == 0
    (file,) = (tmp_path / "tb").iterdir()
    data, place, found = file.read_bytes(), 0, {}
    while place < len(data):  # records: length, its checksum, content, its checksum
        length = int.from_bytes(data[place : place + 8], "little")
        event = Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length
        for value in event.summary.value:
            if value.tag == "train/loss":
                found[event.step] = value.simple_value
    assert found == pytest.approx({row["step"]: row["train.loss"] for row in rows(run)}, rel=1e-6)


def test_mlflow(run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the package itself
        mlflow = pytest.importorskip("mlflow")
        assert main(["export", str(run), "--to", "mlflow", "--out", str(tmp_path)]) == 0
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{(tmp_path / 'mlflow.db').resolve()}")
        (one,) = client.search_runs([client.get_experiment_by_name("mfresnet").experiment_id])
        history = client.get_metric_history(one.info.run_id, "train.loss")
    assert {m.step: m.value for m in history} == {row["step"]: row["train.loss"] for row in rows(run)}
    assert one.info.status == "FINISHED" and one.data.params["model.depth"] == "2"


def export_in_process(run, to, out):
    """Both packages finish their files, or read their settings, once a process."""
    command = [sys.executable, "-m", "mfresnet", "export", str(run), "--to", to, "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)


def wandb_records(data):
    """The records of an offline file: a header of 7 bytes, then pieces (checksum, length, kind) in blocks of 32 KiB."""
    place, piece = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too little room for a piece: the block is padded
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        piece += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield piece
            piece = b""


def test_wandb(run, tmp_path):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    export_in_process(run, "wandb", tmp_path / "wb")
    (file,) = (tmp_path / "wb").glob("wandb/offline-run-*/run-*.wandb")
    found = {}
    for data in wandb_records(file.read_bytes()):
        record = Record.FromString(data)
        items = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
        if "train.loss" in items:
            found[record.history.step.num] = float(items["train.loss"])
    assert found == pytest.approx({row["step"]: row["train.loss"] for row in rows(run)})


def test_trackio(run, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    export_in_process(run, "trackio", tmp_path)
    with closing(sqlite3.connect(tmp_path / "mfresnet.db")) as base:
        stored = base.execute("select step, metrics from metrics").fetchall()
    found = {step: json.loads(values) for step, values in stored}
    for row in rows(run):
        assert found[row["step"]]["train.loss"] == row["train.loss"]
        assert found[row["step"]].get("flow.time") == row.get("time")


def test_what_cannot_be_exported(run, tmp_path, monkeypatch):
    with pytest.raises(MfresnetError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"):
        export(run, "tensorbord")
    with pytest.raises(MfresnetError, match="is no run directory"):
        export(tmp_path, Kept())
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(MfresnetError, match="wandb needs the package wandb: install it"):
        export(run, "wandb")
