"""The documents say what is: their code runs, their commands, flags, targets, files and versions exist."""

import argparse
import json
import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest

from mfresnet import Config
from mfresnet.cli import COMMANDS
from mfresnet.config import build, leaves, nest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
]
SITE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCUMENTS, *SITE]
RUN = [path for path in (ROOT / "README.md", *SITE) if "\n```python\n" in path.read_text(encoding="utf-8")]


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of that language."""
    found = re.findall(r"^```([^\n`]*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.S | re.M)
    return [block for kind, block in found if kind == language]


def commands(name: str) -> list[list[str]]:
    """Every call of a command in the documents' blocks, comments removed."""
    lines = [line for path in PAGES for block in blocks(path, "") for line in block.splitlines()]
    return [call for line in lines if (call := shlex.split(line, comments=True))[:1] == [name]]


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.name)
def test_python_of_a_page_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": path.stem}
    for block in blocks(path, "python"):
        exec(compile(block, path.name, "exec"), names)
    if path.name == "README.md":
        assert (tmp_path / "runs" / "python" / "summary.json").is_file()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def results(name: str) -> dict:
    """A file of the benchmarks."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


PATHS = ("breast-cancer", "digits-binary", "two-spirals-512", "two-spirals-4096")


def test_results_of_the_readme_are_those_of_the_benchmarks():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cases, rate, paths = results("certificates")["cases"], results("sweeps"), results("path")["cases"]
    values = [
        ", ".join(f"{cases[name]['reached.mean']:.3f}" for name in ("two-spirals", "breast-cancer")),
        f"{rate['ratio_torch']:.1f} times",
        ", ".join(f"{paths[name]['mean']:.3f}" for name in PATHS),
    ]
    assert [value for value in values if value not in text] == []


def test_a_users_script_runs():
    """The script whose types `make lint` checks strictly."""
    runpy.run_path(str(ROOT / "tests" / "typing" / "user_script.py"))


def test_toml_of_the_readme_is_a_configuration():
    trees = [tomllib.loads(block) for block in blocks(ROOT / "README.md", "toml")]
    assert trees and all(isinstance(build(tree), Config) for tree in trees)


def test_commands_and_flags_exist():
    known = dict(leaves())
    calls = commands("mfresnet")
    assert {call[1] for call in calls} == set(COMMANDS)
    for call in calls:
        parser = argparse.ArgumentParser()
        COMMANDS[call[1]][1](parser)
        inner = next((action.choices for action in parser._actions if isinstance(action.choices, dict)), None)
        parser = parser if inner is None else inner[call[2]]  # `mfresnet sweep NAME` has flags of its own
        flags = {word: call[place + 1 : place + 2] for place, word in enumerate(call) if word.startswith("--")}
        unknown = set(flags) - set(parser._option_string_actions)
        assert not unknown, f"{shlex.join(call)}: no {unknown}"
        settings = {name: values[0] for flag, values in flags.items() if (name := flag[2:].replace("-", "_")) in known}
        build(nest(settings))


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {word for call in commands("make") for word in call[1:] if "=" not in word}
    for path in DOCUMENTS:
        named |= set(re.findall(r"`make ([a-z-]+)", path.read_text(encoding="utf-8")))
    flows = [path.read_text(encoding="utf-8") for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
    named |= {word for text in flows for word in re.findall(r"^ *- run: make ([a-z]+)$", text, re.M)}
    assert {"test", "lint", "docs", "dist", "slow"} <= named <= targets


def test_every_benchmark_has_a_quick_form():
    """`make bench-quick` runs every script that has a ``main`` with it."""
    scripts = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").glob("*.py")}
    benchmarks = {name for name, text in scripts.items() if "\ndef main(" in text}
    assert "scale.py" in benchmarks
    assert {name for name in benchmarks if '"--quick"' not in scripts[name]} == set()


def made_by_bench(name: str) -> bool:
    """A result that `make bench` writes, by the script of that name."""
    path = Path(name)
    return path.parent == Path("benchmarks/results") and (ROOT / "benchmarks" / f"{path.stem}.py").exists()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_named_in_documents_exist(path):
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|benchmarks|docs|src|\.ci)/[\w./-]*|[A-Z]+\.(?:md|cff)|\w+\.(?:toml|txt))`", text)
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    made = ("docs/_build/html",)  # by `make docs`
    missing = [name for name in named if name not in made and not (ROOT / name).exists() and not made_by_bench(name)]
    missing += [link for link in links if not (path.parent / link).exists()]
    assert missing == []


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
