"""Where a long job stands: a bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO


class Progress:
    """Reports stages of a job on the error stream and keeps their durations.

    Parameters
    ----------
    stages : int
        How many stages the job has.
    quiet : bool
        Report nothing.
    stream : text stream, optional
        Standard error unless given.
    """

    def __init__(self, stages: int, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.stages, self.quiet = stages, quiet
        self.stream = stream if stream is not None else sys.stderr
        self.timings: dict[str, float] = {}
        self._done = 0

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Ticker]:
        """Time a stage; `total` is the number of records it walks through, where it does."""
        self._done += 1
        label = f"[{self._done}/{self.stages}] {name}"
        start = time.perf_counter()
        if self.quiet:
            yield Ticker()
        elif self.stream.isatty():
            with _bar(self.stream, label, total) as ticker:
                yield ticker
        else:
            yield Ticker()
        self.timings[name] = time.perf_counter() - start
        if not self.quiet and not self.stream.isatty():
            print(f"{label}: {self.timings[name]:.1f} s", file=self.stream, flush=True)

    def say(self, text: str) -> None:
        """Print a line between stages."""
        if not self.quiet:
            print(text, file=self.stream, flush=True)


class Ticker:
    """Takes the number of records done and shows nothing."""

    def __call__(self, done: int) -> None:
        """Report that `done` records are through."""


class _BarTicker(Ticker):
    def __init__(self, update: Callable[[int], None]) -> None:
        self._update = update

    def __call__(self, done: int) -> None:
        self._update(done)


@contextmanager
def _bar(stream: TextIO, label: str, total: int | None) -> Iterator[Ticker]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    if total is not None:
        columns.insert(2, MofNCompleteColumn())
    with RichProgress(*columns, console=Console(file=stream)) as bar:
        task = bar.add_task(label, total=total)
        yield _BarTicker(lambda done: bar.update(task, completed=done))
        bar.update(task, total=total or 1, completed=total or 1)
