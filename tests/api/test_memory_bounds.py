"""A file that holds more than a memory has room for: what does not fit stays in the file."""

from __future__ import annotations

import pathlib
import random
import shutil
import subprocess
from typing import Any

import pytest
from test_memory_stateful import texts_of

from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

SMALL = 1024  # the least


def texts(n: int, length: int, seed: int = 3) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.randrange(97, 123) for _ in range(length)) for _ in range(n)]


def tell(model: Any, memory: Any, some: list[tuple[int, ...]], **options: Any) -> None:
    with sd.Decoder(model, memory=memory, n_ctx=4096, **{"drafter": None, **options}) as decoder:
        for text in some:
            decoder.generate(list(text), max_tokens=0)


def n_tokens(path: pathlib.Path) -> int:
    return sum(map(len, texts_of(path)))


@pytest.fixture
def large(tiny: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    """Of 6000 tokens."""
    path = tmp_path / "texts.memory"
    memory = sd.Memory(path)
    tell(tiny, memory, texts(20, 300))
    memory.save()
    assert texts_of(path) == texts(20, 300)
    return path


def test_a_smaller_memory_takes_nothing_away(tiny: Any, large: pathlib.Path) -> None:
    memory = sd.Memory(large, max_tokens=SMALL)
    new = texts(3, 300, seed=4)
    tell(tiny, memory, new[:1])
    memory.save()
    assert memory.n_tokens <= SMALL
    # As many tokens as it held, the new one's in place of the oldest.
    assert texts_of(large) == [*texts(20, 300)[1:], *new[:1]]
    # What the memory forgets is in the file, of what it wrote itself, too.
    for text in [*new[1:], *texts(4, 300, seed=5)]:
        tell(tiny, memory, [text])
        memory.save()
    assert set(texts_of(large)) == {*texts(20, 300)[7:], *new, *texts(4, 300, seed=5)}
    assert n_tokens(large) == 6000


def test_opening_and_closing_it_time_and_again_loses_nothing(
    tiny: Any, large: pathlib.Path
) -> None:
    for n in range(5):
        memory = sd.Memory(large, max_tokens=SMALL)
        tell(tiny, memory, texts(1, 250, seed=10 + n))
        memory.save()
        assert n_tokens(large) == 6000
    whole = sd.Memory(large)
    whole.use(tiny)
    assert whole.n_tokens == 6000


def test_what_is_known_already_is_not_there_twice(tiny: Any, large: pathlib.Path) -> None:
    memory = sd.Memory(large, max_tokens=SMALL)
    again = texts(20, 300)[4]  # which it has no room for
    tell(tiny, memory, [again, (*again[:200], *texts(1, 100, seed=6)[0])])
    memory.save()
    found = texts_of(large)
    assert found.count(again) == 1
    assert set(texts(20, 300)[1:]) <= set(found)


def test_a_text_that_is_longer_than_the_memory_stays_whole(
    tiny: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "texts.memory"
    memory = sd.Memory(path)
    long = texts(2, 3000)
    tell(tiny, memory, long)
    memory.save()
    small = sd.Memory(path, max_tokens=SMALL)
    small.use(tiny)
    assert small.n_tokens == SMALL
    tell(tiny, small, [(*long[1][-100:], 98, 99, 98)])  # its end is used, and goes on
    small.save()
    found = texts_of(path)
    assert long[1] in found
    assert n_tokens(path) == 6000
    assert found[0] == long[0][-len(found[0]) :]  # of the oldest the end


def test_what_others_write_meanwhile_stays_too(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "texts.memory"
    small, whole = sd.Memory(path, max_tokens=SMALL), sd.Memory(path)
    small.use(tiny)
    tell(tiny, whole, texts(20, 300))
    whole.save()
    new = texts(1, 300, seed=4)
    tell(tiny, small, new)
    small.save()
    assert texts_of(path) == [*texts(20, 300)[1:], *new]


def test_successors_that_do_not_fit_stay_in_the_file(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "texts.memory"
    drafter = sd.TokenRecycling()
    memory = sd.Memory(path)
    rng = random.Random(1)
    with sd.Decoder(tiny, drafter=drafter, memory=memory, n_ctx=1024) as decoder:
        for n in range(12):
            prompt = [rng.randrange(256) for _ in range(250)]
            decoder.generate(prompt, max_tokens=8, ignore_eos=True, memory_key=str(n))
    memory.save()
    n_rows = rows_of(path)
    assert n_rows > SMALL // 8
    with sd.Decoder(
        tiny, drafter=drafter, memory=sd.Memory(path, max_tokens=SMALL), n_ctx=1024
    ) as decoder:
        decoder.generate("some other text", max_tokens=8, ignore_eos=True)
        small = sd.Memory(path, max_tokens=SMALL)
    tell(tiny, small, texts(1, 100))
    small.save()
    assert rows_of(path) >= n_rows


def rows_of(path: pathlib.Path) -> int:
    content = path.read_bytes()
    at = 44
    for _ in range(2):  # version, model
        at += 4 + int.from_bytes(content[at : at + 4], "little")
    at += 8 + sum(12 + 4 * len(text) for text in texts_of(path))
    return int.from_bytes(content[at : at + 8], "little")


def test_clearing_forgets_what_did_not_fit(tiny: Any, large: pathlib.Path) -> None:
    memory = sd.Memory(large, max_tokens=SMALL)
    memory.use(tiny)
    memory.clear()
    memory.save()
    assert texts_of(large) == []
    new = texts(5, 300, seed=4)
    tell(tiny, memory, new)
    memory.save()
    assert texts_of(large) == new[2:]  # its own bound from here on


def test_a_file_that_was_removed_begins_anew(tiny: Any, large: pathlib.Path) -> None:
    memory = sd.Memory(large, max_tokens=SMALL)
    memory.use(tiny)
    large.unlink()
    tell(tiny, memory, texts(1, 300, seed=4))
    memory.save()
    assert n_tokens(large) <= SMALL


def test_the_command_takes_nothing_away(tiny_path: pathlib.Path, large: pathlib.Path) -> None:
    before = large.read_bytes()
    copy = large.with_name("copy")
    shutil.copy(large, copy)
    command = [specdec_binary(), "generate", "-m", tiny_path, "-p", "some text", "-n", "20"]
    command += ["--memory", copy, "--memory-tokens", str(SMALL)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert n_tokens(copy) == 6000
    assert copy.read_bytes() != before
