"""The check of annotations that `conftest` installs: beartype, with the conventions of NumPy and of numbers."""

from typing import Any, Self

import numpy as np
from beartype import BeartypeConf, FrozenDict, beartype

# An elementwise function of a number returns a NumPy scalar; `Self` is not known to functions checked one by one; an
# integer is a float (PEP 484).
CONVENTIONS = FrozenDict({Self: Any, np.ndarray: np.ndarray | np.generic})
check = beartype(conf=BeartypeConf(hint_overrides=CONVENTIONS, is_pep484_tower=True))
