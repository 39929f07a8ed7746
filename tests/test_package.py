"""The distributions: they build from the sources, and the wheel works in an environment without the repository."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
LEFT_OUT = {".git", ".venv", "runs", "dist", "build"}  # of the root; others of the same name are packages


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    """Source distribution, and the wheel built from it."""
    pytest.importorskip("build", reason="the package build is not installed: pip install '.[docs]'")
    copy = tmp_path_factory.mktemp("clone") / "mfresnet"
    everywhere = shutil.ignore_patterns("_build", "__pycache__", "*.egg-info")

    def left_out(folder: str, names: list[str]) -> set[str]:
        return everywhere(folder, names) | (LEFT_OUT & set(names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, copy, ignore=left_out)
    done = subprocess.run([sys.executable, "-m", "build", "--quiet", str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (source,), (wheel,) = (copy / "dist").glob("*.tar.gz"), (copy / "dist").glob("*.whl")
    return {"source": source, "wheel": wheel}


def test_what_they_hold(distributions):
    with tarfile.open(distributions["source"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "CHANGELOG.md", "LICENSE", "docs/conf.py", "tests/test_package.py"} <= names
    assert not any(name.startswith(("docs/_build", ".venv")) for name in names)
    names = set(zipfile.ZipFile(distributions["wheel"]).namelist())
    assert {
        "mfresnet/py.typed",
        "mfresnet/__init__.pyi",
        "mfresnet/report/page.html",
        "mfresnet/report/page.js",
    } <= names
    assert not any(name.startswith(("tests", "docs")) for name in names)


def test_the_wheel_trains_in_an_environment_of_its_own(distributions, tmp_path):
    """In a fresh environment that borrows the installed dependencies only, in a folder without the repository."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    places = {path for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    library = next(home.rglob("site-packages"))
    with zipfile.ZipFile(distributions["wheel"]) as wheel:
        wheel.extractall(library)
    # the dependencies by path, after the wheel; the .pth of an editable mfresnet among them is not read
    (library / "dependencies.pth").write_text("".join(f"{place}\n" for place in sorted(places)))
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")}
    where = subprocess.run(
        [python, "-c", "import mfresnet; print(mfresnet.__file__, mfresnet.__version__)"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=True,
    ).stdout  # fmt: skip
    assert str(home) in where
    done = subprocess.run(
        [python, "-m", "mfresnet", "train", "two-spirals", "--out", "runs/demo", "--quiet"],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"summary.json", "report.html", "certificates.json"} <= {p.name for p in (tmp_path / "runs/demo").iterdir()}
