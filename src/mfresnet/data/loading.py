"""From a configuration to a split: the one way in."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DataConfig
from ..errors import MfresnetError, unknown_name
from ..registry import Entry, Registry
from . import synthetic
from .assumption import check_assumption_1
from .bundled import BUNDLED, load_bundled
from .dataset import Dataset, Split, Task
from .encoding import Encoding
from .files import read_file
from .guard import refuse_beyond_memory
from .splitting import flip_labels, split_rows
from .table import Table
from .transform import Transform

GENERATED = {
    "two-spirals": "two interleaved spirals in the plane, 2 classes (generated; data.turns, data.noise)",
    "circles": "two concentric circles in the plane, 2 classes (generated; data.noise)",
    "sphere-teacher": "points on the sphere, outputs of a hidden deep network, regression (generated; data.dimension)",
    "random-labels": "points on the sphere with labels at random, 2 classes (generated; data.dimension)",
}
ON_SPHERE = ("sphere-teacher", "random-labels")
# A package adds a function without arguments that returns a `Table`.
TABLES: Registry[Callable[[], Table]] = Registry(
    "data set", "mfresnet.datasets", {name: Entry(partial(load_bundled, name), text) for name, text in BUNDLED.items()}
)
# Each use of randomness has a stream of its own, so that no setting of one changes another.
SPLIT, TRAIN, TEST, FLIP_TRAIN, FLIP_TEST, MAP = range(6)


def describe_datasets() -> list[tuple[str, str]]:
    """Every data set by name, with one line about it (for ``mfresnet datasets``).

    >>> describe_datasets()[1]
    ('circles', 'two concentric circles in the plane, 2 classes (generated; data.noise)')
    """
    return [*GENERATED.items(), *((name, TABLES.summary(name)) for name in TABLES)]


def load(config: DataConfig, seed: int = 0, *, map_share: float = 1.0) -> Split:
    """The training and test set of a configuration; the same seed gives the same bits.

    A name of `describe_datasets` or the path of a file is read or generated, split (with the classes in proportion),
    labels are flipped by ``label_noise``, and inputs and targets go through a `Transform` fitted on the training part.
    "auto" is max for points in the plane (x/|x| would fold their radius away), none for points on the sphere,
    sphere for real data. Real data are standardised column by column before sphere, lift and max.

    Args:
        config: the section ``data`` of the configuration.
        seed: of generation, split and flips.
        map_share: what ``config.map_share`` = None stands for.

    Raises:
        MfresnetError: an unknown name, an unreadable file, sizes that do not fit, settings that do not apply.

    >>> split = load(DataConfig(name="breast-cancer", n=100), seed=0)
    >>> split.train, split.test.x.shape
    (Dataset('breast-cancer', n=100, d=30, C=1, binary), (142, 30))
    """
    named = config.name in GENERATED or config.name in TABLES
    if not named and not _looks_like_path(config.name):
        raise unknown_name("data set", config.name, (*GENERATED, *TABLES))
    _refuse_inapplicable(config, named)
    if config.name in GENERATED:
        return _generate(config, seed, map_share)
    if named:
        return split_table(TABLES[config.name](), config, seed, map_share=map_share)
    options = {"categories": config.categories, "missing": config.missing}
    table = read_file(config.name, config.target, config.labels, config.task, **options)
    return split_table(table, config, seed, map_share=map_share)


def _looks_like_path(name: str) -> bool:
    return os.path.exists(name) or bool(Path(name).suffix) or os.sep in name


def _refuse_inapplicable(config: DataConfig, named: bool) -> None:
    """A setting that would be ignored is a mistake. Compared by value: a config.json has every field set."""
    plane = ("two-spirals", "circles")
    applies = {
        "noise": (config.name in plane, "two-spirals and circles"),
        "turns": (config.name == "two-spirals", "two-spirals"),
        "dimension": (config.name in ON_SPHERE, " and ".join(ON_SPHERE)),
        "target": (not named, "a file of yours"),
        "labels": (not named, "a file of yours"),
        "task": (not named, "a file of yours"),
        "categories": (not named, "a file of yours"),
        "missing": (not named, "a file of yours"),
    }
    for field, (fits, where) in applies.items():
        value = getattr(config, field)
        if value != type(config).model_fields[field].default and not fits:
            raise MfresnetError(
                f"data.{field} = {value!r} does not apply to {config.name!r}, only to {where}: leave it out."
            )


def _stream(seed: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, 0, purpose])


def _map_rows(config: DataConfig, n: int, seed: int, default: float) -> np.ndarray:
    """Training rows that fix the transform, in order."""
    share = default if config.map_share is None else config.map_share
    count = max(1, round(share * n))
    return np.sort(_stream(seed, MAP).permutation(n)[:count])


def _generate(config: DataConfig, seed: int, map_share: float) -> Split:
    n, n_test = config.n or 512, config.n_test or 1024
    d = config.dimension if config.name in ON_SPHERE else 2
    needed = 4 * 8.0 * (n + n_test) * d
    if config.name == "sphere-teacher":
        needed += 4 * 8.0 * synthetic.WIDTH * d
    refuse_beyond_memory(needed, f"data set {config.name!r} with {n} + {n_test} points in dimension {d}")
    make: Callable[..., tuple[np.ndarray, np.ndarray]]
    options: dict[str, Any] = {} if config.noise is None else {"noise": config.noise}
    if config.name == "two-spirals":
        make, options = synthetic.two_spirals, {**options, "turns": config.turns}
    elif config.name == "circles":
        make = synthetic.circles
    elif config.name == "random-labels":
        make, options = synthetic.random_labels, {"dimension": d}
    else:
        make, options = synthetic.sphere_teacher, {"dimension": config.dimension, "teacher_seed": seed}
    train, test = (make(count, _stream(seed, s), **options) for count, s in ((n, TRAIN), (n_test, TEST)))
    task: Task = "regression" if config.name == "sphere-teacher" else "binary"
    kind = config.transform
    if kind == "auto":
        # a map taken from the points is one more thing they fix: none where they lie in the unit ball without one
        inside = config.name in ON_SPHERE or (config.name == "two-spirals" and not config.noise)
        kind = "none" if inside else "max"
    fitted_on = _map_rows(config, n, seed, map_share)
    transform = Transform.fit(kind, train[0][fitted_on])
    classes = () if task == "regression" else ("-1", "+1")
    names = tuple(f"x{j}" for j in range(d))
    return _finish(config, seed, train, test, task, transform, fitted_on, classes, names, ())


def split_table(table: Table, config: DataConfig, seed: int, *, map_share: float = 1.0) -> Split:
    """The training and test set of a table, by the section ``data`` of the configuration (`load`)."""
    train, test = split_rows(table, config.n, config.n_test, _stream(seed, SPLIT))
    kind = "sphere" if config.transform == "auto" else config.transform
    regression = table.task == "regression"
    fitted_on = _map_rows(config, len(train), seed, map_share)
    encoding = Encoding.fit(table, train[fitted_on], missing=config.missing)
    inputs = encoding.apply(table.x, table.levels)
    transform = Transform.fit(
        kind,
        inputs[train[fitted_on]],
        standardise=kind != "none",
        is_part=len(fitted_on) < len(train),
        regression_target=table.target[train] if regression else None,
    )
    task: Task = "regression" if regression else "binary" if len(table.classes) == 2 else "multiclass"
    refuse_beyond_memory(4 * 8.0 * len(table.x) * max(len(table.classes), 1), f"the targets of {table.name!r}")
    notes = [*table.notes, *encoding.describe(), *_about_rows(encoding, table, train, test)]

    def part(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        target = table.target[rows]
        if task == "regression":
            return inputs[rows], transform.apply_target(target)[:, None]
        if task == "binary":
            return inputs[rows], 2.0 * target[:, None] - 1
        return inputs[rows], np.eye(len(table.classes))[target]

    trains, tests = part(train), part(test)
    if regression:
        trains = trains[0], np.clip(trains[1], -1, 1)  # rounding only; test targets may truly lie outside
        if outside := int(np.sum(np.abs(tests[1]) > 1)):
            notes.append(f"{outside} of {len(test)} test targets lie outside [-1, 1], the range of the training part.")
    if repeated := _count_repeated(table.x[train], table.x[test]):
        notes.append(f"{repeated} of {len(test)} test rows equal a training row, which flatters the test error.")
    return _finish(
        config, seed, trains, tests, task, transform, fitted_on, table.classes, encoding.names, notes, table, encoding
    )


def _about_rows(encoding: Encoding, table: Table, train: np.ndarray, test: np.ndarray) -> list[str]:
    """How many rows have missing values that were filled, and texts that the encoding does not know."""
    notes, parts = [], {"training": train, "test": test}
    filled = {part: int(np.isnan(table.x[rows]).any(axis=1).sum()) for part, rows in parts.items()}
    if any(filled.values()):
        notes.append(
            f"Missing values of {filled['training']} of {len(train)} training and {filled['test']} of {len(test)} test "
            "rows were replaced by the column's mean over the rows that fix the map (of a text column by the share of "
            "each value)."
        )
    for part, rows in parts.items():
        for name, count in encoding.unseen(table.x[rows], table.levels).items():
            notes.append(
                f"{count} of {len(rows)} {part} rows have a value of {name!r} that occurs in none of the rows that fix "
                "the map: its columns are all 0 there."
            )
    return notes


def _count_repeated(train: np.ndarray, test: np.ndarray) -> int:
    seen = {row.tobytes() for row in train + 0.0}
    return sum(row.tobytes() in seen for row in test + 0.0)


def _finish(
    config: DataConfig,
    seed: int,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    task: Task,
    transform: Transform,
    fitted_on: np.ndarray,
    classes: tuple[str, ...],
    feature_names: tuple[str, ...],
    notes: Any,
    table: Table | None = None,
    encoding: Encoding | None = None,
) -> Split:
    """Label noise, transform and check, the same for every source."""
    name = config.name if table is None else table.name
    reads_data = transform.reads_data or (encoding is not None and encoding.reads_data)
    if config.map_share is not None and config.map_share < 1 and (task == "regression" or not reads_data):
        why = (
            "keeps points out of certificates, which are for classes"
            if task == "regression"
            else f"is for maps of the inputs that read data, which {transform.kind!r} does not here"
        )
        raise MfresnetError(f"data.map_share = {config.map_share:g} {why}: leave it out.")
    notes = list(notes)
    targets = [train[1], test[1]]
    if config.label_noise > 0:
        if task == "regression":
            raise MfresnetError(
                f"data.label_noise = {config.label_noise:g} flips classes, but {name!r} is a regression: set it to 0."
            )
        targets = [
            flip_labels(y, config.label_noise, _stream(seed, s))
            for y, s in zip(targets, (FLIP_TRAIN, FLIP_TEST), strict=True)
        ]
        flipped = [round(config.label_noise * len(y)) for y in targets]
        notes.append(
            f"{flipped[0]} of {len(targets[0])} training and {flipped[1]} of {len(targets[1])} test labels were "
            "flipped at random."
        )
    x, x_test = transform.apply(train[0], "training row"), transform.apply(test[0], "test row")
    notes += check_assumption_1(x, targets[0]).sentences
    return Split(
        Dataset(name, x, targets[0], task, classes, feature_names),
        Dataset(name, x_test, targets[1], task, classes, feature_names),
        transform,
        tuple(notes),
        fitted_on if reads_data else None,
        encoding,
    )
