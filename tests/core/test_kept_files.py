"""Files of kept prompts: whole or not there, and whatever the bytes are, checked."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import signal
import struct
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_kv_cache import CHUNK, TYPES, feed

import tiny_models
from damage import damaged
from helpers import examples, native

engine = native("engine")
kv = native("kv")
HEAD = 40  # bytes before the head
TEXT = [int(t) for t in np.random.default_rng(3).integers(97, 123, 700)]


def test_the_checksum_does_not_depend_on_the_pieces() -> None:
    rng = np.random.default_rng(1)
    for n in (0, 1, 7, 63, 64, 65, 127, 128, 1000):
        data = rng.bytes(n)
        value = kv.hash64([data])
        cut = [data[at : at + 13] for at in range(0, n, 13)]
        assert kv.hash64(cut) == kv.hash64(["", data, ""]) == value
        assert n == 0 or kv.hash64([data[:-1]]) != value
        assert kv.hash64([data + b"\0"]) != value
        assert value == checksum(data)  # on every machine


def checksum(data: bytes) -> int:
    """Hash64, word by word."""
    word_factor, lane_factor, mask = 0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 2**64 - 1

    def mix(lane: int, word: int) -> int:
        mixed = lane ^ (word * word_factor & mask)
        return (mixed << 29 | mixed >> 35) * lane_factor & mask

    lanes = list(range(1, 9))
    padded = data + bytes(-len(data) % 64)
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        lanes[at // 8 % 8] = mix(lanes[at // 8 % 8], word)
    value = mix(0, len(data))
    for lane in lanes:
        value = mix(value, lane)
    value ^= value >> 32
    value = value * lane_factor & mask
    return value ^ value >> 29


def test_the_checksum_sees_every_bit_and_pairs_of_top_bits() -> None:
    data = bytearray(np.random.default_rng(2).bytes(320))
    seen = {kv.hash64([bytes(data)])}
    n = 1
    flips = [(bit,) for bit in range(8 * len(data))]
    # Signs of F32 weights, a lane's words after one another.
    flips += [(511 - 64 * lane, 1023 - 64 * lane) for lane in range(8)]
    flips += [(511, 1023 - 32), (511 - 32, 1023), (511, 1023, 1023 - 32), (63, 575, 543)]
    for bits in flips:
        changed = bytearray(data)
        for bit in bits:
            changed[bit // 8] ^= 1 << bit % 8
        seen.add(kv.hash64([bytes(changed)]))
        n += 1
    assert len(seen) == n


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("windowed", [[], [True, True], [True, False], [False, True]])
@pytest.mark.parametrize("n", [1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 1400])
def test_a_cache_comes_back_position_by_position(
    kind: str, windowed: list[bool], n: int, tmp_path: pathlib.Path
) -> None:
    arena = kv.Arena(poison=True)
    cache = kv.Cache(arena, kind, 2, 2, 32, 3000, windowed, 24 if windowed else 0)
    tags = [float(i % 1900 + 1) for i in range(n)]
    feed(cache, tags)
    cache.forget()
    path = str(tmp_path / "a")
    kv.save(path, list(range(n)), [cache])
    tokens, (found,) = kv.load(path, kv.Arena(poison=True))
    assert tokens == list(range(n))
    assert (found.length(), found.n_bytes()) == (n, cache.n_bytes())
    lowest = cache.lowest()
    assert found.lowest() == lowest
    first = max(0, lowest - 23) if lowest else 0
    assert found.read(first, n) == tags[first:]
    # Nothing but what counts is in the file: not what was there before, nor behind it.
    other = kv.Cache(kv.Arena(), kind, 2, 2, 32, 3000, windowed, 24 if windowed else 0)
    feed(other, [3.0] * 300)
    other.truncate(0)
    feed(other, tags)
    other.forget()
    kv.save(path + "b", list(range(n)), [other])
    assert pathlib.Path(path + "b").read_bytes() == pathlib.Path(path).read_bytes()
    feed(found, [7.0] * 20)
    assert found.read(n, n + 20) == [7.0] * 20


def test_the_budget_of_an_arena_counts(tmp_path: pathlib.Path) -> None:
    cache = kv.Cache(kv.Arena(), "f16", 2, 2, 32, 3000)
    feed(cache, [1.0] * 600)
    path = str(tmp_path / "a")
    kv.save(path, list(range(600)), [cache])
    with pytest.raises(kv.KvError, match=r"resource: .*budget"):
        kv.load(path, kv.Arena(budget_bytes=2 * kv.page_bytes("f16", 2, 2, 32)))


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module", params=["gemma2", "qwen35"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: Any) -> bytes:
    """Of windows and of recurrent layers; with a draft's cache."""
    folder = tmp_path_factory.mktemp("damage")
    config = dataclasses.replace(
        tiny_models.FAMILIES[request.param], n_kv_heads=1, n_heads=2, hidden_size=32
    )
    path = str(tiny_models.write_tiny(folder / "a.gguf", config, seed=1))
    model = engine.load(path, n_threads=1)
    session = engine.Session(model, model, drafter="model", n_ctx=800)
    session.generate(prompt_ids=TEXT[:600], max_tokens=2, ignore_eos=True)
    session.save(str(folder / "a"))
    return (folder / "a").read_bytes()


def reading(path: pathlib.Path, data: bytes) -> str:
    """ "": it was read; else what was wrong."""
    path.write_bytes(data)
    problem = ""
    try:
        kv.load(str(path), kv.Arena())
    except kv.KvError as error:
        problem = str(error)
    assert not problem.startswith("internal"), problem
    return problem


def sections(data: bytes) -> list[int]:
    """Where something ends: the head and the blocks with their checksums, found by these."""
    (n_head,) = struct.unpack_from("<Q", data, 24)
    return [0, 8, 12, 16, 24, 32, HEAD, HEAD + n_head, len(data)]


def test_a_file_that_is_cut_off_is_refused_wherever_it_is(
    whole: bytes, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "cut"
    assert reading(path, whole) == ""
    random = np.random.default_rng(4).integers(0, len(whole), 300).tolist()
    for end in {*range(HEAD + 20), *random, *(e - 1 for e in sections(whole)[1:])}:
        problem = reading(path, whole[:end])
        assert problem.startswith("format: "), (end, problem)
    assert "expected" in reading(path, whole + b"\0")
    assert "is not a kept prompt" in reading(path, b"GGUF" + whole[4:])
    assert "is not a kept prompt" in reading(path, b"")


def test_no_flipped_bit_is_read(whole: bytes, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "flipped"
    rng = np.random.default_rng(5)
    (n_head,) = struct.unpack_from("<Q", whole, 24)
    places = [*range(HEAD + 60), *range(HEAD + n_head - 200, HEAD + n_head + 20)]
    places += [*rng.integers(0, len(whole), 700).tolist(), len(whole) - 1, len(whole) - 9]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        problem = reading(path, bytes(changed))
        expected = "unsupported: " if 8 <= place < 12 else "format: "
        assert problem.startswith(expected), (place, problem)


def sealed(data: bytes, head: bytes) -> bytes:
    """The file with another head, whose checksum and sizes are right."""
    (n_head,) = struct.unpack_from("<Q", data, 24)
    rest = data[HEAD + n_head :]
    n = HEAD + len(head) + len(rest)
    return data[:16] + struct.pack("<QQQ", n, len(head), kv.hash64([head])) + head + rest


@pytest.mark.hypothesis
def test_whatever_a_head_says_it_is_checked(whole: bytes, tmp_path: pathlib.Path) -> None:
    """Of a file that somebody made to do harm: refused, or read without reading outside."""
    path = tmp_path / "forged"
    (n_head,) = struct.unpack_from("<Q", whole, 24)
    head = whole[HEAD : HEAD + n_head]
    assert sealed(whole, head) == whole
    n_text = 4 + 5 + 4 + 4 * 601  # version and tokens, of which there are many
    values = [0, 1, 2, 255, 256, 257, 65535, 65536, 65537, 2**31 - 1, 2**31, 2**32 - 1, 601, 602]
    problems = []

    @given(
        st.one_of(
            damaged(head, n_text - 8, n_head - 21, numbers=values, most=3),
            damaged(head, 0, 9, numbers=values, most=1),
        )
    )
    @settings(max_examples=examples(150))
    def check(forged: bytes) -> None:
        problem = reading(path, sealed(whole, forged))
        assert problem == "" or problem.startswith(("format: ", "resource: "))
        problems.append(problem)

    check()
    assert sum(p != "" for p in problems) > 0.4 * len(problems)
    assert len({p.split(":")[3] for p in problems if p.count(":") > 3}) > 5  # many a reason


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [(8, 2, "format 2, expected 1"), (12, 0x04030201, "big-endian")],
)
def test_other_versions_are_named(
    whole: bytes, at: int, value: int, words: str, tmp_path: pathlib.Path
) -> None:
    changed = bytearray(whole)
    struct.pack_into("<I", changed, at, value)
    problem = reading(tmp_path / "other", bytes(changed))
    assert problem.startswith("unsupported: ")
    assert words in problem


# ---------------------------------------------------------------- writing

WRITER = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from helpers import native
kv = native("kv")
from test_kv_cache import feed
def cache(n):
    one = kv.Cache(kv.Arena(), "f32", 8, 4, 64, 3000)
    feed(one, [float(n % 1900 + 1)] * n)
    return one
path, sizes, n_times = sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
caches = [(n, cache(n)) for n in sizes]
print("ready", flush=True)
for i in range(n_times):
    n, one = caches[i % len(caches)]
    kv.save(path, list(range(n)), [one])
"""


def writer(path: pathlib.Path, sizes: str, n_times: int, **options: Any) -> subprocess.Popen[str]:
    import json

    command = [sys.executable, "-c", WRITER, json.dumps(sys.path), str(path), sizes, str(n_times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_a_process_that_is_killed_while_saving_leaves_a_whole_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    for delay in (0.0, 0.01, 0.03, 0.07, 0.15):
        process = writer(path, "[900, 1000]", 10**6)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        while not path.exists():
            time.sleep(0.01)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        process.stdout.close()
        tokens, (cache,) = kv.load(str(path), kv.Arena())
        assert len(tokens) in (900, 1000)
        assert cache.read(0, 1) == [float(len(tokens) % 1900 + 1)]
    names = [p for p in tmp_path.iterdir() if p != path]
    assert len(names) <= 5  # between naming and renaming; none while it is written


def test_a_full_disk_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a"
    assert writer(path, "[20]", 1).wait(60) == 0
    old = path.read_bytes()
    process = writer(
        path, "[900]", 1, stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
    )  # fmt: skip
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"KvError: io: {path}: cannot write: File too large" in errors
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_only_files_are_replaced(tmp_path: pathlib.Path) -> None:
    cache = kv.Cache(kv.Arena(), "f16", 2, 2, 32, 100)
    feed(cache, [1.0])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"a user's")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("folder", "pipe", "link"):
        with pytest.raises(kv.KvError, match=r"invalid: .*give the name of a file|symbolic link"):
            kv.save(str(tmp_path / name), [1], [cache])
    with pytest.raises(kv.KvError, match=r"invalid: .*is a device"):
        kv.save("/dev/null", [1], [cache])
    with pytest.raises(kv.KvError, match=r"io: .*No such file"):
        kv.save(str(tmp_path / "none" / "a"), [1], [cache])
    assert (tmp_path / "file").read_bytes() == b"a user's"
    for name in ("folder", "pipe"):
        with pytest.raises(kv.KvError, match=r"io: "):
            kv.load(str(tmp_path / name), kv.Arena())
