"""How far a solved flow is from the flow itself: the run beside a coarser companion.

The companion starts where the run started and is solved again with steps about twice as long, at half the cost. With
errors e of the run and e' of the companion in the same number, the difference of the two satisfies

    |difference| >= e' - e >= e      wherever e' >= 2 e,

so it bounds the run's error from above if the error falls at least by half from the companion to the run. That is
what the orders say of small steps, not what is proved for one run: the bound is *estimated*. One number may also agree
by chance, where root mean squares over points or probes do not.

adaptive    10 times the tolerance. A pair of orders p and p - 1 (Bosh3: 3 and 2) estimates a local error of order h^p,
            which is held at the tolerance, and makes a global error of order h^p: e' = 10 e (Hairer, Norsett, Wanner,
            *Solving Ordinary Differential Equations I*, II.4). There are half as many intervals too: where the interval
            and not the tolerance limits the step, it is twice as long all the same (e' = 8 e).
heun        half as many steps: e' = 4 e.
euler       half as many steps: e' = 2 e, so that the difference is the error itself to first order, with no margin.

The companion carries the first probes of the run, so that R is compared probe by probe and the sampling error of KL
cancels. The certificates of Euler steps rest on the law that these steps make, whose R is exact: there the difference
is the distance to the flow, no error of the certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..errors import MfresnetError
from ..flow import (
    AdaptiveFlow,
    Batch,
    Ensemble,
    EulerFlow,
    HeunFlow,
    LogRatio,
    OneToOne,
    Probes,
    Rule,
    Trainer,
    TrainState,
    first_bad_step,
    loss_of,
    predict,
)
from ..model import InitialScales
from .divergence import log_density_ratios

COARSER = 10  # times the tolerance
SHARE, LEAST = 4, {"encoder": 8, "head": 64}  # a quarter of the probes, at least so many (of each layer)

T = TypeVar("T")


@dataclass(frozen=True)
class RatioError:
    """Of the log-density ratios R of one part, over the companion's probes.

    Args:
        kl: |mean of R - R'|, of KL.
        rms: root mean square of R - R', of the R of one probe.
    """

    kl: float
    rms: float


@dataclass(frozen=True)
class SolverError:
    """Estimated errors of a solved flow.

    Args:
        loss: of the training loss.
        prediction: root mean square over points and outputs.
        encoder, head: of the log-density ratios; None without probes.
    """

    loss: float
    prediction: float
    encoder: RatioError | None = None
    head: RatioError | None = None


def coarser(rule: Rule, steps: int) -> tuple[Rule, int] | None:
    """The rule of the companion of ``steps`` steps and its number of steps; None if there is none.

    >>> from mfresnet.flow import flow
    >>> rule, steps = coarser(flow("adaptive", 0.5, 1e-4), 200)
    >>> steps, float(rule.h), round(float(rule.tolerance), 6)
    (100, 1.0, 0.001)
    """
    if isinstance(rule, AdaptiveFlow):
        rule = eqx.tree_at(lambda r: r.tolerance, rule, COARSER * rule.tolerance)
    elif not isinstance(rule, EulerFlow | HeunFlow) or steps < 2:
        return None
    count = max(1, steps // 2)
    h: Callable[[Any], Any] = attrgetter("h")
    return eqx.tree_at(h, rule, h(rule) * (steps / count)), count


def first_probes(ensemble: Ensemble) -> Ensemble:
    """The first quarter of the probes of each layer (at least 8) and of the head (at least 64), or all of fewer."""

    def few(part: str, axis: int, tree: T) -> T:
        def cut(leaf: Any) -> Any:
            count = min(leaf.shape[axis], max(LEAST[part], leaf.shape[axis] // SHARE))
            return jax.lax.slice_in_dim(leaf, 0, count, axis=axis)

        return jax.tree.map(cut, tree)

    probes, start, ratio, one_to_one = ensemble.probes, ensemble.start, ensemble.log_ratio, ensemble.one_to_one
    return Ensemble(
        Probes(few("encoder", 1, probes.encoder), few("head", 0, probes.head)),
        Probes(few("encoder", 1, start.encoder), few("head", 0, start.head)),
        LogRatio(few("encoder", 1, ratio.encoder), few("head", 0, ratio.head)),
        OneToOne(few("encoder", 1, one_to_one.encoder), few("head", 0, one_to_one.head)),
    )


def solver_error(
    trainer: Trainer,
    start: TrainState,
    end: TrainState,
    data: Batch,
    x: Any,
    initial: InitialScales | None = None,
) -> SolverError | None:
    """Solve the companion of a run and compare both at the end, see the module.

    Args:
        trainer: of the run.
        start, end: its first and last state.
        data: its training points.
        x: points at which predictions are compared, shape (n, inputs).
        initial: standard deviations of the starting laws.

    Returns:
        The estimate; None where there is no companion: an optimiser, mini-batches (whose noise is no error of the
        solver), a single fixed step.

    Raises:
        MfresnetError: the companion diverges, or the start has no density.

    >>> from mfresnet import Config, fit
    >>> train = {"solver": "heun", "steps": 8, "time": 1, "probes": 2, "head_probes": 4}
    >>> run = fit(Config(data={"n": 16, "n_test": 8}, model={"depth": 2, "width": 4}, train=train))
    >>> error = solver_error(run.job.trainer, run.job.state, run.state, run.job.train, run.job.test.x)
    >>> error.loss < 0.1, error.head.rms < 0.1
    (True, True)
    """
    steps = int(end.step) - int(start.step)
    companion = None if trainer.batch_size is not None else coarser(trainer.rule, steps)
    if companion is None:
        return None
    rule, count = companion
    begin = replace(
        start,
        ensemble=None if start.ensemble is None or end.ensemble is None else first_probes(start.ensemble),
        rule=rule.begin(eqx.filter(start.model, trainer.trained)),
    )
    other, losses = replace(trainer, rule=rule).advance(begin, data, jax.random.key(0), jnp.asarray(count), count)
    loss = loss_of(trainer.options.loss)
    ends = [
        (float(loss(predict(s.model, data.x), data.y, data.weights)), np.asarray(predict(s.model, x), np.float64))
        for s in (end, other)
    ]
    if first_bad_step(np.append(np.asarray(losses), ends[1][0]), float(losses[0])) is not None:
        raise MfresnetError(
            "the flow diverges when it is solved with half as many steps (or at 10 times the tolerance), so the solver "
            "is near its limit: lower train.tolerance or raise train.steps."
        )
    (loss_run, f_run), (loss_other, f_other) = ends
    scales = initial or InitialScales()
    return SolverError(
        abs(loss_run - loss_other),
        float(np.sqrt(np.mean((f_run - f_other) ** 2))),
        _ratio_error(end.ensemble, other.ensemble, "encoder", scales.encoder),
        _ratio_error(end.ensemble, other.ensemble, "head", scales.head),
    )


def _ratio_error(
    run: Ensemble | None, other: Ensemble | None, part: str, scale: tuple[float, float, float]
) -> RatioError | None:
    """Of one part, or None where it has no probes."""
    if run is None or other is None or getattr(other.probes, part) is None or getattr(other.probes, part).width == 0:
        return None

    def ratios(ensemble: Ensemble) -> np.ndarray:
        probes, start, ratio = (getattr(v, part) for v in (ensemble.probes, ensemble.start, ensemble.log_ratio))
        return log_density_ratios(probes, start, ratio, scale)

    difference = ratios(first_probes(run)) - ratios(other)
    return RatioError(float(abs(np.mean(difference))), float(np.sqrt(np.mean(difference**2))))
