"""The tables of the benchmark page, made from the files in benchmarks/results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from scale_tables import scale
from sphinx.application import Sphinx
from tables import interval, machine, number, percent, table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def certificates(data: dict) -> list[str]:
    """What the certificates reach on three data sets."""

    def mean(case: dict, name: str) -> float:
        return sum(seed[name] for seed in case["seeds"]) / len(case["seeds"])

    def moved(case: dict) -> float:
        values = [seed["moved"] for seed in case["seeds"] if seed["moved"] is not None]
        return sum(values) / len(values)

    head = [
        "Data set",
        "Best bound (mean of seeds)",
        "Worst seed",
        "Of another posterior",
        "Test error of the drawn networks",
    ]
    rows = [
        [name, case["reached.mean"], case["reached.worst"], moved(case), percent(mean(case, "test.error.of.draws"))]
        for name, case in data["cases"].items()
    ]
    note = "All at δ = 0.05. The best posterior was the trained prior itself: a bound by points held out, of which "
    note += "`held_out_part` is the sharper form. A bound of another posterior rests on an estimated density."
    commands = [f"    {case['command']}" for case in data["cases"].values()]
    return [
        *table(head, rows),
        note,
        "",
        *machine(data["machine"]),
        "The commands:",
        "",
        *commands,
        "",
        data.get("recomputed", ""),
        "",
    ]


def validity(data: dict) -> list[str]:
    """How often certificates were violated."""
    head = [
        "Certificate",
        "δ",
        "Draws",
        "Violated",
        "Allowed",
        "Share that is detected",
        "Mean bound",
        "Mean true error",
    ]
    names = ("kind", "delta", "draws", "violated", "allowed", "detects", "certificate.mean", "true.mean")
    rows = [[row[name] for name in names] for row in data["kinds"]]
    note = (
        "A certificate may be violated in a share δ of independent draws of the data. More violations than allowed are "
    )
    note += f"seen with probability {data['false_alarm']:g} at most; of the share that it detects, with "
    note += "probability 0.99. One row is a control: the training error is no bound, and the benchmark notices."
    return [*table(head, rows), note, "", f"    {data['command']}", "", *machine(data["machine"])]


def path(data: dict) -> list[str]:
    """Path certificates: the trained network itself, from all points."""
    flow, held_out, chains = (data.get(name, {}) for name in ("flow", "held-out", "chains"))
    rows = [
        [name, case["n"], case["mean"], case["worst"], case["goal"],
         percent(sum(run["train_error"] for run in case["runs"]) / len(case["runs"])),
         percent(sum(run["test_error"] for run in case["runs"]) / len(case["runs"])),
         percent(flow[name]["mean"]) if name in flow else "not measured", len(case["runs"])]
        for name, case in data["cases"].items()
    ]  # fmt: skip
    lines = table(
        [
            "Case",
            "n",
            "Certificate (mean)",
            "Worst",
            "Goal",
            "Training error",
            "Test error",
            "Test error of the flow",
            "Seeds",
        ],
        rows,
    )
    parts = [
        [name, case["n"], case["held_out"], case["mean"], case["worst"], case["goal"]]
        for name, case in held_out.items()
        if isinstance(case, dict) and "goal" in case
    ]
    if parts:
        head = ["Held out", "Points trained on", "Held out", "Certificate (mean)", "Worst", "Goal"]
        lines += ["By held-out points:", "", *table(head, parts)]
    if chains:
        lines += [f"64 chains take {number(chains['ratio'])} times as long as one.", ""]
    return [
        *lines,
        f"δ = {data['delta']}. `python benchmarks/path.py`",
        "",
        *machine(next(iter(data["cases"].values()))["machine"]),
    ]


def experiments(data: dict) -> list[str]:
    """Verdicts of the sweeps."""
    lines = ["| Command | Verdict | Passed |", "|---|---|---|"]
    for entry in data.values():
        passed = {True: "yes", False: "no", None: "not decided"}[entry["passed"]]
        lines.append(f"| `{entry['command']}` | {entry['verdict'].replace('|', '/')} | {passed} |")
    return [*lines, "", *machine(next(iter(data.values()))["machine"])]


def finite_size(data: dict) -> list[str]:
    """Exponents of the finite-size law."""
    rows = [
        [name, entry["value"], interval(entry["interval_95"]), entry.get("theory")]
        for name, entry in data["fit"].items()
        if isinstance(entry, dict) and "value" in entry
    ]
    lines = table(["Quantity", "Fitted", "95 % interval", "Theory"], rows)
    return [
        *lines,
        f"Verdict: {data['verdict']}.",
        "",
        f"The same states in NumPy take {data['times']:.1f} times as long (timed {data['timed']['date'][:10]}).",
        "",
        *machine(data["machine"]),
    ]


def sweeps(data: dict) -> list[str]:
    """The rate experiment beside PyTorch."""
    rows = [
        [point["data.n"], point["test.error"], data["torch"]["test_errors"].get(str(point["data.n"]))]
        for point in data["mfresnet"]["points"]
    ]
    lines = table(["n", "Test error, mfresnet", "Test error, PyTorch"], rows)
    fit = data["mfresnet"]["fit"]
    note = f"Slope {fit['slope']:.3f}, 95 % interval {interval(fit['interval_95'])}; "
    note += f"reported: {fit['reported']['slope']}. "
    note += f"{data['mfresnet']['seconds']:.0f} s in one process, {data['torch']['seconds']:.0f} s in eager PyTorch: "
    goal = f"goal: {data['goal']['ratio']:g}, {'reached' if data['goal']['reached'] else 'not reached'}"
    note += f"{data['ratio_torch']:.1f} times ({goal}), {data['ratio_torch_second_start']:.1f} from a second start on."
    return [*lines, note, "", *machine(data["machine"])]


def train(data: dict) -> list[str]:
    """Speed of a training step."""
    rows = [
        [
            row["n"],
            row["seeds"],
            row["ms_per_step_and_run"]["mfresnet"],
            row["ms_per_step_and_run"]["torch"],
            row["ratio"],
        ]
        for row in data["training"]
    ]
    lines = table(["Points", "Seeds side by side", "ms a step and run", "Eager PyTorch", "Ratio"], rows)
    depth = [[row["depth"], row["activation_mib"], row["us_per_layer"]] for row in data["depth"]]
    lines += table(["Depth", "Activation memory, MiB", "µs a layer"], depth)
    goals = [[name, goal["measured"], goal["goal"], goal["reached"]] for name, goal in data["goals"].items()]
    return [*lines, *table(["Goal", "Measured", "Goal", "Reached"], goals), *machine(data["machine"])]


def gram(data: dict) -> list[str]:
    """Gram matrices and their smallest eigenvalues."""
    rows = [
        [
            f"n, L, M, K = {', '.join(map(str, row['size']))}",
            row["method"],
            row.get("skipped") or row["seconds"],
            row.get("processor_seconds"),
            row.get("peak_gb"),
            row.get("relative_error"),
        ]
        for row in data["gram"]
    ]
    lines = table(["Size", "Method", "Seconds", "Of processors", "Peak GB", "Relative error"], rows)
    values = [
        [row["n"], row["method"], row["gram_seconds"], row["eigenvalue_seconds"], row["value"], row["error"]]
        for row in [*data["lambda_min"], *data["lambda_min_large"]]
    ]
    head = ["n", "Method", "Gram matrix, s", "Eigenvalue, s", "λ_min", "Its error bound"]
    return [*lines, data.get("note", ""), "", *table(head, values), *machine(data["machine_lambda_min_large"])]


def chains(data: dict) -> list[str]:
    """Langevin chains beside BlackJAX's, and what a chain costs."""
    compared = data["side_by_side"]
    rows = [
        [name, of["seconds_per_step"], of["processor_seconds_per_step"], percent(of["acceptance"])]
        for name, of in compared["samplers"].items()
    ]
    note = f"{compared['chains']} chains on {compared['n']} points, one gradient a step, at the same step size."
    if "ratio_of_seconds_per_step" in compared:
        ratios = [compared[f"ratio_of_{key}_per_step"] for key in ("seconds", "processor_seconds")]
        note += f" Steps a second beside BlackJAX: {ratios[0]:.2f} times as many (goal {data['goal']:g}), "
        note += f"{ratios[1]:.2f} times by processor seconds."
    costs = [
        [row["chains"], 1e3 * row["seconds_per_step_and_chain"], 1e3 * row["processor_seconds_per_step_and_chain"]]
        for row in data["cost_per_chain"]
    ]
    return [
        *table(["Sampler", "Seconds a step", "Of processors", "Accepted"], rows),
        note,
        "",
        *table(["Chains", "ms a step and chain", "Of processors"], costs),
        *machine(data["machine"]),
    ]


def image_speed(data: dict) -> list[str]:
    """Training steps of image networks beside PyTorch."""
    rows = [
        [row["model"], name, of["images_per_s"], of["images_per_processor_s"]]
        for row in data["rows"]
        for name, of in row["runs"].items()
    ]
    return [
        *table(["Network", "Training", "Images a second", "A processor second"], rows),
        data.get("limits", ""),
        "",
        *machine(data["machine"]),
    ]


def estimators(data: dict) -> list[str]:
    """Accuracy beside scikit-learn's own."""
    rows = [
        [name, *(percent(case[kind]["accuracy"]) for kind in ("ours", "SVC", "MLPClassifier"))]
        for name, case in data["accuracy"].items()
    ]
    head = ["Data set", "MeanFieldResNetClassifier, defaults", "SVC, tuned", "MLPClassifier, tuned"]
    return [*table(head, rows), *machine(data["machine"])]


def coverage(data: dict) -> list[str]:
    """Whether the intervals of KL cover."""
    rows = [
        [row["law"], row["of"] if "of" in row else row["sizes of"], row["kl"], percent(row["interval 95 % covers"])]
        for row in data["rows"]
    ]
    return [
        *table(["Law", "Sizes of", "KL", "95 % interval covers"], rows),
        f"    {data['command']}",
        "",
        *machine(data["machine"]),
    ]


def solver(data: dict) -> list[str]:
    """Errors of the error-controlled flows against their work."""
    rows = [
        [
            problem["problem"],
            row["solver"],
            row["tolerance"],
            row["attempted"],
            row["evaluations"],
            row["with_probes"],
            row["cpu_s"],
            *(row["error"][name] for name in ("loss", "prediction", "kl.head", "kl.encoder")),
        ]
        for problem in data["problems"]
        for row in problem["rows"]
    ]
    head = ["Problem", "Solver", "Tolerance", "Steps", "Fields", "Fields with probes", "CPU seconds"]
    head += ["Error of the loss", "Error of predictions", "Error of KL, head", "Error of KL, encoder"]
    return [
        *table(head, rows),
        *machine(data["facts"]),
    ]


def starting(data: dict) -> list[str]:
    """Time of each command with an empty compilation cache, and at the second start."""
    rows = [
        [f"`{row['command']}`", *(row[start][key] for key in ("wall_s", "cpu_s") for start in ("cold", "second"))]
        for row in data["commands"]
    ]
    head = ["Command", "Seconds, cold", "Second start", "CPU seconds, cold", "Second start"]
    return [*table(head, rows), *machine(data["facts"])]


def cost(data: dict) -> list[str]:
    """Predicted and measured seconds of training, measuring and certifying."""
    if not data:
        return ["Not measured on this version: `python benchmarks/cost.py` measures it.", ""]
    rows = [
        [", ".join(f"{k} {v}" for k, v in (row["run"] | row["run"].get("train", {})).items() if k != "train"),
         row["measured_s"], row["predicted_s"], row["ratio"]]
        for row in data["rows"]
    ]  # fmt: skip
    note = f"{data['inside']} of {len(rows)} within {percent(data['within'])}."
    return [*table(["Run", "Measured, s", "Predicted, s", "Ratio"], rows), note, "", *machine(data["facts"])]


EXPECTED = ("pac_bayes", "pac_bayes_learned", "gibbs", "kl_ball", "theorem6", "kernel", "held_out")


def expect(data: dict) -> list[str]:
    """What each kind of bound reached, mean of seeds, beside the number of points."""

    def mean(case: dict, name: str) -> float | str:
        values = [seed["certificates"][name]["value"] for seed in case["seeds"] if name in seed["certificates"]]
        return sum(values) / len(values) if values else "-"

    rows = [
        [
            case,
            seeds["seeds"][0]["certificates"]["pac_bayes"]["details"]["n"],
            *(mean(seeds, name) for name in EXPECTED),
        ]
        for case, seeds in data["cases"].items()
    ]
    return table(["Data set", "n", *(f"`{name}`" for name in EXPECTED)], rows)


def expect_path(data: dict) -> list[str]:
    """What path certificates reached, mean of seeds, beside the number of points."""
    rows = [
        [name.removesuffix(f"-{case['n']}"), case["n"], case["mean"],
         percent(sum(run["test_error"] for run in case["runs"]) / len(case["runs"]))]
        for name, case in data["cases"].items()
    ]  # fmt: skip
    return table(["Data set", "n", "`path`", "Test error"], rows)


PAGES: dict[str, Callable[[dict], list[str]]] = {
    function.__name__: function
    for function in (
        certificates,
        path,
        validity,
        experiments,
        finite_size,
        sweeps,
        train,
        gram,
        chains,
        image_speed,
        estimators,
        coverage,
        solver,
        starting,
        cost,
        scale,
    )
}
DERIVED = {"expect": ("certificates", expect), "expect_path": ("path", expect_path)}


def write(app: Sphinx) -> None:
    """Write one text file of tables for each file of results."""
    folder = Path(app.srcdir) / "_benchmarks"
    folder.mkdir(exist_ok=True)
    for name, (source, render) in ({name: (name, render) for name, render in PAGES.items()} | DERIVED).items():
        results = RESULTS / f"{source}.json"
        if results.exists():
            body = "\n".join(render(json.loads(results.read_text(encoding="utf-8")))) + "\n"
        else:
            body = f"Not measured on this version: `python benchmarks/{source}.py` measures it.\n"
        path = folder / f"{name}.txt"
        if not path.exists() or path.read_text(encoding="utf-8") != body:
            path.write_text(body, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Write the tables before pages are read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
