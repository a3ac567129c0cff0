"""Caches of layers with a window forget what no row can see any more: same bits, less memory."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from test_kv_cache import CHUNK, TYPES, feed

import specdec_native as sd
import tiny_models
from helpers import native
from tiny_models import TinyConfig

engine = native("engine")
kv = native("kv")
WINDOW = 24
SLACK = 256
OF_SOME_LAYERS = ["gemma2", "gemma3", "olmo2"]
OF_ALL_LAYERS = ["phi3", "llama"]


def new_cache(arena: Any, kind: str, windowed: list[bool], n_ctx: int = 3000) -> Any:
    return kv.Cache(arena, kind, len(windowed), 2, 32, n_ctx, windowed, WINDOW)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("windowed", [[True, True], [True, False], [False, True]])
def test_a_cache_forgets_whole_pages_that_no_later_row_sees(
    kind: str, windowed: list[bool]
) -> None:
    arena = kv.Arena(poison=True)
    cache = new_cache(arena, kind, windowed)
    whole = new_cache(arena, kind, [False, False])
    tags = [float(i % 1900 + 1) for i in range(5 * CHUNK + 100)]
    for at in range(0, len(tags), 200):
        feed(cache, tags[at : at + 200])
        feed(whole, tags[at : at + 200])
        cache.forget()
        n_forgotten = max(0, cache.length() - SLACK - WINDOW) // CHUNK
        assert cache.lowest() == (n_forgotten * CHUNK + WINDOW - 1 if n_forgotten else 0)
        pages = -(-cache.length() // CHUNK)
        saved = n_forgotten * sum(windowed) / len(windowed)
        assert cache.n_bytes() == pytest.approx(whole.n_bytes() * (1 - saved / pages))
    assert cache.lowest() > 3 * CHUNK
    with pytest.raises(kv.KvError, match="forgotten in layers with a window"):
        cache.truncate(cache.lowest() - 1)
    fork = cache.fork()
    for one in (cache, fork):
        one.truncate(one.lowest())
        feed(one, tags[one.length() :])
        assert one.length() == len(tags)
        first = one.lowest() - WINDOW + 1
        assert one.read(first, one.length()) == tags[first:]
        one.truncate(0)
        assert (one.lowest(), one.n_bytes()) == (0, 0)
        feed(one, tags[:300])
        assert one.read(0, 300) == tags[:300]


def test_caches_without_windows_forget_nothing() -> None:
    cache = kv.Cache(kv.Arena(), "f16", 2, 2, 32, 3000)
    feed(cache, [1.0] * 2000)
    n_bytes = cache.n_bytes()
    cache.forget()
    assert (cache.lowest(), cache.n_bytes()) == (0, n_bytes)


def write(path: pathlib.Path, arch: str, window: int = WINDOW) -> pathlib.Path:
    n_rot = 12 if arch == "phi3" else None
    config = TinyConfig(arch=arch, window=WINDOW, context_length=4096, n_rot=n_rot)
    keys = {f"{arch}.attention.sliding_window": window}
    if arch in OF_ALL_LAYERS:
        keys[f"{arch}.attention.sliding_window_pattern"] = 0
    return tiny_models.write_tiny(path, config, seed=4, extra=keys)


@pytest.fixture(scope="module", params=[*OF_SOME_LAYERS, *OF_ALL_LAYERS])
def model(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("windows") / f"{request.param}.gguf"
    return engine.load(str(write(path, request.param)), n_threads=1)


TEXT = [int(t) for t in np.random.default_rng(2).integers(0, 250, 1500)]
NGRAM = {"drafter": "ngram", "gamma": 6}


@pytest.mark.parametrize("options", [{"drafter": "none"}, NGRAM, {"drafter": "layerskip"}])
def test_long_texts_go_on_with_the_bits_of_a_model_that_sees_them_whole(
    model: Any, options: dict[str, Any]
) -> None:
    session = engine.Session(model, None, n_ctx=2048, kv_type="f32", **options)
    request = {"prompt_ids": TEXT, "max_tokens": 300, "ignore_eos": True}
    long = session.generate(**request)
    then = {"prompt_ids": TEXT + long["token_ids"][:-1], "max_tokens": 3, "n_logprobs": 5}
    again = session.generate(**then)
    assert again["n_reused_tokens"] > 1500
    fresh = engine.Session(model, None, n_ctx=2048, kv_type="f32", drafter="none").generate(**then)
    assert again["logprobs"] == fresh["logprobs"]


def test_what_is_forgotten_is_read_again(model: Any) -> None:
    session = engine.Session(model, None, n_ctx=2048, kv_type="f32", drafter="none")
    session.generate(prompt_ids=TEXT, max_tokens=2)
    for n, reused in ((1450, 1449), (600, 0)):
        request = {"prompt_ids": TEXT[:n], "max_tokens": 3, "n_logprobs": 5}
        result = session.generate(**request)
        assert result["n_reused_tokens"] == reused
        other = engine.Session(model, None, n_ctx=2048, kv_type="f32", drafter="none")
        assert result["logprobs"] == other.generate(**request)["logprobs"]


@pytest.mark.parametrize(("arch", "drafter"), [("gemma2", None), ("phi3", sd.LayerSkip())])
def test_the_report_of_memory_shows_it(arch: str, drafter: Any, tmp_path: pathlib.Path) -> None:
    used = {}
    for window in (WINDOW, 0):
        model = sd.Model(write(tmp_path / f"{window}.gguf", arch, window))
        with sd.Decoder(model, n_ctx=2048, kv_type="f32", drafter=drafter) as decoder:
            # Token by token: the work space of a prompt depends on how fast it is read.
            decoder.generate(TEXT[:3], max_tokens=1060, ignore_eos=True)
            used[window] = decoder.memory_bytes
    # Forgotten pages are used again: of five, three are needed at once.
    n_layers = 1 if arch == "gemma2" else 2
    page = 2 * CHUNK * 2 * 16 * 4  # keys and values of two heads
    assert used[0] - used[WINDOW] == 2 * n_layers * page
