"""Sessions that are saved and loaded: the tokens and bits of one that read everything itself."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import native
from tiny_models import FAMILIES, TinyConfig

engine = native("engine")
kv = native("kv")
TYPES = ("f32", "f16", "q8_0")
# Long enough for windows to forget, and for recurrent layers to keep earlier states.
TEXT = [int(t) for t in np.random.default_rng(3).integers(97, 123, 760)]
N = 700


def write(folder: pathlib.Path, family: str, seed: int = 1) -> pathlib.Path:
    config = dataclasses.replace(FAMILIES[family], head_dim=32)  # as q8_0 wants it
    return tiny_models.write_tiny(folder / f"{family}-{seed}.gguf", config, dtype="Q8_0", seed=seed)


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    return engine.load(str(write(tmp_path_factory.mktemp("kept"), request.param)), n_threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Any:
    return tmp_path_factory.mktemp("kept-other")


def session(model: Any, draft: Any = None, **options: Any) -> Any:
    return engine.Session(model, draft, **{"drafter": "none", "n_ctx": 1024, **options})


def generate(of: Any, prompt: list[int], **options: Any) -> Any:
    return of.generate(
        prompt_ids=prompt, ignore_eos=True, **{"max_tokens": 6, "n_logprobs": 5, **options}
    )


def same(found: Any, expected: Any) -> bool:
    return bool(
        found["token_ids"] == expected["token_ids"] and found["logprobs"] == expected["logprobs"]
    )


@pytest.mark.parametrize("kind", TYPES)
def test_every_family_goes_on_from_a_file_with_the_bits_of_one_that_read_it(
    model: Any, kind: str, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "a.kept")
    saved = session(model, kv_type=kind)
    first = generate(saved, TEXT[:N])
    saved.save(path)
    text = TEXT[:N] + first["token_ids"]
    assert saved.cached_tokens() == text[:-1]

    def loaded() -> Any:
        one = session(model, kv_type=kind)
        one.load(path)
        assert one.cached_tokens() == text[:-1]
        return one

    # The next turn, one that begins nearly alike, and ones that go far back.
    for n_shared in (len(text), N, N - 30, 300, 5):
        prompt = text[:n_shared] + TEXT[:20]
        one = loaded()
        found = generate(one, prompt)
        assert same(found, generate(session(model, kv_type=kind), prompt))
        assert same(found, generate(saved.fork(), prompt))
        assert found["n_reused_tokens"] == generate(saved.fork(), prompt)["n_reused_tokens"]
    # What was loaded is what was saved, and can be saved again.
    again = str(tmp_path / "b.kept")
    loaded().save(again)
    assert pathlib.Path(again).read_bytes() == pathlib.Path(path).read_bytes()
    # Most of it is read in the next turn.
    one = loaded()
    assert generate(one, text + TEXT[:20])["n_reused_tokens"] == len(text) - 1


DRAFTERS = ["auto", "model", "ngram", "suffix", "recycling", "layerskip", "ngram,model"]


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen35"])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_whoever_drafts_the_text_is_the_plain_one(
    family: str, drafter: str, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, draft = pair(folder, family)
    path = str(tmp_path / "a.kept")
    with_draft = draft if drafter in ("auto", "model", "ngram,model") else None
    saved = session(target, with_draft, drafter=drafter)
    first = generate(saved, TEXT[:N])
    saved.save(path)
    tokens, caches = kv.load(path, kv.Arena())
    assert len(caches) == (2 if with_draft else 1)
    # The draft model has read it all, whether it was asked or not.
    assert all(cache.length() == len(tokens) for cache in caches)
    text = TEXT[:N] + first["token_ids"] + TEXT[N : N + 30]
    plain = generate(session(target), text, max_tokens=30)
    one = session(target, with_draft, drafter=drafter)
    one.load(path)
    found = generate(one, text, max_tokens=30)
    assert same(found, plain)
    assert found["n_reused_tokens"] == len(tokens)
    sampled = {"temperature": 1.2, "seed": 5, "max_tokens": 30}
    one.load(path)
    plain = generate(session(target), text, **sampled)
    assert same(generate(one, text, verifier="match", **sampled), plain)


@functools.cache
def pair(folder: pathlib.Path, family: str) -> tuple[Any, Any]:
    path = str(write(folder, family))
    return (engine.load(path, n_threads=1), engine.load(path, n_threads=1, requantize="q4_0"))


def test_another_draft_model_reads_the_text_again(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, draft = pair(folder, "llama")
    path, again = str(tmp_path / "a.kept"), str(tmp_path / "b.kept")
    saved = session(target, draft, drafter="model")
    generate(saved, TEXT[:N])
    saved.save(path)
    expected = generate(saved, TEXT, max_tokens=30)
    for other in (draft, engine.load(str(write(folder, "llama", seed=2)), n_threads=2), None):
        one = session(target, other, drafter="model" if other else "none")
        one.load(path)
        one.save(again)
        alike = pathlib.Path(again).read_bytes() == pathlib.Path(path).read_bytes()
        assert alike == (other is draft)
        assert len(kv.load(again, kv.Arena())[1]) == (2 if other else 1)
        assert same(generate(one, TEXT, max_tokens=30), expected)
    # Without a draft's cache in the file.
    session_without = session(target)
    session_without.load(again)
    assert same(generate(session_without, TEXT, max_tokens=30), expected)


SAVE = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from helpers import native
engine = native("engine")
kind, path, text, n_threads = sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), int(sys.argv[5])
model = engine.load(sys.argv[6], n_threads=n_threads)
one = engine.Session(model, None, drafter="ngram", n_ctx=1024, kv_type=kind)
one.generate(prompt_ids=text, max_tokens=3, ignore_eos=True)
one.save(path)
"""


@pytest.mark.parametrize("family", ["gemma2", "qwen35"])
def test_threads_and_instruction_sets_do_not_matter(
    family: str, folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    model = str(write(folder, family, seed=3))
    here = engine.load(model, n_threads=2)
    prompt = TEXT[:300] + TEXT[:20]
    expected = generate(session(here), prompt)
    found = {}
    for name, isa, n_threads in (("a", "", "1"), ("b", "", "3"), ("c", "scalar", "2")):
        path = str(tmp_path / name)
        subprocess.run(
            [sys.executable, "-c", SAVE, json.dumps(sys.path), "f16", path,
             json.dumps(TEXT[:300]), n_threads, model],
            check=True, timeout=240, env={**os.environ, "SPECDEC_CPU_ISA": isa} if isa else None,
        )  # fmt: skip
        found[name] = pathlib.Path(path).read_bytes()
        one = session(here)
        one.load(path)
        assert same(generate(one, prompt), expected)
    if family == "gemma2":  # which earlier states there are is a question of time
        assert found["a"] == found["b"] == found["c"]


def refusal(of: Any, path: str) -> str:
    before = of.cached_tokens()
    with pytest.raises(engine.Error) as caught:
        of.load(path)
    assert of.cached_tokens() == before
    assert path in str(caught.value)
    return f"{caught.value.code}: {caught.value}"


def test_what_does_not_fit_is_refused_and_changes_nothing(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, coarse = pair(folder, "llama")
    path = str(tmp_path / "a.kept")
    saved = session(target, kv_type="f16")
    generate(saved, TEXT[:N])
    saved.save(path)
    other = engine.load(str(write(folder, "llama", seed=2)), n_threads=2)
    for model in (other, coarse):  # of the same shapes
        assert model.fingerprint != target.fingerprint
        one = session(model)
        expected = generate(one, TEXT[:50])
        text = refusal(one, path)
        assert text.startswith("invalid_argument: ")
        assert "another model: llama 'tiny'" in text
        assert same(generate(one, TEXT[:50]), expected)
    text = refusal(session(target, kv_type="q8_0"), path)
    assert text.startswith("invalid_argument: ")
    assert "give kv_type f16" in text
    text = refusal(session(target, n_ctx=600), path)
    assert text.startswith("context_full: ")
    assert "705 tokens, n_ctx is 600" in text
    assert "1024" in text
    text = refusal(session(target), str(tmp_path / "none"))
    assert text.startswith("io: ")
    with pytest.raises(engine.Error, match="use_cache"):
        session(target, use_cache=False).load(path)


def test_the_fingerprint_sees_every_byte_of_metadata_and_weights(tmp_path: pathlib.Path) -> None:
    config = TinyConfig(n_layers=1, hidden_size=32, intermediate_size=32, vocab_size=262)
    path = tiny_models.write_tiny(tmp_path / "a.gguf", config)
    found = {engine.load(str(path), n_threads=1).fingerprint}
    assert {engine.load(str(path), n_threads=2).fingerprint} == found
    whole = path.read_bytes()
    at = whole.index(b"tiny")  # its name
    n = len(whole)
    for place in (at, n - 1, n - 4096, n - 20001):
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / "b.gguf").write_bytes(changed)
        found.add(engine.load(str(tmp_path / "b.gguf"), n_threads=1).fingerprint)
    assert len(found) == 5


def test_a_long_context_is_not_a_short_one(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    model = engine.load(str(write(folder, "phi3")), n_threads=2)  # original context: 64
    path = str(tmp_path / "a.kept")
    short = session(model, n_ctx=64)
    generate(short, TEXT[:40])
    short.save(path)
    session(model, n_ctx=60).load(path)
    text = refusal(session(model, n_ctx=65), path)
    assert text.startswith("invalid_argument: ")
    assert "n_ctx 64, got 65" in text


def test_there_must_be_something_to_save(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    target, _ = pair(folder, "llama")
    path = str(tmp_path / "a.kept")
    one = session(target)
    with pytest.raises(engine.Error, match="nothing to save"):
        one.save(path)
    generate(one, TEXT[:1], max_tokens=0)
    with pytest.raises(engine.Error, match="nothing to save"):
        one.save(path)
    with pytest.raises(engine.Error, match="use_cache"):
        session(target, use_cache=False).save(path)
    assert not list(tmp_path.iterdir())
    generate(one, TEXT[:2], max_tokens=0)
    one.save(path)
    assert kv.load(path, kv.Arena())[0] == TEXT[:1]


def test_layers_on_a_gpu_are_refused_by_name(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "a.gguf", TinyConfig(head_dim=32, n_heads=2))
    gpu = engine.emulated_gpu(4096 << 20)
    on_gpu = engine.load(str(path), n_threads=1, gpu=gpu, n_gpu_layers=1, n_ctx=256)
    one = session(on_gpu, n_ctx=256)
    generate(one, TEXT[:3], max_tokens=1)
    with pytest.raises(engine.Error, match="GPU") as caught:
        one.save(str(tmp_path / "a.kept"))
    assert caught.value.code == "unsupported"
    on_cpu = session(engine.load(str(path), n_threads=1, device="cpu"), n_ctx=256)
    generate(on_cpu, TEXT[:3])
    on_cpu.save(str(tmp_path / "a.kept"))
    assert refusal(one, str(tmp_path / "a.kept")).startswith("unsupported: ")


def test_a_call_that_failed_leaves_what_can_be_saved(
    folder: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    target, draft = pair(folder, "qwen35")
    path = str(tmp_path / "a.kept")
    saved = session(target, draft, drafter="model")
    generate(saved, TEXT[:300])
    calls = []

    def stop() -> bool:
        calls.append(1)
        return len(calls) > 4

    generate(saved, TEXT[:200] + TEXT[:300], max_tokens=200, should_cancel=stop)
    saved.save(path)
    one = session(target)
    one.load(path)
    assert one.cached_tokens() == saved.cached_tokens()
    prompt = one.cached_tokens() + TEXT[:20]
    assert same(generate(one, prompt), generate(session(target), prompt))
