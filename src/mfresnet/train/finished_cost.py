"""What measuring or certifying a finished run costs, before it is paid (docs/cost.md).

Measuring takes eigenvalues at every kept checkpoint: all of G1, G2 and G, and the smallest of each that may be regular.
Certifying takes forward passes of drawn sub-networks. Both use the constants of `mfresnet.train.cost`, and the seconds
of LAPACK at the size at hand.
"""

from __future__ import annotations

import time

import numpy as np

from ..bounds import probes_needed
from ..bounds.supremum import quadrature
from ..certify import Grid
from ..certify.draws import FEW
from ..certify.gibbs import MOST
from ..certify.kernel import POINTS as KERNEL_POINTS
from ..certify.learned_prior import MOVED
from ..config import Config
from ..kernels.eigen import DENSE_LIMIT
from ..kernels.precision import blas_threads
from .cost import PROCESS_BYTES, REPORT_BYTES, Cost, Machine
from .memory import memory_estimate

MEASURED_ROWS = 1000  # most rows at which the eigenvalues of the machine are timed
LOWEST = 1.3  # of the time of all eigenvalues: the smallest one with its vector
CHOLESKY = 0.25  # the same, where it is found by factorisations
FORWARD = 0.7  # of an activation with its derivatives: an activation
DRAW_LAYERS = 40  # overhead of a draw, in that of layers
INVERSION = 3  # evaluations of the field that turn one Euler step of a prior back
ROW_LAYERS = 2500  # overhead of a row of diagnostics, in that of layers
LAWS = len(MOVED) + 1  # posteriors of a trained prior
ROW_BYTES = 4000  # of a row of results
CERTIFICATE_BYTES = 40_000  # of ``certificates.json``


def eigenvalue_seconds(rows: int) -> float:
    """Seconds of all eigenvalues of a symmetric matrix, measured at ``rows`` or, cubed up, at fewer.

    >>> 0 < eigenvalue_seconds(20) < 1
    True
    """
    size = min(rows, MEASURED_ROWS)
    matrix = np.random.default_rng(0).standard_normal((size, size))
    matrix += matrix.T
    best = float("inf")
    with blas_threads(size):
        for _ in range(3):
            begun = time.perf_counter()
            np.linalg.eigvalsh(matrix)
            best = min(best, time.perf_counter() - begun)
    return best * (rows / size) ** 3


def predict_measuring(config: Config, n: int, inputs: int, outputs: int, checkpoints: int, machine: Machine) -> Cost:
    """The cost of measuring a run at its kept checkpoints.

    Args:
        config: resolved.
        n: training points.
        inputs, outputs: of the data.
        checkpoints: their number.
        machine: constants (`mfresnet.train.cost.measure_machine`).

    >>> from mfresnet.train.defaults import fill_defaults
    >>> machine = Machine(4e-6, 2e-9, 2e-11)
    >>> cost = predict_measuring(fill_defaults(Config(), 512, 64, 2), 512, 2, 1, 14, machine)
    >>> cost.counts, cost.limit
    ({'checkpoints': 14, 'Gram rows': 512, 'eigenvalue problems': 70}, 'eigenvalues')
    """
    m = config.model
    state, head = m.state_dimension(inputs), m.head_width if m.head else 0
    rows = min(n, max(2, config.diagnostics.gram_points // outputs)) * outputs
    if m.scheme != "euler":  # there is no closed form
        rows = 0
    numbers_of = {
        "encoder": (1 if m.shared else m.depth) * m.width * (2 * state + m.bias),
        "head": head * (state + outputs + m.bias),
    }
    numbers_of["total"] = sum(numbers_of.values())
    whole = len(numbers_of) if rows else 0
    regular = sum(size >= rows for size in numbers_of.values()) if rows else 0
    lowest = LOWEST if rows <= DENSE_LIMIT else CHOLESKY
    product = 2 * machine.product  # in double precision
    parts = {
        "eigenvalues": (whole + lowest * regular) * eigenvalue_seconds(max(rows, 1)),
        # two products for each layer, of which symmetry leaves a half
        "Gram matrices": rows**2 * 2 * (m.depth * (m.width + state) + head) * product,
        "layers": (3 * (m.depth + 1) + ROW_LAYERS) * machine.operation,
    }
    return Cost(
        counts={
            "checkpoints": checkpoints,
            "Gram rows": rows,
            "eigenvalue problems": checkpoints * (whole + regular),
        },
        seconds=checkpoints * sum(parts.values()),
        memory=PROCESS_BYTES + memory_estimate(config, inputs, outputs, n) + 7 * 8 * rows**2,
        files=checkpoints * ROW_BYTES + (REPORT_BYTES if config.record.report else 0),
        limit=max(parts, key=lambda name: parts[name]),
        exact=True,
    )


def predict_certifying(
    config: Config, grid: Grid | None, n: int, n_test: int, inputs: int, outputs: int, machine: Machine
) -> Cost:
    """The cost of the certificates of a run.

    Args:
        config: resolved, with the settings of ``certify`` that are to be used.
        grid: what a certificate of the laws is minimised over (`mfresnet.certify.Grid`); None of a run that is
            certified by its errors alone.
        n, n_test: training and test points.
        inputs, outputs: of the data.
        machine: constants (`mfresnet.train.cost.measure_machine`).

    >>> from mfresnet.train.defaults import fill_defaults
    >>> machine, grid = Machine(4e-6, 2e-9, 2e-11), Grid(tuple(range(13)), (8, 256), (5, 10, 20, 40))
    >>> cost = predict_certifying(fill_defaults(Config(), 512, 256, 2), grid, 512, 256, 2, 1, machine)
    >>> cost.counts, cost.limit
    ({'draws': 1712}, 'draws')
    """
    m, train, wanted = config.model, config.train, config.certify
    state, double = m.state_dimension(inputs), 2 if train.precision == "float64" else 1
    head = m.head_width if m.head else 0
    files = CERTIFICATE_BYTES + (REPORT_BYTES if config.record.report else 0)
    memory = PROCESS_BYTES + memory_estimate(config, inputs, outputs, n)
    each = FORWARD * machine.element + 4 * state * machine.product
    if grid is None:
        seconds = (n + n_test) * (m.depth * m.width + head) * each * double
        return Cost({"draws": 0}, seconds, memory, files, "errors of the network", True)
    trained_prior = wanted.prior_share > 0 and train.batch_size is None
    sizes, whole, most = len(grid.residuals), _blocks(wanted.draws), max(grid.heads)
    count = len(grid.steps) * (sizes * FEW + whole)
    if train.probes and grid.residuals:  # the disjoint draws of each number of head particles
        shared = train.probes // probes_needed(min(grid.residuals), 1 if m.shared else m.depth)
        count += sum(_blocks(max(1, min(MOST, shared, train.head_probes // k if k else MOST))) for k in grid.heads)
    if trained_prior:  # its posteriors, and itself on the points that it did not see
        count += (LAWS + 1) * sizes * whole
    draw = DRAW_LAYERS * machine.operation
    draw += n * double * ((most + max(grid.residuals)) * each + 2 * most * len(grid.heads) * outputs * machine.product)
    parts = {
        "draws": count * draw,
        "kernel": 2 * eigenvalue_seconds(min(n, KERNEL_POINTS)) if outputs == 1 else 0.0,
        "Rademacher complexity": 32 * n * quadrature(n) * machine.product * state if outputs == 1 and head else 0.0,
    }
    if trained_prior:  # Euler steps with probes, in double precision, and their inversion for each law
        particles, probes = m.depth * m.width + head, m.depth * train.probes + train.head_probes
        layers, seen = (m.depth + 1) * machine.operation, 2 * wanted.prior_share * n
        back = layers + seen * probes * machine.probe(state)
        forward = back + seen * particles * machine.particle(state)
        parts["trained prior"] = wanted.prior_steps * (forward + LAWS * INVERSION * back)
    return Cost(
        counts={"draws": count},
        seconds=sum(parts.values()),
        memory=memory + 8 * FEW * n * double * max(most, 1),
        files=files,
        limit=max(parts, key=lambda name: parts[name]),
        exact=True,
    )


def _blocks(draws: int) -> int:
    """Draws that are computed: whole blocks."""
    return FEW * -(-draws // FEW)
