"""Certifying a run: reads its kept checkpoints, calls the pipeline (`mfresnet.certify`), writes what it returns.

The kept checkpoints are the grid of training times: fixed by the settings before training, so that the union bound
over them is paid for exactly. Grids that were tried on a run are written down, and the next certificate pays for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bounds import Certificate
from ..bounds.checks import check_count, check_delta, check_points
from ..certify import Certificates, Data, Grid
from ..certify import run as run_pipeline
from ..config import Config, build
from ..errors import MfresnetError
from ..flow import TrainState
from ..messages import Say, print_message
from ..train.certifying import (
    certify_by_test_points,
    check_classes,
    check_possible,
    grid_of,
    problem_of,
    why_no_laws,
)
from ..train.cost import Cost, measure_machine
from ..train.finished_cost import predict_certifying
from ..train.job import Job, assemble, check_settings, load_split, precision
from ..train.langevin import LANGEVIN
from ..train.path import check_tried, path_certificates
from ..train.schedule import kept_steps
from . import checkpoint
from .directory import RunDirectory
from .files import read_json, write_json
from .identity import check_data
from .lock import hold_lock
from .recorded import read_states

NAME = "certificates.json"


def certify(
    path: Path,
    *,
    delta: float | None = None,
    heads: Sequence[int] | str | None = None,
    residuals: Sequence[int] | str | None = None,
    settings: int | None = None,
    say: Say = print_message,
) -> Certificates:
    """Certificates of a finished run, by name, written to ``certificates.json`` and into the summary.

    Every grid of sizes that is tried is recorded in the run, and the union bound pays for all of them. The run is
    locked meanwhile: of two processes that certify it at once, one would overwrite what the other recorded.

    Args:
        delta, heads, residuals: instead of the run's own ``certify`` settings.
        settings: configurations tried on the same points, where the run does not know of all; what was once given
            stays.

    Raises:
        MfresnetError: no run there, or one in use by another process, fewer settings than the run tried, no classes, no
            flow of the laws, no probes, fewer than 8 training points, a delta outside (0, 1), or no sound checkpoint.
    """
    run = RunDirectory.open(path)
    run.refuse_images("certify")
    with hold_lock(path):
        stored = run.config
        config = _configure(stored, {"delta": delta, "heads": heads, "residuals": residuals})
        with precision(config):
            job = assemble(config, load_split(config))
            check_data(stored, job, say)
            return certify_job(run, job, settings=settings, say=say)


def predict_certify(
    path: Path,
    *,
    delta: float | None = None,
    heads: Sequence[int] | str | None = None,
    residuals: Sequence[int] | str | None = None,
    settings: int | None = None,
) -> Cost:
    """What `certify` costs on this machine; nothing is certified, and no look is recorded.

    Args:
        delta, heads, residuals, settings: as in `certify`.

    Raises:
        MfresnetError: as `certify`, before it reads a checkpoint.
    """
    run = RunDirectory.open(path)
    run.refuse_images("certify")
    config = _configure(run.config, {"delta": delta, "heads": heads, "residuals": residuals})
    if settings is not None:
        check_count(settings, name="settings")
    check_tried(config, settings)
    with precision(config):
        split = load_split(config)
        (n, inputs), outputs = split.train.x.shape, split.train.y.shape[1]
        check_settings(config, n, inputs, outputs)
    kept = kept_steps(config)
    there, grid = set(checkpoint.steps(run.checkpoints)) & set(kept[1:]), None
    if config.train.rule == LANGEVIN or why_no_laws(config):
        check_classes(split.train.task)
        if kept[-1] not in there:
            raise _no_last_state(run)
    else:
        check_possible(config, split.train.task)
        check_points(len(Data(split.train.x, split.train.y, fitted_on=split.fitted_on).rows))
        if not there:
            raise _no_states(run)
        grid = grid_of(config, sorted(there))
    return predict_certifying(config, grid, n, len(split.test.x), inputs, outputs, measure_machine())


def _configure(stored: Mapping[str, Any], changes: Mapping[str, Any]) -> Config:
    """The configuration of a run with other settings of ``certify`` where they are given.

    Raises:
        MfresnetError: a bad value, or what was trained cannot be certified.
    """
    tree = build(stored["config"]).model_dump()
    if changes["delta"] is not None:
        check_delta(changes["delta"])
    tree["certify"] |= {name: value for name, value in changes.items() if value is not None}
    config = build(tree)
    if config.train.rule != LANGEVIN and not why_no_laws(config):
        facts = stored.get("data")
        check_possible(config, facts.get("task") if isinstance(facts, dict) else None)
    return config


def certify_job(run: RunDirectory, job: Job, *, settings: int | None = None, say: Say = print_message) -> Certificates:
    """`certify` of a run whose data and settings are at hand; call it in the run's precision."""
    begun = time.perf_counter()
    if job.config.train.rule == LANGEVIN:
        return _certify_path(run, job, settings, say)
    if reason := why_no_laws(job.config):
        last = _last_state(run, job, say)
        certificates = certify_by_test_points(job, last, reason)
        paid = {"tried": [], "settings": settings or job.config.certify.settings}
        say(f"certified by the test points alone: {reason}")
        return _write(run, certificates, begun, delta=job.config.certify.delta, n=len(job.split.train.x), points=paid)
    check_possible(job.config, job.split.train.task)
    states = list(read_states(run, job, job.kept[1:], say))
    if not states:
        raise _no_states(run)
    earlier, tried = read_tried(run.path, say)
    own = job.config.certify.settings
    if settings is None or settings >= own:  # what was once given stays; fewer than the run's own are refused below
        settings = max(settings or own, own, tried)
    problem = problem_of(job, states, settings=settings, earlier=earlier)
    certificates = run_pipeline(problem)
    n, check = len(problem.data.points.x), problem.best.snapshot.normalisation_error
    return _write(run, certificates, begun, delta=problem.spec.delta, n=n, density_check=check)


def _certify_path(run: RunDirectory, job: Job, settings: int | None, say: Say) -> Certificates:
    """The certificates of a run of the rule langevin."""
    begun = time.perf_counter()
    last = _last_state(run, job, say)
    own, tried = job.config.certify.settings, read_tried(run.path, say)[1]
    if settings is None or settings >= own:
        settings = max(settings or own, tried)  # what was once given stays
    certificates = path_certificates(job, last, settings=settings)
    paid = {"tried": [], "settings": settings}
    n = certificates["path"].details["n"]
    return _write(run, certificates, begun, delta=job.config.certify.delta, n=n, points=paid)


def _last_state(run: RunDirectory, job: Job, say: Say) -> TrainState:
    states = list(read_states(run, job, [job.steps], say))
    if not states:
        raise _no_last_state(run)
    return states[-1]


def _no_states(run: RunDirectory) -> MfresnetError:
    return MfresnetError(
        f"no sound checkpoint of a recorded time is left in {str(run.checkpoints)!r}: train again with --overwrite."
    )


def _no_last_state(run: RunDirectory) -> MfresnetError:
    return MfresnetError(f"the last checkpoint is not in {str(run.checkpoints)!r}: resume the run first.")


def _write(run: RunDirectory, certificates: Certificates, begun: float, **facts: Any) -> Certificates:
    """Write the certificates of a run, and what its summary says of them."""
    record = certificates.to_dict() | facts | {"seconds": time.perf_counter() - begun}
    if "held_out" in certificates:
        record["test.error"] = certificates["held_out"].terms["held-out error"]
    write_json(run.path / NAME, record)
    if summary := run.summary:
        others = {name: value for name, value in summary.items() if not name.startswith("certificate.")}
        run.write_summary(others | entries(certificates))
    return certificates


def entries(certificates: Mapping[str, Certificate]) -> dict[str, Any]:
    """What the summary says of the certificates."""
    flat: dict[str, Any] = {}
    for name, certificate in certificates.items():
        flat |= {f"certificate.{name}.value": certificate.value, f"certificate.{name}.vacuous": certificate.vacuous}
    return flat


def read_tried(path: Path, say: Say) -> tuple[list[Grid], int]:
    """(grids tried on a run, settings paid for) as its ``certificates.json`` records them; none where there is none."""
    if not (path / NAME).is_file():
        return [], 1
    try:
        points = read_json(path / NAME)["points"]
        grids = [Grid(*(tuple(map(int, one[name])) for name in GRID)) for one in points["tried"]]
        return grids, int(points["settings"])
    except (MfresnetError, KeyError, TypeError, ValueError):
        say(
            f"{str(path / NAME)!r} does not tell what was tried on this run: if certificates were looked at, count "
            "them in --settings."
        )
        return [], 1


GRID = ("steps", "heads", "residuals")


def read_certificates(path: Path) -> tuple[dict[str, Certificate], dict[str, str]]:
    """(certificates, reasons of refusals) of a run's ``certificates.json``, both by name.

    Raises:
        MfresnetError: there is no such file, or it is damaged.
    """
    record = read_json(path / NAME)
    certificates, refused = record.get("certificates"), record.get("refused")
    if not isinstance(certificates, dict) or not isinstance(refused, dict):
        raise MfresnetError(f"{str(path / NAME)!r} is damaged: it lists no certificates.")
    return {name: Certificate.from_dict(one) for name, one in certificates.items()}, refused
