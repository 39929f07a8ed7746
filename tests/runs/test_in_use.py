"""A run directory in use is refused to another process; a disk that takes no more loses no finished result."""

from __future__ import annotations

import json
import os
import resource
import time

import pytest
from small_runs import Commands, flags

from mfresnet.cli import main

ADAM = {"train__rule": "adam", "train__batch_size": 8}
REPORTED = {
    "record__report": True,
    "train__steps": 2000,
    "record__metrics_every": 100,
    "record__checkpoint_seconds": 15,
}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of a process as POSIX has them")


@pytest.fixture(scope="module")
def commands(quick, tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("commands"))


def test_a_run_in_use_is_refused_in_a_sentence(commands, tmp_path):
    run = tmp_path / "run"
    holder = commands.start("train", *flags(**ADAM | {"train__steps": 100_000_000}), "--out", run)
    while holder.is_alive() and not (run / "metrics.jsonl").exists():
        time.sleep(0.01)
    before = (run / "config.json").read_bytes()
    second = Commands(tmp_path)
    try:
        for argv in (
            ["resume", run],
            ["measure", run],
            ["certify", run],
            ["train", *flags(**ADAM), "--out", run, "--overwrite"],
        ):
            said = second.run(*argv, code=2)
            assert said == f"mfresnet: {str(run)!r} is in use by another process: wait for it, or stop it first.\n"
    finally:
        holder.kill()
        holder.join()
    assert (run / "config.json").read_bytes() == before
    assert main(["train", *flags(**ADAM), "--out", str(run), "--overwrite"]) == 0  # the lock died with its holder


def test_a_report_that_cannot_be_written_is_a_warning(commands, tmp_path):
    """The page is larger than a file may be; everything else of the run is smaller."""
    run = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    process = commands.start("train", *flags(**ADAM | REPORTED), "--out", run)
    while process.is_alive() and not (run / "metrics.jsonl").exists():
        time.sleep(0.001)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, hard))
    process.join(120)
    said = commands.log.read_text()
    assert process.exitcode == 0, said
    assert "warning: the result is complete, but its report is not there: cannot write" in said
    assert f"with `mfresnet report {run} --out FILE`" in said and "Traceback" not in said
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert "completed" in said and not (run / "report.html").exists()
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == (soft, hard)


def test_the_report_of_a_run_that_cannot_be_written_goes_elsewhere(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", *flags(**ADAM), "--out", str(run), "--quiet"]) == 0
    (run / "report.html").mkdir()  # no file can take its place
    (run / "report.html" / "report.html").mkdir()
    (run / "report.html" / "report.html" / "x").touch()
    before = sorted(run.rglob("*"))
    assert main(["report", str(run)]) == 2
    assert "--out FILE" in capsys.readouterr().err
    for out, file in ((tmp_path / "page.html", tmp_path / "page.html"), (tmp_path, tmp_path / "report.html")):
        assert main(["report", str(run), "--out", str(out)]) == 0
        assert "</html>" in file.read_text(encoding="utf-8")
    assert sorted(run.rglob("*")) == before
