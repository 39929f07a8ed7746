"""Certifying a run of the rule langevin from its files."""

from mfresnet.config import build
from mfresnet.runs import certify, train


def test_settings_that_were_once_given_stay(tmp_path):
    """As for the laws of a flow: fewer settings later would forget looks."""
    tree = {
        "data": {"name": "two-spirals", "n": 40, "n_test": 8},
        "model": {"depth": 1, "width": 2, "head_width": 6},
        "train": {"rule": "langevin", "steps": 40},
        "record": {"report": False},
        "diagnostics": {"gram_every": 0, "kl_every": 0, "landscape": False},
    }
    train(build(tree), tmp_path / "run")
    assert certify(tmp_path / "run", settings=1)["path"].details["settings"] == 1
    assert certify(tmp_path / "run", settings=7)["path"].details["settings"] == 7
    assert certify(tmp_path / "run")["path"].details["settings"] == 7
