"""A program on a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
import time

import pytest


class Screen:
    """Runs a command on a terminal of its own and keeps what the screen shows."""

    def __init__(self, command, columns=100, rows=40, env=None):
        pyte = pytest.importorskip("pyte")
        self.screen = pyte.HistoryScreen(columns, rows, history=2000)
        self.stream = pyte.ByteStream(self.screen)
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.child = subprocess.Popen(
            [str(part) for part in command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**os.environ, "TERM": "xterm", **(env or {})},
        )
        os.close(slave)
        self.lock = threading.Lock()
        self.raw = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            if not data:
                return
            with self.lock:
                self.raw += data
                self.stream.feed(data)

    def type(self, data):
        os.write(self.master, data.encode() if isinstance(data, str) else data)

    def lines(self):
        """What is on the screen, without blank lines."""
        with self.lock:
            return [line.rstrip() for line in self.screen.display if line.strip()]

    def shows(self, text):
        return any(text in line for line in self.lines())

    def wait(self, condition, seconds=60):
        """Until it holds; a safety net, not a measurement."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "\n".join(self.lines())
            time.sleep(0.005)

    def wait_for(self, text):
        self.wait(lambda: self.shows(text))

    def n_prompts(self):
        return self.raw.count(b"\x1b[?2004h")

    def prompted(self, n):
        """Waits for the n-th prompt."""
        self.wait(lambda: self.n_prompts() >= n)

    def say(self, data):
        """Sends a line and waits for the next prompt."""
        n = self.n_prompts()
        self.type(data + "\r")
        self.prompted(n + 1)

    def exit_code(self):
        code = self.child.wait(60)
        self.reader.join(20)
        os.close(self.master)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()
