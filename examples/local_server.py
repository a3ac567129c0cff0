"""Starts `specdec-native serve` on a free port for the examples that need a server."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def serving(model: str, url: str | None = None) -> Iterator[str]:
    """The address of a server; one is started and ended unless `url` names one."""
    if url:
        yield url.rstrip("/")
        return
    command = [sys.executable, "-m", "specdec_native", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if found := re.search(r"http://[\d.]+:\d+", line):
                break
        else:
            raise SystemExit("the server did not start")
        try:
            yield found[0]
        finally:
            server.terminate()  # requests that run are finished first
            server.communicate()
