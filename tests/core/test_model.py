"""The forward pass: batch invariance, rollback, guarantees on failure, weight formats, loading."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import model_path, native
from pairwise import in_turn
from tiny_models import TinyConfig

testing = native("model")

# Sizes that are no multiple of a vector, a tile or a cache line, of every family and its variants.
ODD_SIZES: dict[str, dict[str, Any]] = {
    "llama": {
        "n_layers": 3,
        "hidden_size": 96,
        "head_dim": 24,
        "intermediate_size": 160,
        "window": 0,
    },
    "qwen2": {"tied": True, "n_heads": 7, "n_kv_heads": 1, "head_dim": 32},
    "qwen3": {"tied": True, "n_heads": 8, "n_kv_heads": 4, "head_dim": 24, "window": 0},
    "qwen35": {"head_dim": 32, "tied": True},
    "qwen35moe": {"head_dim": 32, "intermediate_size": 96, "shared_size": 160},
    "qwen3next": {"head_dim": 32, "tied": True, "n_experts": 6, "intermediate_size": 96},
    "qwen3moe": {"hidden_size": 96, "head_dim": 24, "intermediate_size": 160},
    "granite": {"tied": True, "n_heads": 6},
    "granitemoe": {"tied": True, "n_heads": 6, "shared_size": 64},
    "gemma2": {"n_heads": 6, "window": 33},
    "gemma3": {"head_dim": 24, "hidden_size": 96, "window": 21},
    "olmo2": {"n_layers": 3, "window": 30},
    "olmoe": {"n_experts": 6, "n_experts_used": 3, "intermediate_size": 64},
    "phi3": {"window": 50},
    "gpt-oss": {"n_heads": 8, "head_dim": 24, "window": 33},
    "gptneox": {"n_rot": 6, "vocab_size": 275},
}
CONFIGS = {
    name: dataclasses.replace(config, **ODD_SIZES.get(name, {}))
    for name, config in tiny_models.FAMILIES.items()
} | {
    "mistral": TinyConfig(n_heads=6, n_kv_heads=2, window=40),
    "mixtral": TinyConfig(n_experts=4, head_dim=24, intermediate_size=96),
}
CHAIN = [int(t) for t in np.random.default_rng(7).integers(0, 270, 300)]


def load(path: pathlib.Path, backend: str = "cpu", n_threads: int = 1, **options: Any) -> Any:
    return testing.Model(str(path), backend=backend, n_threads=n_threads, **options)


@pytest.fixture(scope="module", params=list(CONFIGS))
def model_file(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    """One quantised model per architecture: integer kernels, the strictest case for invariance."""
    config = CONFIGS[request.param]
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    return tiny_models.write_tiny(path, config, dtype="Q4_0", seed=3)


def one_by_one(session: Any, tokens: list[int]) -> np.ndarray:
    return np.concatenate([session.forward([t]) for t in tokens])


def bits(rows: np.ndarray) -> bytes:
    return np.ascontiguousarray(rows, dtype=np.float32).tobytes()


# ---------------------------------------------------------------- batch invariance


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_rows_have_the_same_bits_in_every_batch_size(
    model_file: pathlib.Path, kv_type: str
) -> None:
    model = load(model_file)
    expected = one_by_one(model.session(kv_type=kv_type), CHAIN[:51])
    for n_prefix, counts in ((0, [*range(2, 18), 33]), (17, (2, 7, 16, 33))):
        for n_rows in counts:
            session = model.session(kv_type=kv_type)
            if n_prefix:
                session.forward(CHAIN[:n_prefix], output="none")
            found = session.forward(CHAIN[n_prefix : n_prefix + n_rows])
            assert bits(found) == bits(expected[n_prefix : n_prefix + n_rows]), n_rows


def test_rows_of_several_sequences_in_one_pass_have_the_bits_they_have_alone(
    model_file: pathlib.Path,
) -> None:
    """Pieces of prompts, chains and trees side by side, behind contents of different lengths."""
    model = load(model_file)
    rng = np.random.default_rng(4)

    def held(n: int) -> Any:
        session = model.session()
        for first in range(0, n, 100):
            session.forward(CHAIN[first : min(first + 100, n)], output="none")
        return session

    for top_k in (0, 3):
        # (length of the content, rows, their parents, whether it is read only)
        kinds = [
            (0, CHAIN[:33], [], True),
            (40, CHAIN[40:57], [], True),
            (40, [5], [], False),
            (255, [7, 8, 9], [], False),
            (257, [7, 8, 9, 10, 11], [-1, -1, 0, 0, 3], False),
            (0, [6], [], False),
            (90, [int(t) for t in rng.integers(0, 270, 9)], [], False),
        ]
        sessions = [held(n) for n, *_ in kinds]
        parts = [(s, *kind[1:]) for s, kind in zip(sessions, kinds, strict=True)]
        found = iter(model.session().forward_parts(parts, top_k=top_k))
        for session, (n, tokens, parents, silent) in zip(sessions, kinds, strict=True):
            assert session.length == n + len(tokens)
            alone = held(n)
            if silent:
                alone.forward(tokens, output="none")
            else:
                expected = alone.forward(tokens, parents=parents)
                rows = [next(found) for _ in tokens]
                assert bits(np.array([row for row, _ in rows])) == bits(expected), (n, tokens)
                if top_k > 0:
                    other = held(n)
                    best = other.forward(tokens, parents=parents, output="top", top_k=top_k)
                    assert [top for _, top in rows] == best
            if parents:  # the path to the last row stays
                path = tree_path(parents, len(parents) - 1)
                for s in (session, alone):
                    s.keep_path(n, path)
            after = [s.forward([3]) for s in (session, alone)]
            assert bits(after[0]) == bits(after[1]), "what it left in the cache"
    two = held(3)
    with pytest.raises(testing.NativeError, match="same cache"):
        two.forward_parts([(two, [1], [], False), (two, [2], [], False)])
    with pytest.raises(testing.NativeError, match="silent parts"):
        two.forward_parts([(two, [1], [], False), (held(2), [2], [], True)])
    assert two.length == 3


def test_rows_have_the_same_bits_across_page_boundaries(model_file: pathlib.Path) -> None:
    model = load(model_file)
    expected = one_by_one(model.session(), CHAIN)
    for cut in (1, 255, 256, 290):
        session = model.session()
        found = np.concatenate([session.forward(CHAIN[:cut]), session.forward(CHAIN[cut:])])
        assert bits(found) == bits(expected), cut


def test_rows_have_the_same_bits_for_any_number_of_threads(model_file: pathlib.Path) -> None:
    rows = [
        load(model_file, n_threads=n_threads).session().forward(CHAIN[:40])
        for n_threads in (1, 2, 3)
    ]
    assert bits(rows[0]) == bits(rows[1]) == bits(rows[2])


def test_rows_have_the_same_bits_with_fewer_threads_than_were_asked_for(
    model_file: pathlib.Path,
) -> None:
    """As the pool has it where others want the processors."""
    model = load(model_file, n_threads=4)
    expected = bits(model.session().forward(CHAIN[:70]))
    for limit in (1, 2, 3):
        testing.limit_threads(limit)
        try:
            found = bits(model.session().forward(CHAIN[:70]))
        finally:
            testing.limit_threads(0)
        assert found == expected, limit


def test_rows_have_the_same_bits_on_every_instruction_set(model_file: pathlib.Path) -> None:
    rows = [
        bits(load(model_file, backend=isa).session().forward(CHAIN[:20]))
        for isa in testing.cpu_isas()
    ]
    assert len(set(rows)) == 1


def tree_path(parents: list[int], row: int) -> list[int]:
    path = []
    while row >= 0:
        path.append(row)
        row = parents[row]
    return path[::-1]


@pytest.mark.parametrize(
    ("model_file", "n_prefix"), in_turn(CONFIGS, [1, 40, 250]), indirect=["model_file"]
)
def test_every_path_of_a_tree_equals_its_chain_bitwise(
    model_file: pathlib.Path, n_prefix: int
) -> None:
    model = load(model_file)
    rng = np.random.default_rng(n_prefix)
    for n_rows in (2, 5, 16):
        parents = [int(rng.integers(-1, r)) if r else -1 for r in range(n_rows)]
        tokens = [int(t) for t in rng.integers(0, 270, n_rows)]
        tree = model.session()
        tree.forward(CHAIN[:n_prefix], output="none")
        found = tree.forward(tokens, parents=parents)
        for row in range(n_rows):
            path = tree_path(parents, row)
            chain = model.session()
            chain.forward(CHAIN[:n_prefix], output="none")
            expected = chain.forward([tokens[r] for r in path])
            assert bits(found[row]) == bits(expected[-1]), (parents, row)

        # What is kept of the tree continues like the chain.
        path = tree_path(parents, n_rows - 1)
        tree.keep_path(n_prefix, path)
        assert tree.length == n_prefix + len(path)
        assert bits(tree.forward([5])) == bits(chain.forward([5]))


def test_an_explicit_chain_of_parents_equals_no_parents(model_file: pathlib.Path) -> None:
    model = load(model_file)
    plain = model.session().forward(CHAIN[:9])
    assert bits(model.session().forward(CHAIN[:9], parents=list(range(-1, 8)))) == bits(plain)


# ---------------------------------------------------------------- taps


def tapped(session: Any, tokens: list[int], taps: list[int], **options: Any) -> np.ndarray:
    """[n_rows, n_taps * hidden_size]."""
    session.forward(tokens, taps=taps, **options)
    return np.array([session.taps(r) for r in range(len(tokens))])


def test_taps_are_what_enters_a_layer(model_file: pathlib.Path) -> None:
    """The same as a pass that stops there says."""
    model = load(model_file)
    n_layers, n_embd = model.config["n_layers"], model.config["hidden_size"]
    taps = list(range(n_layers + 1))
    found = tapped(model.session(), CHAIN[:20], taps).reshape(20, n_layers + 1, n_embd)
    for layer in taps[1:]:
        expected = model.session().forward(CHAIN[:20], layers=(0, layer), output="hidden")
        assert bits(found[:, layer]) == bits(expected), layer
    assert not np.array_equal(found[:, 0], found[:, 1])
    few = [0, n_layers - 1]
    assert bits(tapped(model.session(), CHAIN[:20], few)) == bits(found[:, few].reshape(20, -1))


def test_taps_have_the_same_bits_in_every_pass(model_file: pathlib.Path) -> None:
    """Row by row, in chains and trees, in prompts nobody looks at, beside other sequences, with
    more threads; and they change no logits and nothing in the cache."""
    model = load(model_file)
    n_layers = model.config["n_layers"]
    taps = [0, n_layers // 2, n_layers] if n_layers > 1 else [0, 1]
    alone = model.session()
    expected = np.concatenate([tapped(alone, [t], taps) for t in CHAIN[:40]])
    plain = model.session()
    for n_prefix, output in ((0, "none"), (0, "logits"), (17, "none"), (17, "argmax")):
        session = model.session()
        if n_prefix:
            session.forward(CHAIN[:n_prefix], output="none")
        found = tapped(session, CHAIN[n_prefix:40], taps, output=output)
        assert bits(found) == bits(expected[n_prefix:]), (n_prefix, output)
    assert bits(session.forward([3])) == bits(one_by_one(plain, [*CHAIN[:40], 3])[-1])
    many = load(model_file, n_threads=3)
    assert bits(tapped(many.session(), CHAIN[:40], taps, output="none")) == bits(expected)

    parents = [-1, 0, 0, 1, 2, 2, -1]
    tree = model.session()
    tree.forward(CHAIN[:40], output="none")
    found = tapped(tree, [5, 6, 7, 8, 9, 10, 11], parents=parents, taps=taps)
    for row in range(7):
        chain = model.session()
        chain.forward(CHAIN[:40], output="none")
        path = [[5, 6, 7, 8, 9, 10, 11][r] for r in tree_path(parents, row)]
        assert bits(found[row]) == bits(tapped(chain, path, taps)[-1]), row

    runner, sessions = model.session(), [model.session() for _ in range(3)]
    sessions[1].forward(CHAIN[:17], output="none")
    sessions[2].forward(CHAIN[:40], output="none")
    tokens = [CHAIN[:9], CHAIN[17:30], [5, 6, 7, 8, 9, 10, 11]]
    parts = [
        (sessions[0], tokens[0], [], True),
        (sessions[1], tokens[1], [], False),
        (sessions[2], tokens[2], parents, False),
    ]
    runner.forward_parts(parts, taps=taps)
    rows = np.array([runner.taps(r) for r in range(9 + 13 + 7)])
    assert bits(rows[:22]) == bits(np.concatenate([expected[:9], expected[17:30]]))
    assert bits(rows[22:]) == bits(found)


def test_nobody_gets_taps_that_were_not_asked_for(tmp_path: pathlib.Path) -> None:
    model = load(tiny_models.write_tiny(tmp_path / "m.gguf"))
    session = model.session()
    before = model.session()
    before.forward(CHAIN[:9])
    session.forward(CHAIN[:9], taps=[1])
    assert session.scratch_bytes > before.scratch_bytes
    with pytest.raises(testing.NativeError, match="is not in"):
        session.taps(9)
    session.forward([3])
    with pytest.raises(testing.NativeError, match="tapped no layers"):
        session.taps(0)
    for taps in ([1, 1], [2, 1], [-1], [model.config["n_layers"] + 1]):
        with pytest.raises(testing.NativeError, match="tapped layers are ascending"):
            session.forward([3], taps=taps)
    with pytest.raises(testing.NativeError, match="through all of them"):
        session.forward([3], taps=[1], layers=(0, 1), output="hidden")


# ---------------------------------------------------------------- outputs


def test_the_first_output_row_does_not_change_the_rows(model_file: pathlib.Path) -> None:
    model = load(model_file)
    everything = model.session().forward(CHAIN[:30])
    tree = [-1, 0, 0, 2, 2, *range(4, 29)]
    tree_rows = model.session().forward(CHAIN[:30], parents=tree)
    for first in (1, 15, 29):
        session = model.session()
        assert bits(session.forward(CHAIN[:30], first_output_row=first)) == bits(everything[first:])
        assert bits(session.forward([3])) == bits(one_by_one(model.session(), [*CHAIN[:30], 3])[-1])
        found = model.session().forward(CHAIN[:30], parents=tree, first_output_row=first)
        assert bits(found) == bits(tree_rows[first:])


def test_argmax_is_the_best_logit_and_outputs_guard_themselves(model_file: pathlib.Path) -> None:
    session = load(model_file).session()
    logits = session.forward(CHAIN[:80])
    assert [session.argmax(r) for r in range(80)] == logits.argmax(axis=1).tolist()
    session.truncate(0)
    best = session.forward(CHAIN[:80], output="argmax", first_output_row=5)
    assert best.tolist() == logits.argmax(axis=1)[5:].tolist()
    for row in (4, 80):
        with pytest.raises(testing.NativeError, match="output row"):
            session.argmax(row)
    with pytest.raises(testing.NativeError, match="no logits"):
        session.logits(6)
    session.forward([1], output="none")
    with pytest.raises(testing.NativeError, match="no best tokens"):
        session.argmax(0)


def ranked(row: np.ndarray, k: int) -> list[tuple[int, float]]:
    order = np.lexsort((np.arange(len(row)), -row.astype(np.float64)))
    return [(int(t), float(row[t])) for t in order[:k] if np.isfinite(row[t])]


@pytest.mark.parametrize("n_rows", [1, 9])
def test_best_tokens_and_their_normaliser_need_no_logits(
    model_file: pathlib.Path, n_rows: int
) -> None:
    for n_threads in (1, 3):
        session = load(model_file, n_threads=n_threads).session()
        logits = session.forward(CHAIN[:n_rows])
        for k in (1, 7, 256):
            session.truncate(0)
            found = session.forward(CHAIN[:n_rows], output="top", top_k=k)
            for row, (best, log_sum_exp) in zip(logits, found, strict=True):
                assert best == ranked(row, k)
                exact = np.log(np.exp(row.astype(np.float64)).sum())
                assert log_sum_exp == pytest.approx(exact, abs=1e-5)
        session.truncate(0)
        alone = [session.forward([t], output="top", top_k=3)[0] for t in CHAIN[:n_rows]]
        session.truncate(0)
        assert session.forward(CHAIN[:n_rows], output="top", top_k=3) == alone


def test_a_trimmed_head_knows_its_own_tokens_only(model_file: pathlib.Path) -> None:
    model = load(model_file)
    session = model.session()
    full = session.forward(CHAIN[:5])
    last = (full.shape[1] - 1) // 16
    for blocks in ([0], [1, 2, 5], [last], [0, 3, 7, 8, 9, 10, 11, 12, 13, last]):
        kept = np.isin(np.arange(full.shape[1]) // 16, blocks)
        expected = np.where(kept, full, np.float32(-np.inf))
        session.truncate(0)
        assert bits(session.forward(CHAIN[:5], head_blocks=blocks)) == bits(expected)
        session.truncate(0)
        found = session.forward(CHAIN[:5], output="top", top_k=200, head_blocks=blocks)
        for row, (best, log_sum_exp) in zip(expected, found, strict=True):
            assert best == ranked(row, 200)
            exact = np.log(np.exp(row.astype(np.float64)).sum())
            assert log_sum_exp == pytest.approx(exact, abs=1e-5)
    for bad in ([-1], [3, 3], [4, 2], [last + 1]):
        with pytest.raises(testing.NativeError, match="head block"):
            session.forward([1], head_blocks=bad)
    for bad_k in (0, 257):
        with pytest.raises(testing.NativeError, match="top_k"):
            session.forward([1], output="top", top_k=bad_k)


def test_layers_in_two_parts_equal_the_whole(model_file: pathlib.Path) -> None:
    model = load(model_file)
    n_layers = model.config["n_layers"]
    expected = model.session().forward(CHAIN[:12])
    for cut in range(1, n_layers):
        session = model.session()
        middle = session.forward(CHAIN[:12], output="hidden", layers=(0, cut))
        assert middle.shape == (12, model.config["hidden_size"])
        session.truncate(0)
        found = session.forward(CHAIN[:12], layers=(cut, -1), hidden=middle.ravel().tolist())
        assert bits(found) == bits(expected)


def test_drafting_with_the_first_layers_leaves_the_model_intact(model_file: pathlib.Path) -> None:
    model = load(model_file)
    expected = one_by_one(model.session(), CHAIN[:24])
    session = model.session()
    session.forward(CHAIN[:20], output="none")
    early = session.forward(CHAIN[20:23], layers=(0, 1))
    assert np.isfinite(early).all()
    assert bits(early) != bits(expected[20:23])
    session.truncate(20)
    assert bits(session.forward(CHAIN[20:24])) == bits(expected[20:24])


# ---------------------------------------------------------------- rollback and failure


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
def test_truncate_then_forward_equals_fresh(tmp_path: pathlib.Path, kv_type: str) -> None:
    config = TinyConfig(arch="qwen2", n_heads=4, n_kv_heads=2, head_dim=32)
    model = load(tiny_models.write_tiny(tmp_path / "m.gguf", config, dtype="Q8_0"))
    other = [int(t) for t in np.random.default_rng(8).integers(0, 270, 300)]
    fresh = model.session(kv_type=kv_type)
    fresh.forward(CHAIN[:270], output="none")
    expected = fresh.forward(other[:7])
    session = model.session(kv_type=kv_type)
    session.forward(CHAIN, output="none")
    for keep in (290, 270):
        session.truncate(keep)
        assert session.length == keep
        if keep != 270:
            session.forward(other[:20], output="argmax")
    assert bits(session.forward(other[:7])) == bits(expected)


def test_rows_behind_a_rollback_have_the_bits_of_a_fresh_sequence(
    model_file: pathlib.Path,
) -> None:
    model = load(model_file)
    rng = np.random.default_rng(11)
    session = model.session()
    kept = CHAIN[:40]
    session.forward(kept, output="none")
    for n_rows, n_accepted in ((5, 2), (9, 0), (16, 7), (3, 3), (12, 1)):
        drafts = [int(t) for t in rng.integers(0, 270, n_rows)]
        session.forward(drafts)
        kept = kept + drafts[:n_accepted]
        session.truncate(len(kept))
        fresh = model.session()
        fresh.forward(kept, output="none")
        probe = [int(t) for t in rng.integers(0, 270, 4)]
        assert bits(session.forward(probe)) == bits(fresh.forward(probe))
        session.truncate(len(kept))


@pytest.mark.parametrize("name", [n for n in CONFIGS if n not in ("phi3", "gptneox")])
def test_one_matrix_of_q_k_and_v_is_the_same_model(name: str, tmp_path: pathlib.Path) -> None:
    keys = tiny_models.metadata(CONFIGS[name])
    tensors = tiny_models.random_tensors(CONFIGS[name])
    want = load(tiny_models.write_gguf(tmp_path / "apart.gguf", keys, tensors))
    fused = dict(tensors)
    for at in [at for at in tensors if ".attn_q." in at]:
        parts = [fused.pop(at.replace("attn_q.", f"attn_{part}.")) for part in "qkv"]
        fused[at.replace("attn_q.", "attn_qkv.")] = np.concatenate(parts)
    assert len(fused) < len(tensors)
    found = load(tiny_models.write_gguf(tmp_path / "one.gguf", keys, fused))
    rows = [bits(model.session().forward(CHAIN[:20])) for model in (want, found)]
    assert rows[0] == rows[1]


def test_weights_that_are_not_repacked_give_the_same_bits(model_file: pathlib.Path) -> None:
    want = load(model_file).session().forward(CHAIN[:21])
    found = load(model_file, backend="cpu, not repacked").session().forward(CHAIN[:21])
    assert bits(found) == bits(want)


def test_forks_do_not_disturb_each_other(model_file: pathlib.Path) -> None:
    model = load(model_file)
    first = model.session()
    first.forward(CHAIN[:260])
    second = first.fork()
    second.truncate(200)
    second_rows = second.forward(CHAIN[100:120])
    expected = model.session()
    expected.forward(CHAIN[:260])
    assert bits(first.forward(CHAIN[260:280])) == bits(expected.forward(CHAIN[260:280]))
    expected.truncate(200)
    assert bits(second_rows) == bits(expected.forward(CHAIN[100:120]))


def failure(session: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(testing.NativeError) as caught:
        session.forward(*arguments, **options)
    return caught.value.args[0], caught.value.args[4]


BAD_CALLS = [
    (([3, -1],), {}, "token -1 at index 1"),
    (([272],), {}, "token 272 at index 0"),
    (([2**31 - 1],), {}, "token 2147483647"),
    (([],), {}, "1 to 512 rows"),
    (([1] * 513,), {}, "1 to 512 rows"),
    (([1, 2],), {"parents": [-1]}, "1 parents"),
    (([1, 2],), {"parents": [-1, 1]}, "parent 1 of row 1"),
    (([1, 2],), {"parents": [-2, 0]}, "parent -2 of row 0"),
    (([1, 2],), {"first_output_row": 3}, "first_output_row 3"),
    (([1, 2],), {"first_output_row": -1}, "first_output_row -1"),
    (([1, 2],), {"layers": (0, 9)}, "layers [0, 9)"),
    (([1, 2],), {"layers": (1, 1)}, "layers [1, 1)"),
    (([1, 2],), {"layers": (-1, 1)}, "layers [-1, 1)"),
    (([1, 2],), {"hidden": [0.0] * 65}, "hidden input"),
]


def test_bad_calls_are_refused_and_change_nothing(tmp_path: pathlib.Path) -> None:
    model = load(tiny_models.write_tiny(tmp_path / "m.gguf"))
    expected = one_by_one(model.session(), CHAIN[:11])[-1]
    session = model.session(n_ctx=20)
    session.forward(CHAIN[:10])
    for arguments, options, text in BAD_CALLS:
        code, message = failure(session, *arguments, **options)
        assert code == "invalid_argument"
        assert text in message
    assert failure(session, CHAIN[:11])[0] == "context_full"
    assert failure(session, CHAIN[:5], cancelled=True)[0] == "cancelled"
    assert session.length == 10
    assert bits(session.forward([CHAIN[10]])) == bits(expected)


def test_the_context_can_be_filled_exactly(tmp_path: pathlib.Path) -> None:
    session = load(tiny_models.write_tiny(tmp_path / "m.gguf")).session(n_ctx=20)
    session.forward(CHAIN[:19])
    session.forward([1])
    assert session.length == 20
    assert failure(session, [1])[0] == "context_full"


def test_logits_that_are_not_finite_are_an_error(tmp_path: pathlib.Path) -> None:
    config = TinyConfig()
    tensors = tiny_models.random_tensors(config)
    tensors["blk.1.ffn_norm.weight"][5] = np.nan
    path = tiny_models.write_gguf(tmp_path / "m.gguf", tiny_models.metadata(config), tensors)
    model = load(path)
    assert any("blk.1.ffn_norm.weight" in warning for warning in model.warnings)
    session = model.session()
    code, message = failure(session, [1, 2, 3])
    assert code == "numerical"
    assert "position 0" in message
    assert "check_tensors" in message
    assert session.length == 0
    with pytest.raises(testing.NativeError) as caught:
        load(path, check_tensors=True)
    assert caught.value.args[0:2] == ("model_format", "non_finite")
    assert caught.value.args[3] == "blk.1.ffn_norm.weight"


def test_all_zero_weights_give_finite_logits(tmp_path: pathlib.Path) -> None:
    for config in tiny_models.FAMILIES.values():
        tensors = {
            name: values if name.startswith("rope") else np.zeros_like(values)  # divisors
            for name, values in tiny_models.random_tensors(config).items()
        }
        path = tiny_models.write_gguf(tmp_path / "m.gguf", tiny_models.metadata(config), tensors)
        rows = load(path).session().forward([1, 2, 3])
        assert (rows == 0).all()


def test_threads_share_a_model(model_file: pathlib.Path) -> None:
    model = load(model_file)
    expected = bits(one_by_one(model.session(), CHAIN[:40]))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sessions = [model.session() for _ in range(4)]
        found = list(pool.map(lambda s: bits(one_by_one(s, CHAIN[:40])), sessions))
    assert found == [expected] * 4


def test_a_real_model_is_batch_invariant() -> None:
    model = load(model_path("SmolLM2-135M-Instruct.Q4_1.gguf"))
    tokens = [int(t) for t in np.random.default_rng(2).integers(0, 49152, 24)]
    expected = one_by_one(model.session(kv_type="f16"), tokens)
    for sizes in ([24], [1, 7, 16], [13, 2, 3, 6]):
        session = model.session(kv_type="f16")
        ends = np.cumsum(sizes)
        found = [session.forward(tokens[e - n : e]) for n, e in zip(sizes, ends, strict=True)]
        assert bits(np.concatenate(found)) == bits(expected), sizes


# ---------------------------------------------------------------- weight formats


# Root mean square difference to the same weights in F32, as a share of the logits' spread.
# Formats that keep activations in 8 bits (largest of a block / 127) round each normal-distributed
# element by 0.5 to 0.7 % of the spread; the products on the way to a logit add up in squares and
# attention amplifies.
FORMAT_BOUNDS = {"F32": 1e-5, "F16": 1e-5, "BF16": 1e-5}
DEFAULT_BOUND = 0.05


def rms_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2)) / expected.std())


@pytest.mark.parametrize("dtype", tiny_models.FORMATS)
def test_every_weight_format_computes_what_its_weights_say(
    dtype: str, tmp_path: pathlib.Path
) -> None:
    config = TinyConfig(
        n_layers=3, hidden_size=256, n_heads=4, head_dim=64, intermediate_size=512, n_kv_heads=2
    )
    keys = tiny_models.metadata(config)
    packed = tiny_models.quantise(tiny_models.random_tensors(config, 5), dtype, 5)
    exact = tiny_models.write_gguf(tmp_path / "f32.gguf", keys, tiny_models.dequantise(packed))
    path = tiny_models.write_gguf(tmp_path / "packed.gguf", keys, packed)
    expected = load(exact, backend="reference").session().forward(CHAIN[:12])
    decoded = load(path, backend="reference").session().forward(CHAIN[:12])
    assert rms_error(decoded, expected) < 1e-6
    found = load(path).session().forward(CHAIN[:12])
    assert rms_error(found, expected) < FORMAT_BOUNDS.get(dtype, DEFAULT_BOUND)


@pytest.mark.parametrize("dtype", tiny_models.FORMATS)
def test_weights_left_in_the_file_give_the_same_bits(dtype: str, tmp_path: pathlib.Path) -> None:
    config = TinyConfig(
        hidden_size=256, n_heads=4, head_dim=64, intermediate_size=512, n_kv_heads=2, tied=True
    )
    packed = tiny_models.quantise(tiny_models.random_tensors(config, 5), dtype, 5)
    path = tiny_models.write_gguf(tmp_path / "m.gguf", tiny_models.metadata(config), packed)
    repacked = load(path)
    view = load(path, backend="cpu, not repacked")
    for rows in (1, 8, 20):
        expected = repacked.session().forward(CHAIN[:rows])
        assert bits(view.session().forward(CHAIN[:rows])) == bits(expected), rows
    assert view.memory[0] < repacked.memory[0] / 4
    assert view.memory[1] > repacked.memory[1]


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
def test_smaller_cache_types_stay_close_to_f32(kv_type: str, tmp_path: pathlib.Path) -> None:
    config = TinyConfig(head_dim=32)
    path = tiny_models.write_tiny(tmp_path / "m.gguf", config)
    expected = load(path, backend="reference").session(kv_type="f32").forward(CHAIN[:100])
    bound = 0.005 if kv_type == "f16" else 0.05
    for backend in ("cpu", "reference"):
        found = load(path, backend=backend).session(kv_type=kv_type).forward(CHAIN[:100])
        assert 0 < np.abs(found - expected).max() / expected.std() < bound


def test_fused_and_separate_projections_are_the_same_model(tmp_path: pathlib.Path) -> None:
    for arch in ("llama", "qwen2"):
        config = TinyConfig(arch=arch, qkv_bias=True)
        tensors = tiny_models.random_tensors(config)
        separate = tiny_models.write_gguf(
            tmp_path / "a.gguf", tiny_models.metadata(config), tensors
        )
        for layer in range(config.n_layers):
            for kind in ("weight", "bias"):
                parts = [tensors.pop(f"blk.{layer}.attn_{p}.{kind}") for p in "qkv"]
                tensors[f"blk.{layer}.attn_qkv.{kind}"] = np.concatenate(parts)
        fused = tiny_models.write_gguf(tmp_path / "b.gguf", tiny_models.metadata(config), tensors)
        rows = [load(path).session().forward(CHAIN[:20]) for path in (separate, fused)]
        assert bits(rows[0]) == bits(rows[1])


# ---------------------------------------------------------------- loading


def test_progress_counts_every_byte_once_and_can_stop_the_load(tmp_path: pathlib.Path) -> None:
    for tied in (False, True):
        path = tiny_models.write_tiny(tmp_path / f"{tied}.gguf", TinyConfig(tied=tied))
        progress = load(path).progress
        done = [step[0] for step in progress]
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == progress[0][1] == progress[-1][1] > 0
    with pytest.raises(testing.NativeError) as caught:
        load(path, stop_after=3)
    assert caught.value.args[0] == "cancelled"


def test_memory_is_reported(tmp_path: pathlib.Path) -> None:
    config = TinyConfig(head_dim=32)
    model = load(tiny_models.write_tiny(tmp_path / "m.gguf", config))
    n_weights = sum(t.size for t in tiny_models.random_tensors(config).values())
    weights_bytes, mapped_bytes = model.memory
    assert mapped_bytes == config.vocab_size * config.hidden_size * 4
    assert weights_bytes + mapped_bytes >= n_weights * 4
    per_token = {t: model.kv_bytes_per_token(t) for t in ("f32", "f16", "q8_0")}
    assert per_token["f32"] == 2 * config.n_layers * config.n_kv_heads * config.head_dim * 4
    assert per_token["f16"] * 2 == per_token["f32"]
    assert per_token["f16"] / 2 < per_token["q8_0"] < per_token["f16"]


def test_a_scratch_grows_only_to_what_was_needed(tmp_path: pathlib.Path) -> None:
    session = load(tiny_models.write_tiny(tmp_path / "m.gguf")).session()
    session.forward(CHAIN[:4])
    small = session.scratch_bytes
    session.forward(CHAIN[:64])
    large = session.scratch_bytes
    session.forward(CHAIN[:4])
    assert 0 < small < large
    assert large <= session.scratch_bytes < 1.1 * large


# ---------------------------------------------------------------- perplexity


def expected_perplexity(model: Any, tokens: list[int], n_ctx: int, bos: int) -> float:
    losses = []
    for start in range(0, len(tokens) - n_ctx + 1, n_ctx):
        window = tokens[start : start + n_ctx]
        if bos >= 0:
            window = [bos, *window[1:]]
        rows = model.session().forward(window).astype(np.float64)
        for i in range(n_ctx // 2, n_ctx - 1):
            row = rows[i] - rows[i].max()
            losses.append(np.log(np.exp(row).sum()) - row[window[i + 1]])
    return float(np.exp(np.mean(losses)))


@pytest.mark.parametrize("bos", [-1, 271])
def test_perplexity_scores_the_second_half_of_each_window(bos: int, tmp_path: pathlib.Path) -> None:
    model = load(tiny_models.write_tiny(tmp_path / "m.gguf"))
    session = model.session()
    found = session.perplexity(CHAIN, n_ctx=48, bos=bos)
    assert found["n_windows"] == found["n_reports"] == 6
    assert found["n_scored"] == 6 * 23
    expected = expected_perplexity(model, CHAIN, 48, bos)
    assert found["perplexity"] == pytest.approx(expected, rel=1e-9)
    assert session.perplexity(CHAIN, n_ctx=48, bos=bos, max_windows=2)["n_windows"] == 2
    with pytest.raises(testing.NativeError, match="one window needs"):
        session.perplexity(CHAIN[:47], n_ctx=48)
    with pytest.raises(testing.NativeError, match="token 272 at index 1"):
        session.perplexity([1, 272, *CHAIN], n_ctx=48)


MIXTURE = TinyConfig(
    arch="qwen3moe", hidden_size=64, head_dim=16, n_experts=8, intermediate_size=128, n_layers=3
)


def test_experts_beyond_the_room_stay_in_the_file_with_the_same_bits(
    tmp_path: pathlib.Path,
) -> None:
    path = tiny_models.write_tiny(tmp_path / "m.gguf", MIXTURE, dtype="Q8_0")
    whole = load(path)
    want = bits(whole.session().forward(CHAIN[:50]))
    n_bytes, n_mapped = whole.memory
    stack = 8 * 64 * 128 * 34 // 32
    for room in (0, 4 * stack, 10**9):
        model = load(path, max_expert_bytes=room)
        assert bits(model.session().forward(CHAIN[:50])) == want
        n_kept = min(9 * stack, room)
        slack = 2 * stack // 8
        assert model.memory[0] == pytest.approx(n_bytes - 9 * stack + n_kept, abs=slack)
        assert model.memory[1] == pytest.approx(n_mapped + 9 * stack - n_kept, abs=slack)


def test_a_pass_tells_what_its_rows_read_of_a_mixture(tmp_path: pathlib.Path) -> None:
    session = load(tiny_models.write_tiny(tmp_path / "m.gguf", MIXTURE)).session()
    session.forward([7])
    assert session.reading == (1, 1.0)
    session.truncate(0)
    session.forward([7, 7])
    n_rows, two = session.reading
    assert n_rows == 2
    session.truncate(0)
    session.forward(CHAIN[:8])
    n_rows, eight = session.reading
    assert n_rows == 8
    assert 1.0 <= two < eight <= 4.0  # of 8 experts each row uses 2
    session.truncate(0)
    session.forward(CHAIN[:100])  # by windows of 4
    n_rows, of_many = session.reading
    assert n_rows == 4
    assert 1.0 < of_many < eight
