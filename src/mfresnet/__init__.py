"""mfresnet: deep residual networks in the mean-field regime, trained, measured and certified.

Names are loaded on first use, so that ``import mfresnet`` and ``mfresnet --help`` stay quick;
``__init__.pyi`` lists them.
"""

from importlib.metadata import version

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
__version__ = version("mfresnet")
