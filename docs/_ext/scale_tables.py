"""Tables of the benchmark of several nodes and processes."""

from __future__ import annotations

from tables import machine, table


def scale(data: dict) -> list[str]:
    """Sweeps on several nodes and trainings on several processes, and what a kill costs."""
    return [line for part, render in SCALE.items() if part in data for line in render(data[part])]


def several_nodes(found: dict) -> list[str]:
    """Sweeps on Ray beside local ones."""
    pairs = [(unit, where) for unit in ("cpu_s", "wall_s") for where in ("local", "ray")]
    rows = [
        [f"{cells} chains of {steps:,} steps", *(found[unit][name][where] for unit, where in pairs)]
        for name, (cells, steps) in found["sizes"].items()
    ]
    names = ("overhead_per_cell", "overhead_per_sweep", "efficiency")
    costs = [[name.replace("_", " "), *(found[unit][name] for unit in ("cpu_s", "wall_s"))] for name in names]
    killed = found["killed"]
    note = f"{found['nodes']} nodes of one core; medians of {found['rounds']} rounds. "
    note += f"{len(found['files_that_differ'])} files differ from those of the local sweeps. One node killed after "
    note += f"{killed['cells_done_at_kill']} of {found['sizes']['long'][0]} cells: {len(killed['files_that_differ'])} "
    note += f"files differ, {killed['cpu_s']:.0f} processor seconds instead of {found['cpu_s']['long']['ray']:.0f}."
    return [
        *table(["Sweep", "Processor seconds, local", "On Ray", "Seconds, local", "On Ray"], rows),
        *table(["Ray against local", "Processor seconds", "Seconds"], costs),
        *(note, "", *machine(found["machine"])),
    ]


def several_processes(found: dict) -> list[str]:
    """Trainings in one process, on two devices and in two processes."""
    rows = [
        [f"`{case['flags']}`", way, case["cpu_ms"][way], ms, case["difference_to_one_process"][way]]
        for case in found["steps"].values()
        for way, ms in case["wall_ms"].items()
    ]
    killed = found["killed"]
    note = "One of two processes killed: the other one ended after "
    note += f"{killed['seconds_until_the_other_ended']:.1f} s with exit code {killed['code']} and one sentence; the "
    note += f"resumed run ended {killed['difference_of_the_resumed_run']:g} from an undisturbed one."
    head = ["A step by Adam of", "In", "Processor ms", "ms", "Difference of the end from one process"]
    return [*table(head, rows), note, "", *machine(found["machine"])]


SCALE = {"sweeps": several_nodes, "trainings": several_processes}
