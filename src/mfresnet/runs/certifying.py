"""Certifying a run: generalization bounds from its kept checkpoints (theory, section 8).

The kept checkpoints are the grid of training times: fixed by the settings before training, so that the union bound
over them is paid for exactly. Test points enter the held-out certificate and the numbers reported beside the others,
never a choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bounds.certificate import Certificate
from ..bounds.checks import check_delta, check_points
from ..certify.comparators import held_out_of, kernel_of, kl_ball_of, theorem6_of
from ..certify.learned_prior import learned_prior_of
from ..certify.pac_bayes import gibbs_of, pac_bayes_of
from ..certify.path_run import path_of
from ..certify.snapshots import Draws, Grid, Moment, about_data, certified_rows, guessing_error
from ..config import Config, build
from ..data import load
from ..errors import MfresnetError
from ..messages import Say, print_message
from ..train.job import Job, assemble, precision
from ..train.langevin import LANGEVIN
from .directory import RunDirectory
from .files import read_json, write_json
from .identity import check_data
from .recorded import last_state, recorded

NAME = "certificates.json"


def certify(
    path: Path,
    *,
    delta: float | None = None,
    heads: Sequence[int] | str | None = None,
    residuals: Sequence[int] | str | None = None,
    settings: int | None = None,
    say: Say = print_message,
) -> dict[str, Certificate]:
    """Certificates of a finished run, by name, written to ``certificates.json`` and into the summary.

    Args:
        delta, heads, residuals, settings: instead of the run's own ``certify`` settings. A value chosen after a look
            at the certificates is one more setting tried: count it in ``settings``, which never falls below the run's.

    Raises:
        MfresnetError: no run there, fewer settings than the run tried, no classes, no flow of the laws, no probes,
            fewer than 8 training points, a delta outside (0, 1), or no sound checkpoint.
    """
    run = RunDirectory.open(path)
    run.refuse_images("certify")
    stored = run.config
    tree = build(stored["config"]).model_dump()
    given = {"delta": delta, "heads": heads, "residuals": residuals, "settings": settings}
    if delta is not None:
        check_delta(delta)
    paid = tree["certify"]["settings"]
    if settings is not None and settings < paid:
        raise MfresnetError(
            f"settings = {settings} is fewer than the {paid} that this run tried on its points, all of which the union "
            f"bound pays for: give {paid} or more."
        )
    tree["certify"] |= {name: value for name, value in given.items() if value is not None}
    config = build(tree)
    check_possible(config, stored.get("data", {}).get("task"))
    with precision(config):
        job = assemble(config, load(config.data, config.seed))
        check_data(stored, job, say)
        return certify_job(run, job, say=say)


def certify_job(run: RunDirectory, job: Job, *, say: Say = print_message) -> dict[str, Certificate]:
    """`certify` of a run whose data and settings are at hand; call it in the run's precision."""
    begun = time.perf_counter()
    config = job.config
    check_possible(config, job.split.train.task)
    n, delta = check_points(len(certified_rows(job))), check_delta(config.certify.delta)
    if config.train.rule == LANGEVIN:
        return _certify_path(run, job, n, delta, begun)
    moments = list(recorded(run, job, Grid.of(config, job.state.model.encoder.w.shape[0]).steps, say))
    if not moments:
        raise MfresnetError(
            f"no sound checkpoint of a recorded time is left in {str(run.checkpoints)!r}: train again with --overwrite."
        )
    last = moments[-1]
    found: dict[str, Certificate] = {}
    refused: dict[str, str] = {}
    record: dict[str, Any] = {"delta": delta, "n": n, "points": _grid_record(job)}

    def attempt(name: str, make: Callable[[], Certificate]) -> None:
        try:
            found[name] = make()
        except MfresnetError as error:
            refused[name] = str(error)

    def pac_bayes() -> Certificate:
        certificate, beside = pac_bayes_of(job, moments, delta)
        record.update(beside)
        return certificate

    attempt("pac_bayes", pac_bayes)
    if config.certify.prior_share > 0:
        attempt("pac_bayes_learned", lambda: learned_of(job, last, delta))
    if "pac_bayes" in found:
        attempt("gibbs", lambda: gibbs_of(job, moments, found["pac_bayes"], delta))
    attempt("kl_ball", lambda: kl_ball_of(job, last, delta))
    attempt("theorem6", lambda: theorem6_of(job, last, delta))
    attempt("kernel", lambda: kernel_of(job, delta))
    attempt("held_out", lambda: held_out_of(job, last, delta))
    test_error = found["held_out"].terms["held-out error"]
    record |= {
        "test.error": test_error,
        "certificates": {name: certificate.to_dict() for name, certificate in found.items()},
        "refused": refused,
        "seconds": time.perf_counter() - begun,
    }
    write_json(run.path / NAME, record)
    if summary := run.summary:
        others = {name: value for name, value in summary.items() if not name.startswith("certificate.")}
        run.write_summary(others | entries(found))
    return found


def _certify_path(run: RunDirectory, job: Job, n: int, delta: float, begun: float) -> dict[str, Certificate]:
    """The certificates of a network that the rule langevin trained: of its path, and by the test points."""
    state = last_state(run, job)
    last = Moment(int(state.step), float(state.time), state, None, np.zeros((0, 0)))
    certificates = {"path": path_of(job, state, delta), "held_out": held_out_of(job, last, delta)}
    record = {
        "delta": delta,
        "n": n,
        "test.error": certificates["held_out"].terms["held-out error"],
        "certificates": {name: certificate.to_dict() for name, certificate in certificates.items()},
        "refused": {},
        "seconds": time.perf_counter() - begun,
    }
    write_json(run.path / NAME, record)
    if summary := run.summary:
        others = {name: value for name, value in summary.items() if not name.startswith("certificate.")}
        run.write_summary(others | entries(certificates))
    return certificates


def entries(found: Mapping[str, Certificate]) -> dict[str, Any]:
    """What the summary says of the certificates."""
    flat: dict[str, Any] = {}
    for name, certificate in found.items():
        flat |= {f"certificate.{name}.value": certificate.value, f"certificate.{name}.vacuous": certificate.vacuous}
    return flat


def read_certificates(path: Path) -> tuple[dict[str, Certificate], dict[str, str]]:
    """(certificates, reasons of refusals) of a run's ``certificates.json``, both by name.

    Raises:
        MfresnetError: there is no such file, or it is damaged.
    """
    record = read_json(path / NAME)
    found, refused = record.get("certificates"), record.get("refused")
    if not isinstance(found, dict) or not isinstance(refused, dict):
        raise MfresnetError(f"{str(path / NAME)!r} is damaged: it lists no certificates.")
    return {name: Certificate.from_dict(one) for name, one in found.items()}, refused


def check_possible(config: Config, task: str | None) -> None:
    """Refuse what no certificate is for, and say how to get one.

    Raises:
        MfresnetError: regression, an optimiser that is no flow, no probes, a trained embedding.
    """
    if task == "regression":
        raise MfresnetError(
            "certificates bound the share of wrong classes, and this target is numeric: use data with classes."
        )
    if config.train.rule == LANGEVIN:
        return
    if config.train.rule != "gradient-flow":
        raise MfresnetError(
            f"the rule {config.train.rule!r} is no flow of the laws, so the density of what it trained is not known "
            "and nothing can be certified: train with --train.rule gradient-flow or langevin."
        )
    if config.train.probes == 0 or (config.model.head and config.train.head_probes == 0):
        raise MfresnetError(
            "this run carries no probes, so how far its laws moved is not known and nothing can be certified: train "
            "with --train.probes 32 --train.head-probes 512."
        )
    if config.model.embedding == "trained":
        raise MfresnetError(
            "the embedding is trained, a matrix that no prior covers, so nothing can be certified: train with "
            "--model.embedding fixed."
        )


def learned_of(job: Job, last: Moment, delta: float) -> Certificate:
    """The certificate with a prior trained on a part of the points."""
    pick = Draws.of(job, Grid.of(job.config, job.state.model.encoder.w.shape[0]))
    found = learned_prior_of(job, last, pick, delta, guessing_error(job))
    return found.with_hypotheses(*about_data(job), guessing=guessing_error(job))


def _grid_record(job: Job) -> dict[str, Any]:
    grid = Grid.of(job.config, job.state.model.encoder.w.shape[0])
    return {
        "steps": list(grid.steps),
        "heads": list(grid.heads),
        "residuals": list(grid.residuals),
        "settings": grid.settings,
        "size": grid.size,
        "draws": job.config.certify.draws,
    }
