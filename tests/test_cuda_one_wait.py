"""One wait per round: a target's pass that takes the draft's tokens on the device.

As tests/test_cuda_engine.py, on an emulated device, which executes nothing before the host waits,
and with ``-m cuda`` on the first GPU.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import native
from test_cuda_chain import BLOCKS, CONFIGS, on_device, single_steps
from test_cuda_engine import TOKENS
from tiny_models import TinyConfig

engine = native("engine")
testing = native("model")

# A larger vocabulary than the draft's, as files of one family have by padding.
TARGET = TinyConfig(n_layers=2, n_heads=2, n_kv_heads=1, head_dim=32, vocab_size=288)


@pytest.fixture(scope="module", params=list(CONFIGS))
def draft_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    return tiny_models.write_tiny(path, CONFIGS[request.param], dtype="Q4_0", seed=3)


@pytest.fixture(scope="module")
def llama_file(tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / "draft.gguf"
    return tiny_models.write_tiny(path, CONFIGS["llama"], dtype="Q4_0", seed=12)


@pytest.fixture(scope="module")
def target_file(tmp_path_factory: Any) -> pathlib.Path:
    path = tmp_path_factory.mktemp("models") / "target.gguf"
    return tiny_models.write_tiny(path, TARGET, dtype="Q4_0", seed=11)


def pair(target: pathlib.Path, draft: pathlib.Path, device: str) -> tuple[Any, Any]:
    there = on_device(target, device)
    return there, on_device(draft, device, beside=there)


def tokens_of(steps: list[Any]) -> list[int]:
    return [best[0][0] for best, _ in steps]


# ---------------------------------------------------------------- in the model


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_both_have_the_bits_they_have_one_after_the_other(draft_file, target_file, device, kv_type):
    target, draft = pair(target_file, draft_file, device)
    drafting, chain_alone = (draft.session(kv_type=kv_type) for _ in range(2))
    verifying, alone = (target.session(kv_type=kv_type) for _ in range(2))
    for s in (verifying, alone):
        s.forward(TOKENS[:4], output="none")
    for i, (n_steps, n_used, output) in enumerate(
        ((4, 5, "logits"), (8, 9, "argmax"), (1, 2, "top"), (6, 3, "logits"), (3, 1, "argmax"))
    ):
        known, draft_tokens = TOKENS[20 + i], TOKENS[5 * i : 5 * i + 1 + i % 2]
        waits = target.device_waits
        steps, rows, error = verifying.forward_behind(
            drafting, draft_tokens, n_steps, [known] + [0] * n_steps,
            [-1, *(2 * s for s in range(n_steps))], n_used=n_used, chain_top_k=2, output=output,
            top_k=3, head_blocks=BLOCKS if i % 2 else [],
        )  # fmt: skip
        assert target.device_waits == waits + 1
        assert error is None
        assert steps == chain_alone.forward_chain(
            draft_tokens, n_steps, top_k=2, head_blocks=BLOCKS if i % 2 else []
        )
        fed = [known, *tokens_of(steps)][:n_used]
        expected = alone.forward(fed, output=output, top_k=3)
        assert len(rows) == n_used
        assert np.array_equal(np.asarray(rows, dtype=object), np.asarray(expected, dtype=object))
        assert (drafting.length, verifying.length) == (chain_alone.length, alone.length)
    # What they left in the caches.
    for one, other in ((drafting, chain_alone), (verifying, alone)):
        assert one.forward(TOKENS[40:42]).tobytes() == other.forward(TOKENS[40:42]).tobytes()


def test_other_choices_than_the_best_can_stand_beside_the_chain(llama_file, target_file, device):
    """Rows: the last token, c0, its sibling, c1, its sibling, c2."""
    target, draft = pair(target_file, llama_file, device)
    verifying, drafting = target.session(kv_type="f16"), draft.session(kv_type="f16")
    for i in range(3):
        steps, rows, _ = verifying.forward_behind(
            drafting, TOKENS[i : i + 1], 3, [TOKENS[9]] + [0] * 5, [-1, 0, 1, 2, 3, 4],
            parents=[-1, 0, 0, 1, 1, 3], n_used=6, chain_top_k=2,
        )  # fmt: skip
        (c0, s0), (c1, s1), (c2, _) = ([t for t, _ in best] for best, _ in steps)
        for path, at in (([c0, c1, c2], [0, 1, 3, 5]), ([s0], [0, 2]), ([c0, s1], [0, 1, 4])):
            alone = target.session(kv_type="f16")
            expected = alone.forward([TOKENS[9], *path])
            assert expected.tobytes() == rows[at].tobytes()
        verifying.truncate(0)


def test_it_crosses_into_other_pages(llama_file, target_file, device):
    target, draft = pair(target_file, llama_file, device)
    long = [TOKENS[i % len(TOKENS)] for i in range(253)]
    drafting, verifying = draft.session(kv_type="f16"), target.session(kv_type="f16")
    drafting.forward(long, output="none")
    verifying.forward(long[:251], output="none")
    chain_alone, alone = drafting.fork(), verifying.fork()
    steps, rows, _ = verifying.forward_behind(
        drafting, TOKENS[:1], 8, [TOKENS[1]] + [0] * 8, [-1, *range(8)], n_used=9
    )
    assert steps == chain_alone.forward_chain(TOKENS[:1], 8)
    assert rows.tobytes() == alone.forward([TOKENS[1], *tokens_of(steps)]).tobytes()
    assert (drafting.length, verifying.length) == (261, 260)


def test_both_are_recorded_and_played(llama_file, target_file, device):
    target, draft = pair(target_file, llama_file, device)
    verifying, drafting = target.session(kv_type="f16"), draft.session(kv_type="f16")
    found = []
    for i in range(5):
        n_passes, n_replayed = target.device_passes
        waits = target.device_waits
        found.append(
            verifying.forward_behind(
                drafting, TOKENS[i : i + 1], 3, [TOKENS[i], 0, 0, 0], [-1, 0, 1, 2], n_used=2
            )
        )
        assert target.device_waits == waits + 1
        assert target.device_passes == (n_passes + 2, n_replayed + (0 if i < 2 else 2))
    alone, chain_alone = target.session(kv_type="f16"), draft.session(kv_type="f16")
    for i, (steps, rows, _) in enumerate(found):
        assert steps == chain_alone.forward_chain(TOKENS[i : i + 1], 3)
        assert rows.tobytes() == alone.forward([TOKENS[i], *tokens_of(steps)[:1]]).tobytes()


def test_tokens_that_are_none_touch_nothing_and_end_a_chain(tmp_path, target_file, device):
    """A draft whose logits stop being finite, at its second step, its first and before."""
    config = CONFIGS["llama"]
    tensors = tiny_models.random_tensors(config, seed=5)
    path = tiny_models.write_gguf(tmp_path / "good.gguf", tiny_models.metadata(config), tensors)
    good = tokens_of(single_steps(on_device(path, device).session(), TOKENS[:3], 6))
    bad = next(t for t in good[1:] if t not in (*TOKENS[:3], good[0]))
    n_good = good.index(bad) + 1
    tensors["token_embd.weight"][bad] = np.nan
    path = tiny_models.write_gguf(tmp_path / "bad.gguf", tiny_models.metadata(config), tensors)
    target, draft = pair(target_file, path, device)
    verifying, drafting, alone = target.session(), draft.session(), target.session()
    steps, rows, error = verifying.forward_behind(
        drafting, TOKENS[:3], 6, [TOKENS[2]] + [0] * 6, [-1, *range(6)], n_used=7
    )
    assert tokens_of(steps) == good[:n_good]
    assert error is None
    assert drafting.length == 3 + n_good - 1
    assert rows.tobytes() == alone.forward(TOKENS[2:3]).tobytes()
    assert verifying.length == 1
    length = drafting.length
    steps, rows, error = verifying.forward_behind(
        drafting, [bad], 2, [TOKENS[3], 0, 0], [-1, 0, 1], n_used=3
    )
    assert "not finite" in error
    assert steps == []
    assert (drafting.length, verifying.length) == (length, 2)
    assert rows.tobytes() == alone.forward(TOKENS[3:4]).tobytes()


def test_a_larger_draft_vocabulary_cannot_reach_outside_of_the_targets(tmp_path, device):
    """Its best token may be one that the target does not have: a row that nobody uses."""
    wide = TinyConfig(n_layers=1, n_heads=2, n_kv_heads=1, head_dim=32, vocab_size=700)
    path = tiny_models.write_tiny(tmp_path / "wide.gguf", wide, seed=4)
    small = tiny_models.write_tiny(tmp_path / "small.gguf", CONFIGS["llama"], seed=4)
    target, draft = pair(small, path, device)
    chain = draft.session()
    first = next(
        t for t in range(60) if (chain.truncate(0), tokens_of(chain.forward_chain([t], 1)))[1][0] > 300
    )
    verifying, alone = target.session(), target.session()
    _, rows, _ = verifying.forward_behind(
        draft.session(), [first], 3, [TOKENS[0], 0, 0, 0], [-1, 0, 1, 2], n_used=1
    )
    assert rows.tobytes() == alone.forward(TOKENS[:1]).tobytes()
    assert verifying.length == 1


def test_what_cannot_be_changes_nothing(llama_file, target_file, device):
    target, draft = pair(target_file, llama_file, device)
    verifying, drafting = target.session(n_ctx=16), draft.session(n_ctx=16)
    args: dict[str, Any] = {
        "draft_tokens": TOKENS[:2], "n_steps": 3, "tokens": [5, 0, 0, 0],
        "sources": [-1, 0, 1, 2], "n_used": 4,
    }  # fmt: skip
    for options, message in (
        ({"tokens": [5] * 17, "sources": [-1] * 17}, "at most 16"),
        ({"sources": [-1]}, "a source each"),
        ({"sources": [-1, 0, 1, 3]}, "source 3"),
        ({"output": "none"}, "output"),
        ({"output": "hidden"}, "output"),
        ({"tokens": [-5, 0, 0, 0]}, "token -5"),
        ({"cancelled": True}, "cancelled"),
    ):
        with pytest.raises(testing.NativeError, match=message):
            verifying.forward_behind(drafting, **{**args, **options})
        assert (drafting.length, verifying.length) == (0, 0)
    # Errors of the chain alone are told, and nothing has happened.
    for options, message in (
        ({"n_steps": 9}, "1 to 8 steps"),
        ({"draft_tokens": [9999]}, "token 9999"),
        ({"draft_tokens": TOKENS[:15]}, "context"),
        ({"head_blocks": [99]}, "head block 99"),
    ):
        waits = target.device_waits
        steps, rows, error = verifying.forward_behind(drafting, **{**args, **options})
        assert (steps, rows) == ([], None)
        assert message in error
        assert (drafting.length, verifying.length) == (0, 0)
        assert target.device_waits == waits
    elsewhere = on_device(llama_file, device).session()
    if device == "emulated":
        with pytest.raises(testing.NativeError, match="one device"):
            verifying.forward_behind(elsewhere, **args)
    assert len(verifying.forward_behind(drafting, **args)[0]) == 3
