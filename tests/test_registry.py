"""Objects by name: built-in ones, those of installed packages, and the messages about all others."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mfresnet import MfresnetError
from mfresnet.certify import CERTIFICATES
from mfresnet.diagnostics import DIAGNOSTICS
from mfresnet.experiments import EXPERIMENTS
from mfresnet.flow import LOSSES, SOLVERS
from mfresnet.model import ACTIVATIONS, LAWS, SCHEMES
from mfresnet.registry import Entry, Registry
from mfresnet.runs import read_certificates

TOY = '''
"""A package that adds one object of each kind."""

import jax
import jax.numpy as jnp
import numpy as np

from mfresnet import Activation
from mfresnet.bounds import held_out_certificate
from mfresnet.data.table import Table
from mfresnet.experiments.registry import Entry
from mfresnet.images import Plain
from mfresnet.model import Scheme

SOFTSIGN = Activation.from_function("softsign", lambda x: x / (1 + jnp.abs(x)))


def _heun(field, z, h):
    first = field(z)
    return z + h / 2 * (first + field(z + h * first))


HEUN = Scheme(_heun, stages=2)
EXPERIMENT = Entry("the rate again", "mfresnet.experiments.settings:RateSettings", "mfresnet.experiments.rate:Rate")


def signs(key, shape, dtype=float):
    """Independent signs."""
    return jax.random.rademacher(key, shape, dtype)


def absolute(f, y, weights):
    """Mean absolute error."""
    return jnp.sum(weights * jnp.sum(jnp.abs(f - y), axis=-1)) / jnp.sum(weights)


def corners():
    """Corners of a square, two classes."""
    x = np.tile(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]), (6, 1)) + np.arange(24)[:, None] / 100
    return Table("corners", x, (x[:, 0] * x[:, 1] > 0).astype(np.int64), "classification", ("a", "b"), ("p", "q"))


def largest(model, ensemble, probe):
    """The largest output."""
    return {"toy.largest": float(jnp.max(jnp.abs(model(jnp.asarray(probe.x, model.dtype)))))}


def coin(problem):
    """Half of the points, whatever was trained."""
    n = len(problem.data.points.x)
    return held_out_certificate(n // 2, n, problem.spec.delta, certifies="a coin")


class Copy(Plain):
    """The plain rule under another name."""
'''
POINTS = """[mfresnet.activations]
softsign = toy:SOFTSIGN
[mfresnet.schemes]
heun = toy:HEUN
[mfresnet.laws]
signs = toy:signs
[mfresnet.losses]
absolute = toy:absolute
[mfresnet.datasets]
corners = toy:corners
[mfresnet.experiments]
rate-again = toy:EXPERIMENT
[mfresnet.solvers]
tsit5 = diffrax:Tsit5
[mfresnet.diagnostics]
largest = toy:largest
[mfresnet.certificates]
coin = toy:coin
[mfresnet.block_rules]
copy = toy:Copy
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> dict[str, str]:
    """The environment of a process in which the toy package is installed."""
    site = tmp_path_factory.mktemp("site")
    (site / "toy.py").write_text(TOY)
    facts = site / "toy-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(POINTS)
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    return dict(os.environ, PYTHONPATH=path)


def command(toy: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mfresnet", *words], env=toy, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_package_adds_objects_that_the_command_line_uses(toy, tmp_path):
    out = str(tmp_path / "run")
    sizes = "--data.n 16 --model.depth 2 --model.width 4 --model.head-width 4 --train.rule adam --train.steps 2"
    names = (
        "--model.activation softsign --model.scheme heun --model.initial.law signs --train.loss absolute "
        "--record.report false --diagnostics.gram-every 0 --diagnostics.landscape false"
    )
    command(toy, "train", "corners", "--out", out, *sizes.split(), *names.split())
    written = (Path(out) / "config.json").read_text()
    assert all(f'"{name}"' in written for name in ("corners", "softsign", "heun", "signs", "absolute"))


def test_a_package_adds_a_solver_a_diagnostic_and_a_certificate(toy, tmp_path):
    out = tmp_path / "run"
    sizes = (
        "--data.n 16 --data.n-test 8 --model.depth 2 --model.width 4 --model.head-width 4 --train.steps 2 "
        "--train.probes 4 --train.head-probes 16 --certify.heads 4 --certify.residuals 2 --certify.draws 8"
    )
    names = (
        "--train.solver tsit5 --diagnostics.also largest,transport --record.report false --diagnostics.landscape false "
        "--diagnostics.solver-error false"
    )
    printed = command(toy, "train", "two-spirals", "--out", str(out), *sizes.split(), *names.split())
    assert "coin" in printed.partition("vacuous ")[2].partition("\n")[0]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(name in rows[-1] for name in ("toy.largest", "w2.encoder"))
    assert read_certificates(out)[0]["coin"].terms["held-out error"] == 0.5


def test_a_package_adds_a_block_rule(toy, tmp_path):
    """The rule is the plain one under another name, so both trainings are the same to the bit."""
    out = tmp_path / "images"
    sizes = (
        "--data.n 16 --data.n-test 8 --model.name resnet8 --model.width 1 --train.epochs 1 --train.batch-size 8 "
        "--record.sensitivity false --record.report false"
    )
    command(toy, "image", "synthetic-images", "--out", str(out), *sizes.split(), "--blocks.rules", "plain,copy")
    rows = {row["rule"]: row for row in map(json.loads, (out / "metrics.jsonl").read_text().splitlines())}
    assert rows["copy"]["train_loss"] == rows["plain"]["train_loss"]


def test_a_package_adds_names_to_the_lists(toy):
    assert "corners" in command(toy, "datasets")
    assert "rate-again" in command(toy, "sweep", "--help")


@pytest.mark.parametrize(
    "registry",
    [ACTIVATIONS, SCHEMES, LAWS, LOSSES, SOLVERS, DIAGNOSTICS, CERTIFICATES, EXPERIMENTS],
    ids=lambda one: one.kind,
)
def test_every_built_in_object_loads_and_an_unknown_name_is_one_sentence(registry):
    for name in registry.names():
        assert registry[name] is not None
    near = registry.names()[0] + "x"
    with pytest.raises(MfresnetError, match=rf"^unknown {registry.kind.split()[0]}.*did you mean .*{near[:-1]}"):
        registry[near]


def test_an_object_of_another_kind_is_refused():
    with pytest.raises(MfresnetError, match=r"'math:pi' is a float, not an mfresnet\.Activation"):
        ACTIVATIONS["math:pi"]
    with pytest.raises(MfresnetError, match="'math:pi' is a float, not callable"):
        LOSSES["math:pi"]


@pytest.mark.parametrize("place", ["math:", "math:nothing", "no_such_module:x", ":x"])
def test_an_object_that_cannot_be_imported_is_one_sentence(place):
    with pytest.raises(MfresnetError, match="cannot be loaded"):
        ACTIVATIONS[place]


def test_a_taken_name_is_refused(toy):
    """An entry point must not replace a built-in object silently."""
    code = """
from mfresnet import MfresnetError
from mfresnet.registry import Registry
try:
    Registry("activation", "mfresnet.activations", {"softsign": abs}).names()
except MfresnetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], env=toy, capture_output=True, text=True, check=True)
    assert "the package toy adds the activation 'softsign', a name that is taken" in done.stdout


def test_a_built_in_object_is_imported_on_first_use():
    lazy = Registry("thing", "mfresnet.nothing", {"root": Entry("math:sqrt", "of a number")})
    assert (lazy["root"](4.0), lazy.summary("root"), "root" in lazy, list(lazy)) == (2.0, "of a number", True, ["root"])
