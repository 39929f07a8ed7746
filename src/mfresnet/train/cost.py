"""What a training costs, before it is paid: seconds, memory and files, and what limits it.

The time of one field of n points and L layers is modelled as

    (L + 1) operation + n (L M + K) (element + 12 D product) + n (L P + P_head) (3.5 element + 1.3 * 12 D product),

D the dimension of the state, with three constants that are measured on the machine at hand in less than a second: the
overhead of one layer in a compiled loop, the activation of one particle at one point with what its derivatives need,
and one floating-point operation of a matrix product. A particle at a point costs about 12 D such operations in both
sweeps; a probe, whose Laplacian is taken too, more. The ratios were fitted once (docs/cost.md).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt
from typing import Any

import jax
import jax.numpy as jnp

from ..config import Config
from ..model import scaling
from ..model.depth import UNROLL
from .langevin import LANGEVIN, PILOT_LEAST, PILOT_SHARE, PILOTS
from .memory import memory_estimate
from .schedule import kept_steps

PRODUCTS = 12  # floating-point operations per dimension, particle and point, of both sweeps
PROBE_ELEMENT, PROBE_PRODUCT = 3.5, 1.3  # of a probe, in those of a particle
# What a layer, an activation and an operation of a product cost in a training step, in those of `measure_machine`.
LAYER, ACTIVATION, PRODUCT = 128.0, 3.3, 1.5
CHAIN = 4  # of layers in a step of a chain: noise, both energies and the decision to accept
TURNS = 800  # of arrays that one core computes: milliseconds, long enough for the clock and short between other work
REPETITIONS = 10
LOOP = 1.9  # of activations and products in networks deeper than what is unrolled: states are copied to and fro
STIFFNESS = 4.0  # spectral radius of the flow in beta^2, at a start of standard deviation 1; it depends on the draw
TRANSIENT = 150  # steps in which the error, not stability, limits an error-controlled solver
REPORT_BYTES = 6_000_000  # most of it the plotting library
PROCESS_BYTES = 450_000_000  # Python, JAX and the compiler


@dataclass(frozen=True)
class Machine:
    """Measured seconds: of a layer's overhead, of an activation with its derivatives, of an operation of a product."""

    operation: float
    element: float
    product: float

    def particle(self, state: int) -> float:
        """Of a particle at a point, in a state of this dimension: forward and back."""
        return self.element + PRODUCTS * state * self.product

    def probe(self, state: int) -> float:
        """The same of a probe, whose Laplacian is taken too."""
        return PROBE_ELEMENT * self.element + PROBE_PRODUCT * PRODUCTS * state * self.product


@dataclass(frozen=True)
class Cost:
    """A prediction.

    Args:
        counts: what is computed how often, by name; of a training "fields" (evaluations of the field without probes)
            and "with probes".
        seconds: of training, on an idle machine, without compilation and measurements.
        memory: bytes.
        files: bytes of the run directory.
        limit: what takes most of the time.
        exact: whether the counts are known, not estimated (solvers that choose their steps).
    """

    counts: Mapping[str, int]
    seconds: float
    memory: int
    files: int
    limit: str
    exact: bool


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Of several pieces of work, one after another: memory is the largest, what limits is that of the longest.

    >>> one = Cost({"fields": 2}, 1.0, 10, 5, "layers", True)
    >>> total_cost([one, Cost({"fields": 3}, 4.0, 20, 5, "products", False)])
    Cost(counts={'fields': 5}, seconds=5.0, memory=20, files=10, limit='products', exact=False)
    """
    counts = Counter[str]()
    for cost in costs:
        counts.update(cost.counts)
    return Cost(
        counts=dict(counts),
        seconds=sum(cost.seconds for cost in costs),
        memory=max(cost.memory for cost in costs),
        files=sum(cost.files for cost in costs),
        limit=max(costs, key=lambda cost: cost.seconds).limit,
        exact=all(cost.exact for cost in costs),
    )


def measure_machine(size: int = 128, layers: int = 400) -> Machine:
    """The three constants: of a tiny loop, an activation and a product, each the best of several repetitions.

    >>> machine = measure_machine(64, 10)
    >>> min(machine.operation, machine.element, machine.product) > 0
    True
    """

    @partial(jax.jit, static_argnums=1)
    def product(a: Any, count: int) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, c: 1e-3 * (c @ a), a)

    @partial(jax.jit, static_argnums=1)
    def activation(a: Any, count: int) -> Any:
        def turn(_: Any, c: Any) -> Any:
            t = jnp.tanh(c + a)
            return t * (1 - t * t) + 0.1 * a

        return jax.lax.fori_loop(0, count, turn, a)

    @partial(jax.jit, static_argnums=1)
    def small(a: Any, count: int) -> Any:
        return jax.lax.fori_loop(0, count, lambda _, c: jnp.tanh(c @ a), a)

    square, tiny = jnp.ones((size, size), jnp.float32), jnp.ones((2, 2), jnp.float32)
    return Machine(
        operation=LAYER * _best(small, tiny, layers) / layers,
        element=ACTIVATION * _best(activation, square, TURNS) / (TURNS * size**2),
        product=PRODUCT * _best(product, square, TURNS // 10) / (TURNS // 10 * 2 * size**3),
    )


def _best(work: Any, array: Any, count: int) -> float:
    """Seconds of the best of several calls."""
    jax.block_until_ready(work(array, count))
    best = float("inf")
    for _ in range(REPETITIONS):
        begun = time.perf_counter()
        jax.block_until_ready(work(array, count))
        best = min(best, time.perf_counter() - begun)
    return best


def field_counts(config: Config, n: int) -> tuple[int, int, bool]:
    """(fields without probes, fields with them, whether these are known) of a resolved configuration."""
    train, steps = config.train, config.train.steps or 1
    probes = train.probes + train.head_probes > 0
    if train.rule == LANGEVIN:
        pilots = 0 if train.gamma is not None else PILOTS * max(PILOT_LEAST, steps // PILOT_SHARE)
        return (steps * train.chains + pilots) * train.leaps, 0, True
    if train.rule != "gradient-flow":
        return steps, 0, True
    if train.solver in ("euler", "heun"):
        count = steps * (2 if train.solver == "heun" else 1)
        return (0, count, True) if probes else (count, 0, True)
    beta = config.model.beta or 1.0
    stiff = STIFFNESS * beta**2 * train.time * scaling.time_unit(train.time_unit, n, beta)  # length times radius
    if train.solver == "stabilised":
        count = TRANSIENT * 5 + steps * max(2, ceil(sqrt(1 + 1.54 * 1.2 * stiff / steps)))
        return 2 * steps + count, (count if probes else 0), False
    accepted = TRANSIENT + stiff / 2.5  # a third-order method is stable to 2.5
    return 2 * steps + int(4 * accepted), (int(3 * accepted) if probes else 0), False


def predict_cost(config: Config, n: int, inputs: int, outputs: int, machine: Machine) -> Cost:
    """The cost of training a resolved configuration.

    Args:
        n: training points.
        inputs, outputs: of the data.
        machine: its constants (`measure_machine`).

    >>> from mfresnet.train.defaults import fill_defaults
    >>> config = fill_defaults(Config(train={"rule": "adam", "steps": 100}), 512, 64, 2)
    >>> cost = predict_cost(config, 512, 2, 1, Machine(4e-6, 2e-9, 2e-11))
    >>> cost.counts["fields"], cost.exact, 0.01 < cost.seconds < 0.1
    (100, True, True)
    """
    m, train = config.model, config.train
    points = min(n, train.batch_size or n)
    state = m.state_dimension(inputs)
    alone, together, exact = field_counts(config, n)
    head = m.head_width if m.head else 0
    copied = LOOP if m.depth > UNROLL else 1.0
    double = 2 if train.precision == "float64" else 1
    parts = dict.fromkeys(("layers", "activations", "products", "probes"), 0.0)
    layers = (m.depth + 1) * (CHAIN if train.rule == LANGEVIN else 1)
    particles, probes = points * (m.depth * m.width + head), points * (m.depth * train.probes + train.head_probes)
    for count, followed in ((alone, 0), (together, probes)):
        parts["layers"] += count * layers * machine.operation
        parts["activations"] += count * copied * double * particles * machine.element
        parts["products"] += count * copied * double * particles * PRODUCTS * state * machine.product
        parts["probes"] += count * copied * double * followed * machine.probe(state)
    numbers = m.depth * (m.width + 2 * train.probes) * (2 * state + 1)
    numbers += (head + 2 * train.head_probes) * (state + outputs + 1)
    return Cost(
        counts={"fields": alone, "with probes": together},
        seconds=sum(parts.values()),
        memory=PROCESS_BYTES + memory_estimate(config, inputs, outputs, n),
        files=len(kept_steps(config)) * 4 * double * numbers + (REPORT_BYTES if config.record.report else 0),
        limit=max(parts, key=lambda name: parts[name]),
        exact=exact,
    )
