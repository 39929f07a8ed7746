"""The path certificate of any predictor: Langevin chains from a Gaussian prior, and what their paths prove."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..bounds.certificate import Certificate, Hypothesis
from ..bounds.checks import check_count, check_delta
from ..bounds.exact_tail import FORMS, Form
from ..bounds.path import WHICH, Which, path_certificate
from ..errors import MfresnetError
from ..flow.annealing import AnnealingSchedule
from ..flow.langevin import Chains, Kernel, advance, check_kernel, prices, rounding, start
from ..flow.potential import GaussianPrior, Predictor, PredictorPotential, check_surrogate, labels
from .path_pilot import Pilot, find_schedule
from .sharing import share_chains

STEPS, PILOT_STEPS, PILOTS = 3000, 1000, 2
LOW, HIGH = 0.15, 0.95  # mean acceptance outside is reported
BACKWARD = Hypothesis(
    "the backward kernel of each step is its reversed Langevin step, whose density is known", "proved",
    note="c holds the discretisation of the step: smaller steps or the adjusted kernel give a smaller price",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PathResult:
    """Trained chains and their certificates.

    Args:
        certificate: of what was named in advance.
        certificates: for "chain", "mean" and "vote"; each holds with probability 1 - delta on its own. Mean and
            vote are one event, so these two hold together.
        z: ends of the chains in standard coordinates, shape (m, size).
        prior: of the parameters.
        mistakes, prices: at the recorded times, shape (times, m); c is NaN for a chain that left the finite numbers.
        schedule: that was followed.
        chains: the trace of every step.
        pilot: what the pilot chains saw, or None for a given schedule.
        warnings: sentences on acceptance and failed chains; the certificate is valid all the same.
    """

    certificate: Certificate
    certificates: dict[str, Certificate]
    z: Array
    prior: GaussianPrior
    mistakes: np.ndarray
    prices: np.ndarray
    schedule: AnnealingSchedule
    chains: Chains
    pilot: Pilot | None
    warnings: tuple[str, ...] = field(default=())

    @property
    def params(self) -> Any:
        """Parameters of all chains: the prior's tree with a leading axis of m."""
        return jax.vmap(self.prior.params)(self.z)

    def param(self, chain: int = 0) -> Any:
        """Parameters of one chain."""
        return self.prior.params(self.z[chain])


def path(
    f: Predictor,
    prior: GaussianPrior,
    data: tuple[Any, Any],
    schedule: AnnealingSchedule | None,
    key: Array,
    *,
    chains: int = 1,
    delta: float = 0.05,
    certifies: Which = "mean",
    chain: int = 0,
    form: Form | None = None,
    surrogate: str | Callable = "sigmoid",
    scale: float = 1.0,
    risk: Callable | None = None,
    kernel: Kernel = "adjusted",
    batch: int | None = None,
    times: Sequence[int] | None = None,
    settings: int = 1,
    steps: int = STEPS,
    pilot_steps: int = PILOT_STEPS,
    leaps: int = 1,
    devices: int = 1,
    more: Sequence[Hypothesis] = (),
) -> PathResult:
    r"""Train f from its prior by annealed Langevin chains on all points, and certify the trained networks themselves.

    With probability 1 - delta over points and chains (c_j the log-density ratio of chain j's path, known exactly)

        kl( mean_j train error || mean_j true error ) <= ( mean_j c_j + log(xi(n)/delta) )/n          (form "kl")

    or its binomial tail (form "tail", smaller for small errors; `mfresnet.bounds.exact_tail` has both with their
    proofs). No mixing is assumed, nothing is estimated, no point is held out, one chain is enough. Free of the points
    must be the prior and f; the schedule, the surrogate and its scale need not be (docs/path_certificate.md).

    Args:
        f: f(params, x), outputs (n,) or (n, 1) for two classes and (n, C) for several; x holds all points.
        prior: Gaussian over the tree of params.
        data: (x, y), y in {-1, +1}, or class numbers or one-hot rows for several outputs.
        schedule: inverse temperatures and steps; None finds them with pilot chains on the same points, whose keys are
            their own. That costs nothing, because the certified chains are fresh.
        key: of everything random.
        chains: m, run as one program.
        certifies: "chain" (the one of index ``chain``), "mean" or "vote", named in advance: `PathResult.certificate`.
        form: "tail" (the default) or, necessarily for ``risk``, "kl"; fixed in advance.
        surrogate: "sigmoid", "squared" or a function of (outputs, y) per point, `PredictorPotential`.
        risk: a loss in [0, 1] of (outputs, y) per point to certify instead of mistakes; regression needs one.
        kernel: "adjusted"; "unadjusted", whose price includes the discretisation; "minibatch", which pays for the noise
            of the gradient as well, with two gradients of ``batch`` points a step.
        times: steps after which the networks are looked at, paid for; None is the end alone.
        settings: number of settings of prior and f that were compared on these points, this one included.
        steps, pilot_steps: lengths of the chains and their pilots without a given schedule.
        leaps: steps of the scheme per proposal, one gradient each; 1 is Langevin, more are Hamiltonian Monte Carlo.
        devices: of this process, among which the chains are shared out; a divisor of their number.
        more: further hypotheses of the certificate, such as how the inputs were mapped.

    Returns:
        The trained chains and their certificates.

    Raises:
        MfresnetError: input of the wrong shape or kind; see the messages.

    >>> x = jax.random.normal(jax.random.key(0), (200, 2))
    >>> prior = GaussianPrior.standard(jnp.zeros(2), std=5.0)
    >>> schedule = AnnealingSchedule.power(100.0, 200)
    >>> done = path(lambda w, x: x @ w, prior, (x, jnp.sign(x[:, 0])), schedule, jax.random.key(1))
    >>> done.certificate.vacuous, done.certificate.status
    (False, 'assumed')
    """
    x, y, n = _checked_data(data)
    m, delta = check_count(chains, name="chains"), check_delta(delta)
    form = form or ("kl" if risk is not None else "tail")
    if form not in FORMS or certifies not in WHICH:
        raise MfresnetError(f"form = {form!r}, certifies = {certifies!r}: give one of {FORMS} and one of {WHICH}.")
    if risk is not None and form == "tail":
        raise MfresnetError("the binomial tail counts mistakes: give form 'kl' for a risk in [0, 1].")
    if not isinstance(prior, GaussianPrior):
        raise MfresnetError(f"a prior of type {type(prior).__name__} is not a GaussianPrior: give mean and std as one.")
    if not 0 <= chain < m:
        raise MfresnetError(f"chain = {chain} is not one of the {m} chains: give one, from 0.")
    place = share_chains(devices, m)
    check_surrogate(surrogate, scale)
    size = check_kernel(kernel, batch, n, leaps)
    outputs = _outputs(f, prior, x)
    points = (x, jnp.asarray(labels(y, n, outputs, risk)))
    potential = PredictorPotential(f, prior, jnp.asarray(scale, jnp.float32), surrogate, risk)
    k_pilot, k_start, k_run, k_check = jax.random.split(key, 4)
    pilot = None
    if schedule is None:
        pilot = find_schedule(
            potential, points, prior.size, n, k_pilot, length=steps, pilot_length=pilot_steps, chains=PILOTS,
            delta=delta, kernel=kernel, batch=size, leaps=leaps,
        )  # fmt: skip
        schedule = pilot.schedule
    stops = _stops(times, len(schedule))
    now, points = place(start(potential, points, prior.size, m, len(schedule), k_start, kernel), points)
    gammas, langevin = jnp.asarray(schedule.gammas), jnp.asarray(schedule.steps)
    mistakes, costs, ends, first = [], [], [], 0
    for last in stops:
        now = advance(potential, now, points, gammas, langevin, k_run, first, last, kernel, size, leaps)
        count, cost = np.asarray(potential.count(now.z, points), np.float64), prices(now, schedule, last, kernel)
        lost = ~(np.isfinite(np.asarray(now.z)).all(axis=1) & np.isfinite(cost))
        mistakes.append(np.where(lost, float(n), count))
        costs.append(np.where(lost, np.nan, cost))
        ends.append(now.z)
        first = last
    part = jax.tree.map(lambda leaf: leaf[:size], points) if size else points
    last = stops[-1] - 1
    error = stops[-1] * rounding(
        potential, now, part, schedule.gammas[last], schedule.steps[last], k_check, kernel=kernel, leaps=leaps
    )
    several = outputs[1:] not in ((), (1,))
    certificates = {
        which: path_certificate(
            np.stack(mistakes), np.stack(costs), n, delta, certifies=which, chain=chain, form=form, settings=settings,
            rounding=error, times=stops, kernel=None if kernel == "adjusted" else BACKWARD,
            more=more, guessing=1 - 1 / outputs[1] if several else 0.5,
        )
        for which in ("chain", "mean", "vote")
    }  # fmt: skip
    chosen = stops.index(int(certificates[certifies].details["time"] or 0))
    return PathResult(
        certificates[certifies], certificates, ends[chosen], prior, np.stack(mistakes), np.stack(costs),
        schedule, now, pilot, _warnings(now, kernel, stops[-1], np.isnan(costs[-1]).sum()),
    )  # fmt: skip


def _checked_data(data: tuple[Any, Any]) -> tuple[Any, Any, int]:
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise MfresnetError("data must be a pair (x, y): inputs with the points along the first axis, and labels.")
    x = jax.tree.map(jnp.asarray, data[0])
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(x)}
    if len(counts) != 1 or counts == {()} or counts == {(0,)}:
        raise MfresnetError("x must hold arrays with the same number of points, at least one, along the first axis.")
    ((n,),) = counts
    x = jax.tree.map(lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, x)
    return x, data[1], n


def _outputs(f: Predictor, prior: GaussianPrior, x: Any) -> tuple[int, ...]:
    """Shape of f's outputs; a tree that f cannot read is named."""
    try:
        made = jax.eval_shape(f, prior.mean, x)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise MfresnetError(
            f"f cannot be called with the prior's tree {jax.tree.structure(prior.mean)} and these inputs: {error}"
        ) from error
    if not hasattr(made, "shape"):
        raise MfresnetError("f must return one array: outputs of shape (n,) or (n, C).")
    return tuple(made.shape)


def _stops(times: Sequence[int] | None, length: int) -> list[int]:
    stops = [length] if times is None else [int(t) for t in times]
    if not stops or stops != sorted(set(stops)) or not 1 <= stops[0] <= stops[-1] <= length:
        raise MfresnetError(f"times = {times} are not allowed: give rising steps between 1 and {length}.")
    return stops


def acceptance_warning(accepted: float, late: float, lower: str, higher: str) -> list[str]:
    """A sentence where few steps were accepted, or nearly all of the late ones, else none.

    Args:
        accepted, late: mean acceptance of all steps, and of the second half of them.
        lower, higher: the remedies.

    >>> acceptance_warning(0.05, 0.02, "lower the steps", "raise them")
    ['Only 2 % of the steps were accepted: lower the steps. The certificate is valid.']
    """
    if min(accepted, late) < LOW:
        rate = f"{100 * min(accepted, late):.2g} %"
        return [f"Only {rate} of the steps were accepted: {lower}. The certificate is valid."]
    if late > HIGH:
        return [
            f"{100 * late:.3g} % of the late steps were accepted, so they are smaller than need be: {higher}. The "
            "certificate is valid."
        ]
    return []


def _warnings(now: Chains, kernel: Kernel, steps: int, failed: int) -> tuple[str, ...]:
    said = []
    if kernel == "adjusted":
        accepted = float(np.asarray(now.acceptance[:steps]).mean())
        late = float(np.asarray(now.acceptance[steps // 2 : steps]).mean())
        said += acceptance_warning(accepted, late, "lower the schedule's steps", "raise the schedule's steps")
    if failed:
        said.append(
            f"{failed} of {now.z.shape[0]} chains left the finite numbers and count as errors on every point: "
            "lower the steps, or the scale of f."
        )
    return tuple(said)
