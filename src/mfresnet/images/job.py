"""From a configuration and images to everything an image run needs: one trainer for each block rule, data in place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..data.images import ImageSplit, load_images
from ..errors import MfresnetError
from ..messages import Say
from ..train.devices import Devices
from .augmentation import channel_statistics
from .configuration import BLOCK_RULES, BlockConfig, ImageConfig, ImageTrainConfig
from .ensemble import Ensemble, States
from .minibatches import DATA_SHARE, HostImages, ImageData, device_memory, to_device
from .optimiser import Descent
from .resnet import Architecture
from .rules import Rule
from .training import ImageTrainer


@dataclass(frozen=True)
class ImageJob:
    """An image run ready to start.

    Args:
        config: with its defaults filled in.
        split: the images.
        networks: the trainers of all rules, the seeds, and the images where training reads them.
    """

    config: ImageConfig
    split: ImageSplit
    networks: Ensemble

    @property
    def trainers(self) -> dict[str, ImageTrainer]:
        """One for each block rule."""
        return self.networks.trainers

    @property
    def seeds(self) -> list[int]:
        """The seeds, the same under every rule."""
        return self.networks.seeds

    def init(self) -> States:
        """The first state under each rule."""
        return self.replicate(self.networks.init())

    def replicate(self, tree: Any) -> Any:
        """A tree on every device of the run."""
        return _replicate(tree, self.networks.shared.mesh)


def block_rules(settings: BlockConfig) -> dict[str, Rule]:
    """The block rules of a configuration, by name.

    Raises:
        MfresnetError: an unknown name, or one that is given twice.
    """
    rules: dict[str, Any] = {name: BLOCK_RULES[name] for name in settings.names}
    return {name: rule if isinstance(rule, Rule) else rule.from_settings(settings) for name, rule in rules.items()}


def descent(train: ImageTrainConfig, architecture: Architecture, own: optax.GradientTransformation | None) -> Descent:
    """The optimiser of a configuration, or your own with its clipping and weight decay."""
    options: dict[str, Any] = {
        "rate": train.learning_rate,
        "schedule": train.schedule,
        "warmup": train.warmup,
        "decay": weight_decay(train, architecture, own is not None),
        "clip": train.clip,
    }
    return Descent.named(train.rule, momentum=train.momentum, **options) if own is None else Descent(own=own, **options)


def weight_decay(train: ImageTrainConfig, architecture: Architecture, own: bool = False) -> float:
    """What is added to the gradient, times the weights: as given or, of momentum and sgd, that of the literature."""
    if train.weight_decay is not None:
        return train.weight_decay
    if own or train.rule not in ("momentum", "sgd"):
        return 0.0
    return 5e-4 if architecture.kind == "resnext" else 1e-4


def check_images(config: ImageConfig) -> Architecture:
    """Refuse what can be refused before any image is read; returns the architecture.

    Raises:
        MfresnetError: an unknown model or rule, or a depth that no family has.
    """
    _ = config.blocks.names
    return Architecture.named(config.model.name, config.model.width)


def load_split(config: ImageConfig, say: Say) -> ImageSplit:
    """The images of a configuration; ``say`` is told what takes time."""
    data = config.data
    return load_images(data.name, seed=config.seed, n=data.n, n_test=data.n_test, say=say)


def assemble_images(
    config: ImageConfig,
    split: ImageSplit,
    devices: int | None = None,
    *,
    rules: Mapping[str, Rule] | None = None,
    optimiser: optax.GradientTransformation | None = None,
) -> ImageJob:
    """Everything of an image run.

    Args:
        config: the settings.
        split: the images.
        devices: how many share each minibatch (default 1); normalisation takes the statistics of the whole minibatch
            on any number. No setting of the run: its result is the same to rounding.
        rules: block rules as objects, in place of those that ``config.blocks`` names.
        optimiser: an Optax optimiser with a rate of its own, in place of that of ``config.train``.

    Raises:
        MfresnetError: settings that contradict each other, the images or the machine.
    """
    architecture = check_images(config)
    train = config.train
    height, width = split.train.x.shape[1:3]
    if min(height, width) < 4:
        raise MfresnetError(f"images of {height} x {width} pixels are too small for three stages: give 4 x 4 or more.")
    decay = weight_decay(train, architecture, optimiser is not None)
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"n": len(split.train), "n_test": len(split.test)}),
            "train": train.model_copy(update={"weight_decay": decay}),
        }
    )
    mean, std = channel_statistics(split.train.x)
    mesh = batch_mesh(devices)
    own = descent(train, architecture, optimiser)
    trainers = {
        name: ImageTrainer(
            mean=jnp.asarray(mean),
            std=jnp.asarray(std),
            architecture=architecture,
            rule=rule,
            n=len(split.train),
            classes=len(split.train.classes),
            descent=own,
            channels=split.train.x.shape[3],
            norm=config.model.norm,
            batch=train.batch_size,
            epochs=train.epochs,
            smoothing=train.label_smoothing,
            augmented=config.data.augment,
            dtype=train.precision,
            mesh=mesh,
        )
        for name, rule in (block_rules(config.blocks) if rules is None else rules).items()
    }
    seeds = [config.seed + k for k in range(train.seeds)]
    train_images, test_images = _replicate(place_images(split, config.data.on_device), mesh)
    return ImageJob(config, split, Ensemble(trainers, seeds, train_images, test_images, train.at_once))


def place_images(split: ImageSplit, on_device: str) -> tuple[ImageData | HostImages, ImageData | HostImages]:
    """Training and test images on the device, or on the host: "yes", "no", or "auto", by the device's memory."""
    parts = (split.train, split.test)
    fits = sum(part.x.nbytes for part in parts) <= DATA_SHARE * device_memory()
    keep = on_device == "yes" or (on_device == "auto" and fits)
    train, test = (to_device(part.x, part.y) if keep else HostImages(part.x, part.y) for part in parts)
    return train, test


def _replicate(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays of a tree on every device of a mesh; NumPy arrays stay on the host."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), rest)


def batch_mesh(count: int | None) -> Mesh | None:
    """The devices that share each minibatch; None for a single one.

    Raises:
        MfresnetError: there are fewer devices.
    """
    layout = Devices.of(1 if count is None else count).layout
    return layout.mesh if layout is not None and isinstance(layout.mesh, Mesh) else None


def image_facts(split: ImageSplit) -> dict[str, Any]:
    """What ``config.json`` says of the images."""
    content = hashlib.sha256()
    for part in (split.train, split.test):
        content.update(part.x.tobytes())
        content.update(part.y.tobytes())
    return {
        "name": split.train.name,
        "n": len(split.train),
        "n_test": len(split.test),
        "size": "x".join(map(str, split.train.x.shape[1:])),
        "task": "classification",
        "classes": list(split.train.classes),
        "notes": list(split.notes),
        "sha256": content.hexdigest(),
    }
