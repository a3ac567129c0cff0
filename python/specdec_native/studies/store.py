"""The folder of a study: what was asked, every run as soon as it is done, and what follows."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import InvalidArgumentError, ModelFileError
from .runner import Key, Row

SETTINGS = "study.json"
RUNS = "runs.jsonl"
VERSION = 1


class Store:
    """One study's folder, owned by one process at a time.

    Runs are appended as lines, a whole run at once and synced: what a kill cuts off is the last
    line, which is dropped when the study goes on.
    """

    def __init__(self, folder: pathlib.Path, settings: Mapping[str, Any], *, restart: bool) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("w")
        except OSError as error:
            raise ModelFileError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise InvalidArgumentError(
                f"{folder} is in use by another study; wait for it or give another --out"
            ) from None
        self.folder = folder
        self._runs = folder / RUNS
        try:
            if restart:
                for name in (RUNS, SETTINGS):
                    (folder / name).unlink(missing_ok=True)
            self._settle(settings)
            self.rows = self._read()
        except BaseException:
            self.close()
            raise

    def _settle(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / SETTINGS
        wanted = {"format": VERSION, **settings}
        if not path.exists():
            write_json(path, wanted)
            return
        there = read_settings(self.folder)
        changed = [
            f"{name} was {there.get(name)!r} and is {wanted.get(name)!r}"
            for name in sorted({*there, *wanted})
            if json.dumps(there.get(name), sort_keys=True)
            != json.dumps(wanted.get(name), sort_keys=True)
        ]
        if changed:
            raise InvalidArgumentError(
                f"{self.folder} holds another study: {'; '.join(changed)}; give another --out, or "
                "--restart to throw its runs away"
            )

    def _read(self) -> list[Row]:
        if not self._runs.exists():
            return []
        rows, whole = parse_runs(self._runs)
        if whole < self._runs.stat().st_size:
            os.truncate(self._runs, whole)  # cut off by a kill
        return rows

    @property
    def done(self) -> set[Key]:
        return {(row["block"], row["method"], row["round"]) for row in self.rows}

    def append(self, rows: Sequence[Row]) -> None:
        """All rows of one run."""
        self.rows.extend(rows)
        line = json.dumps(list(rows), ensure_ascii=False) + "\n"
        with self._runs.open("ab") as file:
            file.write(line.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        self._lock.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def parse_runs(path: pathlib.Path) -> tuple[list[Row], int]:
    """Rows of all whole lines, and the bytes they take."""
    rows: list[Row] = []
    whole = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            rows += json.loads(line)
        except ValueError:
            raise InvalidArgumentError(
                f"{path}, line {number}: not a run; the file was changed, give --restart"
            ) from None
        whole += len(line)
    return rows, whole


def read_settings(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        settings = None
    if not isinstance(settings, dict) or settings.get("format") != VERSION:
        raise InvalidArgumentError(f"{path} is not of a study of this version; give --restart")
    return settings


def write_json(path: pathlib.Path, value: Any) -> None:
    with whole_file(path) as file:
        file.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def whole_file(path: pathlib.Path) -> Iterator[Any]:
    """A text file that is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
