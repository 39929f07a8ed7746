"""What a user writes: checked by `make lint` with pyright's strict rules, and run by a test."""

import diffrax
import jax
import numpy as np

import mfresnet
from mfresnet import (
    Activation,
    Config,
    ContinuousResNet,
    LayeredResNet,
    MfresnetError,
    Record,
    Result,
    activation,
    fit,
    gram,
    smallest_eigenvalue,
)


def watch(record: Record) -> None:
    """Called with every record while training."""
    losses.append(record.step)


losses: list[int] = []
config = Config.model_validate({"data": {"n": 16, "n_test": 8}, "train": {"rule": "adam", "steps": 4}})
result: Result = fit(config, callback=watch)
steps: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = result.column("step")
assert result.status == "completed" and len(steps) == len(losses)

inputs = np.linspace(-1, 1, 60).reshape(30, 2)
sizes = {"data": {"n": 16, "n_test": 8}, "model": {"depth": 2, "width": 4}, "train": {"steps": 4}}
flowing = Config.model_validate(sizes)
certificates = mfresnet.certify(fit(flowing, (inputs, inputs[:, 0] > 0), solver=diffrax.Tsit5()), ["held_out"])
bound: float = certificates["held_out"].value
assert 0 < bound < 1

sigma: Activation = activation("tanh")
layered = LayeredResNet.create(jax.random.key(0), inputs=2, depth=3, width=4, sigma=sigma)
continuous = ContinuousResNet.create(jax.random.key(0), particles=4, inputs=2, head_width=3)
points = np.eye(2)
for model in (layered, continuous):
    lowest: float = smallest_eigenvalue(gram(model, points).total).value
    assert model(jax.random.normal(jax.random.key(1), (2, 2))).shape == (2, 1)

try:
    activation("tanhh")
except MfresnetError as error:
    message: str = str(error)
    assert "tanh" in message
