"""Gram matrices and certificates of PyTorch modules (extra ``torch``), through ``torch.func``.

The matrix is that of `mfresnet.empirical_gram`, J J^T over the parameters that require a gradient; from there on
everything is NumPy, so eigenvalues, alignment and bounds are those of the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .bounds import Certificate, held_out_certificate
from .errors import MfresnetError
from .flow.potential import GaussianPrior
from .kernels.eigen import Eigenvalue, smallest_eigenvalue

try:
    import torch
    from torch.func import functional_call, jacrev, jvp, vjp, vmap
except ImportError as error:
    raise MfresnetError("mfresnet.torch needs PyTorch: install mfresnet[torch].") from error

JACOBIAN_BYTES = 2**28  # of the Jacobian of one block of points

Tensors = dict[str, torch.Tensor]


def gram(module: torch.nn.Module, x: Any, *, other: Any = None, block: int | None = None) -> np.ndarray:
    """J J^T of a module, with no scaling (the empirical neural tangent kernel; Jacot et al. 2018, arXiv 1806.07572).

        G_{(i,c),(j,c')} = sum_p df_c(x_i)/dp df_c'(x_j)/dp,      index (i, c) -> i C + c

    Computed in float64 on the module's device. Memory: the result, and the Jacobians of two blocks of points.

    Args:
        module: outputs (n,) or (n, C), or any further output axes; its own parameters stay as they are.
        x: inputs, the leading axis being the points.
        other: a second set of inputs, for the cross matrix.
        block: points whose Jacobian is held at once (default: 256 MB worth).

    Raises:
        MfresnetError: a module that couples the points of a batch (batch normalisation or dropout in training mode), or
            changes its tensors in place, or has no parameter that requires a gradient.

    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> gram(line, torch.eye(2))
    array([[1., 0.],
           [0., 1.]])
    """
    moving, single = _function(module)
    points = _inputs(module, x)
    jacobian = vmap(jacrev(single), in_dims=(None, 0), randomness="error")

    def rows(block: torch.Tensor) -> list[torch.Tensor]:
        leaves = _run(lambda: jacobian(moving, block))
        return [leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves.values()]

    outputs = _run(lambda: single(moving, points[0])).numel()
    size = 8 * outputs * sum(leaf.numel() for leaf in moving.values())
    length = block or max(1, min(len(points), JACOBIAN_BYTES // size))
    columns = points if other is None else _inputs(module, other)
    result = np.empty((len(points) * outputs, len(columns) * outputs))
    for i in range(0, len(points), length):
        left = rows(points[i : i + length])
        for j in range(0, len(columns), length):
            if other is None and j < i:
                continue
            right = left if other is None and i == j else rows(columns[j : j + length])
            product = sum(a @ b.T for a, b in zip(left, right, strict=True))
            part = product.detach().cpu().numpy()  # pyright: ignore[reportAttributeAccessIssue]
            at = slice(i * outputs, i * outputs + len(part)), slice(j * outputs, j * outputs + part.shape[1])
            result[at] = part
            if other is None and i != j:
                result[at[1], at[0]] = part.T
    if not np.isfinite(result).all():
        raise MfresnetError("the Jacobian of the module has NaN or infinite entries: check parameters and inputs.")
    return result


class GramOperator:
    """v -> J (J^T v), see `gram_operator`."""

    def __init__(self, apply: Callable[[torch.Tensor], torch.Tensor], size: int) -> None:
        self._apply = apply
        self.shape = (size, size)
        self.dtype = np.dtype(np.float64)

    def matvec(self, v: Any) -> np.ndarray:
        """J (J^T v)."""
        vector = np.asarray(v, np.float64)
        if vector.size != self.shape[0]:
            raise MfresnetError(f"the vector has length {vector.size}: give one of length {self.shape[0]}.")
        return self._apply(torch.from_numpy(vector.ravel())).detach().cpu().numpy().reshape(vector.shape)


def gram_operator(module: torch.nn.Module, x: Any, *, block: int = 256) -> GramOperator:
    """The matrix of `gram` as products with vectors, ``block`` points at a time: its memory does not grow with n.

    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> gram_operator(line, torch.tensor([[3.0, 4.0]])).matvec([1.0])
    array([25.])
    """
    moving, single = _function(module)
    points = _inputs(module, x)
    outputs = _run(lambda: single(moving, points[0])).numel()

    def batch(parameters: Tensors, part: torch.Tensor) -> torch.Tensor:
        return vmap(single, in_dims=(None, 0), randomness="error")(parameters, part)

    def apply(v: torch.Tensor) -> torch.Tensor:
        weights = v.to(points.device).reshape(len(points), outputs)
        gradient = {name: torch.zeros_like(leaf) for name, leaf in moving.items()}
        for i in range(0, len(points), block):
            part = points[i : i + block]
            _, back = _run(lambda part=part: vjp(lambda moved: batch(moved, part), moving))
            pulled = back(weights[i : i + block])[0]
            gradient = {name: gradient[name] + pulled[name] for name in gradient}
        images = [
            jvp(lambda moved, part=part: batch(moved, part), (moving,), (gradient,))[1]
            for part in (points[i : i + block] for i in range(0, len(points), block))
        ]
        return torch.cat(images).reshape(-1)

    return GramOperator(apply, len(points) * outputs)


def lambda_min(module: torch.nn.Module, x: Any) -> Eigenvalue:
    """The smallest eigenvalue of `gram`, with its error (`mfresnet.smallest_eigenvalue`).

    >>> lambda_min(torch.nn.Linear(2, 1, bias=False), torch.eye(2)).value
    1.0
    """
    return smallest_eigenvalue(gram(module, x))


def held_out(
    module: torch.nn.Module, x: Any, y: Any, *, delta: float = 0.05, compared: int = 1, block: int = 1024
) -> Certificate:
    """The exact binomial bound of the error of a trained module, from points that it has not seen.

    Args:
        x, y: held-out points; y in {-1, +1} for one output, class numbers for several.
        compared: number of predictors that were compared on these points.

    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> certificate = held_out(line, torch.ones(100, 1), [float(line.weight.sign())] * 100)
    >>> round(certificate.value, 4)
    0.0295
    """
    points, labels = torch.as_tensor(x), np.asarray(y).reshape(-1)
    with torch.no_grad():
        f = torch.cat([module(points[i : i + block]) for i in range(0, len(points), block)]).cpu().numpy()
    f = f.reshape(len(points), -1)
    if len(labels) != len(points):
        raise MfresnetError(f"{len(points)} points have {len(labels)} labels: give one for each point.")
    finite = np.isfinite(f).all(axis=1)
    right = np.sign(f[:, 0]) == labels if f.shape[1] == 1 else np.argmax(f, axis=1) == labels
    errors = int(np.sum(~(right & finite)))
    classes = np.unique(labels, return_counts=True)[1]
    guessing = 1 - float(classes.max()) / len(labels)
    return held_out_certificate(
        errors, len(points), delta, compared=compared, guessing=guessing, certifies="the module as trained"
    )


def predictor(module: torch.nn.Module, std: float | Mapping[str, float] = 1.0) -> tuple[Callable, GaussianPrior]:
    """(f, prior) of a module for `mfresnet.certify.path`: its parameters start at N(0, std^2), independent of the data.

    The chains are those of JAX; each asks the module for its outputs and their derivative, on the host. That costs a
    call of PyTorch for every step and chain.

    Args:
        module: outputs (n,) or (n, C). Its parameters are neither used nor changed; its buffers are constants.
        std: of all parameters, or of each by name.

    >>> from mfresnet.certify import path
    >>> from mfresnet.flow import AnnealingSchedule
    >>> x = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
    >>> f, prior = predictor(torch.nn.Linear(2, 1, bias=False), std=5.0)
    >>> done = path(f, prior, (x, np.sign(x[:, 0])), AnnealingSchedule.power(100.0, 100), jax.random.key(1))
    >>> done.certificate.vacuous
    False
    """
    moving, _ = _function(module, torch.float32)
    buffers = {name: leaf.detach() for name, leaf in module.named_buffers()}
    shapes = {name: np.zeros(tuple(leaf.shape), np.float32) for name, leaf in moving.items()}

    def call(params: Mapping[str, Any], x: Any) -> tuple[Tensors, Callable[[Tensors], torch.Tensor]]:
        points = torch.from_numpy(np.array(x))
        tensors = {name: torch.from_numpy(np.array(leaf)) for name, leaf in params.items()}
        return tensors, lambda moved: functional_call(module, {**buffers, **moved}, (points,))

    def forward(params: Mapping[str, Any], x: Any) -> np.ndarray:
        tensors, outputs = call(params, x)
        with torch.no_grad():
            return outputs(tensors).numpy()

    def backward(params: Mapping[str, Any], x: Any, cotangent: Any) -> dict[str, np.ndarray]:
        tensors, outputs = call(params, x)
        pull = vjp(outputs, tensors)[1]
        return {name: leaf.numpy() for name, leaf in pull(torch.from_numpy(np.array(cotangent)))[0].items()}

    def shape(params: Any, x: Any) -> jax.ShapeDtypeStruct:
        with torch.no_grad():
            one = functional_call(module, {**buffers, **moving}, (torch.zeros(tuple(x.shape)),))
        return jax.ShapeDtypeStruct(tuple(one.shape), np.float32)

    @jax.custom_vjp
    def f(params: Any, x: Any) -> jax.Array:
        return jax.pure_callback(forward, shape(params, x), params, x, vmap_method="sequential")

    def save(params: Any, x: Any) -> tuple[jax.Array, Any]:
        return f(params, x), (params, x)

    def pull(saved: Any, cotangent: jax.Array) -> tuple[Any, Any]:
        params, x = saved
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
        gradient = jax.pure_callback(backward, like, params, x, cotangent, vmap_method="sequential")
        return gradient, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), x)

    f.defvjp(save, pull)
    deviations = dict.fromkeys(shapes, std) if isinstance(std, int | float) else dict(std)
    if missing := set(shapes) ^ set(deviations):
        raise MfresnetError(f"std and the parameters differ in {', '.join(sorted(missing))}: give one for each.")
    return f, GaussianPrior(shapes, {name: np.float32(one) for name, one in deviations.items()})


def _inputs(module: torch.nn.Module, x: Any) -> torch.Tensor:
    points = torch.as_tensor(x)
    if points.ndim == 0 or len(points) == 0:
        raise MfresnetError(f"x has shape {tuple(points.shape)}: give at least one point along the first axis.")
    if points.is_floating_point():
        points = points.to(torch.float64)
        if not bool(torch.isfinite(points).all()):
            raise MfresnetError("x has NaN or infinite entries: remove or impute these points.")
    device = next(module.parameters()).device
    return points.to(device)


def _function(
    module: torch.nn.Module, dtype: torch.dtype = torch.float64
) -> tuple[Tensors, Callable[[Mapping[str, torch.Tensor], torch.Tensor], Any]]:
    """Parameters that require a gradient, in this precision, and f(parameters, point) as a flat row."""
    for name, part in module.named_modules():
        couples = isinstance(part, torch.nn.modules.batchnorm._NormBase | torch.nn.modules.dropout._DropoutNd)
        if couples and part.training and not isinstance(part, torch.nn.modules.instancenorm._InstanceNorm):
            raise MfresnetError(
                f"{type(part).__name__} {name!r} is in training mode, where outputs depend on the batch or on chance: "
                "call module.eval() first."
            )
        if getattr(part, "inplace", False):
            raise MfresnetError(
                f"{type(part).__name__} {name!r} works in place, which has no derivative here: set inplace=False."
            )
    double = {
        name: leaf.detach().to(dtype) if leaf.is_floating_point() else leaf.detach()
        for name, leaf in [*module.named_parameters(), *module.named_buffers()]
    }
    moving = {name: double.pop(name) for name, leaf in module.named_parameters() if leaf.requires_grad}
    if not moving:
        raise MfresnetError("no parameter of the module requires a gradient: call requires_grad_() on some.")

    def single(moving: Mapping[str, torch.Tensor], point: torch.Tensor) -> torch.Tensor:
        return functional_call(module, {**double, **moving}, (point[None],))[0].reshape(-1)

    return moving, single


def _run(compute: Callable[[], Any]) -> Any:
    try:
        return compute()
    except RuntimeError as error:
        text = str(error)
        # the last one: an array that is not mapped over points was to take one that is
        if any(word in text for word in ("in-place", "inplace", "doesn't match the broadcast shape")):
            raise MfresnetError(
                "the module changes a tensor in place, which has no derivative by torch.func: write y = y + z instead "
                "of y += z."
            ) from error
        raise MfresnetError(f"the module cannot be differentiated point by point: {text.splitlines()[0]}") from error
