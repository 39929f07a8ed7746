"""The progress bar of a run."""

from __future__ import annotations

from types import TracebackType

from tqdm import tqdm

from ..train.loop import Record

SHOWN = {"train.loss": "loss", "train.error": "train", "test.error": "test"}


class Progress:
    """A callback that shows loss and errors on a terminal; on nothing else, and not where it should be ``quiet``."""

    def __init__(self, steps: int, done: int, quiet: bool):
        self.bar = tqdm(total=steps, initial=done, unit="step", disable=True if quiet else None, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()

    def __call__(self, record: Record) -> None:
        self.bar.update(record.step - self.bar.n)
        self.bar.set_postfix({short: f"{record.row[name]:.4g}" for name, short in SHOWN.items()})
