"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import pathlib
import re
import select
import subprocess
import sys
import time

START = re.compile(rb"http://127\.0\.0\.1:(\d+)")


class ServerProcess:
    """`specdec-native serve` on a port that is free; a context manager."""

    def __init__(self, *arguments, env=None):
        command = [sys.executable, "-m", "specdec_native", "serve", *map(str, arguments)]
        self.process = subprocess.Popen(
            [*command, "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.log = b""
        deadline = time.monotonic() + 120
        while (found := START.search(self.log)) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"it did not start: {self.log.decode()}")
            self.read_log(0.2)
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def read_log(self, seconds=0.0):
        """What it has said so far."""
        while select.select([self.process.stderr], [], [], seconds)[0]:
            part = os.read(self.process.stderr.fileno(), 1 << 16)
            if not part:
                break
            self.log += part
        return self.log.decode(errors="replace")

    def rss(self):
        """Bytes of memory that are really there."""
        pages = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")

    def sockets(self):
        """How many it has open."""
        links = list(pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir())
        return sum(link.is_symlink() and "socket" in str(link.readlink()) for link in links)

    def stop(self, number, timeout=120):
        """Sends a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stderr.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()
