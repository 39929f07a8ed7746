"""Gram matrices and certificates of PyTorch modules (extra ``torch``), through ``torch.func``.

The matrix is that of `mfresnet.empirical_gram`, J J^T over the parameters that require a gradient; from there on
everything is NumPy, so eigenvalues, alignment and bounds are those of the rest of the package.
"""

# PyTorch is optional, and many of its names are made when it is imported:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportPrivateImportUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from .bounds import Certificate, held_out_certificate
from .errors import MfresnetError, calling
from .flow.potential import GaussianPrior
from .kernels.eigen import Eigenvalue, smallest_eigenvalue

try:
    import torch
    from torch.func import functional_call, jacrev, jvp, vjp, vmap
except ImportError as error:
    raise MfresnetError("mfresnet.torch needs PyTorch: install mfresnet[torch].") from error

JACOBIAN_BYTES = 2**28  # of the Jacobian of one block of points
COUPLING = 1e-6  # largest change of an output by another point of the batch, relative to the outputs: rounding is below

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
        MfresnetError: a module that fails, makes no tensor of shape (n, ...), couples the points of a batch (batch
            normalisation or dropout in training mode), changes its tensors in place, or has no parameter with a
            gradient.

    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> gram(line, torch.eye(2))
    array([[1., 0.],
           [0., 1.]])
    """
    points = _inputs(module, x)
    moving, single, outputs = _function(module, points)
    jacobian = vmap(jacrev(single), in_dims=(None, 0), randomness="error")

    def rows(block: torch.Tensor) -> list[torch.Tensor]:
        leaves = _run(lambda: jacobian(moving, block))
        return [leaf.reshape(leaf.shape[0] * leaf.shape[1], -1) for leaf in leaves.values()]

    size = 8 * outputs * sum(leaf.numel() for leaf in moving.values())
    length = max(1, min(len(points), JACOBIAN_BYTES // size)) if block is None else _block(block)
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
    points, block = _inputs(module, x), _block(block)
    moving, single, outputs = _function(module, points)

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

    Raises:
        MfresnetError: a module in training mode, or that fails, labels that are no such classes or all
            equal, no points.

    >>> line = torch.nn.Linear(1, 1, bias=False)
    >>> x = torch.tensor([[-1.0], [1.0]] * 50)
    >>> certificate = held_out(line, x, torch.sign(x * line.weight.detach()))
    >>> round(certificate.value, 4)
    0.0295
    """
    _check_modes(module)
    points, block = _inputs(module, x, like=module, finite=False), _block(block)
    labels = np.asarray(y.detach().cpu() if isinstance(y, torch.Tensor) else y).reshape(-1)
    with torch.no_grad(), calling("the module"):
        f = torch.cat([module(points[i : i + block]) for i in range(0, len(points), block)]).cpu().numpy()
    f = f.reshape(len(f), -1)
    if not len(labels) == len(points) == len(f):
        raise MfresnetError(
            f"{len(points)} points have {len(labels)} labels and {len(f)} outputs: give one for each point."
        )
    known = {-1, 1} if f.shape[1] == 1 else set(range(f.shape[1]))
    if unknown := [label for label in np.unique(labels).tolist() if label not in known]:
        raise MfresnetError(
            f"y has the label {unknown[0]!r}, and a module with {f.shape[1]} outputs predicts "
            f"{'-1 and +1' if len(f[0]) == 1 else f'0 to {f.shape[1] - 1}'}: give these."
        )
    finite = np.isfinite(f).all(axis=1)
    right = np.sign(f[:, 0]) == labels if f.shape[1] == 1 else np.argmax(f, axis=1) == labels
    errors = int(np.sum(~(right & finite)))
    classes = np.unique(labels, return_counts=True)[1]
    if len(classes) == 1:
        raise MfresnetError(
            f"all labels are {labels[0]}, which guessing gets right: give points of two classes or more."
        )
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
    _check_modes(module)
    moving, _ = _tensors(module, torch.float32)
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
        with torch.no_grad(), calling(f"the module, at x of shape {tuple(x.shape)},"):
            one = functional_call(module, {**buffers, **moving}, (torch.from_numpy(np.zeros(x.shape, x.dtype)),))
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
        real = np.issubdtype(x.dtype, np.floating)
        return gradient, np.zeros(x.shape, x.dtype if real else jax.dtypes.float0)

    f.defvjp(save, pull)
    if not isinstance(std, int | float | Mapping):
        raise MfresnetError(f"std is a {type(std).__name__}: give a number, or one for each parameter by its name.")
    deviations = dict(std) if isinstance(std, Mapping) else dict.fromkeys(shapes, std)
    if missing := set(shapes) ^ set(deviations):
        raise MfresnetError(f"std and the parameters differ in {', '.join(sorted(missing))}: give one for each.")
    return f, GaussianPrior(shapes, {name: np.float32(one) for name, one in deviations.items()})


def _block(block: int) -> int:
    if not isinstance(block, int) or block < 1:
        raise MfresnetError(f"block = {block} is not allowed: give a whole number >= 1.")
    return block


def _inputs(module: torch.nn.Module, x: Any, like: torch.nn.Module | None = None, finite: bool = True) -> torch.Tensor:
    """Points on the module's device, in float64 or in the precision of the module ``like``."""
    with calling("x as a tensor", "give an array of numbers"):
        points = torch.as_tensor(x).detach()
    if points.ndim == 0 or len(points) == 0:
        raise MfresnetError(f"x has shape {tuple(points.shape)}: give at least one point along the first axis.")
    parameter = next(module.parameters(), None)
    if points.is_floating_point():
        points = points.to(torch.float64 if like is None or parameter is None else parameter.dtype)
        if finite and not bool(torch.isfinite(points).all()):
            raise MfresnetError("x has NaN or infinite entries: remove or impute these points.")
    return points if parameter is None else points.to(parameter.device)


def _check_modes(module: torch.nn.Module) -> None:
    """Refuse layers whose outputs depend on the batch or on chance, or that change them in place."""
    for name, part in module.named_modules():
        couples = isinstance(part, torch.nn.modules.batchnorm._NormBase | torch.nn.modules.dropout._DropoutNd)
        if couples and part.training and not isinstance(part, torch.nn.modules.instancenorm._InstanceNorm):
            raise MfresnetError(
                f"{type(part).__name__} {name!r} is in training mode, where outputs depend on the batch or on chance: "
                "call module.eval() first."
            )


def _tensors(module: torch.nn.Module, dtype: torch.dtype = torch.float64) -> tuple[Tensors, Tensors]:
    """Parameters that require a gradient, and the other parameters and buffers, in this precision."""
    rest = {
        name: leaf.detach().to(dtype) if leaf.is_floating_point() else leaf.detach()
        for name, leaf in [*module.named_parameters(), *module.named_buffers()]
    }
    moving = {name: rest.pop(name) for name, leaf in module.named_parameters() if leaf.requires_grad}
    if not moving:
        raise MfresnetError("no parameter of the module requires a gradient: call requires_grad_() on some.")
    return moving, rest


def _function(
    module: torch.nn.Module, points: torch.Tensor
) -> tuple[Tensors, Callable[[Mapping[str, torch.Tensor], torch.Tensor], Any], int]:
    """Parameters that require a gradient, in float64, f(parameters, point) as a flat row, and the length of the row."""
    _check_modes(module)
    for name, part in module.named_modules():
        if getattr(part, "inplace", False):
            raise MfresnetError(
                f"{type(part).__name__} {name!r} works in place, which has no derivative here: set inplace=False."
            )
    moving, rest = _tensors(module)
    outputs = _outputs(module, moving, rest, points[:2])

    def single(moving: Mapping[str, torch.Tensor], point: torch.Tensor) -> torch.Tensor:
        return functional_call(module, {**rest, **moving}, (point[None],))[0].reshape(-1)

    return moving, single, outputs


def _outputs(module: torch.nn.Module, moving: Tensors, rest: Tensors, points: torch.Tensor) -> int:
    """Outputs of each point, of a module that has a Jacobian point by point; others are refused."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in moving.items()}
    with calling(f"the module, in float64 at x of shape {tuple(points.shape)},"):
        made, alone = (functional_call(module, {**rest, **leaves}, (part,)) for part in (points, points[:1]))
    if not isinstance(made, torch.Tensor) or made.ndim == 0 or len(made) != len(points):
        raise MfresnetError(
            f"the module makes {tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__} of x of "
            f"shape {tuple(points.shape)}: return one tensor of shape ({len(points)}, ...), the outputs of each point."
        )
    if not made.requires_grad:
        raise MfresnetError(
            "the outputs of the module have no derivative by its parameters: avoid detach, no_grad, rounding and "
            "comparisons."
        )
    one, other = made[0].detach(), alone[0].detach()
    if not bool(torch.isfinite(one).all() & torch.isfinite(other).all()):
        raise MfresnetError("the module returns NaN or infinity at the first point: check parameters and inputs.")
    if float((one - other).abs().max()) > COUPLING * max(float(one.abs().max()), float(other.abs().max())):
        raise MfresnetError(
            "the module couples the points of a batch, or draws at random (its output at a point changes): use layers "
            "that treat points one by one, without chance."
        )
    return one.numel()


def _run(compute: Callable[[], Any]) -> Any:
    try:
        with calling("the derivative of the module by torch.func", "write it with differentiable operations"):
            return compute()
    except MfresnetError as error:
        text = str(error.__cause__ or error)
        # the last one: an array that is not mapped over points was to take one that is
        if any(word in text for word in ("in-place", "inplace", "doesn't match the broadcast shape")):
            raise MfresnetError(
                "the module changes a tensor in place, which has no derivative by torch.func: write y = y + z instead "
                "of y += z."
            ) from error
        if "random operation" in text:
            raise MfresnetError("the module draws at random: use layers without chance.") from error
        raise
