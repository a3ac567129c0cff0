"""Memories of earlier requests: in one process and in a file."""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
import pickle
import random
import stat
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_models
from damage import damaged
from helpers import examples

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat sat on the mat and "
OTHER = "once upon a time there was a fox who "
CALL: dict[str, Any] = {"max_tokens": 48, "ignore_eos": True}
PROLOGUE = 32


def rounds_of(model: Any, memory: Any, prompt: str = PROMPT, **call: Any) -> Any:
    seen: list[Any] = []
    drafter = call.pop("drafter", sd.NGram(gamma=6))
    with sd.Decoder(model, drafter=drafter, memory=memory) as decoder:
        out = decoder.generate(prompt, on_round=seen.append, **{**CALL, **call})
    return out, seen


def from_memory(rounds: list[Any]) -> int:
    return sum(len(r.accepted) for r in rounds if r.source == "memory")


def plain(model: Any, prompt: str = PROMPT, **call: Any) -> Any:
    with sd.Decoder(model, drafter=None) as decoder:
        return decoder.generate(prompt, **{**CALL, **call})


def test_a_request_drafts_from_an_earlier_one(tiny: Any) -> None:
    memory = sd.Memory()
    first, rounds = rounds_of(tiny, memory)
    assert from_memory(rounds) == 0
    assert memory.n_texts == 1
    assert memory.n_tokens == first.stats.prompt_tokens + len(first.token_ids)
    second, rounds = rounds_of(tiny, memory)
    assert from_memory(rounds) > 40
    assert len(rounds) < 12
    assert second.token_ids == first.token_ids == plain(tiny).token_ids
    assert memory.n_texts == 1  # nothing new


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("drafter", ["auto", "suffix", "ngram", "recycling", "ngram,suffix"])
def test_the_text_is_plain_whatever_the_memory_holds(
    tiny: Any, drafter: str, temperature: float
) -> None:
    call = {"temperature": temperature, "seed": 7}
    expected = plain(tiny, **call).token_ids
    rng = random.Random(1)
    wrong = list(expected)
    for at in range(0, len(wrong), 5):
        wrong[at] = rng.randrange(97, 123)
    memory = sd.Memory()
    prompt = tiny.tokenize(PROMPT)
    with sd.Decoder(tiny, drafter=None, memory=memory) as decoder:
        for text in (wrong, wrong[::-1], expected[:20], [*expected[:9], *expected[:9]]):
            decoder.generate([*prompt, *text], max_tokens=0)
    for _ in range(2):
        out, rounds = rounds_of(tiny, memory, drafter=drafter, **call)
        assert out.token_ids == expected
        assert drafter not in ("suffix", "ngram") or from_memory(rounds) > 0


def test_rejected_drafts_leave_no_trace(tiny: Any) -> None:
    memory = sd.Memory()
    prompt = tiny.tokenize(PROMPT)
    with sd.Decoder(tiny, drafter=None, memory=memory) as decoder:
        decoder.generate([*prompt, *prompt[::-1]], max_tokens=0)
    with sd.Decoder(tiny, drafter=sd.NGram(gamma=6), memory=memory) as decoder:
        out = decoder.generate(PROMPT, **CALL)
        again = decoder.generate([*prompt, *out.token_ids[:20]], max_tokens=28, ignore_eos=True)
    assert again.token_ids == out.token_ids[20:] == plain(tiny).token_ids[20:]
    assert out.stats.drafted > out.stats.accepted


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("which", ["model", "layerskip"])
def test_it_drafts_before_a_model_of_fixed_length(
    tiny: Any, tiny_draft: Any, which: str, temperature: float
) -> None:
    call = {"temperature": temperature, "seed": 3} if temperature else {}
    drafter = sd.DraftModel(tiny_draft, gamma=4) if which == "model" else sd.LayerSkip(gamma=3)
    memory = sd.Memory()
    first, rounds = rounds_of(tiny, memory, drafter=drafter, **call)
    assert from_memory(rounds) == 0
    second, rounds = rounds_of(tiny, memory, drafter=drafter, **call)
    assert from_memory(rounds) > 30
    assert second.token_ids == first.token_ids


def test_plain_decoding_only_learns(tiny: Any) -> None:
    memory = sd.Memory()
    for _ in range(2):
        out, _ = rounds_of(tiny, memory, drafter=None)
        assert out.stats.drafted == 0
    assert memory.n_texts == 1
    assert from_memory(rounds_of(tiny, memory)[1]) > 0


def test_a_request_can_stay_out(tiny: Any) -> None:
    memory = sd.Memory()
    rounds_of(tiny, memory, remember=False)
    assert memory.n_tokens == 0
    rounds_of(tiny, memory)
    _, rounds = rounds_of(tiny, memory, remember=False)
    assert from_memory(rounds) == 0
    _, rounds = rounds_of(tiny, memory, speculate=False)
    assert all(not r.drafted for r in rounds)


def test_keys_keep_users_apart(tiny: Any) -> None:
    memory = sd.Memory()
    rounds_of(tiny, memory, memory_key="ann")
    assert from_memory(rounds_of(tiny, memory, memory_key="bob")[1]) == 0
    assert from_memory(rounds_of(tiny, memory)[1]) == 0
    assert from_memory(rounds_of(tiny, memory, memory_key="ann")[1]) > 40
    assert memory.n_texts == 3


@pytest.mark.parametrize("key", ["\ud800", "\0", "a\ud800b"])
def test_any_text_is_a_key(tiny: Any, key: str) -> None:
    memory = sd.Memory()
    rounds_of(tiny, memory, memory_key=key)
    for other in ("\udfff", "?", "a?b", key + "a"):
        assert from_memory(rounds_of(tiny, memory, memory_key=other, remember=True)[1]) == 0
    assert from_memory(rounds_of(tiny, memory, memory_key=key)[1]) > 40
    with sd.Engine(tiny, memory=memory, drafter=sd.NGram(gamma=6), n_ctx=256) as engine:
        request = engine.submit(PROMPT, memory_key=key, **CALL)
        assert request.result(60).stats.accepted > 40


def test_recycling_begins_with_what_earlier_requests_saw(tiny: Any) -> None:
    drafter = sd.TokenRecycling(gamma=4)
    memory = sd.Memory()
    first, _ = rounds_of(tiny, memory, drafter=drafter)
    # A token whose successors are not in the prompt.
    prompt = [first.token_ids[5]]
    with sd.Decoder(tiny, drafter=drafter, memory=memory) as decoder:
        told: list[Any] = []
        out = decoder.generate(prompt, on_round=told.append, **CALL)
    without = rounds_of(tiny, None, drafter=drafter, prompt=prompt)[1]
    assert (told[0].source, without[0].source) == ("recycling", "")
    assert told[0].drafted
    assert out.token_ids == plain(tiny, prompt).token_ids


def test_requests_of_an_engine_share_it(tiny: Any) -> None:
    memory = sd.Memory()
    expected = plain(tiny)
    with sd.Engine(tiny, drafter=sd.NGram(gamma=6), memory=memory, n_ctx=256) as engine:
        engine.submit(PROMPT, **CALL).result(60)
        kept = [engine.submit(PROMPT, **CALL) for _ in range(3)]
        aside = engine.submit(PROMPT, remember=False, **CALL)
        for request in (*kept, aside):
            assert request.result(60).token_ids == expected.token_ids
    assert memory.n_texts == 1
    assert kept[0].result(60).stats.accepted > 40 > aside.result(60).stats.accepted
    # And with decoders.
    assert from_memory(rounds_of(tiny, memory)[1]) > 40


def test_an_async_decoder_has_it_too(tiny: Any) -> None:
    async def answers() -> list[Any]:
        decoder = sd.AsyncDecoder(tiny, drafter=sd.NGram(gamma=6), memory=sd.Memory())
        return [await decoder.generate(text, **CALL) for text in (PROMPT, OTHER, PROMPT)]

    first, _, third = asyncio.run(answers())
    assert first.token_ids == third.token_ids
    assert third.stats.accepted > first.stats.accepted


def test_a_check_of_the_output_is_not_remembered(tiny: Any) -> None:
    memory = sd.Memory()
    with sd.Decoder(tiny, memory=memory) as decoder:
        assert decoder.generate(PROMPT, verify_output=True, **CALL).check.identical
    assert memory.n_texts == 1


def test_what_a_callback_ended_is_remembered_as_far_as_it_came(tiny: Any) -> None:
    memory = sd.Memory()
    with sd.Decoder(tiny, drafter=None, memory=memory) as decoder:
        out = decoder.generate(PROMPT, on_token=lambda chunk: False, **CALL)
    assert out.finish_reason == "cancelled"
    assert memory.n_tokens == out.stats.prompt_tokens + len(out.token_ids)


def test_forks_and_forgetting(tiny: Any) -> None:
    memory = sd.Memory(max_tokens=1024)
    with sd.Decoder(tiny, drafter=sd.NGram(gamma=6), memory=memory, n_ctx=1500) as decoder:
        decoder.generate(PROMPT, **CALL)
        with decoder.fork() as other:
            assert other.generate(PROMPT, **CALL).stats.accepted > 40
        decoder.generate("x".join("abcdefg" * 200)[:1200], max_tokens=1)
    assert memory.n_tokens <= 1024
    memory.clear()
    assert memory.n_tokens == memory.n_texts == 0


# --- files


@pytest.fixture
def kept(tiny: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "texts.memory"
    memory = sd.Memory(path)
    rounds_of(tiny, memory, drafter=sd.TokenRecycling())
    memory.save()
    return path


def test_another_process_goes_on(tiny: Any, tiny_path: pathlib.Path, tmp_path: Any) -> None:
    path = tmp_path / "texts.memory"
    script = (
        "import specdec_native as sd, sys\n"
        f"model = sd.Model({str(tiny_path)!r}, n_threads=1)\n"
        f"decoder = sd.Decoder(model, drafter=None, memory={str(path)!r})\n"
        f"print(decoder.generate({PROMPT!r}, max_tokens=48, ignore_eos=True).token_ids)\n"
        f"decoder.generate({OTHER!r}, max_tokens=48, ignore_eos=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for prompt in (PROMPT, OTHER):  # the second was saved at the end of the process
        out, rounds = rounds_of(tiny, path, prompt=prompt)
        assert from_memory(rounds) > 40
        assert prompt != PROMPT or str(out.token_ids) == done.stdout.strip()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_two_writers_do_not_lose_each_others_texts(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "texts.memory"
    one, two = sd.Memory(path), sd.Memory(path)
    one.use(tiny)
    two.use(tiny)
    rounds_of(tiny, one)
    rounds_of(tiny, two, prompt=OTHER)
    one.save()
    two.save()
    third = sd.Memory(path)
    for prompt in (PROMPT, OTHER):
        assert from_memory(rounds_of(tiny, third, prompt=prompt)[1]) > 40
    assert third.n_texts == two.n_texts == 2


def test_a_request_does_not_wait_for_others_that_write(
    tiny: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "texts.memory"
    memory = sd.Memory(path)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with caplog.at_level(logging.WARNING, "specdec_native"):
            rounds_of(tiny, memory)
        assert not caplog.records  # who has waited in vain says so
        assert not path.exists()
        with pytest.raises(OSError, match="another process has locked its folder"):
            memory.save()
    finally:
        os.close(folder)
    memory.save()
    assert path.exists()


def test_a_full_memory_keeps_its_own_texts_when_it_saves(tiny: Any, tmp_path: pathlib.Path) -> None:
    from test_memory_stateful import texts_of

    rng = random.Random(3)
    texts = [tuple(rng.randrange(97, 123) for _ in range(150)) for _ in range(12)]

    def tell(memory: Any, some: list[Any]) -> None:
        with sd.Decoder(tiny, drafter=None, memory=memory) as decoder:
            for text in some:
                decoder.generate(list(text), max_tokens=0)

    path = tmp_path / "texts.memory"
    one, two = (sd.Memory(path, max_tokens=1024) for _ in range(2))
    one.use(tiny)
    two.use(tiny)
    tell(two, texts[:1])
    tell(one, texts[:1])
    one.save()
    tell(two, texts[1:7])
    two.save()
    tell(one, texts[7:10])
    one.save()
    assert texts_of(path) == [*texts[4:7], *texts[7:10]]
    assert one.n_texts == 6


def test_what_is_cleared_does_not_come_back_from_what_another_wrote(
    tiny: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "texts.memory"
    one, two = sd.Memory(path), sd.Memory(path)
    one.use(tiny)
    rounds_of(tiny, one)
    one.save()
    two.use(tiny)
    rounds_of(tiny, two, prompt=OTHER)
    two.save()  # with the text of the first
    one.clear()
    rounds_of(tiny, one, prompt="a third one, told after that, ")
    one.save()
    assert one.n_texts == 1
    third = sd.Memory(path)
    third.use(tiny)
    assert third.n_texts == 1


def test_what_was_read_with_a_save_is_not_saved_again(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "texts.memory"
    one, two = sd.Memory(path), sd.Memory(path)
    for memory, prompt in ((one, PROMPT), (two, OTHER)):
        memory.use(tiny)
        rounds_of(tiny, memory, prompt=prompt)
        memory.save()
    one.save()
    rounds_of(tiny, one, prompt="a third one, ")
    one.save()  # reads the other's
    written = path.stat()
    one.save()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_processes_that_write_at_once_lose_nothing(
    tiny: Any, tiny_path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "texts.memory"
    script = (
        "import specdec_native as sd, sys\n"
        f"model = sd.Model({str(tiny_path)!r}, n_threads=1)\n"
        f"memory = sd.Memory({str(path)!r})\n"
        "decoder = sd.Decoder(model, drafter=None, memory=memory)\n"
        "for i in range(8):\n"
        "    decoder.generate(f'{sys.argv[1]} number {i}: {sys.argv[1] * 9}', max_tokens=8)\n"
        "    memory.save()\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, name], stderr=subprocess.PIPE)
        for name in ("ab", "cd", "ef")
    ]
    for process in running:
        assert process.wait(120) == 0, process.stderr.read()  # type: ignore[union-attr]
    memory = sd.Memory(path)
    memory.use(tiny)
    assert memory.n_texts == 24


def test_a_saved_memory_is_the_same_again(tiny: Any, kept: pathlib.Path) -> None:
    content = kept.read_bytes()
    memory = sd.Memory(kept)
    memory.use(tiny)
    memory.save()  # nothing has changed
    assert kept.read_bytes() == content
    assert memory.n_tokens > 0
    assert repr(memory).startswith("Memory('/")
    memory.clear()
    memory.save()
    assert len(kept.read_bytes()) < 100
    again = sd.Memory(kept)
    again.use(tiny)
    assert again.n_tokens == 0


def test_a_memory_of_another_vocabulary_is_refused(
    tiny: Any, kept: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    keys = tiny_models.byte_tokenizer()
    tokens = list(keys["tokenizer.ggml.tokens"])
    tokens[-1] = "[another]"
    other = sd.Model(
        tiny_models.write_tiny(tmp_path / "o.gguf", seed=9, extra={"tokenizer.ggml.tokens": tokens})
    )
    content = kept.read_bytes()
    with pytest.raises(sd.InvalidArgumentError, match="texts of another vocabulary") as refused:
        sd.Decoder(other, memory=kept)
    assert str(kept) in str(refused.value)
    assert kept.read_bytes() == content
    memory = sd.Memory()
    memory.use(tiny)
    with pytest.raises(sd.InvalidArgumentError, match="has another vocabulary"):
        sd.Engine(other, memory=memory)
    other.close()


def test_a_finer_model_of_the_same_vocabulary_shares_it(
    tiny: Any, kept: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with sd.Model(tiny_models.write_tiny(tmp_path / "o.gguf", seed=77)) as other:
        out, _ = rounds_of(other, kept)
        assert out.token_ids == plain(other).token_ids


def wrong_files(content: bytes) -> dict[str, bytes]:
    def put(at: int, value: bytes) -> bytes:
        return content[:at] + value + content[at + len(value) :]

    return {
        "is not a memory": b"GGUF" + content[4:],
        "expected a file that begins": b"",
        "it ends after": content[:20],
        r"it has \d+ of \d+ bytes": content[:-1],
        "expected": content + b"\0",
        "checksum is wrong": put(len(content) // 2, bytes([content[len(content) // 2] ^ 1])),
        "has format 9": put(8, (9).to_bytes(4, "little")),
        "big-endian": put(12, (0x01020304).to_bytes(4, "big")),
        "mark of byte order": put(12, b"\1\1\1\1"),
    }


@pytest.mark.parametrize("message", list(wrong_files(bytes(100))))
def test_a_damaged_file_is_refused_and_left_alone(
    tiny: Any, kept: pathlib.Path, message: str
) -> None:
    content = wrong_files(kept.read_bytes())[message]
    kept.write_bytes(content)
    with pytest.raises((sd.ModelFormatError, sd.UnsupportedModelError), match=message) as refused:
        sd.Decoder(tiny, memory=kept)
    assert str(kept) in str(refused.value)
    assert kept.read_bytes() == content


def checked(body: bytes) -> bytes:
    """With right sizes and checksum."""
    from test_kept_files import checksum

    head = b"SPECMEMO" + (1).to_bytes(4, "little") + (0x01020304).to_bytes(4, "little")
    head += (PROLOGUE + len(body)).to_bytes(8, "little")
    return head + checksum(body).to_bytes(8, "little") + body


@pytest.mark.hypothesis
def test_whatever_the_bytes_are_reading_them_is_safe(tiny: Any, kept: pathlib.Path) -> None:
    whole = kept.read_bytes()
    assert checked(whole[PROLOGUE:]) == whole
    outcomes = set()

    @given(
        st.one_of(
            damaged(whole[PROLOGUE:], 0, 89, most=3),
            damaged(whole[PROLOGUE:], most=3),
            st.integers(0, len(whole) - PROLOGUE).map(lambda n: whole[PROLOGUE:][:n]),
        )
    )
    @settings(max_examples=examples(80))
    def check(body: bytes) -> None:
        kept.write_bytes(checked(body))
        memory = sd.Memory(kept)
        try:
            memory.use(tiny)
            outcomes.add("read")
        except sd.ModelFormatError as error:
            outcomes.add("damaged" if str(kept) in str(error) else str(error))
        except sd.InvalidArgumentError:
            outcomes.add("vocabulary")

    check()
    assert outcomes == {"read", "damaged", "vocabulary"}


def test_errors_of_the_system_are_told(tiny: Any, tmp_path: pathlib.Path) -> None:
    with pytest.raises(sd.SpecdecError, match=r"folder|directory"):
        sd.Decoder(tiny, memory=tmp_path)
    memory = sd.Memory(tmp_path / "gone" / "texts.memory")
    out, _ = rounds_of(tiny, memory)  # the text comes all the same
    assert out.token_ids == plain(tiny).token_ids
    with pytest.raises(OSError, match="gone"):
        memory.save()


def test_a_place_that_cannot_be_written_is_told_at_the_start(
    tiny: Any, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "texts.memory")
    for name, says in (
        ("gone/texts.memory", "cannot create a file there: No such file or directory"),
        ("link", "is a symbolic link"),
    ):
        caplog.clear()
        sd.Memory(tmp_path / name).use(tiny)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "the memory cannot be saved as it is now: " in record.message
        assert says in record.message
        assert name.split("/")[0] in record.message
    caplog.clear()
    sd.Memory(tmp_path / "texts.memory").use(tiny)
    assert not caplog.records


@pytest.mark.parametrize("wrong", ["", "x\0y", b"x\0y", "\ud800"])
def test_paths_that_name_no_file_are_refused(
    tiny: Any, wrong: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for call in (
        lambda: sd.Memory(wrong),
        lambda: sd.Decoder(tiny, memory=wrong),
        lambda: sd.Engine(tiny, memory=wrong),
    ):
        with pytest.raises(sd.InvalidArgumentError, match=r"^(path|memory) (is empty|has a )"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_options_are_checked(tmp_path: pathlib.Path, tiny: Any) -> None:
    with pytest.raises(sd.InvalidArgumentError, match="max_tokens"):
        sd.Memory(max_tokens=10)
    with pytest.raises(sd.InvalidArgumentError, match=r"memory must be a str or os\.PathLike"):
        sd.Decoder(tiny, memory=3)
    with pytest.raises(sd.InvalidArgumentError, match="memory_key"):
        sd.Decoder(tiny).generate("a", memory_key=3)
    with pytest.raises(TypeError, match="without a file"):
        pickle.dumps(sd.Memory())
    copied = pickle.loads(pickle.dumps(sd.Memory(tmp_path / "a", max_tokens=2048)))
    assert (copied.path, copied.max_tokens) == (str(tmp_path / "a"), 2048)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_does_not_write(tiny: Any, tmp_path: pathlib.Path) -> None:
    memory = sd.Memory(tmp_path / "texts.memory")
    memory.use(tiny)
    pid = os.fork()
    if pid == 0:
        try:
            memory.clear()
            memory.save()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert not (tmp_path / "texts.memory").exists()


def test_a_file_that_is_no_memory_is_never_replaced(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "backup.tar"
    content = b"name of something" + bytes(500)  # with zeros where a memory has its checksum
    path.write_bytes(content)
    with pytest.raises(sd.ModelFormatError, match="backup"):
        rounds_of(tiny, sd.Memory(path))
    assert path.read_bytes() == content


def test_what_is_cleared_before_a_model_comes_is_forgotten(tiny: Any, kept: pathlib.Path) -> None:
    memory = sd.Memory(kept)
    memory.clear()
    rounds_of(tiny, memory, prompt=OTHER)
    assert memory.n_texts == 1
    memory.save()
    again = sd.Memory(kept)
    rounds_of(tiny, again, prompt=OTHER)
    assert again.n_texts == 1


def test_clearing_before_a_model_comes_empties_the_file(kept: pathlib.Path) -> None:
    memory = sd.Memory(kept)
    memory.clear()
    memory.save()
    assert len(kept.read_bytes()) < 100
    memory.save()  # with nothing to do


def test_what_is_cleared_without_a_model_is_gone_at_exit(kept: pathlib.Path) -> None:
    script = f"import specdec_native as sd; memory = sd.Memory({str(kept)!r}); memory.clear()"
    subprocess.run([sys.executable, "-c", script], timeout=60, check=True)
    assert len(kept.read_bytes()) < 100


def test_clearing_without_a_model_is_done_once(tiny: Any, kept: pathlib.Path) -> None:
    memory = sd.Memory(kept)
    memory.clear()
    memory.save()
    rounds_of(tiny, other := sd.Memory(kept), prompt=OTHER)
    other.save()
    memory.use(tiny)
    assert memory.n_texts == 1


def test_clearing_without_a_model_leaves_alone_what_is_no_memory(tmp_path: pathlib.Path) -> None:
    memory = sd.Memory(tmp_path / "a.memory")
    memory.clear()
    memory.save()
    assert not memory_file(memory).exists()
    memory_file(memory).write_bytes(b"something else")
    memory.clear()
    with pytest.raises(sd.ModelFormatError, match="is not a memory"):
        memory.save()
    assert memory_file(memory).read_bytes() == b"something else"


def memory_file(memory: Any) -> pathlib.Path:
    return pathlib.Path(memory.path)


CHILD = """
import os, sys
import specdec_native as sd
memory = sd.Memory(sys.argv[2])
pid = os.fork()
if pid == 0:
    model = sd.Model(sys.argv[1], n_threads=1)
    with sd.Decoder(model, drafter=None, memory=memory) as decoder:
        decoder.generate("the cat in the hat sat on the mat", max_tokens=20, ignore_eos=True)
    memory.save()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), memory.n_texts)
"""


def test_a_child_that_brings_the_model_saves(tiny_path: pathlib.Path, tmp_path: Any) -> None:
    """As servers do that fork before they load."""
    path = tmp_path / "of.memory"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, tiny_path, path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["0", "0"]
    assert path.stat().st_size > PROLOGUE
