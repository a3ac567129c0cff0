"""Models with layers on a GPU: placement, memory, recorded passes, the same text as plain decoding.

Runs the CUDA backend and every kernel on an emulated device (tests/native/emulated_device.h); with
``-m cuda`` the same tests run on the first GPU.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

import tiny_hybrid
import tiny_models
from helpers import native
from pairwise import in_turn
from tiny_models import TinyConfig

engine = native("engine")
testing = native("model")

MIB = 1 << 20
CONFIGS = {
    "llama": TinyConfig(
        n_layers=3, hidden_size=64, n_heads=4, n_kv_heads=2, head_dim=16, intermediate_size=96
    ),
    "qwen2": TinyConfig(arch="qwen2", n_layers=2, tied=True, n_heads=2, n_kv_heads=1, head_dim=32),
    "qwen3": TinyConfig(arch="qwen3", n_layers=2, tied=True, n_heads=4, n_kv_heads=2, head_dim=32),
    "smollm3": TinyConfig(arch="smollm3", n_layers=4, tied=True),
    "granite": TinyConfig(arch="granite", n_layers=2, tied=True),
    "gemma2": TinyConfig(arch="gemma2", n_layers=2, tied=True, window=9),
    "gemma3": TinyConfig(arch="gemma3", n_layers=3, tied=True, window=9),
    "olmo2": TinyConfig(arch="olmo2", n_layers=2, window=9),
    "phi3": TinyConfig(arch="phi3", n_layers=2, n_rot=12, window=9),
    "gptneox": TinyConfig(arch="gptneox", n_layers=2, n_heads=4, n_kv_heads=4, n_rot=6),
    "mixtral": TinyConfig(n_layers=2, n_experts=4),
    "qwen3moe": TinyConfig(arch="qwen3moe", n_layers=2, n_experts=9, n_experts_used=3),
    # Experts of rows that do not fill the kernels' tiles.
    "olmoe": TinyConfig(arch="olmoe", n_layers=2, n_experts=5, intermediate_size=40),
}
DTYPES = {
    "llama": "Q4_0",
    "qwen2": "Q8_0",
    "qwen3": "Q4_1",
    "smollm3": "Q8_0",
    "granite": "Q4_0",
    "gemma2": "Q4_0",
    "gemma3": "Q5_0",
    "olmo2": "Q4_0",
    "phi3": "Q8_0",
    "gptneox": "F16",
    "mixtral": "Q4_0",
    "qwen3moe": "Q8_0",
    "olmoe": "F16",
}
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 250, 64)]


def open_gpu(device: str, n_bytes: int = 4096 * MIB) -> Any:
    return engine.cuda_gpu() if device == "cuda" else engine.emulated_gpu(n_bytes)


def write_model(tmp_path_factory: Any, name: str, config: TinyConfig) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / f"{name}.gguf"
    return tiny_models.write_tiny(path, config, dtype=DTYPES[name], seed=3)


@pytest.fixture(scope="module", params=list(CONFIGS))
def model_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    return write_model(tmp_path_factory, request.param, CONFIGS[request.param])


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory: Any) -> pathlib.Path:
    config = TinyConfig(
        n_layers=4, hidden_size=64, n_heads=4, n_kv_heads=2, head_dim=16, intermediate_size=96,
        context_length=2048,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "target.gguf"
    return tiny_models.write_tiny(path, config, dtype="Q4_0", seed=11)


@pytest.fixture(scope="module")
def draft_file(tmp_path_factory: Any) -> pathlib.Path:
    config = TinyConfig(
        n_layers=1, hidden_size=64, n_heads=4, n_kv_heads=2, head_dim=16, intermediate_size=96,
        context_length=2048,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("models") / "draft.gguf"
    return tiny_models.write_tiny(path, config, dtype="Q4_0", seed=12)


def bits(rows: Any) -> bytes:
    return np.ascontiguousarray(rows, dtype=np.float32).tobytes()


# ---------------------------------------------------------------- one forward pass


@pytest.mark.parametrize(
    ("model_file", "kv_type"), in_turn(CONFIGS, ["f32", "f16"]), indirect=["model_file"]
)
def test_logits_are_those_of_the_cpu_wherever_layers_are(model_file, device, kv_type):
    expected = testing.Model(str(model_file)).session(kv_type=kv_type).forward(TOKENS[:20])
    scale = float(np.abs(expected).max())
    n_layers = testing.Model(str(model_file)).config["n_layers"]
    for n in range(1, n_layers + 1):
        model = testing.Model(str(model_file), backend=device, n_device_layers=n)
        assert model.device_bytes > 0
        found = model.session(kv_type=kv_type).forward(TOKENS[:20])
        assert float(np.abs(found - expected).max()) < 2e-3 * scale, n
        assert [int(r.argmax()) for r in found] == [int(r.argmax()) for r in expected]


@pytest.mark.parametrize("name", ["llama", "qwen3moe"])
def test_a_pass_may_have_as_many_rows_as_the_work_space(tmp_path_factory, device, name):
    """Its last row ends where the next part of the slab begins, behind a guard on the emulator."""
    config = dataclasses.replace(CONFIGS[name], n_layers=1, context_length=1024)
    path = write_model(tmp_path_factory, name, config)
    tokens = [int(t) for t in np.random.default_rng(6).integers(0, 250, testing.MAX_BATCH_ROWS)]
    model = testing.Model(str(path), backend=device, n_device_layers=1)
    found = model.session().forward(tokens)
    expected = testing.Model(str(path)).session().forward(tokens)
    assert len(found) == testing.MAX_BATCH_ROWS
    assert float(np.abs(found - expected).max()) < 2e-3 * float(np.abs(expected).max())


def test_rows_have_the_same_bits_in_every_batch_size(model_file, device):
    model = testing.Model(str(model_file), backend=device, n_device_layers=2)
    one = model.session()
    expected = np.concatenate([one.forward([t]) for t in TOKENS[:18]])
    for n_rows in (2, 7, 16, 18):
        assert bits(model.session().forward(TOKENS[:n_rows])) == bits(expected[:n_rows]), n_rows
    # Behind a prefix, as a verification is.
    session = model.session()
    session.forward(TOKENS[:9], output="none")
    assert bits(session.forward(TOKENS[9:17])) == bits(expected[9:17])


def test_rows_of_a_tree_have_the_bits_of_their_paths(model_file, device):
    model = testing.Model(str(model_file), backend=device, n_device_layers=2)
    prefix, parents = TOKENS[:5], [-1, 0, 0, 1, -1]
    session = model.session()
    session.forward(prefix, output="none")
    tree = session.forward(TOKENS[10:15], parents=parents)
    for path in ([0, 1, 3], [0, 2], [4]):
        alone = model.session()
        alone.forward(prefix, output="none")
        rows = alone.forward([TOKENS[10 + r] for r in path])
        assert bits(rows) == bits(tree[path])
    # What is kept of the tree is what a chain would have left behind.
    session.keep_path(len(prefix), [0, 2])
    chain = model.session()
    chain.forward([*prefix, TOKENS[10], TOKENS[12]], output="none")
    assert bits(session.forward(TOKENS[20:23])) == bits(chain.forward(TOKENS[20:23]))


def test_a_recorded_pass_gives_the_bits_of_the_first(llama_file, device):
    model = testing.Model(str(llama_file), backend=device, n_device_layers=4)
    expected = testing.Model(str(llama_file), backend=device, n_device_layers=4)
    session = model.session()
    passes, replayed = model.device_passes
    rows = [session.forward([t])[0] for t in TOKENS[:12]]
    n_passes, n_replayed = model.device_passes
    assert n_passes == passes + 12
    assert n_replayed == replayed + 10  # run, recorded, then played
    assert bits(np.stack(rows)) == bits(expected.session().forward(TOKENS[:12]))
    # Another cache, another place in it: only the inputs differ.
    other = model.session()
    other.forward(TOKENS[30:33], output="none")
    alone = expected.session()
    found = [other.forward([t])[0] for t in TOKENS[33:36]]
    assert bits(np.stack(found)) == bits(alone.forward(TOKENS[30:36])[3:])
    assert model.device_passes[1] == n_replayed + 3


@pytest.fixture(scope="module")
def mixture_file(tmp_path_factory: Any) -> pathlib.Path:
    return write_model(tmp_path_factory, "qwen3moe", CONFIGS["qwen3moe"])


def test_a_recorded_pass_serves_whatever_experts_its_rows_choose(mixture_file, device):
    model = testing.Model(str(mixture_file), backend=device, n_device_layers=2)
    fresh = testing.Model(str(mixture_file), backend=device, n_device_layers=2)
    session = model.session()
    session.forward(TOKENS[:1], output="none")
    replayed = model.device_passes[1]
    rows = [session.forward(TOKENS[i : i + 3]) for i in range(1, 25, 3)]
    assert model.device_passes[1] == replayed + 6  # run, recorded, then played
    assert bits(np.concatenate(rows)) == bits(fresh.session().forward(TOKENS[:25])[1:])


def test_experts_of_many_rows_are_taken_in_pieces_of_the_same_bits(mixture_file, device):
    model = testing.Model(str(mixture_file), backend=device, n_device_layers=2)
    tokens = (TOKENS * 5)[:300]
    whole = model.session().forward(tokens)
    session = model.session()
    parts = [session.forward(tokens[i : i + 60]) for i in range(0, 300, 60)]
    assert bits(np.concatenate(parts)) == bits(whole)


@pytest.mark.parametrize(("dtype", "n_rows"), [("Q4_0", 1), ("Q4_0", 16), ("F16", 1), ("F16", 5)])
def test_a_layer_is_few_kernels(tmp_path, dtype, n_rows):
    """A large GPU spends longer between small kernels than in them."""
    config = TinyConfig(n_layers=4, context_length=2048)
    path = tiny_models.write_tiny(tmp_path / "model.gguf", config, dtype=dtype, seed=11)
    model = testing.Model(str(path), backend="emulated", n_device_layers=4)
    session = model.session()
    session.forward(TOKENS[:3], output="none")
    before = testing.emulated_launches()
    session.forward(TOKENS[3 : 3 + n_rows], output="argmax")
    # Prepare, q k v, attention with all around it, prepare, o, prepare, gate and up, prepare, down;
    # the embedding, prepare, logits, and the best of them in two stages.
    assert testing.emulated_launches() - before == 9 * 4 + 5


def test_every_kind_of_output_comes_back(llama_file, device):
    cpu = testing.Model(str(llama_file)).session()
    for n in (2, 4):
        model = testing.Model(str(llama_file), backend=device, n_device_layers=n)
        logits = model.session().forward(TOKENS[:6])
        top = model.session().forward(TOKENS[:6], output="top", top_k=3, first_output_row=2)
        for row, (best, log_sum) in zip(logits[2:], top, strict=True):
            order = np.argsort(-row, kind="stable")[:3]
            assert [t for t, _ in best] == list(order)
            assert [v for _, v in best] == [float(row[t]) for t in order]
            assert log_sum == pytest.approx(float(np.log(np.exp(row.astype(np.float64)).sum())))
        assert list(model.session().forward(TOKENS[:6], output="argmax")) == [
            int(r.argmax()) for r in logits
        ]
        blocks = model.session().forward(TOKENS[:6], output="top", top_k=2, head_blocks=[1, 3])
        for row, (best, _) in zip(logits, blocks, strict=True):
            ids = [*range(16, 32), *range(48, 64)]
            assert [t for t, _ in best] == sorted(ids, key=lambda t: (-row[t], t))[:2]
        hidden = model.session().forward(TOKENS[:6], output="hidden")
        expected = cpu.forward(TOKENS[:6], output="hidden")
        cpu.truncate(0)
        assert np.abs(hidden - expected).max() < 2e-3 * np.abs(expected).max()
    # More rows of logits than there is room for at once.
    many = model.session().forward(TOKENS[:40])
    assert bits(many[:6]) == bits(logits)


def test_a_pass_may_stop_and_go_on_at_any_layer(llama_file, device):
    model = testing.Model(str(llama_file), backend=device, n_device_layers=2)
    whole = model.session().forward(TOKENS[:4])
    for cut in (1, 2, 3):
        session = model.session()
        hidden = session.forward(TOKENS[:4], output="hidden", layers=(0, cut))
        session.truncate(0)
        rest = session.forward(TOKENS[:4], layers=(cut, -1), hidden=hidden.ravel().tolist())
        assert bits(rest) == bits(whole), cut


def test_caches_roll_back_fork_and_cross_pages(llama_file, device):
    model = testing.Model(str(llama_file), backend=device, n_device_layers=4)
    session = model.session()
    long = [TOKENS[i % len(TOKENS)] for i in range(250)]
    session.forward(long, output="none")
    fork = session.fork()
    expected = session.forward(TOKENS[:12])  # crosses into the second page
    assert bits(fork.forward(TOKENS[:12])) == bits(expected)
    session.truncate(250)
    session.forward(TOKENS[40:45], output="none")
    session.truncate(250)
    assert bits(session.forward(TOKENS[:12])) == bits(expected)


# ---------------------------------------------------------------- the engine


PROMPT = "tea or tea or"
N_TOKENS = 10  # an emulated thread of a grid is slow


def generate(target: Any, draft: Any = None, **options: Any) -> dict[str, Any]:
    request = {k: options.pop(k) for k in ("temperature", "seed", "top_k") if k in options}
    session = engine.Session(target, draft, n_ctx=512, **options)
    return session.generate(prompt=PROMPT, max_tokens=N_TOKENS, ignore_eos=True, **request)


@pytest.mark.parametrize("layers", [(4, 1), (2, 1), (2, 0), (0, 1)])
def test_speculative_text_is_plain_text(llama_file, draft_file, device, layers):
    gpu = open_gpu(device)
    n_target, n_draft = layers
    draft = engine.load(str(draft_file), gpu=gpu, n_gpu_layers=n_draft, n_ctx=512)
    target = engine.load(str(llama_file), gpu=gpu, n_gpu_layers=n_target, n_ctx=512)
    assert target.info["n_gpu_layers"] == n_target
    assert draft.info["n_gpu_layers"] == n_draft
    plain = generate(target, drafter="none")["token_ids"]
    assert len(plain) == N_TOKENS
    found = generate(target, draft, drafter="model", gamma=3)
    assert found["drafted"] > 0
    assert found["token_ids"] == plain
    if n_target == 2 or device == "cuda":
        for options in (
            {"drafter": "ngram"},
            {"drafter": "recycling"},
            {"drafter": "auto"},
            {"drafter": "model", "draft_branch": 2},
            {"drafter": "model", "draft_branch": 8, "gamma": 20},  # 161 rows, of which 64 go
            {"drafter": "layerskip", "draft_layers": 3},
            {"drafter": "none", "use_cache": False},
            {"drafter": "model", "draft_branch": 2, "use_cache": False},
            {"drafter": "layerskip", "draft_layers": 3, "use_cache": False},
        ):
            assert generate(target, draft, **options)["token_ids"] == plain, options
    n_passes, n_replayed, _ = gpu.stats
    assert n_replayed > n_passes / 8
    sampled = {"temperature": 0.9, "seed": 4, "top_k": 40}
    plain = generate(target, drafter="none", **sampled)["token_ids"]
    assert generate(target, draft, drafter="model", **sampled)["token_ids"] == plain


def test_a_mixture_drafted_for_writes_its_plain_text(mixture_file, draft_file, device):
    gpu = open_gpu(device)
    draft = engine.load(str(draft_file), gpu=gpu, n_gpu_layers=1, n_ctx=512)
    on_cpu = engine.load(str(mixture_file), n_ctx=512)
    plain = generate(on_cpu, drafter="none")["token_ids"]
    for n_layers in (2, 1):
        target = engine.load(str(mixture_file), gpu=gpu, n_gpu_layers=n_layers, n_ctx=512)
        assert target.info["n_gpu_layers"] == n_layers
        assert generate(target, drafter="none")["token_ids"] == plain
        for drafter in ("model", "ngram", "auto"):
            found = generate(target, draft, drafter=drafter)
            assert found["token_ids"] == plain, (n_layers, drafter)


def test_forks_share_what_they_have_in_common(llama_file, device):
    gpu = open_gpu(device)
    target = engine.load(str(llama_file), gpu=gpu, n_ctx=1024)
    session = engine.Session(target, drafter="none", n_ctx=512)
    session.generate(prompt=PROMPT, max_tokens=4, ignore_eos=True)
    free = gpu.free_bytes
    fork = session.fork()
    ids = [session.generate(prompt=PROMPT + " x", max_tokens=8, ignore_eos=True)["token_ids"]]
    ids.append(fork.generate(prompt=PROMPT + " x", max_tokens=8, ignore_eos=True)["token_ids"])
    assert ids[0] == ids[1]
    assert gpu.free_bytes < free
    del fork
    assert gpu.free_bytes == free


# ---------------------------------------------------------------- memory


def test_nothing_is_allocated_after_load_and_all_comes_back(llama_file, draft_file, device):
    gpu = open_gpu(device)
    before = gpu.reserved_bytes
    draft = engine.load(str(draft_file), gpu=gpu, n_ctx=512)
    target = engine.load(str(llama_file), gpu=gpu, n_ctx=512)
    reserved = gpu.reserved_bytes
    assert reserved - gpu.work_bytes - before >= target.info["gpu_bytes"] + draft.info["gpu_bytes"]
    generate(target, draft, drafter="model")
    assert gpu.reserved_bytes == reserved
    del draft, target
    assert gpu.reserved_bytes == gpu.work_bytes  # the buffers of passes stay with the device


def smallest_budget(path: pathlib.Path, n_layers: int, **options: Any) -> int:
    """What a model takes that is loaded with so many layers."""
    gpu = engine.emulated_gpu(4096 * MIB)
    model = engine.load(str(path), gpu=gpu, n_gpu_layers=n_layers, **options)
    n_bytes = gpu.reserved_bytes
    del model
    return n_bytes


def test_a_budget_below_the_model_keeps_the_first_layers_on_the_cpu(llama_file, device):
    plain = generate(engine.load(str(llama_file), device="cpu"), drafter="none")["token_ids"]
    if device == "cuda":
        pytest.skip("budgets of bytes are those of the emulated device")
    seen = []
    for n in (4, 3, 1):
        budget = smallest_budget(llama_file, n, n_ctx=512)
        gpu = open_gpu(device)
        model = engine.load(str(llama_file), gpu=gpu, vram_budget=budget, n_ctx=512)
        seen.append(model.info["n_gpu_layers"])
        assert gpu.reserved_bytes <= budget
        text = "\n".join(model.info["placement"])
        assert "budget" in text
        assert ("all 4 layers" if n == 4 else f"layers {4 - n} to 3 of 4") in text
        assert len(generate(model, drafter="none")["token_ids"]) == len(plain)
    assert seen == [4, 3, 1]
    model = engine.load(str(llama_file), gpu=open_gpu(device), vram_budget=1000)
    assert model.info["n_gpu_layers"] == 0
    assert "fit" in model.info["cpu_reason"]
    assert generate(model, drafter="none")["token_ids"] == plain


def test_the_draft_model_is_placed_first_and_the_target_gets_the_rest(llama_file, draft_file):
    alone = smallest_budget(llama_file, 4, n_ctx=512)
    gpu = engine.emulated_gpu(4096 * MIB)
    draft = engine.load(str(draft_file), gpu=gpu, vram_budget=alone, n_ctx=512)
    target = engine.load(str(llama_file), gpu=gpu, vram_budget=alone, n_ctx=512)
    assert draft.info["n_gpu_layers"] == 1
    assert 0 < target.info["n_gpu_layers"] < 4
    assert gpu.reserved_bytes <= alone
    plain = generate(target, drafter="none")["token_ids"]
    assert generate(target, draft, drafter="model")["token_ids"] == plain


def test_layers_that_do_not_fit_are_refused_with_what_would(llama_file):
    budget = smallest_budget(llama_file, 2, n_ctx=512)
    with pytest.raises(engine.Error, match="2 would fit") as caught:
        engine.load(
            str(llama_file), gpu=engine.emulated_gpu(4096 * MIB), vram_budget=budget,
            n_gpu_layers=3, n_ctx=512,
        )  # fmt: skip
    assert caught.value.code == "resource"
    # More layers than there are means all of them, as in llama.cpp.
    model = engine.load(str(llama_file), gpu=engine.emulated_gpu(4096 * MIB), n_gpu_layers=99)
    assert model.info["n_gpu_layers"] == 4


def test_a_device_without_memory_means_the_cpu_or_an_error(llama_file):
    model = engine.load(str(llama_file), gpu=engine.emulated_gpu(MIB))
    assert model.info["n_gpu_layers"] == 0
    with pytest.raises(engine.Error, match="fit"):
        engine.load(str(llama_file), gpu=engine.emulated_gpu(MIB), device="cuda")


def test_a_context_that_was_not_reserved_is_refused_at_once(llama_file, device):
    gpu = open_gpu(device)
    model = engine.load(str(llama_file), gpu=gpu, n_ctx=256)
    assert model.info["gpu_context"] == 256
    with pytest.raises(engine.Error, match="n_ctx=1024"):
        engine.Session(model, drafter="none", n_ctx=1024)
    assert engine.Session(model, drafter="none").n_ctx == 256  # chosen to fit


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error(llama_file):
    devices, reason = engine.cuda_devices()
    if devices:
        pytest.skip(f"there is a GPU: {devices[0]}")
    assert reason
    for options in ({"device": "cuda"}, {"n_gpu_layers": 1}):
        with pytest.raises(engine.Error, match="cpu"):
            engine.load(str(llama_file), **options)
    model = engine.load(str(llama_file))
    assert model.info["n_gpu_layers"] == 0
    assert model.info["cpu_reason"] == reason
    assert engine.load(str(llama_file), n_gpu_layers=0).info["cpu_reason"] == ""


def test_what_the_device_lacks_stays_on_the_cpu(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every layer is one of attention, behind gates."""
    monkeypatch.setattr(tiny_hybrid, "is_recurrent", lambda layer: False)
    path = tiny_models.write_tiny(
        tmp_path / "gated.gguf",
        tiny_models.FAMILIES["qwen35"],
        extra={"qwen35.full_attention_interval": 1},
    )
    model = engine.load(str(path), gpu=open_gpu("emulated"))
    assert model.info["n_gpu_layers"] == 0
    assert "attention with gates runs on the CPU only" in model.info["cpu_reason"]
    assert len(generate(model, drafter="none")["token_ids"]) == N_TOKENS
    with pytest.raises(engine.Error, match=r"attention with gates .* use device 'cpu'"):
        engine.load(str(path), gpu=open_gpu("emulated"), n_gpu_layers=1)


def test_without_memory_for_a_recording_passes_run_as_they_are(llama_file: pathlib.Path) -> None:
    gpu = open_gpu("emulated")
    target = engine.load(str(llama_file), gpu=gpu, n_gpu_layers=99, n_ctx=512)
    plain = generate(engine.load(str(llama_file), gpu=open_gpu("emulated"), n_gpu_layers=99,
                                 n_ctx=512), drafter="none")["token_ids"]  # fmt: skip
    session = engine.Session(target, None, drafter="none", n_ctx=512)
    request: dict[str, Any] = {"prompt": PROMPT, "max_tokens": N_TOKENS, "ignore_eos": True}
    gpu.fail_recording(1)
    with pytest.raises(engine.Error, match="no longer recorded from now on: try again") as error:
        session.generate(**request)
    assert error.value.code == "resource"
    n_replayed = gpu.stats[1]
    assert session.generate(**request)["token_ids"] == plain
    assert gpu.stats[1] == n_replayed
