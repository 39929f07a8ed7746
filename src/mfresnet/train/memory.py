"""What a training step needs of memory, before anything is allocated."""

from __future__ import annotations

import psutil

from ..config import Config
from ..errors import MfresnetError

# Above this many bytes of stored activations, recomputing them costs less than moving them through memory.
RECOMPUTE_ABOVE = 2**30


def activation_bytes(config: Config, inputs: int, n: int) -> int:
    """Activations of one reverse sweep that stores everything: about three n x (M + probes) arrays a layer."""
    model, train = config.model, config.train
    width = model.width + (train.probes if train.rule == "gradient-flow" else 0)
    state = model.state_dimension(inputs)
    return 4 * n * model.depth * (3 * width + 2 * state) * train.chains


def memory_estimate(config: Config, inputs: int, outputs: int, n: int) -> int:
    """Bytes a training step needs at least: particles (with gradients and moments), data, activations, Hessians."""
    model, train = config.model, config.train
    state = model.state_dimension(inputs)
    encoder = (1 if model.shared else model.depth) * (model.width + train.probes) * (2 * state + 1)
    head = (model.head_width + train.head_probes) * (state + outputs + 1)
    points = min(n, train.batch_size or n)
    if train.recompute == "segments" or (train.recompute == "auto" and recomputes(config, inputs, points)):
        activations = (
            train.chains * 4 * points * (3 * (model.width + train.probes) + 4 * int(model.depth**0.5 + 100) * state)
        )
    else:
        activations = activation_bytes(config, inputs, points)
    size = 2 if train.precision == "float64" else 1
    determinants = 4 * determinant_numbers(config, state, outputs)
    return size * (4 * 4 * train.chains * (encoder + head) + 4 * n * (inputs + outputs) + activations + determinants)


def determinant_numbers(config: Config, state: int, outputs: int) -> int:
    """Numbers that the exact determinants of Euler steps hold: two Hessian blocks and a complement a probe."""
    model, train = config.model, config.train
    if train.rule != "gradient-flow" or train.solver != "euler":
        return 0
    inputs = state + model.bias
    encoder = (1 if model.shared else model.depth) * train.probes * (state * inputs + 2 * inputs**2)
    return encoder + (train.head_probes * (outputs * inputs + 2 * inputs**2) if model.head else 0)


def recomputes(config: Config, inputs: int, points: int) -> bool:
    """Whether states are recomputed in the backward sweep instead of stored."""
    if config.train.recompute != "auto":
        return config.train.recompute == "segments"
    return activation_bytes(config, inputs, points) > RECOMPUTE_ABOVE


def check_memory(config: Config, inputs: int, outputs: int, n: int) -> None:
    """Refuse, before anything is allocated, what cannot fit into memory.

    Raises:
        MfresnetError: naming the estimate and what to lower.
    """
    need, have = memory_estimate(config, inputs, outputs, n), psutil.virtual_memory().available
    if need > have:
        probes = "; or train.probes and train.head_probes" if determinant_numbers(config, inputs, outputs) else ""
        raise MfresnetError(
            f"training needs about {need / 2**30:.1f} GiB and {have / 2**30:.1f} GiB are free: lower data.n "
            f"({n}), model.depth ({config.model.depth}), model.width ({config.model.width}) or model.head_width "
            f"({config.model.head_width}), or set train.batch_size or --train.recompute segments{probes}."
        )
