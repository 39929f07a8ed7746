"""The first thing a reader sees: what ran, how it ended, and the numbers that matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..digits import format_bound, format_plain, format_share
from .reading import Run, number
from .training import UNITS

STATES = {
    "completed": "is complete",
    "interrupted": "was interrupted before its end; mfresnet resume continues it",
    "diverged": "diverged: it left the range of finite numbers",
    "unfinished": "has no summary yet: it is still running, or it was killed",
}


@dataclass(frozen=True)
class Number:
    """A number with its unit, its name and a remark."""

    name: str
    value: str
    unit: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Headline:
    """Title, what the network is, how the run ended, its numbers, and what was found in a sentence."""

    title: str
    network: str
    status: str
    sentence: str
    numbers: tuple[Number, ...]
    finding: str = ""


def headline(run: Run) -> Headline:
    """The headline of a run; numbers that are not there are left out."""
    reason = run.summary.get(f"{run.status}.message")
    sentence = f"{STATES.get(run.status, run.status)}."
    return Headline(
        title=str(run.part("data").get("name") or run.name),
        network=_network(run),
        status=run.status if run.status in STATES else "unfinished",
        sentence=sentence + (f" {reason}" if reason else ""),
        numbers=(
            _error(run, "test"),
            *_certificate(run),
            _error(run, "train"),
            *_regime(run),
            *_losses(run),
            *_time(run),
        ),
        finding=_finding(run).replace(" %", "\u00a0%"),
    )


def _finding(run: Run) -> str:
    """What a completed run has shown, in a sentence; a bound that rests on an estimate is left to the numbers."""
    error, count = run.last("test.error"), _count(run, "test")
    if run.status != "completed" or not math.isfinite(error):
        return ""
    if not run.classification:
        return f"The network predicts held-out targets with a root mean squared error of {format_plain(error)}."
    wrong = format_share(error, count) if error > 0 else "none"
    said = f"The network misclassifies {wrong} of {count:,.0f} held-out points"
    for name, words in (
        ("path", "; its training points alone certify at most {}, with probability {} %."),
        ("held_out", ", and so at most {} of new points, with probability {} %."),
    ):
        one = _certificates(run).get(name)
        if one and not one.get("vacuous") and one.get("status") in ("proved", "computed", "assumed"):
            return said + words.format(format_bound(number(one.get("value"))), f"{100 * number(one['confidence']):g}")
    return f"{said}."


def _certificates(run: Run) -> Mapping[str, Mapping]:
    entries = run.certificates.get("certificates")
    return {n: c for n, c in entries.items() if isinstance(c, Mapping)} if isinstance(entries, Mapping) else {}


def _count(run: Run, part: str) -> float:
    """How many points a part has, NaN where the run does not tell."""
    count = number(run.summary.get(f"{part}.n"))
    return count if count > 0 else number(run.part("data").get("n_test" if part == "test" else "n"))


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n trials (Wilson 1927).

    >>> tuple(round(end, 4) for end in wilson(0.0, 100))
    (0.0, 0.037)
    """
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _network(run: Run) -> str:
    model = run.part("config").get("model")
    if not isinstance(model, Mapping):
        return ""
    words = {"depth": "L", "width": "M", "head_width": "K", "alpha": "α", "beta": "β"}
    if model.get("head") is False:
        words = {key: word for key, word in words.items() if key not in ("head_width", "beta")}
    sizes = [f"{word}\u00a0=\u00a0{number(model.get(key)):.4g}" for key, word in words.items() if key in model]
    return ", ".join([*sizes, *([str(model["activation"])] if model.get("activation") else [])])


def _error(run: Run, part: str) -> Number:
    name = "test error" if part == "test" else "training error"
    value = run.last(f"{part}.error")
    if not run.classification and math.isfinite(value):
        return Number(name, format_plain(value), remark="root mean squared, of targets brought to [-1, 1]")
    if not 0 <= value <= 1:
        return Number(name, "—", remark="not recorded")
    count = _count(run, part)
    shown, _, unit = format_share(value, count).rpartition(" ")
    if not count > 0:
        return Number(name, shown, unit)
    wrong = f"{value * count:,.0f} of {count:,.0f} "
    if part == "train":
        return Number(name, shown, unit, wrong + "points")
    low, high = (format_share(end, count).removesuffix(" %") for end in wilson(value, int(count)))
    return Number(name, shown, unit, f"{wrong}held-out points; 95 % interval {low} to {high}\u00a0%")


def _certificate(run: Run) -> list[Number]:
    """The least bound from training points that is not vacuous, with what it certifies."""
    bounds = [
        (number(one.get("value")), name, one)
        for name, one in _certificates(run).items()
        if name != "held_out" and not one.get("vacuous")
    ]
    if not bounds:
        return []
    value, _, one = min(bounds, key=lambda bound: bound[:2])
    confidence = 100 * number(one.get("confidence"))
    remark = f"error on new data at most this, probability {confidence:g}\u00a0%; hypotheses {one.get('status')}"
    shown, _, unit = format_bound(value).rpartition(" ")
    return [Number("certificate", shown, unit, remark)]


def _regime(run: Run) -> list[Number]:
    verdict, change = run.summary.get("regime.verdict"), run.last("regime.kernel_change")
    if not verdict:
        return []
    return [Number("regime", str(verdict), remark=f"kernel changed by {change:.2g}" if math.isfinite(change) else "")]


def _losses(run: Run) -> list[Number]:
    train, test = run.last("train.loss"), run.last("test.loss")
    if not math.isfinite(train):
        return [Number("training loss", "—", remark="not recorded")]
    remark = f"held out {format_plain(test)}" if math.isfinite(test) else ""
    return [Number("training loss", format_plain(train), remark=remark)]


def _time(run: Run) -> list[Number]:
    wall, step, time = run.last("wall_s"), run.last("step"), run.last("time")
    if not math.isfinite(wall):
        return []
    value, unit = (wall, "s") if wall < 120 else (wall / 60, "min") if wall < 7200 else (wall / 3600, "h")
    remarks = [f"{step:,.0f} steps"] if math.isfinite(step) else []
    if math.isfinite(time):
        train = run.part("config").get("train")
        unit_name = UNITS.get(str(train.get("time_unit")), "") if isinstance(train, Mapping) else ""
        remarks.append(
            f"training time {format_plain(time)}" + (f" in {unit_name}" if unit_name not in ("", "1") else "")
        )
    return [Number("wall clock", format_plain(value), unit, ", ".join(remarks))]
