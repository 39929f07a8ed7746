"""mfresnet: deep residual networks in the mean-field regime, trained, measured and certified.

Names are loaded on first use, so that ``import mfresnet`` and ``mfresnet --help`` stay quick;
``__init__.pyi`` lists them.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__", "certify"]
__version__ = version("mfresnet")


def __getattr__(name: str) -> Any:
    # the stub cannot name a package that is callable
    return import_module(".certify", __name__) if name == "certify" else _load(name)
