"""A small synthetic run directory, made without training: what the report's tests read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mfresnet.config import Config

LAYERS, POINTS, SIDE = 6, 24, 16


def make_run(
    path: Path, *, name="two-spirals", inputs=2, outputs=1, regression=False, status="completed", classes=None
) -> Path:
    """Write a run directory; ``inputs`` and ``outputs`` choose the shape of its figures."""
    (path / "arrays").mkdir(parents=True)
    config = Config(model={"depth": LAYERS, "width": 8}).model_dump()
    task = "regression" if regression else "binary" if outputs == 1 else "multiclass"
    names = [] if regression else [f"kind {k}" for k in range(max(2, outputs))]
    record = {
        "config": config,
        "versions": {"mfresnet": "0.1.0", "python": "3.11", "jax": "0.10"},
        "platform": {"system": "Linux", "devices": ["cpu"]},
        "command": "mfresnet train two-spirals --model.depth 6",
        "created": "2026-01-02T03:04:05+0000",
        "data": {
            "name": name,
            "n": 64,
            "n_test": 64,
            "inputs": inputs,
            "outputs": outputs,
            "task": task,
            "classes": classes or names,
            "transform": "none",
            "notes": ["Assumption 1 asks |x_i| = 1: norms run from 0.1 to 1."],
        },
    }
    (path / "config.json").write_text(json.dumps(record))
    rows = [
        {
            "step": 10 * k,
            "time": 0.5 * k,
            "wall_s": 0.1 * k,
            "train.loss": 2.0**-k,
            "test.loss": 2.0**-k + 0.01,
            "train.error": max(0.5 - 0.1 * k, 0.03125),
            "test.error": max(0.5 - 0.1 * k, 0.0625),
        }
        for k in range(8)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = {"status": status, **rows[-1], "train.n": 64, "test.n": 64}
    if status == "diverged":
        summary["diverged.message"] = "training diverged at step 7: the step is too long."
    (path / "summary.json").write_text(json.dumps(summary))
    arrays = make_figures(inputs, outputs, regression)
    save_file({k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()}, path / "arrays/portrait.safetensors")
    return path


def make_figures(inputs: int, outputs: int, regression: bool) -> dict[str, np.ndarray]:
    """Arrays of the names and shapes `mfresnet.diagnostics.figures` writes."""
    rng = np.random.default_rng(0)
    count = 2 if outputs == 1 else outputs
    label = rng.uniform(-1, 1, POINTS) if regression else np.arange(POINTS) % count
    span = np.linspace(-1, 1, SIDE)
    out = {"depth.s": np.linspace(0, 1, LAYERS + 1), "depth.label": label, "depth.axes": np.eye(2, inputs)}
    for part in ("train", "test"):
        out[f"points.{part}.place"] = rng.uniform(-1, 1, (POINTS, 2))
        out[f"points.{part}.label"] = label
        if not regression:
            out[f"points.{part}.correct"] = np.arange(POINTS) > 1
    if inputs == 1:
        out["curve.x"] = span
    else:
        out |= {"grid.first": span, "grid.second": span, "plane.origin": np.zeros(inputs)}
        out |= {"plane.axes": np.eye(2, inputs), "plane.radius": np.array([float(inputs > 2)])}
    for when, size in (("start", 0.1), ("end", 1.0)):
        mesh = size * np.subtract.outer(span, span)
        if inputs == 1:
            out[f"curve.{when}"] = size * np.sin(3 * span)
        elif outputs == 1 or regression:
            out[f"grid.{when}.value"] = mesh
        else:
            out[f"grid.{when}.label"] = np.where(np.add.outer(span**2, span**2) > 1.5, np.nan, np.round(abs(mesh)))
            out[f"grid.{when}.margin"] = abs(mesh)
        start = rng.uniform(-1, 1, (POINTS, 2))
        out[f"depth.{when}.state"] = start + out["depth.s"][:, None, None] * size * np.array([2.0, 1.0])
        if inputs == 2:
            out |= {f"depth.{when}.first": span, f"depth.{when}.second": span, f"depth.{when}.read": mesh}
        for family, number in (("encoder", 8 * LAYERS), ("head", 5)):
            out[f"particles.{family}.{when}.w"] = rng.normal(size=(number, 2))
            out[f"particles.{family}.end.out"] = rng.normal(size=number)
    out["particles.encoder.end.out"] = abs(out["particles.encoder.end.out"])
    out["particles.encoder.s"] = np.arange(8 * LAYERS) // 8 / LAYERS
    out |= {"displacement.encoder": np.linspace(1, 0.5, LAYERS), "displacement.head": np.array([0.7])}
    return out
