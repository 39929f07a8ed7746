"""From a configuration and images to everything an image run needs: one trainer for each block rule, data in place."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..data.images import ImageSplit
from ..errors import MfresnetError
from ..image_config import ImageConfig
from .augment import channel_statistics
from .ensemble import Ensemble, Everyone
from .feeding import SHARE, HostImages, ImageData, device_memory, on_device
from .resnet import Architecture
from .rules import Rule, make_rule
from .training import ImageTrainer


@dataclass(frozen=True)
class ImageJob:
    """An image run ready to start."""

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

    def begin(self) -> Everyone:
        """The first state under each rule."""
        return self.spread(self.networks.begin())

    def spread(self, tree: Any) -> Any:
        """A tree on every device of the run."""
        return _everywhere(tree, self.networks.first.mesh)


def block_rule(config: ImageConfig, name: str) -> Rule:
    """A block rule with the options of the configuration."""
    blocks = config.blocks
    options: dict[str, dict[str, Any]] = {
        "mean-field": {"rate": blocks.lr_t, "cadence": blocks.cadence, "scale": blocks.step_scale},
        "stochastic-depth": {"survival": blocks.survival},
        "scaled": {"alpha": blocks.alpha},
    }
    return make_rule(name, **options.get(name, {}))


def check_images(config: ImageConfig) -> Architecture:
    """What can be refused before any image is read: unknown model or rules, a depth that fits no family.

    Raises:
        MfresnetError: one of these.
    """
    _ = config.blocks.names
    return Architecture.named(config.model.name, config.model.width)


def assemble_images(config: ImageConfig, split: ImageSplit, devices: int | None = None) -> ImageJob:
    """Everything of an image run.

    Args:
        devices: how many share each minibatch (default 1); normalisation still takes the statistics of the whole
            minibatch. No setting of the run: its result is the same to rounding on any number.

    Raises:
        MfresnetError: settings that contradict each other, the images or the machine.
    """
    architecture = check_images(config)
    train = config.train
    height, width = split.train.x.shape[1:3]
    if min(height, width) < 4:
        raise MfresnetError(f"images of {height} x {width} pixels are too small for three stages: give 4 x 4 or more.")
    decay = train.weight_decay
    if decay is None:
        decay = 5e-4 if architecture.kind == "resnext" else 1e-4
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update={"n": len(split.train), "n_test": len(split.test)}),
            "train": train.model_copy(update={"weight_decay": decay}),
        }
    )
    mean, std = channel_statistics(split.train.x)
    mesh = devices_mesh(devices)
    trainers = {
        name: ImageTrainer(
            mean=jnp.asarray(mean),
            std=jnp.asarray(std),
            architecture=architecture,
            rule=block_rule(config, name),
            n=len(split.train),
            classes=len(split.train.classes),
            channels=split.train.x.shape[3],
            norm=config.model.norm,
            batch=train.batch_size,
            epochs=train.epochs,
            rate=train.learning_rate,
            schedule=train.schedule,
            warmup=train.warmup,
            momentum=train.momentum,
            decay=decay,
            smoothing=train.label_smoothing,
            clip=train.clip,
            augmented=config.data.augment,
            dtype=train.precision,
            mesh=mesh,
        )
        for name in config.blocks.names
    }
    seeds = [config.seed + k for k in range(train.seeds)]
    images, held = _everywhere(placed(split, config.data.on_device), mesh)
    return ImageJob(config, split, Ensemble(trainers, seeds, images, held, train.at_once))


def placed(split: ImageSplit, on: str) -> tuple[ImageData | HostImages, ImageData | HostImages]:
    """Training and test images on the device, or on the host: "yes", "no", or "auto", by what the device holds."""
    parts = (split.train, split.test)
    fits = sum(part.x.nbytes for part in parts) <= SHARE * device_memory()
    keep = on == "yes" or (on == "auto" and fits)
    train, test = (on_device(part.x, part.y) if keep else HostImages(part.x, part.y) for part in parts)
    return train, test


def _everywhere(tree: Any, mesh: Mesh | None) -> Any:
    """The arrays of a tree on every device of a mesh; what stays on the host stays there."""
    if mesh is None:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.device_put(arrays, NamedSharding(mesh, PartitionSpec())), rest)


def devices_mesh(count: int | None) -> Mesh | None:
    """The devices that share each minibatch; None for a single one.

    Raises:
        MfresnetError: there are not so many.
    """
    if count is None or count == 1:
        return None
    found = jax.devices()
    if not 1 <= count <= len(found):
        raise MfresnetError(
            f"devices = {count} is not allowed: JAX has {len(found)} here, so give a value from 1 to {len(found)}."
        )
    return Mesh(np.array(found[:count]), ("batch",))


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
