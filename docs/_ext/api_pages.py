"""The reference: a page for each public package, made from what it exports.

A package or module without a page, or a symbol without a docstring, stops the build.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from mfresnet.registry import Registry

PACKAGES = {
    "mfresnet": "What most programs need",
    "mfresnet.config": "Configuration",
    "mfresnet.data": "Data",
    "mfresnet.model": "Models",
    "mfresnet.flow": "Flows and losses",
    "mfresnet.scaling": "Scaling of any parameters",
    "mfresnet.kernels": "Kernels",
    "mfresnet.diagnostics": "Diagnostics",
    "mfresnet.bounds": "Bounds",
    "mfresnet.certify": "Certificates",
    "mfresnet.train": "Training in memory",
    "mfresnet.images": "Images",
    "mfresnet.experiments": "Experiments",
    "mfresnet.experiments.own_transfer": "Learning rates of your own model",
    "mfresnet.runs": "Runs",
    "mfresnet.report": "Reports",
    "mfresnet.sklearn": "scikit-learn estimators",
    "mfresnet.registry": "Objects by name",
    "mfresnet.errors": "Errors",
}
MOCKED = {"mfresnet.torch": "PyTorch modules"}  # needs an extra, which autodoc mocks: described, not imported here
NOT_PYTHON_API = {"mfresnet.cli": "the command line", "mfresnet.__main__": "the command line"}
HELPERS = ("cache", "digits", "fields", "html", "json_types", "messages", "stats", "threads")
INTERNAL = {f"mfresnet.{name}" for name in HELPERS}


def exports(package: str) -> dict[str, Any]:
    """The public objects of a package by name: ``__all__``, or what a module without it defines itself."""
    module = importlib.import_module(package)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and getattr(value, "__module__", None) == package
            and not isinstance(value, TypeVar)
        ]
    return {name: getattr(module, name) for name in names if not name.startswith("_")}


def has_page(value: Any) -> bool:
    """Whether this is a package with a page of its own: ``mfresnet.certify`` is exported by ``mfresnet`` as well."""
    return isinstance(value, ModuleType) and value.__name__ in PACKAGES


def homes() -> dict[str, tuple[str, Any]]:
    """Where each object is documented: full name -> (package of the page, object); once, on the first page."""
    seen: dict[int, str] = {}
    out: dict[str, tuple[str, Any]] = {}
    for package in PACKAGES:
        for name, value in exports(package).items():
            if has_page(value):
                continue
            if id(value) not in seen or not callable(value):
                seen[id(value)] = f"{package}.{name}"
                out[f"{package}.{name}"] = (package, value)
    return out


def missing() -> list[str]:
    """Public symbols that the reference lacks: packages that are not listed, objects without a docstring."""
    root = importlib.import_module("mfresnet")
    exported = {value.__name__ for value in exports("mfresnet").values() if isinstance(value, ModuleType)}
    known = {*PACKAGES, *MOCKED, *NOT_PYTHON_API, *INTERNAL, *exported}
    faults = [
        f"{name}: no page (docs/_ext/api_pages.py)"
        for _, name, _ in pkgutil.iter_modules(root.__path__, "mfresnet.")
        if name not in known
    ]
    for full, (_, value) in homes().items():
        if (inspect.isclass(value) or inspect.isroutine(value)) and not (inspect.getdoc(value) or "").strip():
            faults.append(f"{full}: no docstring")
    return faults


def entry(full: str, value: Any) -> list[str]:
    """The directive of one object."""
    if isinstance(value, ModuleType):
        return [f".. automodule:: {value.__name__}", "   :members:", ""]
    if inspect.isclass(value):
        return [f".. autoclass:: {full}", "   :members:", "   :show-inheritance:", ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {full}", ""]
    return [f".. py:data:: {full.rpartition('.')[2]}", "", f"   {describe(value)}", ""]


def describe(value: Any) -> str:
    """One line on a constant: the names that it holds, or its value."""
    if isinstance(value, Registry):
        return f"Objects by name (`mfresnet.registry.Registry`): {', '.join(f'``{name}``' for name in value.names())}."
    if isinstance(value, Mapping):
        return f"By name: {', '.join(f'``{name}``' for name in value)}."
    return f"``{value!r}``"


def kind(value: Any) -> str:
    """Heading under which an object stands."""
    if isinstance(value, ModuleType):
        return "Modules"
    if inspect.isclass(value):
        return "Classes"
    return "Functions" if inspect.isroutine(value) else "Constants and registries"


def page(package: str, documented: dict[str, tuple[str, Any]]) -> str:
    """The source of a package's page."""
    module = importlib.import_module(package)
    title = f"{PACKAGES[package]}: ``{package}``"
    lines = [title, "=" * len(title), "", f".. py:module:: {package}", ""]
    doc = inspect.getdoc(module) or ""
    lines += [*doc.partition("\n\n")[0].replace("*", r"\*").replace("|", r"\|").splitlines(), ""]
    by_id = {id(value): full for full, (_, value) in documented.items() if callable(value)}
    elsewhere = [
        f"- `{package}.{name} <{value.__name__ if has_page(value) else by_id[id(value)]}>`"
        for name, value in exports(package).items()
        if f"{package}.{name}" not in documented
    ]
    if callable(module):
        call = f"{type(module).__module__}.{type(module).__qualname__}.__call__"
        lines += ["The package as a function", "-------------------------", "", f".. automethod:: {call}", ""]
    for heading in ("Classes", "Functions", "Constants and registries", "Modules"):
        own = [(full, v) for full, (home, v) in documented.items() if home == package and kind(v) == heading]
        if own:
            lines += [heading, "-" * len(heading), ""]
            for full, value in own:
                lines += entry(full, value)
    if elsewhere:
        lines += ["Documented elsewhere", "--------------------", "", *elsewhere, ""]
    return "\n".join(lines)


def write(app: Sphinx) -> None:
    """Write the pages; unchanged ones keep their date."""
    faults = missing()
    if faults:
        raise ExtensionError("the reference is incomplete: " + "; ".join(faults))
    folder, documented = Path(app.srcdir) / "_api", homes()
    folder.mkdir(exist_ok=True)
    pages = {package: page(package, documented) for package in PACKAGES}
    for name, words in MOCKED.items():
        title = f"{words}: ``{name}``"
        pages[name] = "\n".join([title, "=" * len(title), "", f".. automodule:: {name}", "   :members:", ""])
    for package, text in pages.items():
        path = folder / f"{package}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def skip(app: Sphinx, what: str, name: str, obj: object, skipped: bool, options: object) -> bool | None:
    """Leave out the methods that scikit-learn adds to route metadata."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Sphinx) -> dict:
    """Write the pages before sources are listed."""
    app.connect("builder-inited", write)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
