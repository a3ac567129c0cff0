"""Chains: several steps of a draft model on a GPU without a way back to the host in between.

As tests/kernels/test_cuda_engine.py, on an emulated device, and with ``-m cuda`` on the first GPU.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
from test_cuda_engine import N_TOKENS, PROMPT, TOKENS, open_gpu, write_model

import tiny_models
from helpers import native
from pairwise import in_turn
from tiny_models import TinyConfig

engine = native("engine")
testing = native("model")

# Heads of 32 dimensions: for caches of Q8_0.
CONFIGS = {
    "llama": TinyConfig(n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32),
    "qwen2": TinyConfig(arch="qwen2", n_layers=2, tied=True, n_heads=2, n_kv_heads=1, head_dim=32),
    "qwen3": TinyConfig(arch="qwen3", n_layers=2, tied=True, n_heads=2, n_kv_heads=1, head_dim=32),
    "granite": TinyConfig(
        arch="granite", n_layers=1, tied=True, n_heads=2, n_kv_heads=1, head_dim=32
    ),
    "gemma2": TinyConfig(
        arch="gemma2", n_layers=2, tied=True, n_heads=2, n_kv_heads=1, head_dim=32, window=5
    ),
    "gemma3": TinyConfig(
        arch="gemma3", n_layers=2, tied=True, n_heads=2, n_kv_heads=1, head_dim=32, window=5
    ),
    "phi3": TinyConfig(
        arch="phi3", n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, n_rot=24, window=7
    ),
    "gptneox": TinyConfig(
        arch="gptneox", n_layers=1, n_heads=2, n_kv_heads=2, head_dim=32, n_rot=6
    ),
    "qwen3moe": TinyConfig(
        arch="qwen3moe", n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, n_experts=5
    ),
}
BLOCKS = [0, 2, 5, 6, 16]


@pytest.fixture(scope="module", params=list(CONFIGS))
def model_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    return write_model(tmp_path_factory, request.param, CONFIGS[request.param])


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / "draft.gguf"
    return tiny_models.write_tiny(path, CONFIGS["llama"], dtype="Q4_0", seed=12)


@pytest.fixture(scope="module")
def target_file(tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / "target.gguf"
    return tiny_models.write_tiny(path, TinyConfig(n_layers=2), dtype="Q4_0", seed=11)


def on_device(path: pathlib.Path, device: str, **options: Any) -> Any:
    return testing.Model(str(path), backend=device, n_device_layers=99, **options)


def single_steps(session: Any, tokens: list[int], n_steps: int, **options: Any) -> list[Any]:
    """One forward after the other: what a chain promises."""
    rows = []
    for _ in range(n_steps):
        rows += session.forward(
            tokens, output="top", first_output_row=len(tokens) - 1, **options
        )  # fmt: skip
        tokens = [rows[-1][0][0][0]]
    return rows


# ---------------------------------------------------------------- in the model


@pytest.mark.parametrize(
    ("model_file", "kv_type"), in_turn(CONFIGS, ["f16", "q8_0"]), indirect=["model_file"]
)
def test_a_chain_has_the_bits_of_single_steps(model_file, device, kv_type):
    model = on_device(model_file, device)
    assert model.can_run_steps
    single, chained = (model.session(kv_type=kv_type) for _ in range(2))
    for tokens, n_steps, options in (
        (TOKENS[:5], 4, {"top_k": 3}),
        (TOKENS[7:8], 8, {}),
        (TOKENS[8:10], 3, {"top_k": 2, "head_blocks": BLOCKS}),
    ):
        expected = single_steps(single, tokens, n_steps, **options)
        assert chained.forward_steps(tokens, n_steps, **options) == expected
        assert chained.length == single.length
    # What it left in the cache is what the steps left.
    assert chained.forward(TOKENS[20:22]).tobytes() == single.forward(TOKENS[20:22]).tobytes()


def test_a_chain_crosses_into_another_page(model_file, device):
    model = on_device(model_file, device)
    single = model.session(kv_type="f16")
    single.forward([TOKENS[i % len(TOKENS)] for i in range(250)], output="none")
    chained = single.fork()
    expected = single_steps(single, TOKENS[:3], 7)
    assert chained.forward_steps(TOKENS[:3], 7) == expected
    assert chained.length == 259
    chained.truncate(255)
    single.truncate(255)
    assert chained.forward_steps(TOKENS[3:4], 2) == single_steps(single, TOKENS[3:4], 2)


def test_the_embedding_on_the_device_changes_no_bits(model_file, device):
    there, here = (on_device(model_file, device, device_embedding=e) for e in (True, False))
    assert there.can_run_steps
    assert not here.can_run_steps
    extra = there.device_bytes - here.device_bytes
    assert (extra == 0) == CONFIGS[model_file.stem].tied
    sessions = [m.session(kv_type="f16") for m in (there, here)]
    for tokens, parents in ((TOKENS[:20], []), (TOKENS[20:23], [-1, 0, 0])):
        rows = [s.forward(tokens, parents=parents) for s in sessions]
        assert rows[0].tobytes() == rows[1].tobytes()
    with pytest.raises(testing.NativeError, match="embedding on one device"):
        sessions[1].forward_steps(TOKENS[:1], 2)
    assert there.memory[1] == 0  # nothing of the file is read any more


def test_chains_are_recorded_and_played_with_one_wait_each(llama_file, device):
    model = on_device(llama_file, device)
    single = on_device(llama_file, device).session(kv_type="f16")  # of a GPU the same device
    session = model.session(kv_type="f16")
    blocks = list(range(3))
    for i in range(6):
        tokens = TOKENS[2 * i : 2 * i + 2]
        expected = single_steps(single, tokens, 4, top_k=2, head_blocks=blocks)
        passes, replayed = model.device_passes
        waits = model.device_waits
        assert session.forward_steps(tokens, 4, top_k=2, head_blocks=blocks) == expected
        # Run, recorded, then played, although the candidates are never the same.
        assert model.device_passes == (passes + 1, replayed + (i >= 2))
        assert model.device_waits == waits + 1
        blocks.append(4 + 2 * i)
    other = model.session(kv_type="f16")
    single.truncate(0)
    expected = single_steps(single, TOKENS[40:42], 4, top_k=2, head_blocks=BLOCKS)
    replayed = model.device_passes[1]
    assert other.forward_steps(TOKENS[40:42], 4, top_k=2, head_blocks=BLOCKS) == expected
    assert model.device_passes[1] == replayed + 1


def test_a_set_of_candidates_that_grows_is_played_from_few_recordings(llama_file, device):
    model = on_device(llama_file, device)
    session = model.session(kv_type="f16")
    passes, replayed = model.device_passes
    for n in range(1, 17):
        session.forward(TOKENS[n : n + 1], output="top", head_blocks=list(range(n)))
    assert model.device_passes == (passes + 16, replayed + 14)


def test_best_tokens_alone_can_be_had(llama_file, device):
    model = on_device(llama_file, device)
    expected = single_steps(model.session(kv_type="f16"), TOKENS[:4], 5)
    found = model.session(kv_type="f16").forward_steps(TOKENS[:4], 5, output="argmax")
    assert found == [best[0][0] for best, _ in expected]


def test_a_chain_that_cannot_be_changes_nothing(llama_file, device):
    model = on_device(llama_file, device)
    session = model.session(n_ctx=16, kv_type="f16")
    session.forward(TOKENS[:10], output="none")
    for tokens, n_steps, options, message in (
        (TOKENS[:2], 9, {}, "1 to 8 steps"),
        (TOKENS[:2], 0, {}, "1 to 8 steps"),
        (TOKENS[:2], 6, {}, "context"),
        ([9999], 2, {}, "token 9999"),
        (TOKENS[:2], 2, {"output": "logits"}, "best tokens"),
        (TOKENS[:2], 2, {"top_k": 999}, "top_k"),
        (TOKENS[:2], 2, {"head_blocks": [99]}, "head block 99"),
        (TOKENS[:2], 2, {"cancelled": True}, "cancelled"),
    ):
        with pytest.raises(testing.NativeError, match=message):
            session.forward_steps(tokens, n_steps, **options)
        assert session.length == 10
    expected = model.session(kv_type="f16")
    expected.forward(TOKENS[:10], output="none")
    assert session.forward_steps(TOKENS[:2], 5) == single_steps(expected, TOKENS[:2], 5)


def test_a_chain_ends_before_logits_that_are_not_finite(tmp_path, device):
    config = CONFIGS["llama"]
    tensors = tiny_models.random_tensors(config, seed=5)
    path = tiny_models.write_gguf(tmp_path / "good.gguf", tiny_models.metadata(config), tensors)
    steps = single_steps(on_device(path, device).session(), TOKENS[:3], 6)
    tokens = [best[0][0] for best, _ in steps]
    bad = next(t for t in tokens[1:] if t not in (*TOKENS[:3], tokens[0]))
    tensors["token_embd.weight"][bad] = np.nan
    path = tiny_models.write_gguf(tmp_path / "bad.gguf", tiny_models.metadata(config), tensors)
    session = on_device(path, device).session()
    n_good = tokens.index(bad) + 1
    assert session.forward_steps(TOKENS[:3], 6) == steps[:n_good]
    assert session.length == 3 + n_good - 1
    with pytest.raises(testing.NativeError, match="not finite"):
        session.forward_steps([bad], 3)
    assert session.length == 3 + n_good - 1
    assert session.forward_steps([tokens[0]], 1)[0][0][0][0] >= 0


def test_models_that_are_split_do_not_chain(llama_file, device):
    model = testing.Model(str(llama_file), backend=device, n_device_layers=1)
    assert not model.can_run_steps
    with pytest.raises(testing.NativeError, match="all layers"):
        model.session().forward_steps(TOKENS[:1], 2)
    assert not testing.Model(str(llama_file)).can_run_steps


# ---------------------------------------------------------------- in the engine


def generate(target: Any, draft: Any = None, **options: Any) -> dict[str, Any]:
    request: dict[str, Any] = {"max_tokens": N_TOKENS, "ignore_eos": True}
    for name in ("temperature", "seed", "top_k", "max_tokens", "ignore_eos"):
        if name in options:
            request[name] = options.pop(name)
    session = engine.Session(target, draft, n_ctx=512, **options)
    return session.generate(prompt=PROMPT, **request)


@pytest.mark.parametrize("layers", [2, 1])
def test_a_draft_waits_once_when_all_layers_are_on_the_gpu(target_file, llama_file, device, layers):
    gpu = open_gpu(device)
    target = engine.load(str(target_file), device="cpu")
    draft = engine.load(str(llama_file), gpu=gpu, n_gpu_layers=layers, n_ctx=512)
    plain = generate(target, drafter="none")["token_ids"]
    waits = gpu.n_waits
    passes, replayed, _ = gpu.stats
    found = generate(target, draft, drafter="model", gamma=4)
    assert found["token_ids"] == plain
    assert found["drafted"] > found["rounds"] > 1
    whole = layers == 2
    assert gpu.n_waits - waits == (found["rounds"] if whole else found["drafted"])
    n_passes, n_replayed = gpu.stats[0] - passes, gpu.stats[1] - replayed
    assert n_passes == gpu.n_waits - waits
    assert n_replayed >= n_passes - 10


def test_auto_gives_the_plain_text_and_chains(target_file, llama_file, device):
    gpu = open_gpu(device)
    target = engine.load(str(llama_file), gpu=gpu, n_ctx=512)
    draft = engine.load(str(llama_file), gpu=gpu, n_ctx=512)
    plain = generate(target, drafter="none", max_tokens=16)["token_ids"]
    assert generate(target, draft, drafter="auto", max_tokens=16)["token_ids"] == plain
    sampled = {"temperature": 0.8, "seed": 3}
    plain = generate(target, drafter="none", **sampled)["token_ids"]
    assert generate(target, draft, drafter="auto", **sampled)["token_ids"] == plain
    assert generate(target, draft, drafter="model", gamma=3, **sampled)["token_ids"] == plain


def load_ending(tmp_path: pathlib.Path, gpu: Any) -> tuple[Any, int]:
    """A model that comes to its end of text, and that token."""
    config = CONFIGS["llama"]
    path = tiny_models.write_tiny(tmp_path / "m.gguf", config, dtype="Q4_0", seed=12)
    ids = generate(engine.load(str(path), gpu=gpu, n_ctx=512), drafter="none")["token_ids"]
    eos = next(t for i, t in enumerate(ids) if i >= 3 and t not in ids[:i])
    path = tiny_models.write_tiny(
        tmp_path / "ends.gguf", config, dtype="Q4_0", seed=12,
        extra={"tokenizer.ggml.eos_token_id": eos},
    )  # fmt: skip
    return engine.load(str(path), gpu=gpu, n_ctx=1024), eos


def test_a_text_ends_inside_a_chain_as_without(tmp_path, device):
    """The draft is the target, so the end of the text comes in the middle of a draft."""
    model, _ = load_ending(tmp_path, open_gpu(device))
    plain = generate(model, drafter="none", ignore_eos=False)
    assert plain["finish_reason"] == "stop"
    found = generate(model, model, drafter="model", gamma=6, ignore_eos=False)
    assert found["token_ids"] == plain["token_ids"]
    assert found["finish_reason"] == "stop"
    # Banned, it is never said, and the draft goes another way than its best token.
    plain = generate(model, drafter="none")["token_ids"]
    assert generate(model, model, drafter="model", gamma=6)["token_ids"] == plain


def test_a_head_that_is_rewritten_leaves_the_embedding_as_it_is(tmp_path, device):
    config = TinyConfig(n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, tied=True)
    path = tiny_models.write_tiny(tmp_path / "m.gguf", config, dtype="F16", seed=2)
    gpu = open_gpu(device)
    draft = engine.load(str(path), gpu=gpu, n_ctx=512, requantize="q4_0")
    split = engine.load(str(path), requantize="q4_0", device="cpu")
    target = engine.load(str(path), device="cpu")
    plain = generate(target, drafter="none")["token_ids"]
    rounds = [generate(target, d, drafter="model", gamma=4) for d in (draft, split)]
    assert [r["token_ids"] for r in rounds] == [plain, plain]
    assert rounds[0]["accepted"] == rounds[1]["accepted"]


def test_a_cancelled_draft_leaves_a_session_that_goes_on(target_file, llama_file, device):
    gpu = open_gpu(device)
    target = engine.load(str(target_file), device="cpu")
    draft = engine.load(str(llama_file), gpu=gpu, n_ctx=512)
    plain = generate(target, drafter="none")["token_ids"]
    session = engine.Session(target, draft, drafter="model", gamma=4, n_ctx=512)
    chunks: list[Any] = []
    token = engine.Token()
    stopped = session.generate(
        prompt=PROMPT, max_tokens=N_TOKENS, ignore_eos=True, cancel=token,
        on_chunk=lambda c: (chunks.append(c), token.set()),
    )  # fmt: skip
    assert stopped["finish_reason"] == "cancelled"
    assert chunks
    again = session.generate(prompt=PROMPT, max_tokens=N_TOKENS, ignore_eos=True)
    assert again["token_ids"] == plain


def test_the_context_ends_where_it_ends_without_chains(target_file, llama_file, device):
    gpu = open_gpu(device)
    target = engine.load(str(target_file), device="cpu")
    draft = engine.load(str(llama_file), gpu=gpu, n_ctx=512)
    on_cpu = engine.load(str(llama_file), device="cpu")
    found = []
    for d in (None, draft, on_cpu):
        session = engine.Session(target, d, drafter="model" if d else "none", n_ctx=24,
                                 **({"gamma": 8} if d else {}))  # fmt: skip
        out = session.generate(prompt=PROMPT, max_tokens=50, ignore_eos=True)
        found.append((out["token_ids"], out["finish_reason"]))
    assert found[0] == found[1] == found[2]
