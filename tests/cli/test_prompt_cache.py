"""`Decoder.save` and `load`, and `specdec --prompt-cache`."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import struct
import subprocess
import threading
from typing import Any

import pytest

import specdec_native as sd
import tiny_models
from helpers import native, specdec_binary

kv = native("kv")
PROMPT = "the cat in the hat the cat in the hat the cat in the "
SYSTEM = "You know all about cats and hats, and all that cats do to hats. " * 12


@pytest.fixture
def kept(tiny: Any, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "a.kept"
    with sd.Decoder(tiny, n_ctx=512, kv_type="f32") as decoder:
        decoder.generate(PROMPT, max_tokens=0)
        decoder.save(path)
    return path


def test_a_prompt_is_read_once(tiny: Any, kept: pathlib.Path) -> None:
    text = PROMPT + "dark and the "
    with sd.Decoder(tiny, n_ctx=512, kv_type="f32", drafter=None) as decoder:
        plain = decoder.generate(text, max_tokens=40, logprobs=3)
    for drafter in (None, "auto", sd.NGram(), ["suffix", "recycling"]):
        with sd.Decoder.load(kept, tiny, drafter=drafter) as decoder:
            assert decoder.n_ctx == 512
            found = decoder.generate(text, max_tokens=40, logprobs=3)
            assert found.token_ids == plain.token_ids
            assert found.logprobs == plain.logprobs
            assert found.stats.reused_prompt_tokens == len(tiny.tokenize(PROMPT)) - 1
            assert decoder.target is tiny
    pathlib.Path(kept).unlink()  # nothing of it is needed


def test_a_chat_goes_on_where_it_was(tiny: Any, tiny_draft: Any, tmp_path: pathlib.Path) -> None:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hat?"}]
    options = {"max_tokens": 20, "ignore_eos": True}
    with sd.Decoder(tiny, draft=tiny_draft) as decoder:
        answer = decoder.chat(messages, **options)
        decoder.save(tmp_path / "a.kept")
        messages += [{"role": "assistant", "content": answer.text}]
        messages += [{"role": "user", "content": "and cats?"}]
        expected = decoder.chat(messages, **options)
    with sd.Decoder.load(tmp_path / "a.kept", tiny, draft=tiny_draft) as decoder:
        found = decoder.chat(messages, **options)
        assert found.token_ids == expected.token_ids
        assert found.stats.reused_prompt_tokens == expected.stats.reused_prompt_tokens > 600
        fork = decoder.fork()
        assert fork.chat(messages, **options).token_ids == expected.token_ids
        decoder.reset()
        assert decoder.chat(messages, **options).stats.reused_prompt_tokens == 0


def test_options_that_do_not_fit_are_named(
    tiny: Any, tiny_draft: Any, kept: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(sd.InvalidArgumentError, match="another model") as caught:
        sd.Decoder.load(kept, tiny_draft)
    assert caught.value.reason == "other_model"
    assert caught.value.path == str(kept)
    forged(kept, tmp_path / "large", n_ctx=2**30)  # more than there is memory for
    with pytest.raises(sd.InvalidArgumentError, match="another model"):
        sd.Decoder.load(tmp_path / "large", tiny_draft)
    with pytest.raises(sd.ResourceLimitError):
        sd.Decoder.load(tmp_path / "large", tiny)
    sd.Decoder.load(tmp_path / "large", tiny, n_ctx=512).close()
    with pytest.raises(sd.InvalidArgumentError, match="holds f32 elements, kv_type is f16"):
        sd.Decoder.load(kept, tiny, kv_type="f16")
    with pytest.raises(sd.ContextFullError, match="n_ctx is 20"):
        sd.Decoder.load(kept, tiny, n_ctx=20)
    with pytest.raises(sd.InvalidArgumentError, match="n_ctx must be"):
        sd.Decoder.load(kept, tiny, n_ctx=1)
    with pytest.raises(sd.ModelFileNotFoundError):
        sd.Decoder.load(tmp_path / "none", tiny)
    with pytest.raises(sd.InvalidArgumentError, match="path must be"):
        sd.Decoder.load(3, tiny)  # type: ignore[arg-type]
    with pytest.raises(sd.InvalidArgumentError, match="target"):
        sd.Decoder.load(kept, "tiny")  # type: ignore[arg-type]
    data = bytearray(kept.read_bytes())
    data[-20] ^= 1
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(sd.ModelFormatError, match=r"the checksum of the .* is wrong") as damaged:
        sd.Decoder.load(tmp_path / "bad", tiny)
    assert damaged.value.reason == "checksum"
    other_version(kept, tmp_path / "old")
    with pytest.raises(sd.UnsupportedModelError, match=r"saved by version 9\.9\.9, this is") as old:
        sd.Decoder.load(tmp_path / "old", tiny)
    assert old.value.reason == "version"


def other_version(kept: pathlib.Path, path: pathlib.Path) -> None:
    forged(kept, path, version=b"9.9.9")


def forged(
    kept: pathlib.Path, path: pathlib.Path, version: bytes = b"", n_ctx: int | None = None
) -> None:
    """A copy with another head, whose checksum is right."""
    data = kept.read_bytes()
    (n_head,) = struct.unpack_from("<Q", data, 24)
    head = bytearray(data[40 : 40 + n_head])
    (n,) = struct.unpack_from("<I", head)
    (n_tokens,) = struct.unpack_from("<I", head, 4 + n)
    model = 4 + n + 4 + 4 * n_tokens + 4
    (n_model,) = struct.unpack_from("<I", head, model)
    if n_ctx is not None:
        struct.pack_into("<i", head, model + 4 + n_model + 8, n_ctx)
    if version:
        head[: 4 + n] = struct.pack("<I", len(version)) + version
    rest = data[40 + n_head :]
    size = 40 + len(head) + len(rest)
    numbers = struct.pack("<QQQ", size, len(head), kv.hash64([bytes(head)]))
    path.write_bytes(data[:16] + numbers + head + rest)


def test_what_cannot_be_saved_is_named(tiny: Any, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.kept"
    with sd.Decoder(tiny, n_ctx=512) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="nothing to save"):
            decoder.save(path)
        with decoder.stream(PROMPT, max_tokens=400, ignore_eos=True) as stream:
            next(stream)
            with pytest.raises(sd.SessionBusyError):
                decoder.save(path)
        decoder.save(path)  # what there is of it
        with pytest.raises(sd.InvalidArgumentError, match="is a folder"):
            decoder.save(tmp_path)
        with pytest.raises(sd.ModelFileNotFoundError):
            decoder.save(tmp_path / "none" / "a")
    with pytest.raises(sd.ClosedError):
        decoder.save(path)
    with sd.Decoder(tiny, n_ctx=512, use_cache=False) as decoder:
        decoder.generate(PROMPT, max_tokens=1)
        with pytest.raises(sd.InvalidArgumentError, match="use_cache"):
            decoder.save(tmp_path / "b")
    assert list(tmp_path.iterdir()) == [path]
    assert sd.Decoder.load(path, tiny).n_ctx == 512


def test_ctrl_c_ends_saving_and_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    """The draft model has much to read before it is written."""
    config = tiny_models.TinyConfig(n_layers=6, hidden_size=512, n_heads=8, context_length=8192)
    model = sd.Model(tiny_models.write_tiny(tmp_path / "a.gguf", config), n_threads=1)
    path = tmp_path / "a.kept"
    path.write_bytes(b"old")
    with sd.Decoder(model, draft=model, drafter="model", n_ctx=8192) as decoder:
        decoder.generate([97] * 3000, max_tokens=0)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            for _ in range(1000):  # until it comes
                decoder.save(path)
                path.write_bytes(b"old")
        timer.join()
        assert path.read_bytes() == b"old"
        decoder.save(path)
    assert sd.Decoder.load(path, model).n_ctx == 8192
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "a.kept"]


# ---------------------------------------------------------------- the command

BINARY = specdec_binary()


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BINARY, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=False,
    )  # fmt: skip


def generated(*arguments: object) -> Any:
    done = run("generate", "-n", 16, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("with_draft", [False, True])
def test_the_command_reads_a_prompt_once(
    with_draft: bool, tiny_path: Any, tiny_draft_path: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.kept"
    model = ["-m", tiny_path, *(["-md", tiny_draft_path] if with_draft else [])]
    plain = generated(*model, "-p", PROMPT)
    first = generated(*model, "-p", PROMPT, "--prompt-cache", path)
    n = first["n_prompt_tokens"]
    assert first["stats"]["reused_prompt_tokens"] == 0
    assert first["stats"]["prompt_ms"] > 0
    before = path.stat()
    second = generated(*model, "-p", PROMPT, "--prompt-cache", path)
    assert second["stats"]["reused_prompt_tokens"] == n - 1
    assert path.stat().st_mtime_ns == before.st_mtime_ns  # it held all of it
    assert plain["token_ids"] == first["token_ids"] == second["token_ids"]
    longer = (*model, "-p", PROMPT + "dark ", "--prompt-cache", path)
    read = generated(*longer, "--prompt-cache-ro")
    assert read["stats"]["reused_prompt_tokens"] == n - 1
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert generated(*longer)["token_ids"] == read["token_ids"]
    assert path.stat().st_mtime_ns != before.st_mtime_ns
    assert generated(*longer)["stats"]["reused_prompt_tokens"] == n + 4

    seen = json.loads(run("inspect", path, "--json").stdout)
    assert [c["n_tokens"] for c in seen["caches"]] == [n + 4] * (2 if with_draft else 1)
    assert seen["kind"] == "kept prompt"
    assert len(seen["token_ids"]) == n + 4
    text = run("inspect", path).stdout
    assert "a kept prompt, saved by specdec" in text
    assert f"{n + 4} tokens, f16, 2 layers" in text
    wrong = run("inspect", path, "--tensors")
    assert wrong.returncode == 2
    assert "kept prompt" in wrong.stderr


def test_a_chat_keeps_what_comes_before_the_question(
    tiny_path: Any, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "a.kept"
    chat = ("chat", "-m", tiny_path, "-n", 8, "--system", SYSTEM, "--drafter", "none")
    answers = {}
    for question in ("hat?", "a cat?", "zzz"):
        plain = run(*chat, stdin=f"{question}\nand then?\n")
        found = run(*chat, "--prompt-cache", path, stdin=f"{question}\nand then?\n/stats\n")
        assert found.returncode == 0, found.stderr
        assert found.stdout == plain.stdout
        answers[question] = found.stdout
        tokens = kv.load(str(path), kv.Arena())[0]
        assert 700 < len(tokens) < 800
    assert len(set(answers.values())) > 1
    stats = run(*chat, "--prompt-cache", path, "--prompt-cache-ro", stdin="why?\n/stats\n").stderr
    assert f"({len(tokens)} known)" in stats


def test_the_command_names_what_is_wrong_with_the_file(
    tiny_path: Any, tiny_draft_path: Any, kept: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def refused(*arguments: object, command: str = "generate") -> tuple[int, str]:
        prompt = ("--chat-template", "raw") if command == "chat" else ("-p", PROMPT, "-n", 2)
        done = run(command, *prompt, *arguments)
        return done.returncode, done.stderr

    f32 = ("-m", tiny_path, "-ctk", "f32")
    whole = kept.read_bytes()
    assert refused(*f32, "--prompt-cache", kept)[0] == 0
    for command in ("generate", "chat"):
        code, text = refused(
            "-m", tiny_draft_path, "-ctk", "f32", "--prompt-cache", kept, command=command
        )
        assert code == 2
        assert "another model" in text
        assert "Usage" not in text
    code, text = refused("-m", tiny_path, "--prompt-cache", kept)
    assert code == 2
    assert "give kv_type f32" in text
    code, text = refused(*f32, "-c", 20, "--prompt-cache", kept)
    assert code == 5
    assert "n_ctx is 20" in text
    assert kept.read_bytes() == whole

    damaged = tmp_path / "damaged"
    damaged.write_bytes(whole[:-1])
    code, text = refused(*f32, "--prompt-cache", damaged)
    assert code == 3
    assert "damaged" in text
    assert damaged.read_bytes() == whole[:-1]
    assert run("inspect", damaged).returncode == 3
    damaged.write_bytes(b"my thesis")
    code, text = refused(*f32, "--prompt-cache", damaged)
    assert code == 3
    assert "is not a kept prompt" in text
    assert damaged.read_bytes() == b"my thesis"
    other_version(kept, tmp_path / "old")
    code, text = refused(*f32, "--prompt-cache", tmp_path / "old")
    assert code == 4
    assert "version 9.9.9" in text

    none = tmp_path / "none"
    code, text = refused(*f32, "--prompt-cache", none, "--prompt-cache-ro")
    assert code == 3
    assert "No such file" in text
    code, text = refused(*f32, "--prompt-cache-ro")
    assert code == 2
    assert "--prompt-cache-ro needs --prompt-cache" in text
    code, text = refused(*f32, "--prompt-cache", none, "--no-cache")
    assert code == 2
    assert "--no-cache" in text
    code, text = refused(*f32, "--prompt-cache", tmp_path)
    assert code == 3
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    code, text = refused(*f32, "--prompt-cache", tmp_path / "link")
    assert code == 2
    assert "symbolic link" in text
    assert not none.exists()
