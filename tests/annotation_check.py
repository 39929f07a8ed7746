"""The check of annotations that `conftest` installs: beartype, with the conventions of NumPy and of numbers."""

from typing import Any, Self

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

# NumPy's scalars are numbers, and elementwise functions of numbers return them; an integer is a float (PEP 484); `Self`
# is not known to functions that are checked one by one.
CONVENTIONS = {
    Self: Any,
    np.ndarray: np.ndarray | np.generic,
    int: int | np.integer,
    float: float | int | np.floating | np.integer,
}
check = beartype(conf=BeartypeConf(hint_overrides=FrozenDict(CONVENTIONS)))
