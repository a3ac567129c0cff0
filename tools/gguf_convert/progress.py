"""How far a conversion is: a bar on a terminal, a line every tenth otherwise."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

BAR = 20  # columns


def fitted(text: str, permille: int, columns: int) -> str:
    """With a bar where there is room, and never a full line: that would begin a new one."""
    room = max(0, (columns or 80) - 1)
    bar = f"[{'#' * (permille * BAR // 1000):<{BAR}}] "
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return (bar + shown if len(bar) + 8 <= room else shown.lstrip())[:room]


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
            self._stream.write("\r\033[K" + fitted(text, permille, self._columns()))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def _columns(self) -> int:
        """Asked every time: a window can change its size."""
        try:
            return os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            return 80

    def finish(self) -> None:
        if self._enabled and self._is_tty and self._shown:
            self._stream.write("\r\033[K")
            self._stream.flush()
