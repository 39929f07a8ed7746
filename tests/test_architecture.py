"""The shape of the package: imports go down a list, nothing private is touched, every public name is documented."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import pytest

import mfresnet

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mfresnet"
FILES = sorted(path for path in SOURCE.rglob("*.py"))

# A package imports itself, those before it, and the modules that every package may use.
MODULES = (
    "errors",
    "fields",
    "config",
    "stats",
    "messages",
    "json_types",
    "registry",
    "scaling",
    "html",
    "cache",
    "digits",
    "threads",
)
PACKAGES = (
    "data",
    "model",
    "flow",
    "kernels",
    "diagnostics",
    "bounds",
    "certify",
    "train",
    "images",
    "experiments",
    "runs",
    "report",
    "torch",
    "sklearn",
    "cli",
)
HEIGHT = dict.fromkeys(MODULES, 0) | {name: height for height, name in enumerate(PACKAGES, 1)}
SUBPACKAGES = sorted(module.name for module in pkgutil.iter_modules([str(SOURCE)]) if module.name in HEIGHT)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> list[str]:
    """Dotted names of all imported modules, relative ones resolved, at any depth of the file."""
    inside = ("mfresnet", *path.relative_to(SOURCE).parent.parts)
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(inside[: len(inside) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from . import name` may name a module
            found += [f"{module}.{alias.name}" for alias in node.names] if node.module is None else [module]
    return found


def package(path: Path) -> str:
    """The first part of a file's place in the package."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def identify(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_imports_go_down_the_list(path):
    if package(path) in ("__init__", "__main__"):
        return
    assert package(path) in HEIGHT, f"{path.name} is in no package: name it in PACKAGES or MODULES"
    for name in imports(path):
        if name.startswith("mfresnet."):
            imported = name.split(".")[1]
            assert HEIGHT[imported] <= HEIGHT[package(path)], f"{identify(path)} imports {name}, which lies above it"


def test_no_cycle_between_packages():
    """Of the modules that all may use too, whose order among themselves the list leaves open."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        if (name := package(path)) not in ("__init__", "__main__"):
            used = {word.split(".")[1] for word in imports(path) if word.startswith("mfresnet.")}
            graph.setdefault(name, set()).update(used - {name})
    assert set(TopologicalSorter(graph).static_order()) == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_what_no_module_does(path):
    names = imports(path)
    dotted = {ast.unparse(node) for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert not [name for name in names if name.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib")]
    assert not [name for name in names if name.startswith(("jax._src", "jaxlib"))]
    asked = ("jax.config",) if package(path) != "cache" else ()  # the user calls for the compilation cache
    assert not [name for name in dotted if name.startswith(("jax._src", "jaxlib", *asked))]
    if package(path) in ("data", "report"):
        assert not [name for name in names if name.split(".")[0] in ("jax", "equinox", "optax", "diffrax")]


def test_arrays_are_read_without_pickle():
    """NumPy reads pickles only when asked to: nobody asks."""
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, identify(path)


def test_files_stay_small():
    lengths = {identify(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def loaded_after(code: str) -> set[str]:
    """Top-level modules of a fresh interpreter after ``code``."""
    code += "\nimport sys; sys.stdout.write('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import mfresnet",
        "from mfresnet import Config, MfresnetError",
        "from mfresnet.cli import main\nmain(['--help'])",
        "from mfresnet.cli import main\nmain(['--version'])",
        "from mfresnet.cli import main\ntry: main(['sweep', 'rate', '--help'])\nexcept SystemExit: pass",
        "from mfresnet.cli import main\ntry: main(['image', '--help'])\nexcept SystemExit: pass",
        "import mfresnet.data, mfresnet.report",
    ],
)
def test_start_is_light(code):
    assert not loaded_after(code) & {"jax", "jaxlib", "equinox", "sklearn", "torch", "diffrax"}


def public() -> list[tuple[str, object]]:
    """(dotted name, object) of every name that `mfresnet` or a subpackage exports (`mfresnet.torch` needs PyTorch)."""
    found = {}
    names = [name for name in SUBPACKAGES if name != "torch" or find_spec("torch")]
    for module in (mfresnet, *(importlib.import_module(f"mfresnet.{name}") for name in names)):
        for name in getattr(module, "__all__", ()):
            found[f"{module.__name__}.{name}"] = getattr(module, name)
    return sorted(found.items())


def is_documentable(thing: object) -> bool:
    return inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing)


def test_every_public_name_exists_and_is_documented():
    missing = [name for name, thing in public() if is_documentable(thing) and not own_doc(thing)]
    for module in sorted({identify(path): path for path in FILES}.values()):
        if not ast.get_docstring(tree(module)):
            missing.append(identify(module))
    assert missing == []


def own_doc(thing: object) -> str:
    """The docstring written for this thing: an inherited or generated one does not count."""
    doc = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    generated = inspect.isclass(thing) and (doc or "").startswith(f"{thing.__name__}(")
    return "" if generated else doc or ""


def test_public_methods_are_documented():
    missing = []
    for name, thing in public():
        if not inspect.isclass(thing) or not thing.__module__.startswith("mfresnet"):
            continue
        for method, value in vars(thing).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            overrides = any(hasattr(base, method) for base in thing.__mro__[1:])
            if inspect.isfunction(function) and not method.startswith("_") and not overrides and not function.__doc__:
                missing.append(f"{name}.{method}")
    assert missing == []


def test_names_exported_at_the_top_have_an_example():
    """An example is a doctest of the object itself or, for a class, of one of its methods."""
    finder = doctest.DocTestFinder(recurse=True)
    missing = []
    for name in mfresnet.__all__:
        thing = getattr(mfresnet, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            module = importlib.import_module(thing.__module__)
            if not any(test.examples for test in finder.find(thing, name, module=module)):
                missing.append(name)
    assert missing == []


def tracked_text() -> list[Path]:
    """Text files of the project (of the checkout where git is at hand)."""
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [path for part in ("src", "tests", "docs", "benchmarks") for path in (ROOT / part).rglob("*")]
    kinds = {".py", ".toml", ".md", ".txt", ".cff", ".sh", ".html", ".js", ".css", ".json", ".cfg", ""}
    return [path for path in paths if path.suffix in kinds and path.is_file()]


def test_no_file_names_a_download_address():
    """Versions are pinned; where they come from is the business of the machine that installs."""
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download", "pytorch", "org"))]
    named = {
        str(path.relative_to(ROOT)): host
        for path in tracked_text()
        for host in hosts
        if host in path.read_text(encoding="utf-8", errors="replace")
    }
    assert named == {}


def test_every_dependency_is_pinned():
    """What the package and its extras name directly has one version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert not [line for line in lines if line and not line.startswith("#") and "==" not in line]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = project["dependencies"] + [
        wanted for extra in project["optional-dependencies"].values() for wanted in extra
    ]
    assert {wanted.partition(">")[0].lower().replace("_", "-") for wanted in named} - pinned == set()
