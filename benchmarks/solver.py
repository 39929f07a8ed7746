"""Error of the error-controlled flows against their work: classical steps (Bosh3) and stabilised ones (RKC2).

The reference has the same start, the same probes, classical steps and tolerance 1e-8. All are solved in float64: what
is compared is the error of the solver alone. Per solver and tolerance: accepted and attempted steps, fields of the
network and with probes, processor time (the first of the stabilised solver includes its compilation), and the errors of
the training loss, of the predictions on the test points (root mean square) and of KL of head and encoder.
``differences`` are those to the solutions of larger tolerances: how well a coarser companion
(`mfresnet.diagnostics.solver_error`) shows the error.

What the table says: today's default (stabilised, 1e-6) makes 2,154 fields of the network and as many with probes on
two spirals, where classical steps at 1e-5, at their limit of stability, make 10,168 and 7,307: 4.1 times fewer, 3.6
times less processor time. Loss, predictions and KL of the head are nearer to the reference; KL of the encoder is off by
4e-5 of 0.4, against 7e-6. On breast-cancer, at a fifth of the default time, 2.1 times fewer with all errors smaller:
there the error, not stability, limits most steps.

Networks, data, and the number of intervals are the defaults, with fewer probes (`PROBLEMS`).

    python benchmarks/solver.py [--quick]    # writes benchmarks/results/solver.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from facts import facts

from mfresnet import Config
from mfresnet.data import load
from mfresnet.diagnostics import kl_to_start
from mfresnet.flow import AdaptiveFlow, Batch, Ensemble, Trainer, TrainState, evaluate, field, flow, predict, solver_of
from mfresnet.flow.field import cast
from mfresnet.flow.stabilised import Memory
from mfresnet.train.job import Job, assemble

RESULTS = Path(__file__).parent / "results" / "solver.json"
TOLERANCES = {"adaptive": (1e-5,), "stabilised": (1e-4, 1e-5, 3e-6, 1e-6)}
REFERENCE = 1e-8
PROBLEMS: dict[str, dict[str, Any]] = {
    "two-spirals": {"time": 1000.0, "probes": 8, "head_probes": 128},
    "breast-cancer": {"time": 200.0, "probes": 4, "head_probes": 64},
}
WORK = ("accepted", "attempted", "evaluations", "with_probes")
NUMBERS = ("loss", "prediction", "kl.head", "kl.encoder")


@eqx.filter_jit
def solve(
    trainer: Trainer, rule: AdaptiveFlow, state: TrainState, data: Batch, intervals: int
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """(network, probes, numbers of accepted and attempted steps, success) after all intervals."""

    def fieldof(model, probes, curvature):
        return field(model, trainer.trained, data, trainer.options, probes, curvature)

    arrays, static = eqx.partition((state.model, state.ensemble), eqx.is_array)

    def interval(_, carry):
        arrays, memory, work, success = carry
        model, ensemble = eqx.combine(arrays, static)
        end, rest, _ = rule.solve(model, ensemble, memory, fieldof)
        # Bosh3: a first field for the loss and one for the solver, three of each attempt; the same again with probes
        of_network, of_probes = 2 + 3 * end.attempted, 1 + 3 * end.accepted
        if isinstance(end.memory, Memory):
            of_network = of_probes = end.memory.evaluations  # of probes at most: without rounds of the power method
        ensemble = Ensemble(end.followers[0], ensemble.start, end.followers[1], ensemble.one_to_one)
        moved = eqx.filter((eqx.combine(end.network, rest), ensemble), eqx.is_array)
        work = work + jnp.stack([end.accepted, end.attempted, of_network, of_probes])
        return moved, rule.remember(end), work, success & end.success

    memory = rule.begin(eqx.filter(state.model, trainer.trained))
    carry = (arrays, memory, jnp.zeros(4, jnp.int32), jnp.asarray(True))
    arrays, _, work, success = jax.lax.fori_loop(0, intervals, interval, carry)
    return *eqx.combine(arrays, static), work, success


def solution(job: Job, solver: str, tolerance: float) -> dict[str, Any]:
    """Loss, predictions, KL and work of a solver at a tolerance."""
    intervals = solver_of(solver).steps
    rule = flow(solver, job.config.train.time * job.unit / intervals, tolerance)
    assert isinstance(rule, AdaptiveFlow)
    begun = time.process_time()
    model, ensemble, work, success = jax.block_until_ready(
        solve(job.trainer, rule, job.state, job.train, solver_of(solver).steps)
    )
    seconds = time.process_time() - begun
    assert success, tolerance
    loss, _ = evaluate(model, job.train, job.config.train.loss, job.split.train.task)
    encoder, head = kl_to_start(ensemble)
    assert encoder is not None and head is not None
    return {
        **dict(zip(WORK, (int(count) for count in work), strict=True)),
        "cpu_s": seconds,
        "loss": float(loss),
        "prediction": np.asarray(predict(model, job.test.x)),
        "kl.head": head.kl.value,
        "kl.encoder": encoder.kl.value,
    }


def distances(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Of two solutions, in each of `NUMBERS`."""
    return {name: float(np.sqrt(np.mean((a[name] - b[name]) ** 2))) for name in NUMBERS}


def table(name: str, setting: dict[str, Any], reference: float = REFERENCE) -> dict[str, Any]:
    """The rows of one problem."""
    config = Config(data={"name": name}, train=setting)
    job = assemble(config, load(config.data, config.seed))
    with jax.enable_x64(True):  # the same start as that of a run
        state, train, test = cast((job.state, job.train, job.test), "float64")
        job = replace(job, config=config, state=state, train=train, test=test)
        exact = solution(job, "adaptive", reference)
        found = {(solver, t): solution(job, solver, t) for solver, tolerances in TOLERANCES.items() for t in tolerances}
    rows = []
    for (solver, tolerance), mine in found.items():
        coarser = {str(t): distances(mine, found[solver, t]) for t in TOLERANCES[solver] if t > tolerance}
        work = {key: mine[key] for key in (*WORK, "cpu_s")}
        row = {"solver": solver, "tolerance": tolerance, **work, "error": distances(mine, exact)}
        print(name, json.dumps(row), flush=True)
        rows.append(row | {"differences": coarser})
    values = {key: exact[key] for key in (*WORK, "loss", "kl.head", "kl.encoder")}
    return {"problem": name, "train": setting, "reference": values, "rows": rows}


def main() -> None:
    """Solve all problems, print the errors and write ``results/solver.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    options.add_argument("--quick", action="store_true", help="a short flow, nothing written")
    given = options.parse_args()
    if given.quick:
        table("two-spirals", {"time": 10.0, "probes": 2, "head_probes": 16}, 1e-5)
        return
    results: list[dict[str, Any]] = []
    for name in given.problems:
        results.append(table(name, PROBLEMS[name]))
        RESULTS.write_text(json.dumps({"facts": facts(), "reference": REFERENCE, "problems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
