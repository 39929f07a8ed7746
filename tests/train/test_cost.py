"""The predicted cost: counts that are known, sizes of what is really kept, and a command that trains nothing."""

from dataclasses import replace

import jax
import pytest

from mfresnet import Config
from mfresnet.cli import main
from mfresnet.data import load
from mfresnet.train.cost import Machine, field_counts, predict_cost
from mfresnet.train.defaults import fill_defaults
from mfresnet.train.job import assemble

MACHINE = Machine(operation=7e-6, element=2e-9, product=2e-11)


def cost(n=512, inputs=2, machine=MACHINE, train=None, **model):
    given = Config(data={"name": "two-spirals"}, model=model, train=train or {"rule": "adam", "steps": 10})
    return predict_cost(fill_defaults(given, n, 64, inputs), n, inputs, 1, machine)


@pytest.mark.parametrize(
    ("train", "counts"),
    [
        ({"rule": "adam", "steps": 30}, (30, 0, True)),
        ({"solver": "heun", "steps": 30}, (0, 60, True)),
        ({"solver": "euler", "steps": 30, "probes": 0, "head_probes": 0}, (30, 0, True)),
        ({"rule": "langevin", "steps": 30, "leaps": 3, "chains": 2, "gamma": 9.0}, (180, 0, True)),
        ({"rule": "langevin", "steps": 8000}, (12000, 0, True)),
    ],
)
def test_fixed_steps_have_a_known_number_of_fields(train, counts):
    assert field_counts(fill_defaults(Config(train=train), 64, 8, 2), 64) == counts


def test_the_stabilised_solver_costs_like_the_root_of_the_time():
    """Stages of a step go with the root of its length, classical steps with the length."""

    def fields(solver, time):
        train = {"solver": solver, "time": time, "steps": 100, "probes": 0, "head_probes": 0}
        return field_counts(fill_defaults(Config(train=train), 512, 8, 2), 512)[0]

    far = [fields("stabilised", t) for t in (1e6, 4e6)], [fields("adaptive", t) for t in (1e6, 4e6)]
    assert 1.9 < far[0][1] / far[0][0] < 2.1 and 3.9 < far[1][1] / far[1][0] < 4.1


def test_each_constant_limits_where_it_should():
    assert cost(n=1, width=1, head_width=1).limit == "layers"
    assert cost(n=4096).limit == "activations"
    assert cost(n=512, inputs=500).limit == "products"
    assert cost(train={"solver": "heun", "steps": 5, "probes": 100}).limit == "probes"
    once, twice = (cost(n=n, machine=replace(MACHINE, operation=0.0)).seconds for n in (512, 1024))
    assert twice == pytest.approx(2 * once)


def test_the_files_are_those_of_the_states_that_are_kept():
    """A flow's checkpoint holds network, probes, their starts and log-densities; steps 0, 1, 3, 8 are kept."""
    given = {"depth": 8, "width": 16, "head_width": 32}
    train = {"solver": "heun", "steps": 8, "time": 1.0, "probes": 12, "head_probes": 40}
    config = Config(data={"n": 32, "n_test": 8}, model=given, train=train, record={"snapshots": 3, "report": False})
    job = assemble(config, load(config.data, 0))
    real = 4 * sum(leaf.nbytes for leaf in jax.tree.leaves((job.state.model, job.state.ensemble)))
    assert predict_cost(job.config, 32, 2, 1, MACHINE).files == pytest.approx(real, rel=0.15)  # without log-densities


def test_a_dry_run_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "two-spirals", "--train.rule", "adam", "--train.steps", "7", "--dry-run"]) == 0
    lines = printed(capsys)
    assert lines["fields"] == "7" and lines["with"] == "probes  0" and float(lines["seconds"].split()[0]) > 0
    assert {"limited", "memory", "files"} <= set(lines)
    assert list(tmp_path.iterdir()) == []


def printed(capsys):
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--train.rule adam --train.chains 4", "does not go with train.rule"),
        ("--train.rule langevin --train.freeze head", "does not go with train.rule"),
        ("--data.n 64 --train.rule adam --train.batch-size 999", "larger than the 64 training points"),
        ("--model.head false --model.embedding fixed --model.embedding-dimension 1 --train.freeze head", "has no head"),
        ("--model.kind continuous --model.shared true", "no meaning for a continuous model"),
        ("--train.rule optax:lbfgs", "needs more than gradients"),
        (
            "--data.n 64 --train.rule langevin --train.kernel minibatch --train.batch-size 99",
            "than the 64 training points",
        ),
        ("--train.rule langevin --data.n 7", "n = 7 is not allowed"),
    ],
)
def test_a_dry_run_refuses_what_the_training_would_refuse(flags, message, capsys):
    assert main(["train", "two-spirals", *flags.split(), "--dry-run"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.parametrize("particle", ["two-layer", "gated"])
def test_a_dry_run_in_another_precision_warns_of_nothing(precision, particle, capsys):
    flags = f"--train.precision {precision} --model.particle {particle} --train.solver heun --data.n 16 --dry-run"
    assert main(["train", "two-spirals", *flags.split()]) == 0
    assert capsys.readouterr().err == ""


def test_an_own_particle_of_another_shape_is_named(tmp_path, monkeypatch, capsys):
    """Before its derivatives are tried."""
    lines = ["import numpy as np, mfresnet, jax.numpy as jnp", "f = lambda z, t: jnp.concatenate([t['u'] * z, z])"]
    lines += ["def make(state, outputs): return mfresnet.Particle(f, {'u': np.ones(state)}, smooth=True)"]
    (tmp_path / "own_blocks.py").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    for words in (["--dry-run"], ["--out", str(tmp_path / "run")]):
        assert main(["train", "two-spirals", "--model.particle", "own_blocks:make", *words]) == 2
        assert "makes (4,) of a state of shape (2,): return an array of shape (2,)" in capsys.readouterr().err


def test_memory_beyond_what_is_free_is_marked(capsys):
    flags = "--model.depth 100000 --model.width 100000 --train.rule adam --train.steps 1 --dry-run"
    assert main(["train", "two-spirals", *flags.split()]) == 0
    assert "GiB, more than the" in printed(capsys)["memory"]


def test_a_dry_run_of_a_sweep_pads_the_points_of_a_batch(tmp_path, monkeypatch, capsys):
    """Two cells of 8 and 64 points in one batch cost as much as two of 64."""
    monkeypatch.chdir(tmp_path)
    seconds = []
    machine = Machine(operation=0.0, element=1e-6, product=0.0)
    monkeypatch.setattr("mfresnet.experiments.training.measure_machine", lambda: machine)
    for sizes in ("8,64", "64", "8"):
        assert main(["sweep", "rate", "--n", sizes, "--seeds", "1", "--train.steps", "5", "--dry-run"]) == 0
        lines = printed(capsys)
        seconds.append(float(lines["seconds"].split()[0]))
        assert lines["cells"] == str(sizes.count(",") + 1) and lines["batches"] == "1"
    assert seconds[0] == pytest.approx(2 * seconds[1], rel=0.02) and seconds[1] == pytest.approx(
        8 * seconds[2], rel=0.02
    )
    assert list(tmp_path.iterdir()) == []


def test_networks_of_finite_size_cost_what_they_are_padded_to(tmp_path, monkeypatch, capsys):
    """Widths 20 and 32 are one program of width 32; a reference is not padded."""
    monkeypatch.chdir(tmp_path)
    machine = Machine(operation=0.0, element=0.0, product=1e-6)
    monkeypatch.setattr("mfresnet.experiments.finite_size.experiment.measure_machine", lambda: machine)
    small = "--seeds 2 --draws 1 --steps 3 --points 5 --dimension 4 --reference 40 --reference-width 33"
    assert main(["sweep", "finite-size", *small.split(), "--depth", "4", "--width", "20,32", "--dry-run"]) == 0
    lines = printed(capsys)
    assert (lines["cells"], lines["networks"]) == ("5", "5")
    whole = [3 * 5 * 48 * 1e-6 * particles for particles in (4 * 4 * 32, 40 * 33)]  # networks, reference
    slowest = max(max(whole), sum(whole) / int(lines["at"].split()[1]))
    assert float(lines["seconds"].split()[0]) == pytest.approx(slowest, rel=0.03)
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_without_a_model_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_networks.py").write_text("def factory(depth, width, seed): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["sweep", "own-transfer", "--factory", "own_networks:factory", "--dry-run"]) == 2
    assert "the cost of experiment 'own-transfer' is not known" in capsys.readouterr().err


def test_a_dry_run_of_images_counts_the_steps(tmp_path, monkeypatch, capsys):
    """4 batches of 4 images in 3 epochs, tested every second epoch and at the end."""
    monkeypatch.chdir(tmp_path)
    flags = "--model.name resnet8 --model.width 1 --train.batch-size 4 --epochs 3 --record.test-every 2 --seeds 2"
    assert main(["image", "synthetic-images", *flags.split(), "--data.n", "16", "--data.n-test", "4", "--dry-run"]) == 0
    lines = printed(capsys)
    assert (lines["steps"], lines["evaluations"], lines["networks"]) == ("12", "2", "2")
    assert float(lines["seconds"].split()[0]) > 0 and float(lines["memory"].split()[0]) > 0.4
    assert list(tmp_path.iterdir()) == []
