"""Real data sets that come with scikit-learn: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import unknown_name
from .table import Table

BUNDLED = {
    "digits": "8 x 8 images of handwritten digits, 10 classes, 1797 rows (scikit-learn)",
    "digits-binary": "the same images, digits 0-4 against 5-9",
    "breast-cancer": "30 measurements of tumours, malignant or benign, 569 rows (scikit-learn)",
    "wine": "13 measurements of wines, 3 cultivars, 178 rows (scikit-learn)",
}


def load_bundled(name: str) -> Table:
    """The rows of a bundled data set.

    Raises:
        MfresnetError: no such name.

    >>> load_bundled("wine").x.shape
    (178, 13)
    """
    from sklearn import datasets

    loaders = {
        "digits": datasets.load_digits,
        "digits-binary": datasets.load_digits,
        "breast-cancer": datasets.load_breast_cancer,
        "wine": datasets.load_wine,
    }
    if name not in loaders:
        raise unknown_name("bundled data set", name, loaders)
    bunch: Any = loaders[name]()
    codes = np.asarray(bunch.target, dtype=np.int64)
    classes = tuple(str(c) for c in bunch.target_names)
    if name == "digits-binary":
        codes, classes = (codes >= 5).astype(np.int64), ("0-4", "5-9")
    features = tuple(str(f) for f in bunch.feature_names)
    return Table(name, np.asarray(bunch.data, dtype=np.float64), codes, "classification", classes, features)
