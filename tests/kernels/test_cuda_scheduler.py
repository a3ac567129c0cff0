"""Many requests at once on a GPU: they take turns there, and each has the tokens it has alone.

On an emulated device (tests/native/emulated_device.h); with ``-m cuda`` on the first GPU.
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

import tiny_models
from helpers import native
from tiny_models import TinyConfig

engine = native("engine")

SIZES = {"hidden_size": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "intermediate_size": 96}
PROMPTS = ["the cat in the hat ", "in the", "the inner winner in the ", "a", "the cat in the cat "]


@pytest.fixture(scope="module")
def files(tmp_path_factory: Any) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("models")
    target = TinyConfig(n_layers=3, context_length=2048, **SIZES)
    draft = TinyConfig(n_layers=1, context_length=2048, **SIZES)
    return (
        tiny_models.write_tiny(folder / "target.gguf", target, dtype="Q4_0", seed=11),
        tiny_models.write_tiny(folder / "draft.gguf", draft, dtype="Q4_0", seed=12),
    )


@pytest.mark.parametrize(
    ("drafter", "n_layers"),
    [
        *(("none", 2), ("ngram", 2), ("model", 2), ("model", -1), ("auto", -1)),
        *(
            pytest.param(*p, marks=pytest.mark.slow)
            for p in (("none", -1), ("ngram", -1), ("auto", 2))
        ),
    ],
)
def test_requests_on_a_gpu_have_the_tokens_they_have_alone(files, device, drafter, n_layers):
    gpu = engine.cuda_gpu() if device == "cuda" else engine.emulated_gpu(1 << 32)
    options = {"n_gpu_layers": n_layers, "gpu": gpu, "n_ctx": 2048}
    has_draft = drafter in ("model", "auto")
    draft = engine.load(str(files[1]), **options) if has_draft else None
    target = engine.load(str(files[0]), **options)
    requests = [
        {"prompt": prompt, "max_tokens": 8, "seed": i, "ignore_eos": True,
         "temperature": float(i % 2)}
        for i, prompt in enumerate(PROMPTS)
    ]  # fmt: skip
    expected = []
    for request in requests:
        session = engine.Session(target, drafter="none", n_ctx=256)
        expected.append(session.generate(**request)["token_ids"])
    del session
    free = gpu.free_bytes
    found, _, n_rows = engine.schedule(
        target, draft, requests, max_requests=3, drafter=drafter, n_ctx=256
    )
    assert [result["token_ids"] for result in found] == expected
    assert n_rows >= 8 * len(requests)
    assert gpu.free_bytes == free
