"""The certified run that several tests read, its job, and the same with changes."""

import json

from mfresnet.config import build
from mfresnet.data import load
from mfresnet.train.job import assemble

TREE = {
    "data": {"name": "circles", "n": 48, "n_test": 32, "transform": "none"},
    "model": {"depth": 3, "width": 6, "head_width": 10, "alpha": 1.0, "beta": 2.0},
    "train": {"steps": 6, "time": 20, "probes": 6, "head_probes": 24, "solver": "euler"},
    "record": {"metrics_every": 2, "report": False, "snapshots": 3},
    "diagnostics": {"landscape": False, "gram_every": 0, "kl_every": 0, "solver_error": False},
    "certify": {"heads": "4,16", "residuals": "3,6", "draws": 20, "prior_share": 0.5, "prior_steps": 24},
}


def with_changes(**changes):
    """The small configuration with ``section__name=value`` changes."""
    tree = json.loads(json.dumps(TREE))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        tree.setdefault(section, {})[key] = value
    return build(tree)


def job_of(config):
    """The job of a configuration."""
    return assemble(config, load(config.data, config.seed))


def assembled(**changes):
    """The job of the small configuration with changes."""
    return job_of(with_changes(**changes))
