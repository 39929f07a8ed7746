"""The solver's error of loss, predictions and KL, from a coarser companion of the run."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet import Config, fit
from mfresnet.cli.training import _measured_rows
from mfresnet.diagnostics import kl_to_start, solver_error
from mfresnet.diagnostics.solver_error import first_probes
from mfresnet.errors import MfresnetError
from mfresnet.flow import OptaxRule, flow, optimiser, predict
from mfresnet.report.laws import _facts
from mfresnet.report.reading import Run

KEYS = ("solver.loss", "solver.prediction", "kl.head.solver_error", "kl.encoder.solver_error")


def trained(diagnostics=None, **train):
    return fit(
        Config(
            data={"n": 32, "n_test": 32},
            model={"depth": 3, "width": 4, "head_width": 8, "alpha": 2.0, "beta": 5.0},
            train={"time": 20.0, "steps": 10, "probes": 16, "head_probes": 128, "precision": "float64", **train},
            diagnostics={"landscape": False, "gram_every": 0, "kl_every": 0} | (diagnostics or {}),
            certify={"enabled": False},
        )
    )


def numbers(result):
    """Loss, predictions on the test points, and both KL divergences."""
    with jax.enable_x64(True):
        f = np.asarray(predict(result.model, result.job.test.x))
        encoder, head = kl_to_start(result.laws)
    return result.summary["train.loss"], f, head.kl.value, encoder.kl.value


def true_errors(result, reference):
    """In the order of KEYS."""
    (loss, f, *kl), (exact_loss, exact_f, *exact_kl) = numbers(result), numbers(reference)
    distances = [abs(a - b) for a, b in zip(kl, exact_kl, strict=True)]
    return [abs(loss - exact_loss), float(np.sqrt(np.mean((f - exact_f) ** 2))), *distances]


@pytest.fixture(scope="module")
def reference():
    """At 1e-8, where errors are at most 1/100 of those that are compared with it."""
    return trained({"solver_error": False}, tolerance=1e-8)


@pytest.fixture(scope="module")
def run():
    return trained(tolerance=1e-4)


def between(low, result, reference, high):
    for key, error in zip(KEYS, true_errors(result, reference), strict=True):
        assert low * error <= result.summary[key] <= high * error, (key, error, result.summary[key])


@pytest.mark.parametrize("tolerance", [1e-4, 1e-6])
def test_the_estimate_is_at_least_the_error_and_of_its_size(reference, run, tolerance):
    """Steps about twice as long make errors 8 to 10 times as large, so the difference is 7 to 9 times the run's error.
    Steps are few here, and errors of either sign: from the error itself, which is what the estimate is for, to five
    times what is expected."""
    between(1, run if tolerance == 1e-4 else trained(tolerance=tolerance), reference, 50)


@pytest.mark.parametrize("solver, low, high", [("heun", 1, 10), ("euler", 0.5, 2)])
def test_fixed_steps(reference, solver, low, high):
    """Half as many steps: the difference is 3 times the error of Heun's and once that of Euler's, to leading order."""
    between(low, trained(solver=solver, steps=100), reference, high)


def test_the_first_quarter_of_the_probes(run):
    few = first_probes(run.laws)
    assert few.log_ratio.encoder.shape == (3, 8) and few.log_ratio.head.shape == (64,)
    np.testing.assert_array_equal(few.probes.head.w, run.laws.probes.head.w[:64])
    np.testing.assert_array_equal(few.start.encoder.out, run.laws.start.encoder.out[:, :8])
    assert first_probes(few).log_ratio.head.shape == (64,)


def test_no_companion_of_what_is_no_flow(run):
    """An optimiser, mini-batches, one fixed step."""
    job, end = run.job, run.state
    others = (
        replace(job.trainer, rule=optimiser("adam", 0.1)),
        replace(job.trainer, rule=flow("heun", 0.1), batch_size=8),
    )
    for trainer in others:
        assert solver_error(trainer, job.state, end, job.train, job.test.x) is None
    once = replace(end, step=jnp.asarray(1))
    assert solver_error(replace(job.trainer, rule=flow("euler", 0.1)), job.state, once, job.train, job.test.x) is None
    assert isinstance(others[0].rule, OptaxRule)


def test_a_companion_that_diverges_is_an_error(run):
    """Not an estimate of zero or of infinity."""
    job = run.job
    with jax.enable_x64(True), pytest.raises(MfresnetError, match="half as many steps"):
        trainer = replace(job.trainer, rule=flow("euler", 1e3))
        solver_error(trainer, job.state, run.state, job.train, job.test.x)


def test_can_be_switched_off(reference):
    assert not set(KEYS) & set(reference.summary)


def test_is_reported_beside_the_error_of_the_probes():
    probes = {
        "kl.head.value": 0.008367,
        "kl.head.stderr": 0.0014,
        "kl.encoder.value": 0.3384,
        "kl.encoder.stderr": 0.079,
    }
    summary = probes | {"kl.head.solver_error": 0.0001}
    assert _measured_rows(summary) == [
        ("kl.head", "0.0084 +- 0.0014 (probes) +- 0.0001 (solver)"),
        ("kl.encoder", "0.34 +- 0.08 (probes)"),
    ]
    facts = dict(_facts(Run("r", summary=summary), [probes]))
    head, encoder = (
        next(text for name, text in facts.items() if name.startswith(part)) for part in ("head", "encoder")
    )
    assert head.startswith("0.0084 ± 0.0014 (standard error of the probes), solver error 0.0001 (estimated")
    assert encoder == "0.34 ± 0.08 (standard error of the probes)"
