"""Which examples of the documentation run: not those of a module whose optional library is not installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["src/mfresnet/torch.py"]
