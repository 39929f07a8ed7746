"""Many trainings as one program give what each gives alone; padded points change nothing; divergence stays at home."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mfresnet.config import Config
from mfresnet.data import load
from mfresnet.experiments import Stopped, Training, train_together
from mfresnet.experiments.batching import Program, batches, buckets
from mfresnet.flow import evaluate
from mfresnet.train.job import assemble

STEPS = 60
TINY = {"depth": 3, "width": 4, "head_width": 4}
# What may differ inside one program: seed, data, number of points, learning rate, alpha, beta.
CELLS = (
    {"seed": 0, "n": 12, "rate": 0.01, "alpha": 10.0, "beta": 20.0},
    {"seed": 1, "n": 12, "rate": 0.03, "alpha": 3.0, "beta": 5.0},
    {"seed": 2, "n": 7, "rate": 0.02, "alpha": 1.0, "beta": 0.3},
)
RULES = {
    "adam with decay": {"rule": "adam", "decay": "linear"},
    "heun with probes": {"rule": "gradient-flow", "solver": "heun", "time": 2.0, "probes": 2, "head_probes": 3},
}


def config(cell: dict, rule: dict) -> Config:
    rate = {} if rule["rule"] == "gradient-flow" else {"learning_rate": cell["rate"]}
    return Config(
        seed=cell["seed"],
        data={"n": cell["n"], "n_test": 16, "name": "two-spirals" if cell["seed"] else "circles"},
        model={**TINY, "alpha": cell["alpha"], "beta": cell["beta"]},
        train={"steps": STEPS, "precision": "float64", **rule, **rate},
    )


def training(configuration: Config) -> Training:
    return Training.of(configuration, load(configuration.data, configuration.seed))


@pytest.mark.parametrize("rule", RULES)
def test_together_is_one_by_one(rule, x64):
    """To 1e-10 in float64 after 60 steps: the same operations, sums in another order (1e-16 a step, enlarged)."""
    configurations = [config(cell, RULES[rule]) for cell in CELLS]
    together = train_together([training(c) for c in configurations])
    for alone, outcome in zip(configurations, together, strict=True):
        job = assemble(alone, load(alone.data, alone.seed))
        state, losses = job.trainer.advance(job.state, job.train, job.key, jnp.asarray(STEPS), STEPS)
        assert losses[-1] != losses[0]
        for mine, his in zip(jax.tree.leaves(outcome.end), jax.tree.leaves(state.model), strict=True):
            np.testing.assert_allclose(mine, his, rtol=1e-10, atol=1e-10)
        for mine, his in zip(jax.tree.leaves(outcome.start), jax.tree.leaves(job.state.model), strict=True):
            np.testing.assert_array_equal(mine, his)
        for part, data in (("train", job.train), ("test", job.test)):
            loss, error = evaluate(state.model, data, "squared", "binary")
            np.testing.assert_allclose(outcome.scores[f"{part}.loss"], loss, rtol=1e-9)
            assert outcome.scores[f"{part}.error"] == pytest.approx(float(error), abs=1e-12)


def test_a_diverging_cell_harms_no_other():
    """Plain steps ten thousand times too long diverge; the neighbour's numbers are those it has beside a sound one."""
    rule = {"rule": "sgd", "precision": "float32"}
    good = config({**CELLS[0], "rate": 0.1}, rule)
    wild, tame = (config({**CELLS[1], "rate": rate}, rule) for rate in (1e4, 0.1))
    beside_wild = train_together([training(good), training(wild)])
    beside_tame = train_together([training(good), training(tame)])
    assert [outcome.status for outcome in beside_wild] == ["completed", "diverged"]
    assert [outcome.status for outcome in beside_tame] == ["completed", "completed"]
    assert beside_wild[1].scores == {} and 0 < beside_wild[1].step <= STEPS
    assert beside_wild[1].row() == {"status": "diverged", "diverged.step": beside_wild[1].step}
    assert beside_wild[0].scores == beside_tame[0].scores


def test_looks_and_pulse():
    """States are seen at equal distances and at the end; the pulse tells the share done, and may stop the batch."""
    shares = []
    one = training(config(CELLS[0], {"rule": "sgd", "precision": "float32"}))
    [outcome] = train_together([one], looks=3, look=lambda state: int(state.step), pulse=shares.append)
    assert outcome.seen == [20, 40, 60]
    assert shares == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0]

    def halt(share):
        raise Stopped

    with pytest.raises(Stopped):
        train_together([one], pulse=halt)


def test_programs_and_batches():
    adam = RULES["adam with decay"]
    same = [training(config(cell, adam)) for cell in CELLS]
    assert len({t.program for t in same}) == 1
    deeper = config(CELLS[0], adam).model_copy(update={"model": same[0].config.model.model_copy(update={"depth": 5})})
    small = config(CELLS[2], adam | {"batch_size": 4})
    others = [training(deeper), training(small)]
    trainings = same + others
    found = batches([t.program for t in trainings], [t.n for t in trainings])
    assert found == [[0, 1, 2], [3], [4]]
    assert others[1].program.n == 7  # mini-batches: the number of points must agree
    assert isinstance(others[0].program, Program)


@pytest.mark.parametrize("seed", range(3))
def test_buckets_are_the_cheapest_partition(seed):
    """Against every partition of the sorted sizes into runs."""
    rng = np.random.default_rng(seed)
    sizes = sorted(int(v) for v in rng.choice(500, size=6, replace=False) + 1)
    price = float(rng.uniform(0.001, 0.02))

    def cost(cuts: int) -> float:
        runs, run = [], [sizes[0]]
        for place, size in enumerate(sizes[1:]):
            if cuts >> place & 1:
                runs.append(run)
                run = []
            run.append(size)
        return sum(2.0 + len(r) * r[-1] * price for r in [*runs, run])

    limits = buckets(sizes, price, 2.0)
    ours = sum(
        2.0 + price * limit * sum(low < s <= limit for s in sizes)
        for low, limit in zip([0, *limits], limits, strict=False)
    )
    assert ours == pytest.approx(min(cost(cuts) for cuts in range(2**5)))


def test_a_batch_fits_into_memory():
    big = training(config({**CELLS[0], "n": 400}, RULES["heun with probes"]))
    program = big.program
    count = 2000
    found = batches([program] * count, [400] * count)
    assert sorted(place for batch in found for place in batch) == list(range(count))
    assert max(map(len, found)) * program.cell_bytes(400) <= 2**30
    assert max(map(len, found)) - min(map(len, found)) <= len(found)
