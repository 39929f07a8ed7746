"""What every part downstream is handed: plain float64 arrays with their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import MfresnetError
from .encoding import Encoding
from .transform import Transform

Task = Literal["binary", "multiclass", "regression"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and targets as float64 arrays, in the convention of [C24]: ``|y_i| <= 1`` on training data.

    Args:
        name: the data set's name, or the file's.
        x: inputs, shape (n, d).
        y: targets, shape (n, C): -1/+1 with C = 1 (binary), one-hot 0/1 with C classes (multiclass), C = 1
            numbers brought to [-1, 1] by the affine map that ``Split.transform`` records (regression).
        task: what the targets mean.
        classes: labels; class 0 is -1 and class 1 is +1 when binary, column c when multiclass, empty for regression.
        feature_names: one name for each raw input column (under the transform "lift", x has one column more).

    Raises:
        MfresnetError: the arrays do not fit together.

    >>> import numpy as np
    >>> Dataset("two points", np.eye(2), np.array([[-1.0], [1.0]]), "binary", ("no", "yes"), ("a", "b"))
    Dataset('two points', n=2, d=2, C=1, binary)
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    task: Task
    classes: tuple[str, ...]
    feature_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for key in ("x", "y"):
            array = np.ascontiguousarray(getattr(self, key), dtype=np.float64)
            if array.ndim != 2:
                raise MfresnetError(f"data set {self.name!r}: {key} must have two axes, it has shape {array.shape}.")
            object.__setattr__(self, key, array)
        if len(self.x) != len(self.y):
            raise MfresnetError(f"data set {self.name!r}: {len(self.x)} inputs but {len(self.y)} targets.")
        outputs = len(self.classes) if self.task == "multiclass" else 1
        if self.y.shape[1] != outputs:
            raise MfresnetError(f"data set {self.name!r}: {self.task} needs {outputs} target columns.")

    def __repr__(self) -> str:
        n, d = self.x.shape
        return f"Dataset({self.name!r}, n={n}, d={d}, C={self.y.shape[1]}, {self.task})"


@dataclass(frozen=True, eq=False)
class Split:
    """A training and a test set that share no row, and what was done to reach them.

    Args:
        train: the training set.
        test: the test set, brought through the transform fitted on the training set.
        transform: what was done to inputs and targets; ``transform.apply`` does it to new raw inputs.
        fitted_on: training rows whose inputs fixed the transform, or None where it reads no data.
        notes: one sentence for each finding: how a file was read, flipped labels, Assumption 1 of [C24].
        encoding: what was done to the columns of a table before the transform (text, missing values); None for
            generated data.

    >>> from mfresnet.config import DataConfig
    >>> from mfresnet.data import load
    >>> load(DataConfig(name="circles", n=8, n_test=4), seed=0).test
    Dataset('circles', n=4, d=2, C=1, binary)
    """

    train: Dataset
    test: Dataset
    transform: Transform
    notes: tuple[str, ...] = ()
    fitted_on: np.ndarray | None = None
    encoding: Encoding | None = None
