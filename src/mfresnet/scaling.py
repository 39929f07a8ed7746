"""Mean-field rules in depth and width for any residual model: an initialiser, Adam and SGD, by groups of parameters.

A residual stream h of width N passes L branches, h <- h + F(h), and an output matrix reads it. With gradients of the
loss of order 1 in the outputs, a step must change every entry of h, and every output, by order 1 at any L and N. Then
outputs ~ W h with W of order 1/N give dloss/dh ~ 1/N entry by entry, a branch must be of order 1/L, and

    group            acts                              entries   update    gradient
    input            on the stream itself (embedding,  1         1         1/N
                     norms outside of branches)
    hidden           a matrix inside of a branch       1/sqrt N  1/N       1/(N L)
    vector           bias or gain inside of a branch   1         1         1/(N L)
    residual         the matrix that ends a branch     1/(L sqrt N) 1/(L N) 1/N
    residual-vector  the bias that ends a branch       1/L       1/L       1/N
    output           reads the stream                  1/N       1/N       1

An update of Adam is its learning rate, whatever the gradient, and epsilon is compared with the gradient; an update of
SGD is learning rate times gradient. Hence the factors below, with m = L/L_0 and k = N/N_0 the growth from the sizes
at which rates were chosen. They assume that the model itself draws its matrices by fan-in (entries 1/sqrt of their
inputs), as Equinox and Flax do; no forward pass has to be changed. The rules are those of muP in width (Yang et al.
2022, arXiv 2203.03466) and of depth exponent 1 (Dey et al. 2025, CompleteP, arXiv 2505.01618), with the multipliers
absorbed into the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .errors import MfresnetError

GROUPS = ("input", "hidden", "vector", "residual", "residual-vector", "output")
OPTIMISERS = ("adam", "sgd")


@dataclass(frozen=True)
class Growth:
    """How much deeper and wider a model is than the one at which learning rates were chosen.

    Args:
        depth: m = L/L_0.
        width: k = N/N_0.

    >>> Growth.of(depth=64, base_depth=4)
    Growth(depth=16.0, width=1.0)
    """

    depth: float = 1.0
    width: float = 1.0

    def __post_init__(self) -> None:
        if not (self.depth > 0 and self.width > 0):
            raise MfresnetError(f"growth {self.depth:g} of depth, {self.width:g} of width: give values > 0.")

    @classmethod
    def of(cls, *, depth: int = 1, base_depth: int = 1, width: int = 1, base_width: int = 1) -> Growth:
        """Of sizes and the sizes at which rates were chosen."""
        return cls(depth / base_depth, width / base_width)


@dataclass(frozen=True)
class Factors:
    """What the rules multiply in one group.

    Args:
        start: the initial values.
        rate: the learning rate.
        epsilon: Adam's epsilon; 1 for SGD.
    """

    start: float
    rate: float
    epsilon: float


def factors(optimiser: str, growth: Growth) -> dict[str, Factors]:
    """The factors of every group, see the module.

    Raises:
        MfresnetError: an unknown optimiser.

    >>> factors("adam", Growth(depth=2.0))["residual"]
    Factors(start=0.5, rate=0.5, epsilon=1.0)
    """
    m, k = growth.depth, growth.width
    start = {"residual": 1 / m, "residual-vector": 1 / m, "output": k**-0.5}
    if optimiser == "adam":
        rate = {"hidden": 1 / k, "residual": 1 / (k * m), "residual-vector": 1 / m, "output": 1 / k}
        epsilon = {
            "input": 1 / k, "hidden": 1 / (k * m), "vector": 1 / (k * m), "residual": 1 / k, "residual-vector": 1 / k,
        }  # fmt: skip
    elif optimiser == "sgd":
        rate = {
            "input": k, "hidden": m, "vector": k * m, "residual": 1 / m, "residual-vector": k / m, "output": 1 / k,
        }  # fmt: skip
        epsilon = {}
    else:
        raise MfresnetError(f"optimiser = {optimiser!r} is not allowed: give one of {', '.join(OPTIMISERS)}.")
    return {one: Factors(start.get(one, 1.0), rate.get(one, 1.0), epsilon.get(one, 1.0)) for one in GROUPS}


def label(params: Any, groups: Mapping[str, str]) -> Any:
    """The group of every parameter, a tree of names.

    Args:
        params: any tree of arrays: a Flax dictionary, or an Equinox module after ``eqx.filter(model, eqx.is_array)``.
        groups: dotted path, or a part of it, such as ``"attention.out.weight"`` -> group; the longest part that
            occurs in a path decides.

    Raises:
        MfresnetError: an unknown group, parts that cover nothing, parameters that no part covers or that are no
            floating-point arrays.

    >>> label({"embed": jnp.ones(2), "out": jnp.ones(3)}, {"embed": "input", "out": "output"})
    {'embed': 'input', 'out': 'output'}
    """
    if not isinstance(groups, Mapping):
        raise MfresnetError(f"groups is a {type(groups).__name__}: give a mapping from parts of paths to groups.")
    for part, group in groups.items():
        if group not in GROUPS:
            raise MfresnetError(f"group {group!r} of {part!r} is unknown: give one of {', '.join(GROUPS)}.")
    used: set[str] = set()

    def one(path: Any, leaf: Any) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        kind = getattr(leaf, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            raise MfresnetError(
                f"parameter {name} is of type {kind or type(leaf).__name__}: leave it out, for example with "
                "equinox.partition(model, equinox.is_inexact_array)."
            )
        parts = [part for part in groups if f".{part}." in f".{name}."]
        if not parts:
            raise MfresnetError(f"no group covers the parameter {name}: name it, or a part of its path, in groups.")
        used.update(parts)
        return groups[max(parts, key=len)]

    labels = jax.tree_util.tree_map_with_path(one, params)
    if unused := set(groups) - used:
        raise MfresnetError(f"groups names {', '.join(sorted(unused))}, which no parameter's path contains: remove it.")
    return labels


def initialise(params: Any, labels: Any, growth: Growth) -> Any:
    """The initial parameters of a model that draws its matrices by fan-in, brought to the scale of the rules.

    >>> initialise({"u": jnp.ones(2)}, {"u": "residual"}, Growth(depth=4.0))["u"].tolist()
    [0.25, 0.25]
    """
    table = factors("adam", growth)
    return jax.tree.map(lambda leaf, group: leaf * jnp.asarray(table[group].start, leaf.dtype), params, labels)


def adam(
    rate: Any, labels: Any, growth: Growth, *, epsilon: float = 1e-8, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Adam with the learning rate and the epsilon of each group; at growth 1 it is `optax.adam`.

    Args:
        rate: learning rate, a number or an array, or a schedule of Optax.
        labels: of `label`.

    >>> optimiser = adam(0.1, {"w": "hidden"}, Growth(width=2.0))
    >>> state = optimiser.init({"w": jnp.ones(1)})
    >>> round(optimiser.update({"w": jnp.ones(1)}, state)[0]["w"].item(), 4)
    -0.05
    """
    table = factors("adam", growth)
    ways: dict[Hashable, optax.GradientTransformation] = {
        group: optax.adam(_times(rate, one.rate), b1=b1, b2=b2, eps=epsilon * one.epsilon)
        for group, one in table.items()
    }
    return optax.multi_transform(ways, lambda _: labels)  # as they are, although an Equinox module can be called


def sgd(rate: Any, labels: Any, growth: Growth, *, momentum: float | None = None) -> optax.GradientTransformation:
    """SGD with the learning rate of each group; at growth 1 it is `optax.sgd`.

    >>> optimiser = sgd(0.1, {"w": "output"}, Growth(width=2.0))
    >>> round(optimiser.update({"w": jnp.ones(1)}, optimiser.init({"w": jnp.ones(1)}))[0]["w"].item(), 4)
    -0.05
    """
    table = factors("sgd", growth)
    ways: dict[Hashable, optax.GradientTransformation] = {
        group: optax.sgd(_times(rate, one.rate), momentum=momentum) for group, one in table.items()
    }
    return optax.multi_transform(ways, lambda _: labels)  # as they are, although an Equinox module can be called


def _times(rate: Any, factor: float) -> Any:
    if not callable(rate):
        return factor * rate
    schedule: Callable[[Any], Any] = rate
    return lambda count: factor * schedule(count)
