"""The network at its start, the widths of its laws and the streams of a seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from ..config import Config
from ..errors import MfresnetError
from ..model import AbstractResNet, ContinuousResNet, InitialScales, LayeredResNet, activation
from ..model.own import TWO_LAYER, particle
from .defaults import resolved

Kind = type[LayeredResNet] | type[ContinuousResNet]


def build_model(config: Config, key: Array, inputs: int, outputs: int) -> AbstractResNet:
    """The network at its start."""
    return create_model(key, *model_arguments(config, inputs, outputs))


def create_model(key: Array, kind: Kind, arguments: Mapping[str, Any]) -> AbstractResNet:
    """The network at its start, from what `model_arguments` says."""
    return kind.create(key, **arguments)


def model_shapes(config: Config, inputs: int, outputs: int) -> AbstractResNet:
    """The network with shapes for arrays: nothing is drawn. Its beta, which trainers read, is 1."""
    shapes = eqx.filter_eval_shape(create_model, jax.random.key(0), *model_arguments(config, inputs, outputs))
    return eqx.tree_at(lambda model: model.beta, shapes, jnp.asarray(1.0, shapes.beta.dtype))


def model_arguments(config: Config, inputs: int, outputs: int) -> tuple[Kind, dict[str, Any]]:
    """The kind of network, and the arguments of its ``create`` beside the key."""
    m = config.model
    if m.embedding == "none" and m.embedding_dimension is not None:
        raise MfresnetError(
            f"model.embedding_dimension = {m.embedding_dimension} has no effect without an embedding: "
            "set model.embedding fixed or trained."
        )
    check_particles(config)
    state = m.state_dimension(inputs)
    common: dict[str, Any] = {
        "inputs": inputs,
        "outputs": outputs,
        "head_width": m.head_width,
        "alpha": resolved(m.alpha),
        "beta": resolved(m.beta),
        "sigma": activation(m.activation),
        "particle": None if m.particle == TWO_LAYER else particle(m.particle, state, state),
        "head_particle": None if m.head_particle == TWO_LAYER else particle(m.head_particle, state, outputs),
        "bias": m.bias,
        "head": m.head,
        "embedding": None if m.embedding == "none" else (m.embedding_dimension or inputs),
        "initial": initial_scales(config),
        "dtype": "float64" if config.train.precision == "float64" else "float32",
    }
    if m.kind == "continuous":
        layered = {"shared": False, "scheme": "euler", "antithetic": False}
        layered |= {"particle": TWO_LAYER, "head_particle": TWO_LAYER}
        del common["particle"], common["head_particle"]
        for name, plain in layered.items():
            if getattr(m, name) != plain:
                raise MfresnetError(
                    f"model.{name} = {getattr(m, name)!r} has no meaning for a continuous model, whose particles lie "
                    "on one depth axis: leave it out, or set model.kind layered."
                )
        return ContinuousResNet, common | {"particles": m.depth * m.width}
    layers = {"depth": m.depth, "width": m.width, "shared": m.shared, "scheme": m.scheme, "antithetic": m.antithetic}
    return LayeredResNet, common | layers


def check_particles(config: Config) -> None:
    """Refuse settings of the two-layer particles where they have no meaning, because particles are of another kind.

    Raises:
        MfresnetError: naming the setting.
    """
    m = config.model
    scales = {"particle": ("u", "w", "b"), "head_particle": ("a", "head_w", "head_b")}
    for name, own in scales.items():
        kind = getattr(m, name)
        if kind == TWO_LAYER:
            continue
        if m.antithetic:
            raise MfresnetError(
                f"model.antithetic is for two-layer particles, not for {name} = {kind!r}: leave it out."
            )
        for scale in own:
            if getattr(m.initial, scale) != 1.0:
                raise MfresnetError(
                    f"model.initial.{scale} belongs to two-layer particles: give model.{name} = {kind!r} its standard "
                    "deviations in its Particle."
                )
    if not m.head and m.head_particle != TWO_LAYER:
        raise MfresnetError(f"model.head_particle = {m.head_particle!r} has no effect without a head: leave it out.")


def initial_scales(config: Config) -> InitialScales:
    """Standard deviations of the starting laws."""
    return InitialScales(**config.model.initial.model_dump())


def keys(seed: int | Array) -> tuple[Array, Array, Array]:
    """The streams of a seed: of the start, of the probes, of the batches."""
    k_model, k_probes, k_batches = jax.random.split(jax.random.key(seed), 3)
    return k_model, k_probes, k_batches


def probe_counts(config: Config) -> tuple[int, int]:
    """Probe particles of each layer, and of the head."""
    return config.train.probes, config.train.head_probes
