"""What a run of image networks costs, measured by its own first steps.

Convolutions of different shapes run at rates that differ by factors, so no constants of the machine are fitted: the
program that would train is compiled, and a step and an evaluation are timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from ..train.cost import PROCESS_BYTES, REPORT_BYTES, Cost
from .job import ImageJob

T = TypeVar("T")
CHECKPOINTS = 2  # on disk at once


def measure_cost(job: ImageJob) -> Cost:
    """The cost of training all networks of a job: steps and evaluations, each times its measured seconds.

    Takes as long as compiling, two steps and two evaluations. Memory is what the compiler reports of the largest
    program beside the images; measurements at the end (``record.sensitivity``) are not counted.

    >>> from mfresnet.images.configuration import ImageConfig
    >>> from mfresnet.images.job import assemble_images, load_split
    >>> data = {"name": "synthetic-images", "n": 16, "n_test": 8}
    >>> config = ImageConfig.model_validate(
    ...     {"data": data, "model": {"name": "resnet8", "width": 2}, "train": {"batch_size": 8, "epochs": 3}}
    ... )
    >>> measure_cost(assemble_images(config, load_split(config, print))).counts
    {'steps': 6, 'evaluations': 3, 'networks': 1}
    """
    networks, record = job.networks, job.config.record
    states = networks.advance(job.init(), 1)
    program = networks.program_bytes(states) or 0
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(states))
    step, states = _seconds(lambda: networks.advance(states, 1))
    networks.evaluate(states)
    evaluation, _ = _seconds(lambda: networks.evaluate(states))
    steps, epochs = networks.shared.steps, job.config.train.epochs
    evaluations = epochs // record.test_every + (epochs % record.test_every > 0)
    parts = {"steps": steps * step, "evaluations": evaluations * evaluation}
    return Cost(
        counts={"steps": steps, "evaluations": evaluations, "networks": len(networks.trainers) * len(networks.seeds)},
        seconds=sum(parts.values()),
        memory=PROCESS_BYTES + int(program),
        files=CHECKPOINTS * held + (REPORT_BYTES if record.report else 0),
        limit=max(parts, key=lambda name: parts[name]),
        exact=True,
    )


def _seconds(work: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result: Any = jax.block_until_ready(work())
    return time.perf_counter() - begun, result
