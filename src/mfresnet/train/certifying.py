"""From a job to the certificates' pipeline (`mfresnet.certify`): its problem, its tuning, its early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..bounds import pool
from ..bounds.checks import check_points
from ..certify import Certificates, Grid, Patience, PriorTraining, Problem, Snapshot, Spec, parse_settings
from ..certify.tuning import best_row, tune
from ..config import Config, build, merge, nest
from ..data import Dataset, Split
from ..data.transform import Transform
from ..errors import MfresnetError
from ..flow import TrainState
from ..messages import Say, print_message
from .job import Job, assemble
from .langevin import LANGEVIN
from .path import check_tried, data_of, held_out_of


def check_classes(task: str | None) -> None:
    """Refuse a target without classes.

    Raises:
        MfresnetError: regression.
    """
    if task == "regression":
        raise MfresnetError(
            "certificates bound the share of wrong classes, and this target is numeric: use data with classes."
        )


def check_possible(config: Config, task: str | None) -> None:
    """Refuse what no certificate is for, and say how to get one.

    Raises:
        MfresnetError: regression, an optimiser that is no flow, no probes, a trained embedding.
    """
    check_classes(task)
    if config.train.rule == LANGEVIN:
        raise MfresnetError(
            "the rule 'langevin' has a certificate of its own, of the network at the end of its chain: leave "
            "certify.tune and certify.patience out, compare settings by mfresnet sweep certificate, and count them "
            "in certify.settings."
        )
    if reason := why_no_laws(config):
        raise MfresnetError(reason)


def why_no_laws(config: Config) -> str:
    """Why the training points certify nothing, with the way to a certificate; empty where they do."""
    if config.train.rule not in ("gradient-flow", LANGEVIN):
        return (
            f"the rule {config.train.rule!r} is no flow of the laws, so the density of what it trained is not known: "
            "for a certificate from the training points, train with --train.rule langevin or --train.rule "
            "gradient-flow."
        )
    if config.train.rule == "gradient-flow":
        if config.train.probes == 0 or (config.model.head and config.train.head_probes == 0):
            return (
                "this run carries no probes, so how far its laws moved is not known: for a certificate from the "
                "training points, train with --train.probes 32 --train.head-probes 512."
            )
        if config.model.embedding == "trained":
            return (
                "the embedding is trained, a matrix that no prior covers: for a certificate from the training points, "
                "train with --model.embedding fixed."
            )
    return ""


def certify_by_test_points(job: Job, state: TrainState, reason: str, delta: float | None = None) -> Certificates:
    """The bound from the test points alone, where the training points give none for that ``reason``.

    Raises:
        MfresnetError: regression.
    """
    check_classes(job.split.train.task)
    made = {"held_out": held_out_of(job, state, job.config.certify.delta if delta is None else delta)}
    return Certificates(made, {"pac_bayes": reason})


def numbers(text: str | Sequence[int]) -> list[int]:
    """Different numbers in order.

    >>> numbers("20,10,20"), numbers((8, 4))
    ([10, 20], [4, 8])
    """
    return sorted({int(part) for part in (text.split(",") if isinstance(text, str) else text)})


def grid_of(config: Config, steps: Sequence[int]) -> Grid:
    """The grid of the certificates of a run that recorded these steps, from its configuration alone.

    Raises:
        MfresnetError: its probes can serve no size.
    """
    m, train, wanted = config.model, config.train, config.certify
    pool = {
        "layers": 1 if m.shared else m.depth,
        "probes": train.probes,
        "head_probes": train.head_probes if m.head else 0,
    }
    return Grid.feasible(steps, numbers(wanted.heads), numbers(wanted.residuals), pool)


def snapshot_of(job: Job, state: TrainState) -> Snapshot:
    """A state of a job with the log-density ratios of its probes."""
    train, step = job.config.train, int(state.step)
    return Snapshot.of(
        step,
        step * train.time / job.steps,
        state.model,
        state.ensemble,
        scales=job.initial,
        solver=train.solver,
        tolerance=train.tolerance if job.trainer.rule.adaptive else None,
    )


def problem_of(
    job: Job,
    states: Iterable[TrainState],
    *,
    delta: float | None = None,
    heads: str | Sequence[int] | None = None,
    residuals: str | Sequence[int] | None = None,
    settings: int | None = None,
    draws: int | None = None,
    prior_share: float | None = None,
    prior_steps: int | None = None,
    earlier: Sequence[Grid] = (),
) -> Problem:
    """The problem of a job, with the job's section ``certify`` where nothing else is given.

    Args:
        states: at recorded times, in order.
        delta, heads, residuals, settings, draws, prior_share, prior_steps: instead of the configuration's.
        earlier: grids of earlier certificates on the same points, which the union bound pays for too.

    Raises:
        MfresnetError: what was trained cannot be certified, or fewer settings than were tried.
    """
    config, split = job.config, job.split
    check_possible(config, split.train.task)
    given = {
        "delta": delta, "heads": heads, "residuals": residuals, "settings": settings, "draws": draws,
        "prior_share": prior_share, "prior_steps": prior_steps,
    }  # fmt: skip
    check_tried(config, settings)
    wanted: dict[str, Any] = config.certify.model_dump() | {
        name: value for name, value in given.items() if value is not None
    }
    snapshots = tuple(snapshot_of(job, state) for state in states)
    if not snapshots:
        raise MfresnetError("there is no recorded time to certify: train at least one step.")
    sizes = numbers(wanted["heads"]), numbers(wanted["residuals"])
    grid = Grid.feasible(job.kept[1:], *sizes, pool(snapshots[-1].ensemble.probes))  # times fixed before training
    spec = Spec(
        grid,
        delta=wanted["delta"],
        draws=wanted["draws"],
        settings=wanted["settings"],
        earlier=tuple(earlier),
        patient=wanted["patience"] > 0,
    )
    prior = None
    if wanted["prior_share"] > 0:
        steps = wanted["prior_steps"]
        h = config.train.time * job.unit / steps
        prior = PriorTraining(job.state, job.trainer, h, steps, wanted["prior_share"], job.key)
    return Problem(job.state.model, snapshots, data_of(job), spec, config.seed, scales=job.initial, prior=prior)


class Watch(Patience):
    """Early stopping of a job on its certificate (`mfresnet.certify.Patience`): give it to `mfresnet.fit`.

    Args:
        job: what is trained; its ``certify.patience`` is the number of recorded times to wait.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(problem_of(job, [job.state]), job.config.certify.patience)
        self.job = job

    def see(self, state: TrainState) -> None:
        """Take the certificate at a recorded time into account."""
        self.add(snapshot_of(self.job, state))


def tune_config(
    config: Config,
    train: Dataset,
    transform: Transform,
    fitted_on: np.ndarray | None = None,
    *,
    say: Say = print_message,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Config, list[dict[str, Any]]]:
    """The configuration with the best of its ``certify.tune`` settings, and what each one reached.

    ``certify.settings`` of the result is multiplied by the number of settings, which pays for all of them.

    Args:
        train: the training points; there is no argument for others.
        transform, fitted_on: the map of the inputs, for the record, and the rows that fixed it.
        say: told what each setting reached.
        stopped: asked before each setting.

    Raises:
        MfresnetError: settings that cannot be tuned, or none of which can be certified.
        KeyboardInterrupt: ``stopped`` said so.
    """
    settings = parse_settings(config.certify.tune)
    check_points(len(train.x))
    paid = config.certify.settings * len(settings)

    def configure(one: Mapping[str, float]) -> Config:
        changes = nest({**one, "certify.settings": paid, "certify.tune": ""})
        return build(merge(config.model_dump(), changes))

    for one in settings:  # a setting that is not allowed is a mistake, and no training that failed
        configure(one)

    def problem(one: Mapping[str, float]) -> Problem:
        job = assemble(configure(one), Split(train, train, transform, (), fitted_on))
        states = [job.state] if config.certify.prior_share > 0 else train_states(job)
        return problem_of(job, states)

    rows = tune(settings, problem, say=say, stopped=stopped)
    return configure(settings[best_row(rows)]), rows


def train_states(job: Job) -> list[TrainState]:
    """Train a job with nothing recorded but the states at the recorded times."""
    steps, state, done, states = job.kept[1:], job.state, 0, []
    while done < max(steps):
        count = min(job.every, max(steps) - done)
        state, _ = job.trainer.advance(state, job.train, job.key, jnp.asarray(count), job.every)
        done += count
        if done in steps:
            states.append(state)
    return states
