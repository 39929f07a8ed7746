"""Training image networks in memory: from a configuration or arrays to an `ImageResult`, without a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from ..data.images import ImageSplit
from ..errors import within_memory
from ..messages import Say
from .configuration import ImageConfig
from .ensemble import TEST_BATCH, States
from .job import ImageJob, assemble_images, check_images, load_split
from .loop import Callback, Recorder, train
from .resnet import ImageResNet
from .rules import Rule
from .sensitivity import predict, select_seed
from .summary import image_summary


@dataclass(frozen=True, eq=False)
class ImageResult:
    """A training of image networks.

    Args:
        job: configuration with its defaults filled in, images, trainers.
        states: of each rule: networks, coordinates, statistics and optimiser; every array has a leading axis of seeds.
        history: a row for each epoch of each rule, as a callback sees it.
        summary: errors of each rule over seeds, and paired differences to the plain network.
    """

    job: ImageJob
    states: States
    history: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]

    @property
    def status(self) -> str:
        """completed, interrupted, or diverged where a seed did."""
        return self.summary["status"]

    @property
    def config(self) -> ImageConfig:
        """The configuration, complete."""
        return self.job.config

    def network(self, rule: str | None = None, seed: int | None = None) -> ImageResNet:
        """The trained network of a rule and a seed (default: the first ones)."""
        return self._select(rule, seed)[1].weights.network

    def logits(self, x: np.ndarray, rule: str | None = None, seed: int | None = None) -> np.ndarray:
        """Logits of uint8 images (n, height, width, channels), shape (n, classes), in evaluation mode."""
        trainer, state = self._select(rule, seed)
        plans = trainer.evaluation_plans(state.weights.coordinates, state.orders)
        parts = [
            np.asarray(predict(state.weights.network, state.statistics, plans, trainer.normalise(jnp.asarray(part))))
            for part in np.split(x, range(TEST_BATCH, len(x), TEST_BATCH))
        ]
        return np.concatenate(parts)

    def _select(self, rule: str | None, seed: int | None) -> Any:
        name = next(iter(self.job.trainers)) if rule is None else rule
        index = 0 if seed is None else self.job.seeds.index(seed)
        return self.job.trainers[name], select_seed(self.states[name], index)

    def __repr__(self) -> str:
        errors = {name: rule["test_error"]["mean"] for name, rule in self.summary["rules"].items()}
        shown = ", ".join(f"{name}={error:.4g}" for name, error in errors.items() if error is not None)
        return f"ImageResult({self.status}, test error: {shown or 'none'})"


def fit(
    config: ImageConfig | None = None,
    images: ImageSplit | None = None,
    *,
    rules: Mapping[str, Rule] | None = None,
    optimiser: optax.GradientTransformation | None = None,
    callback: Callback | None = None,
    say: Say = lambda message: None,
    devices: int | None = None,
) -> ImageResult:
    """Train the image networks of a configuration in memory.

    The numbers equal, to the bit, those that `mfresnet image` writes for the same configuration.

    Args:
        config: settings (default: all defaults).
        images: training and test set (such as `ImageSplit.from_arrays`), instead of those that ``config.data`` names.
        rules: block rules as objects by name, instead of those that ``config.blocks`` names.
        optimiser: an Optax optimiser with a rate of its own, instead of that of ``config.train``.
        callback: sees the `Record` of each rule at the end of each epoch; a true value ends the training.
        say: is told what was fetched or decoded.
        devices: how many share each minibatch.

    Raises:
        MfresnetError: settings that contradict each other or the images, or do not fit into memory.

    >>> from mfresnet.images import ImageConfig, fit
    >>> tree = {"model": {"name": "resnet8", "width": 1}, "train": {"epochs": 1, "batch_size": 4}}
    >>> x, y = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 4, 4, 3), np.arange(8) % 2
    >>> result = fit(ImageConfig(**tree, record={"sensitivity": False}), ImageSplit.from_arrays((x, y), (x[:4], y[:4])))
    >>> result.status, [row["epoch"] for row in result.history], result.logits(x[:3]).shape
    ('completed', [1], (3, 2))
    """
    config = config or ImageConfig()
    check_images(config)
    if images is None:
        images = load_split(config, say)
    job = assemble_images(config, images, devices, rules=rules, optimiser=optimiser)
    return fit_job(job, callback=callback)


def fit_job(
    job: ImageJob,
    recorder: Recorder | None = None,
    *,
    callback: Callback | None = None,
    advice: str = "lower train.at_once, train.seeds or train.batch_size, or set train.precision = 'bfloat16'.",
) -> ImageResult:
    """Train a job from where the recorder has it to the end, or to a stop.

    Args:
        job: what is trained.
        recorder: where rows and states go besides the result (default: nowhere).
        callback: as of `fit`.
        advice: what to change where memory does not suffice.

    Raises:
        MfresnetError: not enough memory.
    """
    with within_memory(advice):
        progress = train(job, recorder, callback)
    status = "interrupted" if progress.active else "completed"
    summary = image_summary(job, progress.history, status)
    summary["wall_s"] = progress.wall_s
    return ImageResult(job, progress.states, tuple(progress.history), summary)
