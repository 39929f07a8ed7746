"""`mfresnet sweep table1`: cells, verdict, and the same numbers as an image run."""

import numpy as np
import pytest
from small_images import EPOCHS, PER_EPOCH, RATE, SEEDS

from mfresnet import MfresnetError
from mfresnet.data.images import load_images
from mfresnet.experiments import NoCheckpoints, create
from mfresnet.experiments.table1.training import train_batch
from mfresnet.images import assemble_images
from mfresnet.runs import RunDirectory


def test_table_rows_are_judged_on_matched_seeds():
    """Cells, batches and verdict of `mfresnet sweep table1`, with errors put in by hand."""
    experiment = create("table1", {"rows": "resnet20,resnet32", "seeds": 3})
    cells = experiment.cells()
    assert len(cells) == 12 and experiment.batches(cells) == [[*range(6)], [*range(6, 12)]]
    better = {"plain": [0.0875, 0.0880, 0.0870], "mean-field": [0.0820, 0.0826, 0.0813]}
    rows = [
        cell | {"status": "completed", "test_error": better[cell["rule"]][cell["seed"]]}
        if cell["row"] == "resnet20"
        else cell | {"status": "diverged", "test_error": 0.9}
        for cell in cells
    ]
    result = experiment.analyse(rows)
    assert "resnet20, mean-field minus plain: -0.55 points" in result.verdict and "lower error" in result.verdict
    assert result.passed is None  # the other row has nothing to judge by
    assert [point["reported"] for point in result.points] == [8.75, 8.19, 7.51, 7.15]
    with pytest.raises(MfresnetError, match="did you mean 'resnet20'"):
        create("table1", {"rows": "resnet200"}).cells()


def test_a_table_is_made_of_image_runs(folder, finished):
    """`Table1.run` gives the errors, swaps and depths of the same run on disk."""
    tree = {"rows": "resnet20", "data": str(folder), "width": 2, "seeds": SEEDS, "epochs": EPOCHS, "batch_size": 8}
    experiment = create("table1", tree | {"lr_t": RATE, "precision": "float32"})
    cells = experiment.cells()
    rows = [
        cells[i] | row
        for batch in experiment.batches(cells)
        for i, row in zip(batch, experiment.run([cells[i] for i in batch]), strict=True)
    ]
    whole, metrics = RunDirectory.open(finished).summary["rules"], RunDirectory.open(finished).metrics()
    assert [row["test_error"] for row in rows] == whole["plain"]["test_errors"] + whole["mean-field"]["test_errors"]
    assert "t_by_epoch" not in rows[0] and "swaps" not in rows[0]
    for seed, row in enumerate(rows[SEEDS:]):
        assert row["swaps_by_epoch"] == [np.sum(own["swaps"][seed]) for own in metrics[1::2]]
        assert row["swaps"] == sum(row["swaps_by_epoch"])
        assert row["t_by_epoch"] == [own["t"][seed] for own in metrics[1::2]]
    result = experiment.analyse(rows)
    titles = [figure.title for figure in result.figures[1:]]
    assert titles[0] == "resnet20, mean-field: depth t of the blocks of stage 1, seed 0" and len(titles) == 4
    assert titles[-1] == "resnet20, mean-field: swaps of neighbours in an epoch"
    assert result.figures[1].data[2]["y"] == [epoch[0][2] for epoch in rows[SEEDS]["t_by_epoch"]]
    assert [trace["name"] for trace in result.figures[0].data] == [
        "plain", "plain, reported", "mean-field", "mean-field, reported"
    ]  # fmt: skip
    assert result.figures[0].data[0]["y"] == [pytest.approx(100 * whole["plain"]["test_error"]["mean"])]


def test_a_table_leaves_a_rule_without_seeds(config, folder):
    train = config.train.model_copy(update={"learning_rate": 1e30})
    job = assemble_images(config.model_copy(update={"train": train}), load_images(config.data.name))
    shares: list[float] = []
    rows = train_batch(job, shares.append, NoCheckpoints(), "")
    for own in rows.values():
        assert [(row["status"], row["diverged.step"]) for row in own] == [("diverged", PER_EPOCH)] * SEEDS
        assert np.isnan(own[0]["test_error"])
    assert shares[-1] == 1 / EPOCHS
