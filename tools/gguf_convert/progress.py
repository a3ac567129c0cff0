"""How far a conversion is: a bar on a terminal, a line every tenth otherwise."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    def __init__(self, total: int, *, stream: TextIO | None = None, enabled: bool = True) -> None:
        self._stream = stream or sys.stderr
        self._enabled = enabled
        self._total = max(1, total)
        self._done = 0
        self._shown = 0
        self._is_tty = self._stream.isatty()
        self._started = time.monotonic()

    def add(self, n_bytes: int, label: str) -> None:
        self._done += n_bytes
        if not self._enabled:
            return
        permille = 1000 * self._done // self._total
        if permille // (5 if self._is_tty else 100) == self._shown:
            return
        self._shown = permille // (5 if self._is_tty else 100)
        rate = self._done / max(1e-3, time.monotonic() - self._started) / 1e6
        text = f"{permille / 10:5.1f} %  {self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB"
        text += f"  {rate:.0f} MB/s  {label}"
        if self._is_tty:
            bar = "#" * (permille // 50)
            self._stream.write(f"\r\033[K[{bar:<20}] {text}"[:118])
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def finish(self) -> None:
        if self._enabled and self._is_tty and self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
