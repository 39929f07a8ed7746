"""Error of the adaptive flow against its work, for tolerances 1e-2 to 1e-6.

The reference has the same start, the same probes and tolerance 1e-8. All are solved in float64: what is compared is the
error of the solver alone. Per tolerance: accepted and attempted steps, and the errors of the training loss, of the
predictions on the test points (root mean square) and of KL of head and encoder. ``differences`` are those to the
solutions of larger tolerances: how well a coarser companion (`mfresnet.diagnostics.solver_error`) shows the error.

Networks, data and the length of intervals are the defaults. The training time is a tenth and there are fewer probes
(`PROBLEMS`), because the reference takes many times the steps of a run.

What the table says: steps are limited by stability, so that the default 1e-5 takes 1.04 and 1.3 times the attempts of
1e-4. On breast-cancer the errors at 1e-4 are 14 % of KL of the encoder, 4 % of that of the head and 0.13 in the
predictions; at 1e-5 they are 0.24 %, 0.02 % and 0.003.

    python benchmarks/solver.py              # writes benchmarks/results/solver.json
"""

from __future__ import annotations

import argparse
import json
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
from mfresnet.flow import AdaptiveFlow, Batch, Ensemble, Trainer, TrainState, evaluate, field, flow, predict
from mfresnet.train.job import Job, assemble, precision

RESULTS = Path(__file__).parent / "results" / "solver.json"
TOLERANCES = (1e-2, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
REFERENCE = 1e-8
INTERVALS = 20
PROBLEMS: dict[str, dict[str, Any]] = {
    "two-spirals": {"time": 100.0, "probes": 8, "head_probes": 128},
    "breast-cancer": {"time": 100.0, "probes": 4, "head_probes": 64},
}
NUMBERS = ("loss", "prediction", "kl.head", "kl.encoder")


@eqx.filter_jit
def solve(
    trainer: Trainer, rule: AdaptiveFlow, state: TrainState, data: Batch
) -> tuple[Any, Any, jax.Array, jax.Array]:
    """(network, probes, numbers of accepted and attempted steps, success) after all intervals."""

    def fieldof(model, probes, curvature):
        return field(model, trainer.trained, data, trainer.options, probes, curvature)

    arrays, static = eqx.partition((state.model, state.ensemble), eqx.is_array)

    def interval(_, carry):
        arrays, memory, work, success = carry
        model, ensemble = eqx.combine(arrays, static)
        end, rest, _ = rule.solve(model, ensemble, memory, fieldof)
        ensemble = Ensemble(end.followers[0], ensemble.start, end.followers[1], ensemble.one_to_one)
        moved = eqx.filter((eqx.combine(end.network, rest), ensemble), eqx.is_array)
        work = work + jnp.stack([end.accepted, end.attempted])
        return moved, rule.h / jnp.maximum(end.accepted, 1), work, success & end.success

    memory = rule.begin(eqx.filter(state.model, trainer.trained))
    carry = (arrays, memory, jnp.zeros(2, jnp.int32), jnp.asarray(True))
    arrays, _, work, success = jax.lax.fori_loop(0, INTERVALS, interval, carry)
    return *eqx.combine(arrays, static), work, success


def solution(job: Job, tolerance: float) -> dict[str, Any]:
    """Loss, predictions, KL and work at a tolerance."""
    rule = flow("adaptive", job.config.train.time * job.unit / INTERVALS, tolerance)
    model, ensemble, work, success = solve(job.trainer, rule, job.state, job.train)
    assert success, tolerance
    loss, _ = evaluate(model, job.train, job.config.train.loss, job.split.train.task)
    encoder, head = kl_to_start(ensemble)
    assert encoder is not None and head is not None
    accepted, attempted = (int(count) for count in work)
    return {
        "accepted": accepted,
        "attempted": attempted,
        "loss": float(loss),
        "prediction": np.asarray(predict(model, job.test.x)),
        "kl.head": head.kl.value,
        "kl.encoder": encoder.kl.value,
    }


def distances(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Of two solutions, in each of `NUMBERS`."""
    return {name: float(np.sqrt(np.mean((a[name] - b[name]) ** 2))) for name in NUMBERS}


def table(name: str, setting: dict[str, Any]) -> dict[str, Any]:
    """The rows of one problem."""
    config = Config(data={"name": name}, train={"precision": "float64", **setting})
    with precision(config):
        job = assemble(config, load(config.data, config.seed))
        job = replace(job, config=config)
        found: dict[float, dict[str, Any]] = {}
        for tolerance in (*TOLERANCES, REFERENCE):
            found[tolerance] = solution(job, tolerance)
            shown = {key: value for key, value in found[tolerance].items() if key != "prediction"}
            print(name, tolerance, json.dumps(shown), flush=True)
    exact = found[REFERENCE]
    rows = []
    for tolerance in TOLERANCES:
        mine = found[tolerance]
        coarser = {str(other): distances(mine, found[other]) for other in TOLERANCES if other > tolerance}
        work = {key: mine[key] for key in ("accepted", "attempted")}
        rows.append({"tolerance": tolerance, **work, "error": distances(mine, exact), "differences": coarser})
        print(name, tolerance, json.dumps(rows[-1]["error"]), flush=True)
    values = {key: exact[key] for key in ("accepted", "attempted", "loss", "kl.head", "kl.encoder")}
    return {"problem": name, "train": setting, "intervals": INTERVALS, "reference": values, "rows": rows}


def main() -> None:
    """Solve all problems, print the errors and write ``results/solver.json``."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--problems", nargs="+", choices=list(PROBLEMS), default=list(PROBLEMS))
    results: list[dict[str, Any]] = []
    for name in options.parse_args().problems:
        results.append(table(name, PROBLEMS[name]))
        RESULTS.write_text(json.dumps({"facts": facts(), "reference": REFERENCE, "problems": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
