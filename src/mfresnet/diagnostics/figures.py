"""The arrays behind the figures of a run: a network at its start and at its end, in two coordinates.

They are computed once, while the network is in memory; the report then draws them without it.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..model import AbstractParticles, AbstractResNet, Particles, scaling
from ..model.depth import SCHEMES, vector_field
from .divergence import displacements
from .plane import Plane, principal_axes

if TYPE_CHECKING:
    from ..data import Split

SIDE = 120  # grid points along one side of the plane
SMALLEST_SIDE = 24
BUDGET = 4e11  # multiplications the grid may cost: about ten seconds on two cores
STATES = 400  # points followed through depth
DEPTHS = 41  # values of s
PARTICLES = 600  # particles drawn of each part
POINTS = 900  # data points drawn of each part

Arrays = dict[str, np.ndarray]


def network_figures(start: AbstractResNet, end: AbstractResNet, split: Split) -> Arrays:
    """Decision regions, data moving through depth and particles that moved, as float32 arrays.

    Args:
        start, end: the network before and after training, of the same shape.
        split: the data; ``split.train`` and ``split.test`` have ``x`` (n, d), ``y`` (n, C), ``task``.

    Returns:
        Arrays by dotted name, ready for one safetensors file:

        - ``plane.origin`` (d,), ``plane.axes`` (2, d): a grid point is origin + first*axes[0] +
          second*axes[1]; ``plane.radius`` (1,): the norm of data on a sphere, else 0 (see `Plane`);
        - ``grid.first``, ``grid.second`` and for ``<when>`` in start, end either ``grid.<when>.value``
          (one output) or ``grid.<when>.label`` and ``grid.<when>.margin`` (largest minus second
          largest output); NaN outside the sphere. One input: a curve ``curve.x``, ``curve.<when>``;
        - ``points.<part>.place`` (m, 2), ``points.<part>.label`` (m,), and for classes
          ``points.<part>.correct`` (m,) at the end: at most 900 of train and test;
        - ``depth.s`` (S,), ``depth.label`` (m,), ``depth.<when>.state`` (S, m, 2), and where the state
          is the plane itself ``depth.<when>.first|second|read``: what the head reads off it;
        - ``particles.encoder.{s, start.w, end.w, end.out}``, ``particles.head.{start.w, end.w, end.out}``:
          w in the axes of the depth picture ((w, b) where the state has one dimension),
          out = |u| or a (|a| with several outputs);
        - ``displacement.encoder`` (L,), ``displacement.head`` (1,): root mean square over particles.

    >>> from types import SimpleNamespace as Box
    >>> x = np.random.default_rng(0).normal(size=(30, 2))
    >>> part = Box(x=x, y=np.sign(x[:, :1]), task="binary")
    >>> from mfresnet import LayeredResNet
    >>> model = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4)
    >>> arrays = network_figures(model, model, Box(train=part, test=part))
    >>> arrays["grid.end.value"].shape, arrays["depth.end.state"].shape
    ((120, 120), (4, 30, 2))
    """
    models = {"start": _single(start), "end": _single(end)}
    train = np.asarray(split.train.x, np.float64)
    out: Arrays = {}
    if train.shape[1] == 1:
        out |= _curve(models, train)
        plane = None
    else:
        plane = Plane.of(train)
        out |= plane.arrays() | _regions(models, plane, train, _is_class(split.train))
    for name in ("train", "test"):
        part = getattr(split, name)
        chosen = _spread(len(part.x), POINTS)
        x = np.asarray(part.x, np.float64)[chosen]
        target = np.asarray(part.y, np.float64)[chosen]
        out[f"points.{name}.place"] = np.hstack([x, target[:, :1]]) if plane is None else plane.coordinates(x)
        label = out[f"points.{name}.label"] = _labels(target, _is_class(part))
        if _is_class(part):
            out[f"points.{name}.correct"] = _labels(_evaluate(models["end"], x), True) == label
    moving, axes = _depth(models, split.train)
    out |= moving | _particles(models, axes)
    return {name: np.ascontiguousarray(value, np.float32) for name, value in out.items()}


def _single(model: AbstractResNet) -> AbstractResNet:
    """The model in float32, whatever it was trained in: a picture needs no more."""
    return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(np.float32)), model).layered()


def _is_class(part: Any) -> bool:
    return part.task != "regression"


def _labels(y: np.ndarray, classes: bool) -> np.ndarray:
    """Class numbers, or the first target of a regression."""
    if not classes:
        return y[:, 0]
    return (y[:, 0] > 0).astype(np.float64) if y.shape[1] == 1 else np.argmax(y, axis=1).astype(np.float64)


def _spread(n: int, most: int) -> np.ndarray:
    """At most ``most`` indices of 0..n-1, the same for the same n.

    Drawn at random: evenly spaced ones would see one class only where classes take turns.
    """
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(n).choice(n, most, replace=False))


@eqx.filter_jit
def _predict(model: AbstractResNet, x: jax.Array) -> jax.Array:
    return model(x)


def _evaluate(model: AbstractResNet, x: np.ndarray) -> np.ndarray:
    """f at many points, in padded batches of one shape: one compilation."""
    batch = int(np.clip(2**24 // max(model.encoder.width, 1), 16, 4096))
    batch = min(batch, len(x))
    parts = []
    for first in range(0, len(x), batch):
        block = x[first : first + batch]
        padded = np.pad(block, ((0, batch - len(block)), (0, 0)), mode="edge").astype(np.float32)
        parts.append(np.asarray(_predict(model, jnp.asarray(padded)))[: len(block)])
    return np.concatenate(parts)


def _side(model: AbstractResNet) -> int:
    """Grid points per side that the budget allows: a deep, wide network gets a coarser picture."""
    state = model.state
    stages = SCHEMES[model.scheme].stages
    each = 2.0 * stages * model.depth * model.encoder.width * state
    if model.head is not None:
        each += model.head.width * (state + model.head.outputs)
    return int(np.clip((BUDGET / (2 * each)) ** 0.5, SMALLEST_SIDE, SIDE))


def _curve(models: dict[str, AbstractResNet], train: np.ndarray) -> Arrays:
    low, high = train.min(), train.max()
    margin = 0.15 * (high - low or 1.0)
    x = np.linspace(low - margin, high + margin, 400)
    return {"curve.x": x} | {f"curve.{when}": _evaluate(m, x[:, None])[:, 0] for when, m in models.items()}


def _regions(models: dict[str, AbstractResNet], plane: Plane, train: np.ndarray, classes: bool) -> Arrays:
    first, second = plane.grid(train, _side(models["end"]))
    mesh = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    places, inside = plane.points(mesh)
    out: Arrays = {"grid.first": first, "grid.second": second}
    shape = (len(second), len(first))
    for when, model in models.items():
        f = _evaluate(model, places)
        f[~inside] = np.nan
        if f.shape[1] == 1 or not classes:
            out[f"grid.{when}.value"] = f[:, 0].reshape(shape)
        else:
            top = np.sort(f, axis=1)
            label = np.where(inside, np.argmax(f, axis=1), np.nan)
            out[f"grid.{when}.label"] = label.reshape(shape)
            out[f"grid.{when}.margin"] = (top[:, -1] - top[:, -2]).reshape(shape)
    return out


@partial(eqx.filter_jit, donate="none")
def _through(model: AbstractResNet, layers: AbstractParticles, z: jax.Array, count: int) -> jax.Array:
    """The state after ``count`` more layers; ``layers`` are theirs, or the one law all share."""

    def step(z: jax.Array, layer: AbstractParticles | None) -> tuple[jax.Array, None]:
        particles = layers.layer(0) if layer is None else layer
        field = partial(vector_field, particles, sigma=model.sigma, alpha=model.alpha)
        return SCHEMES[model.scheme](field, z, scaling.depth_step(model.depth)), None

    return jax.lax.scan(step, z, None if model.shared else layers, length=count)[0]


def _states(model: AbstractResNet, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """States at up to `DEPTHS` depths: never all layers at once, which a very deep net could not hold."""
    marks = np.unique(np.linspace(0, model.depth, DEPTHS).round().astype(int))
    z = model.embed(jnp.asarray(x, jnp.float32))
    states = [np.asarray(z)]
    for first, last in pairwise(marks):
        layers = model.encoder
        if not model.shared:
            layers = jax.tree.map(lambda leaf, a=first, b=last: leaf[a:b], model.encoder)
        z = _through(model, layers, z, int(last - first))
        states.append(np.asarray(z))
    return marks / model.depth, np.stack(states)


def _depth(models: dict[str, AbstractResNet], train: Any) -> tuple[Arrays, np.ndarray]:
    """States through depth in two axes, and the axes (2, D): the identity where D <= 2."""
    chosen = _spread(len(train.x), STATES)
    x = np.asarray(train.x, np.float64)[chosen]
    label = _labels(np.asarray(train.y, np.float64)[chosen], _is_class(train))
    swept = {when: _states(model, x) for when, model in models.items()}
    s, states = swept["end"]
    dimension = states.shape[-1]
    both = np.concatenate([states[0], states[-1]])
    centre, axes = (np.zeros(dimension), np.eye(2, dimension)) if dimension <= 2 else principal_axes(both)
    out: Arrays = {"depth.s": s, "depth.label": label, "depth.axes": axes}
    for when, (_, z) in swept.items():
        out[f"depth.{when}.state"] = (z - centre) @ axes.T
        if dimension == 2 and models[when].head is not None:
            out |= _read(models[when], z, f"depth.{when}", _is_class(train))
    if dimension == 1:  # one coordinate moves; the target spreads the points over the page
        for when in models:
            out[f"depth.{when}.state"][..., 1] = label
    return out, axes


def _read(model: AbstractResNet, z: np.ndarray, name: str, classes: bool) -> Arrays:
    """What the head reads off the plane of states: the last, nearly linear, step of the network."""
    low, high = z.min((0, 1)), z.max((0, 1))
    centre, half = (low + high) / 2, max((high - low).max() * 0.62, 1e-6)
    first, second = (np.linspace(c - half, c + half, 60) for c in centre)
    mesh = np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)
    read = np.asarray(model.read(jnp.asarray(mesh, jnp.float32)))
    value = read[:, 0] if read.shape[1] == 1 or not classes else np.argmax(read, axis=1)
    return {f"{name}.first": first, f"{name}.second": second, f"{name}.read": value.reshape(60, 60)}


def _particles(models: dict[str, AbstractResNet], axes: np.ndarray) -> Arrays:
    """Where particles started and ended, and how far each layer moved."""
    start, end = models["start"], models["end"]
    layers, width = end.encoder.batch
    chosen = _spread(layers * width, PARTICLES)
    out: Arrays = {"particles.encoder.s": (chosen // width + 0.5) / layers}
    for when, model in models.items():
        out[f"particles.encoder.{when}.w"] = _places(model.encoder, axes, start.encoder).reshape(-1, 2)[chosen]
    out["particles.encoder.end.out"] = np.linalg.norm(
        _strength(end.encoder).reshape(layers * width, -1)[chosen], axis=-1
    )
    out["displacement.encoder"] = displacements(start.encoder, end.encoder).reshape(layers, width).mean(1) ** 0.5
    if start.head is None or end.head is None:
        return out
    chosen = _spread(end.head.width, PARTICLES)
    for when, head in (("start", start.head), ("end", end.head)):
        out[f"particles.head.{when}.w"] = _places(head, axes, start.head)[chosen]
    a = _strength(end.head)[chosen]
    out["particles.head.end.out"] = a[:, 0] if a.shape[1] == 1 else np.linalg.norm(a, axis=1)
    out["displacement.head"] = displacements(start.head, end.head).mean(keepdims=True) ** 0.5
    return out


def _places(family: AbstractParticles, axes: np.ndarray, start: AbstractParticles) -> np.ndarray:
    """Particles as points: w along the axes, or (w, b) where the state has one dimension.

    Particles of another kind have no w: their parameters along the two principal axes of all particles at the start.
    """
    if not isinstance(family, Particles):
        begun = start.flat().reshape(-1, start.flat().shape[-1])
        return (family.flat() - begun.mean(axis=0)) @ principal_axes(begun)[1].T
    places = np.asarray(family.w) @ axes.T
    if axes.shape[1] == 1 and family.b is not None:
        places[..., 1] = np.asarray(family.b)
    return places


def _strength(family: AbstractParticles) -> np.ndarray:
    """Output weights, or all parameters of particles that have none."""
    return np.asarray(family.out) if isinstance(family, Particles) else family.flat()
