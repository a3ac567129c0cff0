"""Hidden states of models with layers on a GPU, and heads on the CPU that draft with them.

On an emulated device (tests/native/emulated_device.h); with ``-m cuda`` on the first GPU.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from test_cuda_engine import CONFIGS, DTYPES, bits, open_gpu

import eagle_reference as eagle
import mtp_reference as mtp
import tiny_models
from helpers import native
from mtp_reference import MtpConfig
from tiny_models import TinyConfig

engine = native("engine")
testing = native("model")

TOKENS = [int(t) for t in np.random.default_rng(9).integers(0, 250, 64)]
N_LAYERS = 4
TARGET = TinyConfig(n_layers=N_LAYERS, context_length=2048)
FAMILIES = {
    name: dataclasses.replace(CONFIGS[name], n_layers=N_LAYERS)
    for name in ("llama", "gemma2", "gptneox", "qwen3moe")
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def family_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    return tiny_models.write_tiny(
        path, FAMILIES[request.param], dtype=DTYPES[request.param], seed=3
    )


@pytest.fixture(scope="module")
def target_file(tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / "target.gguf"
    return tiny_models.write_tiny(path, TARGET, dtype="Q4_0", seed=11)


def load(path: pathlib.Path, device: str, n_layers: int, **options: Any) -> Any:
    return testing.Model(str(path), backend=device, n_device_layers=n_layers, **options)


def taps(session: Any, tokens: list[int], layers: list[int], **options: Any) -> np.ndarray:
    session.forward(tokens, taps=layers, **options)
    return np.array([session.taps(r).reshape(len(layers), -1) for r in range(len(tokens))])


def entering(model: Any, tokens: list[int], layer: int) -> np.ndarray:
    """What a pass that ends before a layer says: another way to the same bits."""
    found: np.ndarray = model.session().forward(tokens, output="hidden", layers=(0, layer))
    return found


# ---------------------------------------------------------------- one forward pass


@pytest.mark.parametrize("n_device_layers", range(1, N_LAYERS + 1))
def test_taps_are_what_enters_the_layers_wherever_they_are(family_file, device, n_device_layers):
    cpu = testing.Model(str(family_file))
    embeddings = (True, False) if n_device_layers == N_LAYERS else (True,)
    for embedding in embeddings:
        model = load(family_file, device, n_device_layers, device_embedding=embedding)
        for n_rows in (1, 5, 18):
            tokens = TOKENS[:n_rows]
            found = taps(model.session(), tokens, list(range(N_LAYERS + 1)))
            expected = taps(cpu.session(), tokens, list(range(N_LAYERS + 1)))
            for layer in range(N_LAYERS + 1):
                at = (n_rows, layer, embedding)
                if layer > 0:
                    assert bits(found[:, layer]) == bits(entering(model, tokens, layer)), at
                # Behind the device's layers the CPU has other bits, taps or not.
                if layer <= N_LAYERS - n_device_layers:
                    assert bits(found[:, layer]) == bits(expected[:, layer]), at
                scale = float(np.abs(expected[:, layer]).max())
                assert float(np.abs(found[:, layer] - expected[:, layer]).max()) < 2e-3 * scale, at


def test_taps_change_no_result_and_no_kernel(target_file, device):
    for n_device_layers in (2, 4):
        model = load(target_file, device, n_device_layers)
        plain, tapped = model.session(), model.session()
        for begin, end in ((0, 9), (9, 10), (10, 14), (14, 31)):
            expected = plain.forward(TOKENS[begin:end])
            before = testing.emulated_launches()
            assert bits(tapped.forward(TOKENS[begin:end], taps=[1, 3])) == bits(expected)
            after = testing.emulated_launches()
            plain.truncate(begin)
            plain.forward(TOKENS[begin:end])
            assert after - before == testing.emulated_launches() - after
        with pytest.raises(testing.NativeError, match="tapped no layers"):
            plain.taps(0)


def test_taps_go_beside_every_kind_of_output(target_file, device):
    for n_device_layers in (2, 4):
        model = load(target_file, device, n_device_layers)
        tokens, layers = TOKENS[:7], [0, 2, 4]
        expected = taps(model.session(), tokens, layers)
        for output in ("none", "hidden", "argmax", "top"):
            for first in (0, 6):
                session = model.session()
                found = taps(session, tokens, layers, output=output, first_output_row=first)
                assert bits(found) == bits(expected), (output, first)
                following = session.forward(TOKENS[7:9])
                plain = model.session()
                plain.forward(tokens, output="none")
                assert bits(following) == bits(plain.forward(TOKENS[7:9]))


def test_rows_of_a_tree_have_the_taps_of_their_paths(target_file, device):
    prefix, parents, layers = TOKENS[:5], [-1, 0, 0, 1, -1], [0, 1, 3, 4]
    for n_device_layers in (2, 4):
        model = load(target_file, device, n_device_layers)
        session = model.session()
        session.forward(prefix, output="none")
        tree = taps(session, TOKENS[10:15], layers, parents=parents)
        for path in ([0, 1, 3], [0, 2], [4]):
            alone = model.session()
            alone.forward(prefix, output="none")
            rows = taps(alone, [TOKENS[10 + r] for r in path], layers)
            assert bits(rows) == bits(tree[path])


def test_a_recording_is_good_for_the_layers_that_it_taps(target_file, device):
    """Passes of all kinds in turn, each of which is run, recorded and played."""
    for n_device_layers in (2, 4):
        model = load(target_file, device, n_device_layers)
        fresh = load(target_file, device, n_device_layers)
        kinds: list[list[int]] = [[1, 3], [], [2, 3], [3], [1, 3, 4], [0, 1, 2, 3, 4]]
        passes, replayed = model.device_passes
        session = model.session()
        found: dict[int, Any] = {}
        for round_ in range(4):
            for i, layers in enumerate(kinds):
                session.truncate(0)
                tokens = TOKENS[4 * round_ : 4 * round_ + 3]
                if layers:
                    found[i, round_] = taps(session, tokens, layers)
                else:
                    found[i, round_] = session.forward(tokens)
        n_passes, n_replayed = model.device_passes
        assert n_passes - passes == 4 * len(kinds)
        # Each kind is run and recorded, then played. But for those before the one with the most
        # taps: what is copied to has moved then, and they are run and recorded again.
        # With the first layers on the CPU some kinds are the same to the device.
        assert n_replayed > replayed
        for (i, round_), rows in found.items():
            tokens = TOKENS[4 * round_ : 4 * round_ + 3]
            if kinds[i]:
                expected = taps(fresh.session(), tokens, list(range(N_LAYERS + 1)))[:, kinds[i]]
            else:
                expected = fresh.session().forward(tokens)
            assert bits(rows) == bits(expected), (kinds[i], round_)


def test_recordings_go_when_what_they_copy_to_moves(target_file, device):
    model = load(target_file, device, N_LAYERS)
    expected = taps(model.session(), TOKENS[:60], [1, 3])
    fresh = load(target_file, device, N_LAYERS)
    session = fresh.session()
    rows = [taps(session, [t], [1, 3])[0] for t in TOKENS[:4]]
    replayed = fresh.device_passes[1]
    assert replayed == 2
    rows += list(taps(session, TOKENS[4:54], [1, 3]))  # more rows than any recording has
    rows += [taps(session, [t], [1, 3])[0] for t in TOKENS[54:60]]
    assert bits(np.array(rows)) == bits(expected)
    assert fresh.device_passes[1] == replayed + 4  # run, recorded, then played


# ---------------------------------------------------------------- hidden states of a text


def test_hidden_states_of_a_text_are_those_of_its_passes(target_file, device):
    layers = [0, 1, 3, 4]
    tokens = (TOKENS * 5)[:300]  # longer than a piece
    for n_device_layers in (2, 4):
        gpu = open_gpu(device)
        model = engine.load(str(target_file), gpu=gpu, n_gpu_layers=n_device_layers, kv_type="f32")
        found = model.hidden_states(tokens, layers)
        assert found.shape == (300, len(layers), TARGET.hidden_size)
        expected = taps(load(target_file, device, n_device_layers).session(), tokens, layers)
        assert bits(found) == bits(expected)
        for n in (1, 2, 40):
            assert bits(model.hidden_states(tokens[:n], layers)) == bits(expected[:n])
        with pytest.raises(engine.Error, match="ascending and distinct, from 0 to 4, found 5"):
            model.hidden_states(tokens, [5])
        assert bits(model.hidden_states(tokens[:3], [3])) == bits(expected[:3, 2:3])


def test_a_text_longer_than_the_context_on_the_device_is_refused(target_file, device):
    model = engine.load(str(target_file), gpu=open_gpu(device), n_gpu_layers=1, n_ctx=256)
    with pytest.raises(engine.Error, match="n_ctx") as caught:
        model.hidden_states((TOKENS * 13)[:800], [1])
    assert caught.value.code == "resource"
    assert model.hidden_states(TOKENS, [1]).shape == (64, 1, TARGET.hidden_size)


def test_memory_that_cannot_be_had_is_told_and_asked_for_again(target_file):
    """What taps take is the host's: nothing of the device's memory."""
    gpu = engine.emulated_gpu(1 << 30)
    model = engine.load(str(target_file), gpu=gpu, n_ctx=512)
    reserved = gpu.reserved_bytes
    gpu.fail_pinned(1)
    n_bytes = 2 * 40 * TARGET.hidden_size * 4
    with pytest.raises(engine.Error, match=f"of 2 layers and 40 rows.* {n_bytes} bytes") as caught:
        model.hidden_states(TOKENS[:40], [1, 4])
    assert caught.value.code == "resource"
    assert "ask for fewer layers" in str(caught.value)
    found = model.hidden_states(TOKENS[:40], [1, 4])
    gpu.fail_pinned(1)  # the room that is there stays when there is no more
    with pytest.raises(engine.Error, match="of 3 layers"):
        model.hidden_states(TOKENS[:40], [1, 2, 4])
    assert bits(model.hidden_states(TOKENS[:40], [1, 4])) == bits(found)
    assert gpu.fail_pinned(0) == 0
    assert gpu.reserved_bytes == reserved


def test_a_pass_that_fails_leaves_taps_to_the_next(target_file):
    gpu = engine.emulated_gpu(1 << 30)
    model = engine.load(str(target_file), gpu=gpu, n_ctx=512)
    expected = model.hidden_states(TOKENS[:9], [1, 4])
    n_operations = 0
    for n_operations in range(1, 400):
        gpu.fail_issue(n_operations)
        try:
            found = model.hidden_states(TOKENS[:9], [1, 4])
        except engine.Error as error:
            assert "injected" in str(error)  # noqa: PT017
        else:
            assert bits(found) == bits(expected)
            break
        finally:
            gpu.fail_issue(0)
        assert bits(model.hidden_states(TOKENS[:9], [1, 4])) == bits(expected)
    assert n_operations > 5 or gpu.stats[1] > 0


# ---------------------------------------------------------------- heads


FEW = [(t, -np.inf) for t in range(TARGET.vocab_size) if t not in (40, 50, 61, 70, 81)]
PROMPT = list(b"the cat in the hat")
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "the target's head": {"draft_vocab_size": None, "own_output": False},
    "own embedding": {"own_embedding": True},
}


def write_pair(folder: pathlib.Path, target: TinyConfig, dtype: str, head: dict[str, Any]) -> Any:
    """The files of a target and a head, which can draft the few tokens."""
    config = eagle.head_for(target, context_length=2048, **head)
    tensors = eagle.random_tensors(config, 2)
    if config.draft_vocab_size is not None:
        ids = [40, 50, 61, 81]
        rest = [t for t in range(target.vocab_size) if t not in ids]
        tensors["d2t"] = np.array(sorted(ids + rest[: len(tensors["d2t"]) - 4]), np.int64)
    return (
        tiny_models.write_tiny(folder / "target.gguf", target, dtype=dtype, seed=11),
        eagle.write_eagle3(folder / "head.gguf", config, target, tensors=tensors),
    )


def generate(
    target: Any, draft: Any = None, prompt: list[int] = PROMPT, n: int = 24, **options: Any
) -> dict[str, Any]:
    session = engine.Session(target, draft, n_ctx=512, **options)
    found: dict[str, Any] = session.generate(
        prompt_ids=prompt, max_tokens=n, ignore_eos=True, logit_bias=FEW
    )
    return found


@pytest.mark.parametrize(
    ("variant", "tied", "requantize"),
    [
        ("plain", False, ""),
        ("own embedding", False, ""),
        ("the target's head", False, ""),
        ("the target's head", True, ""),
        ("the target's head", True, "q4_0"),
    ],
)
def test_a_head_drafts_for_a_target_on_the_device_as_on_the_cpu(
    tmp_path, device, variant, tied, requantize
):
    config = dataclasses.replace(TARGET, tied=tied)
    files = write_pair(tmp_path, config, "Q8_0", HEADS[variant])
    head = engine.load(str(files[1]), device="cpu")
    cpu = engine.load(str(files[0]), device="cpu", requantize=requantize)
    prompts = [PROMPT, [65, 50, 51, 40], [61, 3]]
    eagle_3: dict[str, Any] = {"drafter": "eagle", "gamma": 3}
    expected = [generate(cpu, head, prompt, **eagle_3) for prompt in prompts]
    assert sum(one["accepted"] for one in expected) > 0
    for n_layers in (4, 2):
        gpu = open_gpu(device)
        target = engine.load(
            str(files[0]), gpu=gpu, n_gpu_layers=n_layers, n_ctx=512, requantize=requantize
        )
        reserved = gpu.reserved_bytes
        for prompt, wanted in zip(prompts, expected, strict=True):
            plain = generate(target, None, prompt, drafter="none")["token_ids"]
            assert plain == wanted["token_ids"]
            found = generate(target, head, prompt, **eagle_3)
            assert found["token_ids"] == plain
            for count in ("drafted", "accepted", "speculation"):
                assert found[count] == wanted[count]
        assert gpu.reserved_bytes == reserved
        n_passes, n_replayed, _ = gpu.stats
        assert n_replayed > n_passes / 8


def test_what_else_is_done_with_a_head_gives_the_plain_text(tmp_path, device):
    files = write_pair(tmp_path, TARGET, "Q4_0", HEADS["plain"])
    gpu = open_gpu(device)
    # It is placed on the CPU, whatever there is.
    for where in ("auto", "cuda"):
        head = engine.load(str(files[1]), gpu=gpu, device=where)
        assert head.info["n_gpu_layers"] == 0
        assert "heads that draft run on the CPU only" in head.info["cpu_reason"]
    with pytest.raises(engine.Error, match=r"CPU only; use device 'cpu' and no GPU layers"):
        engine.load(str(files[1]), gpu=gpu, n_gpu_layers=1)
    for n_layers, drafters in ((4, ("auto", "eagle,layerskip")), (1, ("eagle", "eagle,ngram"))):
        target = engine.load(str(files[0]), gpu=gpu, n_gpu_layers=n_layers, n_ctx=1024)
        for prompt in (PROMPT * 3, PROMPT[:1]):
            plain = generate(target, None, prompt, 10, drafter="none")["token_ids"]
            for drafter in drafters:
                found = generate(target, head, prompt, 10, drafter=drafter)
                assert found["token_ids"] == plain, (n_layers, drafter)


def test_auto_weighs_a_head_by_what_it_measures(tmp_path, device, monkeypatch):
    files = write_pair(tmp_path, TARGET, "Q4_0", HEADS["plain"])
    gpu = open_gpu(device)
    head = engine.load(str(files[1]), device="cpu")
    target = engine.load(str(files[0]), gpu=gpu, n_gpu_layers=4, n_ctx=512)
    monkeypatch.setenv("SPECDEC_ROUND_TRACE", str(tmp_path / "trace.jsonl"))
    found = generate(target, head, drafter="auto")
    monkeypatch.delenv("SPECDEC_ROUND_TRACE")
    assert found["token_ids"] == generate(target, drafter="none")["token_ids"]
    rounds = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()[1:]]
    assert any(entry["sources"].get("eagle", {}).get("p") for entry in rounds)


def test_requests_at_once_have_the_texts_they_have_alone(tmp_path, device):
    files = write_pair(tmp_path, TARGET, "Q4_0", HEADS["plain"])
    gpu = open_gpu(device)
    head = engine.load(str(files[1]), device="cpu")
    target = engine.load(str(files[0]), gpu=gpu, n_gpu_layers=2, n_ctx=1024)
    requests = [
        {"prompt_ids": PROMPT * n, "max_tokens": 8, "ignore_eos": True, "logit_bias": FEW}
        for n in (1, 3, 2)
    ]
    expected = [
        engine.Session(target, drafter="none", n_ctx=256).generate(**request)["token_ids"]
        for request in requests
    ]
    found, _, _ = engine.schedule(
        target, head, requests, max_requests=2, drafter="eagle", n_ctx=256
    )
    assert [result["token_ids"] for result in found] == expected
    assert min(result["drafted"] for result in found) > 0


def test_a_session_and_its_fork_go_on_with_their_head(tmp_path, device):
    files = write_pair(tmp_path, TARGET, "Q4_0", HEADS["the target's head"])
    gpu = open_gpu(device)
    head = engine.load(str(files[1]), device="cpu")
    target = engine.load(str(files[0]), gpu=gpu, n_gpu_layers=4, n_ctx=1024)
    options = {"max_tokens": 12, "ignore_eos": True, "logit_bias": FEW}
    session = engine.Session(target, head, drafter="eagle", gamma=3, n_ctx=256)
    text = PROMPT + session.generate(prompt_ids=PROMPT, **options)["token_ids"] + [9]
    fork = session.fork()
    fresh = engine.Session(target, head, drafter="eagle", gamma=3, n_ctx=256)
    expected = fresh.generate(prompt_ids=text, **options)
    for one in (session, fork):
        found = one.generate(prompt_ids=text, **options)
        assert found["n_reused_tokens"] > 0
        assert found["token_ids"] == expected["token_ids"]
        assert found["accepted"] == expected["accepted"]


def test_without_memory_for_taps_a_generation_fails_and_the_next_goes_on(tmp_path):
    files = write_pair(tmp_path, TARGET, "Q4_0", HEADS["plain"])
    gpu = engine.emulated_gpu(1 << 30)
    head = engine.load(str(files[1]), device="cpu")
    target = engine.load(str(files[0]), gpu=gpu, n_gpu_layers=4, n_ctx=512)
    plain = generate(target, drafter="none")["token_ids"]
    session = engine.Session(target, head, drafter="eagle", gamma=3, n_ctx=512)
    request = {"prompt_ids": PROMPT, "max_tokens": 24, "ignore_eos": True, "logit_bias": FEW}
    gpu.fail_pinned(1)
    with pytest.raises(engine.Error, match="or decode without the head") as caught:
        session.generate(**request)
    assert caught.value.code == "resource"
    assert session.generate(**request)["token_ids"] == plain


# ---------------------------------------------------------------- blocks behind a model


@pytest.mark.parametrize("tied", [False, True])
def test_a_block_takes_norm_and_head_of_a_target_on_the_device(tmp_path, device, tied):
    """No architecture with such blocks runs on a device yet: they are lent by another one."""
    config = MtpConfig(tiny_models.FAMILIES["qwen35"], own_norm=False)
    path = mtp.write_mtp(tmp_path / "mtp.gguf", config)
    block = testing.Model(str(path), next_tokens=True)
    lender = dataclasses.replace(TARGET, tied=tied)
    lender_path = tiny_models.write_tiny(tmp_path / "lender.gguf", lender, dtype="Q4_0", seed=4)
    states = np.random.default_rng(1).standard_normal((6, 64)).astype(np.float32)
    found = []
    for n_layers in (0, 2, 4):
        model = load(lender_path, device if n_layers > 0 else "cpu", n_layers)
        session = block.head_session(model)
        features = session.fuse(states.ravel().tolist())
        logits = session.forward(TOKENS[:6], hidden=features.tolist(), keep_hidden=True)
        found.append((bits(features), bits(logits), bits([session.hidden(r) for r in range(6)])))
    assert found[0] == found[1] == found[2]


def test_a_model_with_a_block_goes_to_the_cpu_and_drafts_there(tmp_path, device):
    path = mtp.write_mtp(tmp_path / "m.gguf", MtpConfig(tiny_models.FAMILIES["qwen35"]))
    gpu = open_gpu(device)
    reserved = gpu.reserved_bytes
    model = engine.load(str(path), gpu=gpu)
    assert model.info["n_gpu_layers"] == 0
    assert "recurrent layers run on the CPU only" in model.info["cpu_reason"]
    plain = generate(model, drafter="none")["token_ids"]
    for drafter in ("mtp", "auto"):
        found = generate(model, drafter=drafter)
        assert found["token_ids"] == plain
        assert found["drafted"] > 0
    assert gpu.reserved_bytes == reserved
