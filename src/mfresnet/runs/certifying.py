"""Certifying a run: generalization bounds from its kept checkpoints (theory, section 8).

The kept checkpoints are the grid of training times: fixed by the settings before training, so that the union bound
over them is paid for exactly. Test points enter the held-out certificate and the numbers reported beside the others,
never a choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from ..assembly import Job, assemble, precision
from ..bounds import (
    DrawnPoint,
    Hypothesis,
    drawn_certificate,
    held_out_certificate,
    kernel_certificate,
    kl_ball_certificate,
    kl_estimate,
    pac_bayes_bound,
)
from ..bounds.certificate import Certificate
from ..bounds.certificate import build as with_terms
from ..bounds.checks import checked_delta, checked_points
from ..config import Config, build
from ..data import load
from ..diagnostics.gram import gram
from ..errors import MfresnetError
from ..flow import evaluate, predict
from ..model import ScaledResNet
from .console import Say, say_aloud
from .directory import RunDirectory
from .files import read_json, write_json
from .identity import check_data
from .learned_prior import learned_prior_of
from .moments import FEW, Draws, Grid, Moment, about_data, chance_of, density_error_of, recorded, train_task

NAME = "certificates.json"
KERNEL_POINTS = 512  # most points of the kernel comparator
RIDGES = (1e-4, 1e-2, 1.0, 100.0)  # added to the diagonal of the kernel; stated here, so a union over them suffices


def certify(
    path: Path,
    *,
    delta: float | None = None,
    heads: str | None = None,
    residuals: str | None = None,
    settings: int | None = None,
    say: Say = say_aloud,
) -> dict[str, Certificate]:
    """Certificates of a finished run, by name, written to ``certificates.json`` and into the summary.

    Args:
        delta, heads, residuals, settings: instead of the run's own ``certify`` settings. A value chosen after a look
            at the certificates is one more setting tried: count it in ``settings``.

    Raises:
        MfresnetError: no run there, no classes, no flow of the laws, no probes, fewer than 8 training points, a
            delta outside (0, 1), or no sound checkpoint.
    """
    run = RunDirectory.open(path)
    stored = run.config
    tree = build(stored["config"]).model_dump()
    given = {"delta": delta, "heads": heads, "residuals": residuals, "settings": settings}
    if delta is not None:
        checked_delta(delta)
    tree["certify"] |= {name: value for name, value in given.items() if value is not None}
    config = build(tree)
    check_possible(config, stored.get("data", {}).get("task"))
    with precision(config):
        job = assemble(config, load(config.data, config.seed))
        check_data(stored, job, say)
        return certify_job(run, job, say=say)


def certify_job(run: RunDirectory, job: Job, *, say: Say = say_aloud) -> dict[str, Certificate]:
    """`certify` of a run whose data and settings are at hand; call it in the run's precision."""
    begun = time.perf_counter()
    config = job.config
    check_possible(config, job.split.train.task)
    n, delta = checked_points(len(job.split.train.x)), checked_delta(config.certify.delta)
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
    attempt("kl_ball", lambda: kl_ball_of(job, last, delta))
    attempt("kernel", lambda: kernel_of(job, delta))
    attempt("held_out", lambda: held_out_of(job, last, delta))
    test_error = found["held_out"].terms["test error"]
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
    if config.train.rule != "gradient-flow":
        raise MfresnetError(
            f"the rule {config.train.rule!r} is no flow of the laws, so the density of what it trained is not known "
            "and nothing can be certified: train with --train.rule gradient-flow."
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


# --- PAC-Bayes -----------------------------------------------------------------------------------


def pac_bayes_of(job: Job, moments: Sequence[Moment], delta: float) -> tuple[Certificate, dict[str, Any]]:
    """The certificate of drawn sub-networks, minimised over sizes and recorded times, and what the report shows.

    The certificate speaks of ``certify.draws`` networks. Which sizes are best at each time is searched with the first
    few of them: the bound holds for all grid points at once, so any search may choose among them.
    """
    config, train = job.config, job.train
    grid = Grid.of(config, job.state.model.encoder.w.shape[0])
    n = len(job.split.train.x)
    pick = Draws.of(job, grid)
    rows: list[dict[str, Any]] = []
    best: list[tuple[float, DrawnPoint, Moment]] = []
    for moment in moments:
        choices = []
        for residuals in grid.residuals:
            errors, ratios = pick.measured(moment, residuals, train, FEW)
            values = pac_bayes_bound(errors.mean(axis=0), ratios.mean(axis=0), n, delta, grid.size)
            choices += [(float(v), residuals, place) for place, v in enumerate(values)]
        _, residuals, place = min(choices)
        errors, ratios = pick.measured(moment, residuals, train)
        point = DrawnPoint(grid.heads[place], residuals, errors[:, place], ratios[:, place], moment.time)
        rate, kl = float(np.mean(point.errors)), float(np.mean(point.log_ratios))
        value = float(pac_bayes_bound(min(1.0, rate), kl, n, delta, grid.size))
        best.append((value, point, moment))
        rows.append(
            {
                "step": moment.step,
                "time": moment.time,
                "value": value,
                "heads": point.heads,
                "residuals": residuals,
                "drawn.train.error": rate,
                "kl": kl,
                **{
                    f"{part}.error": float(evaluate(moment.state.model, data, config.train.loss, train_task(job))[1])
                    for part, data in (("train", train), ("test", job.test))
                },
            }
        )
    value, point, moment = min(best, key=lambda item: item[0])
    certificate = drawn_certificate(
        [point],
        n,
        delta,
        grid_size=grid.size,
        exact_density=config.train.solver == "euler",
        density_error=density_error_of(config),
        chance=chance_of(job),
    )
    beside, _ = pick.measured(moment, point.residuals, job.test)
    place = grid.heads.index(point.heads)
    extra = {"step": moment.step, "test_error_of_draws": float(beside[:, place].mean())}
    extra["grid_of"] = f"{len(grid.steps)} times x {len(grid.heads)} k' x {len(grid.residuals)} N' x {grid.settings}"
    certificate = replace(
        certificate,
        hypotheses=certificate.hypotheses + about_data(job),
        details=certificate.details | extra,
    )
    return certificate, {"over_time": rows, "density_check": moment.departure}


def learned_of(job: Job, last: Moment, delta: float) -> Certificate:
    """The certificate with a prior trained on a part of the points."""
    pick = Draws.of(job, Grid.of(job.config, job.state.model.encoder.w.shape[0]))
    found = learned_prior_of(job, last, pick, delta, chance_of(job))
    return replace(found, hypotheses=found.hypotheses + about_data(job))


# --- the others ----------------------------------------------------------------------------------


def kl_ball_of(job: Job, moment: Moment, delta: float) -> Certificate:
    """The Rademacher bound of the KL ball at one time: of the predictor of the laws, seen through all probes.

    Half of delta is for the bound, a quarter for the upper limit of each KL.
    """
    config, train = job.config, job.split.train
    if moment.head is None:
        raise MfresnetError("the KL-ball bound needs a head, and this network has none: set model.head true.")
    if train.y.shape[1] != 1:
        raise MfresnetError("the KL-ball bound is for two classes with one output: use the PAC-Bayes certificate.")
    head, encoder = (kl_estimate(r, delta / 4) for r in (moment.head, moment.encoder))
    network = of_laws(moment)
    margins = np.asarray(predict(network, job.train.x), np.float64)[:, 0] * train.y[:, 0]
    found = kl_ball_certificate(
        margins,
        head_kl=head.upper,
        encoder_kl=encoder.upper,
        alpha=float(network.alpha),
        beta=float(network.beta),
        sigma=network.sigma,
        delta=delta / 2,
        head_error=head.stderr,
        encoder_error=encoder.stderr,
        settings=config.certify.settings,
        standard_start=set(config.model.initial.model_dump().values()) == {1.0},
    )
    hypotheses = found.hypotheses + about_data(job)
    return with_terms("kl_ball", found.terms, delta, hypotheses, found.certifies, details=found.details)


def of_laws(moment: Moment) -> ScaledResNet:
    """The network of all probes: the nearest to the predictor of the laws that the run has."""
    probes = moment.ensemble.probes
    return eqx.tree_at(lambda m: (m.encoder, m.head), moment.state.model, (probes.encoder, probes.head))


def kernel_of(job: Job, delta: float) -> Certificate:
    """The kernel comparator: G at the start, with the best of a stated list of ridges on its diagonal.

    A ridge makes another kernel of it, k(x, x') + ridge 1{x = x'}, regular however close two points are; its
    interpolant is ridge regression away from the training points.
    """
    train = job.split.train
    if train.y.shape[1] != 1:
        raise MfresnetError("the kernel bound is for two classes with one output: use the PAC-Bayes certificate.")
    rows = slice(0, KERNEL_POINTS)  # the order of the points is random
    x, y = train.x[rows], train.y[rows, 0]
    total = gram(job.state.model, x, hold="total").total
    found: list[tuple[Certificate, float]] = []
    reasons = []
    for ridge in RIDGES:
        try:
            one = kernel_certificate(total + ridge * np.eye(len(x)), y, delta / len(RIDGES))
        except MfresnetError as error:
            reasons.append(error)
        else:
            found.append((one, ridge))
    if not found:
        raise reasons[-1]
    best, ridge = min(found, key=lambda item: item[0].value)
    hypotheses = (
        *best.hypotheses,
        Hypothesis("new points differ from all training points", "assumed", note=f"its ridge is {ridge:g}"),
        *about_data(job),
    )
    details = best.details | {"ridge": ridge, "ridges": len(RIDGES)}
    return with_terms("kernel", best.terms, delta, hypotheses, best.certifies, details=details)


def held_out_of(job: Job, moment: Moment, delta: float) -> Certificate:
    """The exact binomial limit from the test part, of the network at the last recorded time."""
    _, rate = evaluate(moment.state.model, job.test, job.config.train.loss, train_task(job))
    n = len(job.split.test.x)
    return held_out_certificate(round(float(rate) * n), n, delta, chance=chance_of(job))


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
