"""Scripts of `tools/` in this process, where what they import is there already."""

from __future__ import annotations

import contextlib
import io
import pathlib
import runpy
import subprocess
import sys


def run_script(
    path: pathlib.Path, *arguments: object, errors: io.StringIO | None = None
) -> subprocess.CompletedProcess[str]:
    """As `python PATH ARGUMENTS` would; what would end it with a traceback is raised."""
    command = [str(path), *map(str, arguments)]
    out, errors = io.StringIO(), errors or io.StringIO()
    argv, places = sys.argv, sys.path[:]
    sys.argv = command
    sys.path.insert(0, str(path.parent))
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=errors)
    finally:
        sys.argv, sys.path[:] = argv, places
    return subprocess.CompletedProcess(command, code, out.getvalue(), errors.getvalue())
