"""``mfresnet train`` and ``mfresnet resume``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config, build
from ..digits import format_with_error
from ..errors import MfresnetError
from .dry_run import dry_run_argument, print_cost
from .finished import report_rows
from .parsing import (
    EXIT_DIVERGED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    Once,
    devices_argument,
    output_arguments,
    quiet_argument,
    run_argument,
    setting_arguments,
    settings,
)
from .sweep import executor_arguments, resume_sweep

if TYPE_CHECKING:
    from ..train.cost import Cost


def train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``train``."""
    parser.add_argument("data", nargs="?", help="a data set's name or a file (the same as --data.name)")
    output_arguments(parser)
    dry_run_argument(parser, "training")
    device_arguments(parser)
    setting_arguments(parser)


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``resume``."""
    run_argument(parser)
    executor_arguments(parser)
    device_arguments(parser)
    quiet_argument(parser)


def device_arguments(parser: argparse.ArgumentParser) -> None:
    """Where a run computes; no setting of the run itself, which is the same on any number of devices."""
    group = parser.add_argument_group("devices")
    devices_argument(group, "the points, or each minibatch of images")
    group.add_argument(
        "--particle-devices",
        action=Once,
        type=int,
        metavar="N",
        help="how many of the devices share the particles, for a network that does not fit one (default 1)",
    )
    group.add_argument("--coordinator", action=Once, metavar="HOST:PORT", help="of process 0, for many processes")
    group.add_argument("--processes", action=Once, type=int, metavar="P", help="how many processes there are")
    group.add_argument("--process-id", action=Once, type=int, metavar="I", help="which one this is, from 0")


@contextmanager
def join_processes(options: argparse.Namespace, run: Path | None) -> Iterator[dict[str, Any]]:
    """With the other processes, where there are some; the context is the numbers of devices asked for.

    Raises:
        MfresnetError: there are others, and no ``run`` directory was named.
    """
    from ..train.devices import connect, is_leader, process_count

    address = connect(options.coordinator, options.processes, options.process_id)
    devices = {name: getattr(options, name) for name in ("devices", "particle_devices")}
    if address is None:
        yield devices
        return
    from jax import process_index

    from .peers import Peers, share_number

    def how_to_go_on() -> str:
        step = last_checkpoint(run) if run is not None else None
        if step is None:
            return "No checkpoint was written yet." if is_leader() else ""
        return f"The last checkpoint is that of step {step}: go on with `mfresnet resume {shlex.quote(str(run))}`."

    peers = Peers(address.rpartition(":")[0], process_index(), process_count(), share_number, how_to_go_on)
    try:
        if run is None:
            raise MfresnetError(f"{process_count()} processes need one run directory to agree on: name it with --out.")
        yield devices
    except BaseException as error:
        peers.fail(error)
    peers.close()


def last_checkpoint(run: Path) -> int | None:
    """The step of the newest checkpoint of a run, or None."""
    from ..runs import RunDirectory, checkpoint

    return max(checkpoint.steps(RunDirectory(run).checkpoints), default=None)


def train(options: argparse.Namespace, argv: list[str]) -> int:
    """Train into a new run directory."""
    from ..runs import fresh_path
    from ..runs import train as run

    config = build(settings(options, given={"data.name": options.data}))
    if options.dry_run:
        return print_cost(predict(config))
    command = "mfresnet " + shlex.join(argv)
    with join_processes(options, options.out) as devices:
        out = options.out or fresh_path(Path("runs"), Path(config.data.name).stem)
        summary = run(config, out, command=command, overwrite=options.overwrite, quiet=options.quiet, **devices)
        return print_outcome(out, summary, report=config.record.report)


def predict(config: Config) -> Cost:
    """The cost of a training, on its own data."""
    from ..train.cost import measure_machine, predict_cost
    from ..train.defaults import resolve_config
    from ..train.job import check_settings, load_split, precision

    split = load_split(config)
    (n, inputs), outputs = split.train.x.shape, split.train.y.shape[1]
    with precision(config):
        config = resolve_config(config, split)
        check_settings(config, n, inputs, outputs)
    return predict_cost(config, n, inputs, outputs, measure_machine())


def print_outcome(out: Path, summary: dict[str, Any], *, report: bool) -> int:
    """Print what came out, write the report, and turn the status into an exit code; process 0 alone speaks."""
    from ..train.devices import is_leader

    code = {"completed": EXIT_OK, "diverged": EXIT_DIVERGED, "interrupted": EXIT_INTERRUPTED}[summary["status"]]
    if not is_leader():
        return code
    rows = [("status", summary["status"])]
    numbers = {name: summary[name] for name in ("train.loss", "train.error", "test.error") if name in summary}
    rows += [(name, "not finite" if value is None else f"{value:.4g}") for name, value in numbers.items()]
    rows += [
        ("test.n", str(summary["test.n"])),
        *_measured_rows(summary),
        ("seconds", f"{summary['wall_s']:.1f}"),
        ("run", str(out)),
    ]
    rows += report_rows(out) if report else []
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows))
    return code


def _measured_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was measured of the laws and the Gram matrix, where it was."""
    rows = []
    for name in ("kl.head", "kl.encoder"):
        if summary.get(f"{name}.value") is not None:
            error, solver = summary[f"{name}.stderr"], summary.get(f"{name}.solver_error")
            known = format_with_error(summary[f"{name}.value"], float("nan") if error is None else error, "+-")
            value = f"{known} (probes)"
            rows.append((name, value if solver is None else f"{value} +- {solver:.1g} (solver)"))
    name = "gram.final.lambda_min.total"
    if summary.get(name) is not None:
        value, error = summary[name], summary["gram.final.error.total"]
        zero = abs(value) <= error
        rows.append(("lambda_min(G)", f"0 within its error of {error:.2g}" if zero else f"{value:.4g} +- {error:.2g}"))
        rows.append(("regime", summary["regime.verdict"]))
    names = [key.split(".")[1] for key in summary if key.startswith("certificate.") and key.endswith(".value")]
    vacuous = [name for name in names if summary[f"certificate.{name}.vacuous"]]
    rows += [(f"bound {name}", f"{summary[f'certificate.{name}.value']:.4g}") for name in names if name not in vacuous]
    if vacuous:
        rows.append(("vacuous", ", ".join(vacuous)))
    if "control.test.error" in summary:
        rows.append(("frozen encoder", f"test.error {summary['control.test.error']:.4g}"))
    return rows


def resume(options: argparse.Namespace, argv: list[str]) -> int:
    """Continue a run or a sweep."""
    from ..runs import RunDirectory
    from ..runs import resume as go_on
    from ..runs.sweeps import SweepDirectory

    if SweepDirectory.is_sweep(options.run):
        refuse(options, ("devices", "particle_devices", "coordinator", "processes", "process_id"), "runs", "a sweep")
        return resume_sweep(options)
    refuse(options, ("executor", "address"), "sweeps", "none")

    if RunDirectory.open(options.run).is_images:
        from ..runs import resume_images
        from .image import ImageConfig, print_image_outcome

        refuse(
            options,
            ("particle_devices", "coordinator", "processes", "process_id"),
            "runs on points",
            "a run of image networks",
        )
        summary = resume_images(options.run, quiet=options.quiet, devices=options.devices)
        config = build(RunDirectory.open(options.run).config["config"], ImageConfig)
        return print_image_outcome(options.run, summary, report=config.record.report)
    config = build(RunDirectory.open(options.run).config["config"])
    with join_processes(options, options.run) as devices:
        summary = go_on(options.run, quiet=options.quiet, **devices)
        return print_outcome(options.run, summary, report=config.record.report)


def refuse(options: argparse.Namespace, names: Sequence[str], owner: str, what: str) -> None:
    """Flags that belong to another kind of directory.

    Raises:
        MfresnetError: one of them is given.
    """
    for name in names:
        if getattr(options, name) is not None:
            flag = name.replace("_", "-")
            raise MfresnetError(f"--{flag} is of {owner}, and {str(options.run)!r} is {what}: leave it out.")
