"""Hidden states of models with layers on a GPU.

On an emulated device (tests/native/emulated_device.h); with ``-m cuda`` on the first GPU.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
from test_cuda_engine import CONFIGS, DTYPES, bits, open_gpu

import tiny_models
from helpers import native
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
