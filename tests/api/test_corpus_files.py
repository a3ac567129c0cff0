"""Lookups in files: `SuffixAutomaton(corpus=Path(...))` and `--suffix-corpus PATH`."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

import specdec_native as sd
from helpers import specdec_binary

PROMPT = "def add(a, b):\n    return a + b\n"
OPTIONS = {"max_tokens": 60, "ignore_eos": True}


@pytest.fixture(scope="module")
def text(tiny):
    """What the model writes: a file that has it makes every draft right."""
    return PROMPT + sd.Decoder(tiny, drafter=None).generate(PROMPT, **OPTIONS).text


def accepted(tiny, corpus, **more):
    drafter = sd.SuffixAutomaton(corpus=corpus, gamma=8, **more)
    return sd.Decoder(tiny, drafter=drafter).generate(PROMPT, **OPTIONS).stats.accepted


def write(path: pathlib.Path, content: str | bytes, changed: int = 1000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (changed, changed))


def test_a_file_and_the_files_of_a_folder_are_drafted_from(tiny, text, tmp_path):
    write(tmp_path / "src" / "deep" / "known.py", text)
    write(tmp_path / "src" / "other.py", "nothing of it\n" * 20)
    without = accepted(tiny, None)
    given = accepted(tiny, text)
    assert given > without
    assert accepted(tiny, tmp_path / "src" / "deep" / "known.py") == given
    assert accepted(tiny, tmp_path / "src") == given
    # Text that looks like a path is text.
    assert accepted(tiny, str(tmp_path / "src")) == without


@pytest.mark.parametrize(
    "name, change",
    [
        (".hidden.py", lambda text: text),
        (".git/known.py", lambda text: text),
        ("nul.bin", lambda text: text.encode() + b"\0"),
        ("latin.txt", lambda text: text.encode() + b"\xe9"),
        ("long.txt", lambda text: text + "x" * (1 << 20)),
    ],
)
def test_what_is_hidden_binary_or_long_is_left_out(tiny, text, tmp_path, name, change):
    write(tmp_path / name, change(text))
    write(tmp_path / "other.py", "nothing of it\n" * 20)
    assert accepted(tiny, tmp_path) == accepted(tiny, None)


def test_links_are_not_followed(tiny, text, tmp_path):
    write(tmp_path / "outside" / "known.py", text)
    write(tmp_path / "inside" / "other.py", "nothing of it\n")
    (tmp_path / "inside" / "link.py").symlink_to(tmp_path / "outside" / "known.py")
    (tmp_path / "inside" / "round").symlink_to(tmp_path / "inside")
    assert accepted(tiny, tmp_path / "inside") == accepted(tiny, None)


def test_the_files_changed_last_come_first(tiny, text, tmp_path):
    write(tmp_path / "known.py", text, changed=2000)
    filler = "".join(f"line {i} of a long file\n" for i in range(900))
    write(tmp_path / "filler.txt", filler, changed=1000)
    with_it = accepted(tiny, tmp_path, max_store=1024)
    assert with_it > accepted(tiny, None)
    os.utime(tmp_path / "filler.txt", (3000, 3000))
    assert accepted(tiny, tmp_path, max_store=1024) < with_it


def test_no_match_reaches_from_one_file_into_the_next(tiny, text, tmp_path):
    write(tmp_path / "a.txt", PROMPT, changed=2000)
    write(tmp_path / "b.txt", text.removeprefix(PROMPT), changed=1000)
    first = []
    for corpus in (text, tmp_path):
        rounds = []
        drafter = sd.SuffixAutomaton(min_match=6, corpus=corpus, gamma=4)
        sd.Decoder(tiny, drafter=drafter).generate(PROMPT, max_tokens=8, on_round=rounds.append)
        first.append(len(rounds[0].drafted))
    assert first == [4, 0]


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda folder: folder / "missing", sd.ModelFileNotFoundError, "missing"),
        (lambda folder: folder, sd.InvalidArgumentError, "no file to look matches up in"),
        (lambda folder: pathlib.Path("/dev/null"), sd.SpecdecError, "/dev/null"),
    ],
)
def test_where_there_is_nothing_to_read_is_said(tiny, tmp_path, make, error, match):
    with pytest.raises(error, match=match):
        sd.Decoder(tiny, drafter=sd.SuffixAutomaton(corpus=make(tmp_path)))


def test_another_type_is_refused():
    with pytest.raises(sd.InvalidArgumentError, match="corpus must be a str or a path or None"):
        sd.SuffixAutomaton(corpus=3)


def test_the_command_takes_a_folder(tiny_path, text, tmp_path):
    write(tmp_path / "src" / "known.py", text)
    counts = []
    for more in ([], ["--suffix-corpus", tmp_path / "src"]):
        command = [specdec_binary(), "generate", "-m", tiny_path, "-p", PROMPT, "-n", "60"]
        command += ["--drafter", "suffix", "--gamma", "8"]
        command += ["--ignore-eos", "--json", "-q", *more]
        done = subprocess.run([str(w) for w in command], capture_output=True, check=True)
        counts.append(json.loads(done.stdout)["stats"]["accepted"])
    assert counts[1] > counts[0]
