"""How far a study is, and how long it still takes: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

_EVERY_S = 15.0


class Progress:
    def __init__(self, total: int, done: int, *, quiet: bool) -> None:
        self._total, self._done, self._start_done = total, done, done
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                console=Console(stderr=True),
            )  # fmt: skip
            self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, what: str) -> None:
        self._done += 1
        text = f"{self.time_left()} left, {what}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=text)
        elif not self._quiet and (
            time.monotonic() - self._said >= _EVERY_S or self._done == self._total
        ):
            self._said = time.monotonic()
            print(f"{self._done}/{self._total} runs, {text}", file=sys.stderr, flush=True)

    def time_left(self) -> str:
        """From the mean time of the runs so far."""
        ran = self._done - self._start_done
        seconds = (time.monotonic() - self._start) / max(ran, 1) * (self._total - self._done)
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{rest:02}"
