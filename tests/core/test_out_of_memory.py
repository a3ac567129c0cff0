"""Memory that runs out is exit code 5 and ResourceLimitError, at whatever allocation it does."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from helpers import native, specdec_binary

POINTS = int(os.environ.get("SPECDEC_FAULT_POINTS", "16"))
HERE = pathlib.Path(__file__).parents[1]
MODELS = HERE.parent / "models"
PAIR = [
    *("-m", MODELS / "pycode-llama-draft.q8_0.gguf"),
    *("-md", MODELS / "pycode-llama-draft.q8_0.gguf"),
]
COMMANDS = {
    "generate": ["generate", *PAIR, "-p", "def add(a, b):", "-n", "12", "-t", "2", "--json"],
    "chat text": ["generate", *PAIR[:2], "-p", "a", "-n", "4", "--drafter", "ngram,suffix"],
    "usage": ["generate", "--no-such-option"],
    "sampled": ["generate", *PAIR[:2], "-p", "a b", "-n", "4", "--temp", "0.7"],
    "inspect": ["inspect", PAIR[1], "--json"],
    "save": ["generate", *PAIR, "-p", "a b", "-n", "2", "-t", "1", "--prompt-cache", "{kept}"],
    "load": ["generate", *PAIR, "-p", "a b c", "-n", "2", "-t", "1", "--prompt-cache", "{kept}",
             "--prompt-cache-ro"],
}  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C++ compiler on Linux")
    target = tmp_path_factory.mktemp("alloc") / "alloc_failure.so"
    source = HERE / "native" / "alloc_failure.cc"
    subprocess.run(
        [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", source, "-o", target], check=True
    )
    return target


def run(library: pathlib.Path, command: list[object], **settings: object) -> tuple[int, str]:
    done = subprocess.run(
        [specdec_binary(), *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "LD_PRELOAD": str(library), **{k: str(v) for k, v in settings.items()}},
    )
    return done.returncode, done.stderr


def allocations(library: pathlib.Path, command: list[object], tmp_path: pathlib.Path) -> int:
    count = tmp_path / "count"
    run(library, command, SPECDEC_COUNT_TO=count)
    return int(count.read_text())


def points(n_allocations: int, n_points: int) -> list[int]:
    """All of the first and last, and an even choice of the others."""
    ends = n_points // 4
    step = max(1, n_allocations // (n_points // 2))
    chosen = {*range(1, ends), *range(n_allocations - ends, n_allocations)}
    return sorted(n for n in chosen | set(range(1, n_allocations, step)) if n > 0)


def check_all(library: pathlib.Path, name: str, tmp_path: pathlib.Path, n_points: int) -> None:
    kept = tmp_path / "a.kept"
    command = [str(kept) if word == "{kept}" else word for word in COMMANDS[name]]
    if name == "load":
        save = [str(kept) if word == "{kept}" else word for word in COMMANDS["save"]]
        assert run(library, save)[0] == 0
    n = allocations(library, command, tmp_path)
    normal = 2 if name == "usage" else 0
    codes: collections.Counter[int] = collections.Counter()
    bad = []
    for at in points(n, n_points):
        if name == "save":
            kept.unlink(missing_ok=True)
        code, errors = run(library, command, SPECDEC_FAIL_AT=at)
        # The C library itself ends a process that has no memory for a first thread_local.
        if code == -6 and "failed to register TLS destructor" in errors:
            continue
        codes[code] += 1
        # A cache that is not kept or a draft that is given up is not the end of the generation.
        if code not in (5, normal) or (code == 5 and "memory" not in errors):
            bad.append((at, code, errors[-300:]))
    # What tools/campaign.py counts.
    print(json.dumps({f"malloc error {code}": count for code, count in sorted(codes.items())}))
    assert not bad, (len(bad), bad[:5], codes)
    assert codes[5] > 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_failed_allocation_is_reported(library, tmp_path, name):
    check_all(library, name, tmp_path, POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_hundreds_of_failed_allocations_are_reported(library, tmp_path, name):
    check_all(library, name, tmp_path, 800)


def test_the_output_is_untouched_where_nothing_fails(library):
    done = subprocess.run(
        [specdec_binary(), *map(str, COMMANDS["generate"])],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "LD_PRELOAD": str(library), "SPECDEC_FAIL_AT": "1000000000"},
    )
    assert json.loads(done.stdout)["text"]


def check_scheduler(library, tiny_path, tiny_draft_path, drafters, how_many, n_points, timeout):
    draft = str(tiny_draft_path) if drafters == "auto" else ""
    # The module from the beginning on: else glibc needs memory for the first thread-local variable
    # of each thread, and ends the process where there is none.
    preload = f"{library} {native('failures').__file__}"
    command = [sys.executable, HERE / "failing_scheduler.py", tiny_path, draft, drafters]
    done = subprocess.run(
        [str(word) for word in (*command, how_many, n_points)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, "LD_PRELOAD": preload},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr[-2000:])
    whole = lines[0]["whole"]
    assert [reason for reason, _ in whole] == ["length"] * 7, whole
    bad, counts = [], collections.Counter()
    for place, found in zip(lines[1::2], lines[2::2], strict=True):
        refused = found["refused"]
        for i, ((reason, text), (_, expected)) in enumerate(zip(found["told"], whole, strict=True)):
            counts[reason] += 1
            # What was cancelled or out of time can have reached its end before; what has not is a
            # part of the whole text, but for the bytes of a character that was not complete.
            fine = reason in ENDS[i] and expected.startswith(text.rstrip("\xef\xbf\xbd"))
            fine = fine and (reason != "length" or text == expected)
            fine = fine or (reason == "" and refused != "")
            if not fine:
                bad.append((place["at"], i, reason, text, refused))
        if "places are lost" in refused:
            bad.append((place["at"], refused))
    print(
        json.dumps(
            {
                "malloc scheduler ended": counts["no memory"],
                "malloc scheduler runs": len(lines) // 2,
            }
        )
    )
    assert not bad, (len(bad), bad[:5])
    assert counts["no memory"] > 0
    assert counts["cancelled"] > 0
    assert counts["timeout"] > 0


# How each of failing_scheduler.py's requests may end, and the one behind them, when memory is
# there again.
FAILS = {"length", "no memory"}
ENDS = [FAILS, FAILS, FAILS | {"cancelled"}, FAILS | {"timeout"}, FAILS, FAILS | {"cancelled"},
        {"length"}]  # fmt: skip
HOW_MANY = {"one": 1, "a few": 40, "all": 1 << 40}


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_requests_of_a_scheduler_end_whatever_fails(library, tiny_path, tiny_draft_path, how_many):
    options = (HOW_MANY[how_many], 30, 240)
    check_scheduler(library, tiny_path, tiny_draft_path, "auto", *options)


@pytest.mark.slow
@pytest.mark.parametrize("drafters", ["auto", "none", "suffix,recycling", "layerskip"])
@pytest.mark.parametrize("how_many", HOW_MANY)
def test_requests_of_a_scheduler_end_whatever_of_thousands_fails(
    library, tiny_path, tiny_draft_path, drafters, how_many
):
    options = (HOW_MANY[how_many], 4000, 1800)
    check_scheduler(library, tiny_path, tiny_draft_path, drafters, *options)
