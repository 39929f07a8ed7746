"""The page as text: what it says, what it survives, what it never lets through."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_runs import make_run
from safetensors.numpy import save_file

from mfresnet.errors import MfresnetError
from mfresnet.report import SECTIONS, Run, Section, render, write_report
from mfresnet.report.headline import headline, wilson
from mfresnet.report.kernel import kernel
from mfresnet.report.parts import embed_json, plain
from mfresnet.report.tables import configuration


class Page(HTMLParser):
    """Visible text, titles of sections, findings, elements and the scripts of a page."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.headings, self.scripts, self.text = [], [], [], [], ""
        self.findings: list[str] = []
        self.topic = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.stack.append(tag)
        if tag == "p" and "header" not in self.stack:
            self.topic = dict(attrs).get("class") == "topic"

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]}"
        self.stack.pop()

    def handle_data(self, data):
        inside = self.stack[-1] if self.stack else ""
        if inside == "script":
            self.scripts.append(data)
        elif inside != "style":
            self.text += data
        if inside == "p" and self.topic:  # the title of a section whose heading is its finding
            self.headings.append(data)
        elif inside == "h2":
            (self.findings if self.topic else self.headings).append(data)
            self.topic = False

    @property
    def figures(self):
        return [json.loads(text) for text in self.scripts if text.startswith("{")]


def test_complete_run_has_every_section_and_no_complaint(tmp_path):
    path = write_report(make_run(tmp_path / "r"))
    page = Page(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "r" / "report.html"
    assert page.headings == [
        "Training",
        "Decision regions",
        "Data moving through depth",
        "Particles",
        "Configuration",
        "Data",
        "Reproduce",
    ]
    assert "Not everything could be shown" not in page.text
    assert "6%" in page.text and "4 of 64 held-out points; 95 % interval" in page.text
    assert "The network misclassifies 6\u00a0% of 64 held-out points." in page.text
    assert page.findings == [
        "The training error went from 50 % to 3 %, the held-out one to 6 %.",
        "4 of 64 held-out points are on the wrong side.",
    ]
    assert "mfresnet train two-spirals --model.depth 6" in page.text
    assert "Assumption 1 asks" in page.text
    assert len(page.figures) == 10
    assert not page.stack


def test_nothing_points_outside_the_page(tmp_path):
    page = Page(write_report(make_run(tmp_path / "r")).read_text(encoding="utf-8"))
    assert not [(tag, a) for tag, a in page.tags if {"src", "href", "action", "srcset", "data"} & a.keys()]
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "script-src 'unsafe" not in policy


def test_rewriting_is_deterministic_and_leaves_no_temporary_file(tmp_path):
    run = make_run(tmp_path / "r")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(p.name for p in run.iterdir() if "report" in p.name) == ["report.html"]


def test_failed_write_is_one_sentence_and_keeps_the_old_page(tmp_path, monkeypatch):
    run = make_run(tmp_path / "r")
    (run / "report.html").write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MfresnetError, match=r"cannot write .*No space left"):
        write_report(run)
    assert (run / "report.html").read_text() == "old"
    assert sorted(p.name for p in run.iterdir() if "report" in p.name) == ["report.html"]


@pytest.mark.parametrize("kept", ["config.json", "metrics.jsonl", "summary.json"])
def test_any_single_file_still_makes_a_page_that_says_what_is_missing(tmp_path, kept):
    run = make_run(tmp_path / "r")
    for file in sorted(run.rglob("*.*")):
        if file.is_file() and file.name != kept:
            file.unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    for name in {"config.json", "metrics.jsonl", "summary.json"} - {kept}:
        assert f"{name} is missing." in page.text
    assert f"{kept} is missing" not in page.text
    assert "arrays of the figures" in page.text and "could not be drawn" not in page.text


def test_no_run_is_an_error_that_names_the_directory(tmp_path):
    with pytest.raises(MfresnetError, match="no run directory"):
        write_report(tmp_path)
    with pytest.raises(MfresnetError, match="absent"):
        write_report(tmp_path / "absent")


def test_damaged_files_are_named_and_survived(tmp_path):
    run = make_run(tmp_path / "r")
    (run / "config.json").write_text("[1, 2")
    (run / "summary.json").write_bytes(b"\xff\xfe\x00")
    (run / "arrays" / "portrait.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "config.json is damaged" in page.text
    assert "summary.json is damaged" in page.text
    assert "portrait.safetensors cannot be read" in page.text
    assert page.headings == ["Training"]


def test_torn_last_line_is_silent_and_damage_inside_is_counted(tmp_path):
    run = make_run(tmp_path / "r")
    metrics = run / "metrics.jsonl"
    count = len(Run.read(run).metrics)
    metrics.write_text(metrics.read_text() + '{"step": 99, "train.lo')
    assert len(Run.read(run).metrics) == count and Run.read(run).problems == ()
    metrics.write_text("garbage\n[3]\n" + metrics.read_text())
    assert len(Run.read(run).metrics) == count
    assert Run.read(run).problems == ("2 damaged lines of metrics.jsonl left out.",)


def test_null_and_nan_metrics_become_gaps(tmp_path):
    run = make_run(tmp_path / "r")
    rows = [
        {"step": 0, "train.loss": 1.0},
        {"step": 1, "train.loss": None, "train.error": "x"},
        {"step": 2, "train.loss": float("nan")},
        {"step": 3, "train.loss": float("inf")},
        {"step": 4, "train.loss": 0.25, "wall_s": True},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Run.read(run)
    assert np.array_equal(found.column("train.loss"), [1, np.nan, np.nan, np.inf, 0.25], equal_nan=True)
    figure = Page(write_report(run).read_text(encoding="utf-8")).figures[1]  # after that of the first screen
    assert figure["data"][0]["y"] == [1.0, None, None, None, 0.25]


def test_diverged_run_says_why(tmp_path):
    run = make_run(tmp_path / "r", status="diverged")
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "diverged: it left the range of finite numbers." in text and "at step 7" in text


def test_run_without_summary_is_called_unfinished(tmp_path):
    run = make_run(tmp_path / "r")
    (run / "summary.json").unlink()
    found = Run.read(run)
    assert found.status == "unfinished" and found.last("train.error") == 0.03125
    assert "still running, or it was killed" in Page(render(found)).text


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "%{x}$1$ @ink \u2028 <!-- <script>",
    "\"'>&lt;b&gt;",
]


@pytest.mark.parametrize("bad", HOSTILE)
def test_hostile_text_stays_text(tmp_path, bad):
    run = make_run(tmp_path / "r", name=bad, classes=[bad, "b" * 500])
    record = json.loads((run / "config.json").read_text())
    record["config"]["data"]["target"] = bad
    record["config"][bad] = {bad: bad}
    record |= {"command": bad, "versions": {bad: bad}, "platform": [bad], "created": bad}
    record["data"] |= {"notes": [bad], "transform": bad}
    (run / "config.json").write_text(json.dumps(record))
    (run / "summary.json").write_text(json.dumps({"status": bad, "test.n": bad, "test.error": bad}))
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.headings[0] == "Training" and not page.stack
    assert "could not be drawn" not in page.text
    assert bad in page.text  # shown as it is
    assert len([tag for tag, _ in page.tags if tag == "script"]) == len(page.figures) + 2
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_class_names_reach_figures_without_markup_and_not_too_long():
    assert plain("<a href='x'>%{y}") == "&lt;a href='x'&gt;%\u200b{y}"
    assert len(plain("x" * 500)) == 40
    assert "<" not in embed_json(["</script>", "<!--"])


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("inputs", [1, 2, 4])
@pytest.mark.parametrize("task", ["classes", "regression"])
def test_every_shape_of_data_makes_a_page(tmp_path, inputs, outputs, task):
    run = make_run(tmp_path / "r", inputs=inputs, outputs=outputs, regression=task == "regression")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "Not everything could be shown" not in page.text
    assert "Data moving through depth" in page.headings and "Particles" in page.headings
    assert ("Fitted function" in page.headings) == (task == "regression" or inputs == 1)


def test_strange_arrays_cost_one_section_only(tmp_path):
    run = make_run(tmp_path / "r")
    save_file({"grid.first": np.zeros(3), "grid.second": np.zeros((2, 2))}, run / "arrays" / "portrait.safetensors")
    assert Page(write_report(run).read_text(encoding="utf-8")).headings[0] == "Training"
    arrays = {name: np.zeros(0, np.float32) for name in ("depth.s", "depth.label", "depth.end.state")}
    arrays |= {"plane.axes": np.zeros(1), "plane.radius": np.zeros(1), "grid.first": np.zeros(2)}
    arrays |= {"grid.second": np.zeros(2), "grid.end.value": np.zeros((2, 2))}
    save_file(arrays, run / "arrays" / "portrait.safetensors")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "The section 'regions' could not be drawn" in page.text and "Reproduce" in page.headings


def test_configuration_shows_what_differs_first(tmp_path):
    page = Page(write_report(make_run(tmp_path / "r")).read_text(encoding="utf-8"))
    part = page.text[page.text.index("What differs from the defaults") : page.text.index("settings\n")]
    assert "model.depth" in part and "layers L" in part and "model.head_width" not in part


def test_lists_of_the_defaults_do_not_differ(tmp_path):
    """JSON has lists where the settings have tuples."""
    section = configuration(Run.read(make_run(tmp_path / "r")))
    assert section is not None and [row[0] for row in section.parts[0].rows] == ["model.depth", "model.width"]


def test_eigenvalues_within_their_error_are_not_drawn(tmp_path):
    run = make_run(tmp_path / "r")
    small = {
        f"gram.{key}.{part}": v for part in ("total", "head") for key, v in (("lambda_min", 1e-9), ("error", 1e-8))
    }
    for rows, drawn in (([small | {"gram.lambda_min.head": 0.5}] * 3, ["G₂, head"]), ([small] * 3, [])):
        lines = [json.dumps({"step": k} | row) for k, row in enumerate(rows)]
        (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        section = kernel(Run.read(run))
        shown = [part for part in section.parts if getattr(part, "title", "") == "Smallest eigenvalues"]
        assert [trace["name"] for figure in shown for trace in figure.data] == drawn
        assert ("No smallest eigenvalue was above its error bound" in section.caption) == (not drawn)


def test_regression_error_is_no_percentage(tmp_path):
    run = make_run(tmp_path / "r", regression=True)
    numbers = headline(Run.read(run)).numbers
    assert numbers[0].unit == "" and "root mean squared" in numbers[0].remark


def test_wilson_interval_against_its_defining_equation():
    for share, n in ((0.0, 10), (0.3, 50), (1.0, 7)):
        low, high = wilson(share, n)
        for end in (low, high):
            if 0 < end < 1:
                assert abs(share - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / n), rel=1e-9)


def test_every_colour_of_a_figure_is_a_role_of_the_style_sheet(tmp_path):
    text = write_report(make_run(tmp_path / "r", inputs=4, outputs=3)).read_text(encoding="utf-8")
    roles = set(re.findall(r"--([a-z0-9-]+):", text))
    figures = json.dumps(Page(text).figures)
    used = set(re.findall(r'"@([a-z0-9-]+)[/"]', figures))
    assert used and used <= roles
    assert not re.search(r'"(?:color|bgcolor)": "(?!@)', figures)  # no colour outside the palette


def test_certificates_stand_beside_what_is_known_exactly(tmp_path):
    """A hand-written record: the table of bounds, their verdicts, the exact head class beside its bound."""
    ball = {"rademacher.head": 0.3, "rademacher.head.exact": 0.12, "rademacher.head.exact.error": 0.004}
    rest = {"terms": {}, "hypotheses": [], "standing": "computed", "certifies": "the network", "reading": "read."}
    record = {
        "delta": 0.05,
        "test.error": 0.0625,
        "certificates": {
            "kl_ball": {"value": 1.5, "vacuous": True, "details": ball, **rest},
            "held_out": {"value": 0.125, "vacuous": False, "details": {}, **rest},
        },
        "refused": {"gibbs": "it needs probes."},
    }
    run = make_run(tmp_path / "r")
    (run / "certificates.json").write_text(json.dumps(record))
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    part = text[text.index("Certificates") :]
    said_of_all = ("0.120 ± 0.004", "2.5", "vacuous", "informative", "12.5 %", "95 %", "it needs probes.")
    for said in (*said_of_all, "Error on new data at most 13 % (held-out test points); 1 of 2 bounds are vacuous."):
        assert said in part, said
    del ball["rademacher.head.exact"]
    (run / "certificates.json").write_text(json.dumps(record))
    assert "by duality" not in write_report(run).read_text(encoding="utf-8")


def test_sections_are_named_functions_of_the_run():
    empty = Run("empty")
    assert len({section.__name__ for section in SECTIONS}) == len(SECTIONS)
    assert all(section(empty) is None and section.__doc__ for section in SECTIONS)
    assert Section("t", "", []).controls == {}


def test_report_needs_no_jax():
    code = "import sys, mfresnet.report; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_page_on_a_read_only_file_system_is_one_sentence(tmp_path, monkeypatch):
    """There even the removal of a file that does not exist fails."""
    run = make_run(tmp_path / "run")

    def refuse(*args, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        for name in ("write_text", "unlink"):
            patch.setattr(Path, name, refuse)
        with pytest.raises(MfresnetError, match=r"Read-only file system; .* --out FILE"):
            write_report(run)
    assert write_report(run, tmp_path / "elsewhere.html").is_file()


def test_first_screen_says_what_was_certified_and_leaves_estimates_to_the_numbers(tmp_path):
    run = make_run(tmp_path / "r")
    bound = {"value": 0.1213, "confidence": 0.95, "vacuous": False, "status": "assumed"}
    for status, finding in (
        ("assumed", "; its training points alone certify at most 13\u00a0%, with probability 95\u00a0%."),
        ("estimated", " held-out points."),
        ("violated", " held-out points."),
    ):
        record = {"delta": 0.05, "certificates": {"path": bound | {"status": status}}}
        (run / "certificates.json").write_text(json.dumps(record))
        assert headline(Run.read(run)).finding.endswith(finding)
    assert headline(Run.read(make_run(tmp_path / "cut", status="interrupted"))).finding == ""


def test_an_eigenvalue_below_its_error_is_not_a_number(tmp_path):
    run = make_run(tmp_path / "r")
    record = json.loads((run / "summary.json").read_text())
    rows = (run / "metrics.jsonl").read_text()
    for value, said in ((2.7e-13, "is zero within its error."), (2.5e-9, "is 2.5e-09 ± 4e-10.")):
        (run / "metrics.jsonl").write_text(
            rows + json.dumps({"step": 80, "gram.lambda_min.total": value, "gram.error.total": 3.7e-10}) + "\n"
        )
        (run / "summary.json").write_text(json.dumps(record))
        assert said in Page(write_report(run).read_text(encoding="utf-8")).text
