"""The CUDA kernels of rope, cache, attention and head against the CPU's bits: on the emulator and,
with ``-m cuda``, on the first GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from test_cuda_kernels import product, rows_of_x, same_bits, small_n_in
from test_matmul import random_weights

from helpers import native
from pairwise import pairwise

gpu = native("cuda_kernels")
ops = native("ops")
pytestmark = pytest.mark.usefixtures("kernel_device")

KV_TYPES = ["f32", "f16", "q8_0"]


def pair_of_caches(kv_type: str, n_kv_heads: int, head_dim: int, n_slots: int) -> tuple:
    shape = (kv_type, n_kv_heads, head_dim, n_slots)
    return gpu.Cache(*shape), ops.Cache(*shape)


def table(positions: np.ndarray, n_rot: int) -> np.ndarray:
    angles = positions[:, None] * 10000.0 ** (-2.0 * np.arange(n_rot // 2) / n_rot)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def fill(caches: tuple, first: int, n: int, n_heads: int, kv: tuple, rng: np.random.Generator,
         **more: object) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    q = rng.standard_normal((n, n_heads, kv[1])).astype(np.float32)
    k = rng.standard_normal((n, *kv)).astype(np.float32)
    v = rng.standard_normal((n, *kv)).astype(np.float32)
    got = caches[0].rope_store(q, k, v, first, **more)
    want = caches[1].rope_store("scalar", 1, q, k, v, first, **more)
    return got, want


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_and_store_have_the_bits_of_the_cpu(kv_type: str, interleaved: bool) -> None:
    rng = np.random.default_rng(1)
    for head_dim, n_rot in ((64, 64), (96, 32), (32, 0), (160, 40)):
        caches = pair_of_caches(kv_type, 2, head_dim, 512)
        cos_sin = table(np.arange(250, 263), n_rot) if n_rot else None
        got, want = fill(caches, 250, 13, 4, (2, head_dim), rng, cos_sin=cos_sin,
                         interleaved=interleaved)  # fmt: skip
        assert same_bits(got, want), head_dim
        assert caches[0].content() == caches[1].content(), head_dim
        assert set(caches[0].content(0)) == {0xFF}  # the other layer


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_odd_head_sizes_are_padded_as_on_the_cpu(kv_type: str) -> None:
    rng = np.random.default_rng(2)
    caches = pair_of_caches(kv_type, 1, 20, 256)
    got, want = fill(caches, 0, 5, 3, (1, 20), rng, cos_sin=table(np.arange(5), 20))
    assert same_bits(got, want)
    assert caches[0].content() == caches[1].content()
    q = rng.standard_normal((1, 3, 20)).astype(np.float32)
    want = caches[1].attention("scalar", 1, q, 4, scale=0.2)
    assert same_bits(caches[0].attention(q, 4, scale=0.2), want)


def test_quantised_caches_say_what_is_not_finite() -> None:
    rng = np.random.default_rng(3)
    caches = pair_of_caches("q8_0", 1, 64, 256)
    q = rng.standard_normal((4, 1, 64)).astype(np.float32)
    k = rng.standard_normal((4, 1, 64)).astype(np.float32)
    k[0, 0, 5] = np.nan
    k[1, 0, 40] = np.inf
    k[2] = 3e38
    k[3] = 1e-9
    caches[0].rope_store(q, k, -k, 0)
    caches[1].rope_store("scalar", 1, q, k, -k, 0)
    assert caches[0].content() == caches[1].content()


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize(
    ("n_heads", "n_kv_heads", "head_dim"), [(6, 2, 64), (3, 3, 32), (7, 1, 128), (2, 1, 160)]
)
def test_chains_have_the_bits_of_the_cpu(
    kv_type: str, n_heads: int, n_kv_heads: int, head_dim: int
) -> None:
    rng = np.random.default_rng(4)
    caches = pair_of_caches(kv_type, n_kv_heads, head_dim, 768)
    fill(caches, 0, 540, n_heads, (n_kv_heads, head_dim), rng)
    scale = head_dim**-0.5
    for first, n_rows in ((0, 1), (0, 3), (255, 2), (300, 1), (250, 16), (537, 3)):
        q = rng.standard_normal((n_rows, n_heads, head_dim)).astype(np.float32)
        want = caches[1].attention("scalar", 1, q, first, scale=scale)
        for max_chunks in ((first + n_rows + 255) // 256, 3):
            got = caches[0].attention(q, first, scale=scale, max_chunks=max_chunks)
            assert same_bits(got, want), (first, n_rows, max_chunks)


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_prompts_have_the_bits_of_the_cpu_and_of_single_rows(kv_type: str) -> None:
    rng = np.random.default_rng(5)
    caches = pair_of_caches(kv_type, 1, 32, 512)
    fill(caches, 0, 300, 3, (1, 32), rng)
    q = rng.standard_normal((40, 3, 32)).astype(np.float32)
    want = caches[1].attention("scalar", 1, q, 240)
    got = caches[0].attention(q, 240, max_chunks=2)
    assert same_bits(got, want)
    for row in (0, 15, 16, 39):
        alone = caches[0].attention(q[row : row + 1], 240 + row, max_chunks=2)
        assert same_bits(alone[0], got[row])


TREES = [
    [-1, 0, 1, 0, 3, -1, 5],
    [-1, -1, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    [-1, 0, 0, 0],
]


@pytest.mark.parametrize("kv_type", KV_TYPES)
@pytest.mark.parametrize("first", [0, 20, 252, 256])
def test_trees_have_the_bits_of_the_cpu_and_of_chains(kv_type: str, first: int) -> None:
    rng = np.random.default_rng(6)
    for parents in TREES:
        n = len(parents)
        caches = pair_of_caches(kv_type, 2, 32, 512)
        fill(caches, 0, first + n, 4, (2, 32), rng)
        q = rng.standard_normal((n, 4, 32)).astype(np.float32)
        tree = np.array(parents, dtype=np.int32)
        want = caches[1].attention("scalar", 1, q, first, parents=tree)
        got = caches[0].attention(q, first, parents=tree, max_chunks=2)
        assert same_bits(got, want), parents
        chain = np.arange(-1, n - 1, dtype=np.int32)
        as_tree = caches[0].attention(q, first, parents=chain, max_chunks=2)
        assert same_bits(as_tree, caches[0].attention(q, first, max_chunks=2))


def test_a_tree_of_many_rows_works_without_split() -> None:
    rng = np.random.default_rng(7)
    caches = pair_of_caches("f16", 1, 32, 512)
    fill(caches, 0, 290, 2, (1, 32), rng)
    parents = np.array([-1, *(rng.integers(-1, r) for r in range(1, 40))], dtype=np.int32)
    q = rng.standard_normal((40, 2, 32)).astype(np.float32)
    want = caches[1].attention("scalar", 1, q, 250, parents=parents)
    assert same_bits(caches[0].attention(q, 250, parents=parents, max_chunks=2), want)


def test_what_a_row_may_not_see_does_not_reach_it() -> None:
    """Later rows of the batch and slots behind it hold NaN."""
    rng = np.random.default_rng(8)
    caches = pair_of_caches("f32", 1, 32, 256)
    fill(caches, 0, 12, 2, (1, 32), rng)
    q = rng.standard_normal((4, 2, 32)).astype(np.float32)
    want = caches[0].attention(q, 8)
    bad = np.full((1, 1, 32), np.nan, np.float32)
    caches[0].rope_store(q[:1], bad, bad, 11)
    got = caches[0].attention(q, 8)
    assert same_bits(got[:3], want[:3])
    assert np.isnan(got[3]).all()


@pytest.mark.parametrize(
    ("window", "kv_type"),
    # Inside a batch of positions, of a chunk and across chunks.
    [
        pytest.param(window, kv_type, marks=() if window in few else pytest.mark.slow)
        for kv_type, few in (("f32", (5, 300)), ("f16", (1, 100)), ("q8_0", (32, 256)))
        for window in (1, 5, 32, 100, 256, 300)
    ],
)
def test_windows_have_the_bits_of_the_cpu(kv_type: str, window: int) -> None:
    rng = np.random.default_rng(window)
    caches = pair_of_caches(kv_type, 2, 32, 768)
    fill(caches, 0, 620, 6, (2, 32), rng)
    tree = np.array([-1, 0, 1, 0, 3, -1, 5], dtype=np.int32)
    for first, n_rows, parents in (
        (0, 1, None), (3, 5, None), (250, 16, None), (600, 3, None), (240, 40, None),
        (250, 7, tree), (20, 7, tree), (535, 7, tree),
    ):  # fmt: skip
        q = rng.standard_normal((n_rows, 6, 32)).astype(np.float32)
        want = caches[1].attention("scalar", 1, q, first, parents=parents, window=window)
        for n_chunks in ((first + n_rows + 255) // 256, 3):
            got = caches[0].attention(q, first, parents=parents, max_chunks=n_chunks, window=window)
            assert same_bits(got, want), (first, n_rows, n_chunks)


def test_nan_behind_a_window_does_not_reach_it() -> None:
    rng = np.random.default_rng(14)
    caches = pair_of_caches("f32", 1, 32, 512)
    fill(caches, 0, 300, 2, (1, 32), rng)
    q = rng.standard_normal((4, 2, 32)).astype(np.float32)
    want = caches[0].attention(q, 290, max_chunks=2, window=20)
    bad = np.full((271, 1, 32), np.nan, np.float32)
    caches[0].rope_store(np.zeros((271, 2, 32), np.float32), bad, bad, 0)
    assert same_bits(caches[0].attention(q, 290, max_chunks=2, window=20), want)


@pytest.fixture(params=[2, 4, 8])
def queries_per_block(
    request: pytest.FixtureRequest, kernel_device: str
) -> Iterator[Callable[[int, int, int], None]]:
    """Sets how many processors there are for a launch (rows, heads per kv head, chunks), so that
    its blocks have so many queries: a device with many gets small blocks."""

    def choose(n_rows: int, group: int, n_chunks: int) -> None:
        blocks = -(-n_rows * group // 8) * (n_chunks if n_rows <= 16 else 1)
        gpu.set_processors({2: 10000, 4: blocks, 8: 0}[request.param])

    yield choose
    gpu.set_processors(1)


@pytest.mark.parametrize(
    ("queries_per_block", "kv_type", "head_dim"),
    pairwise([2, 4, 8], KV_TYPES, [64, 128]),
    indirect=["queries_per_block"],
)
def test_usual_head_sizes_have_the_bits_of_the_cpu(
    queries_per_block: Callable[[int, int, int], None], kv_type: str, head_dim: int
) -> None:
    rng = np.random.default_rng(10)
    caches = pair_of_caches(kv_type, 1, head_dim, 768)
    fill(caches, 0, 620, 5, (1, head_dim), rng)
    tree = np.array([-1, 0, 1, 0, 3, -1, 5], dtype=np.int32)
    for first, n_rows, parents in (
        (0, 1, None), (70, 1, None), (254, 4, None), (600, 3, None), (240, 40, None),
        (250, 7, tree), (100, 7, tree), (535, 7, tree),
    ):  # fmt: skip
        q = rng.standard_normal((n_rows, 5, head_dim)).astype(np.float32)
        want = caches[1].attention("scalar", 1, q, first, parents=parents)
        n_chunks = (first + n_rows + 255) // 256
        queries_per_block(n_rows, 5, n_chunks)
        got = caches[0].attention(q, first, parents=parents, max_chunks=n_chunks)
        assert same_bits(got, want), (first, n_rows)


@pytest.mark.parametrize(("n_processors", "n_blocks"), [(1000, 3), (2, 2), (0, 1)])
def test_a_gpu_that_few_blocks_leave_idle_gets_small_ones(
    n_processors: int, n_blocks: int, device: str
) -> None:
    if device == "cuda":
        pytest.skip("about the grid, which the emulator counts")
    rng = np.random.default_rng(15)
    caches = pair_of_caches("f16", 1, 64, 256)
    fill(caches, 0, 9, 5, (1, 64), rng)
    q = rng.standard_normal((1, 5, 64)).astype(np.float32)
    gpu.set_processors(n_processors)
    before = gpu.n_blocks_run()
    caches[0].attention(q, 8)
    gpu.set_processors(1)
    assert gpu.n_blocks_run() - before == n_blocks


@pytest.mark.parametrize("head_dim", [32, 64])
def test_many_chunks_are_merged_as_on_the_cpu(
    head_dim: int, queries_per_block: Callable[[int, int, int], None]
) -> None:
    queries_per_block(1, 2, 11)
    rng = np.random.default_rng(11)
    caches = pair_of_caches("f16", 1, head_dim, 11 * 256)
    fill(caches, 0, 10 * 256 + 9, 2, (1, head_dim), rng)
    for first in (7 * 256, 8 * 256 - 1, 8 * 256, 10 * 256 + 8):
        q = rng.standard_normal((1, 2, head_dim)).astype(np.float32)
        want = caches[1].attention("scalar", 1, q, first)
        assert same_bits(caches[0].attention(q, first, max_chunks=11), want), first


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("first", [8, 97, 251])
def test_nan_behind_a_row_does_not_reach_it_in_batches_of_positions(
    head_dim: int, first: int, queries_per_block: Callable[[int, int, int], None]
) -> None:
    queries_per_block(4, 2, 2)
    rng = np.random.default_rng(12)
    caches = pair_of_caches("f16", 1, head_dim, 512)
    fill(caches, 0, first + 4, 2, (1, head_dim), rng)
    q = rng.standard_normal((4, 2, head_dim)).astype(np.float32)
    want = caches[0].attention(q, first, max_chunks=2)
    bad = np.full((1, 1, head_dim), np.nan, np.float32)
    caches[0].rope_store(q[:1], bad, bad, first + 3)
    got = caches[0].attention(q, first, max_chunks=2)
    assert same_bits(got[:3], want[:3])
    assert np.isnan(got[3]).all()


@pytest.mark.parametrize(
    ("queries_per_block", "kv_type", "shape", "window"),
    pairwise([4, 8], KV_TYPES, [(64, 64, False), (128, 64, True), (96, 32, False)], [0, 6]),
    indirect=["queries_per_block"],
)
def test_storing_on_the_way_equals_storing_before(
    queries_per_block: int, kv_type: str, shape: tuple[int, int, bool], window: int
) -> None:
    head_dim, n_rot, interleaved = shape
    rng = np.random.default_rng(13)
    tree = np.array([-1, 0, 1, 0, 3, -1, 5], dtype=np.int32)
    for first, n, n_before, parents in (
        (0, 1, 0, None), (255, 3, 0, None), (250, 16, 5, None), (300, 2, 1, None),
        (252, 7, 0, tree), (256, 7, 0, tree), (12, 7, 0, tree),
    ):  # fmt: skip
        one_by_one, at_once = (gpu.Cache(kv_type, 2, head_dim, 512) for _ in range(2))
        old_shape = (first, 2, head_dim)
        old = [rng.standard_normal(old_shape).astype(np.float32) for _ in range(2)]
        for cache in (one_by_one, at_once):
            if first > 0:
                cache.rope_store(np.zeros(old_shape, np.float32), *old, 0)
        q = rng.standard_normal((n, 6, head_dim)).astype(np.float32)
        k, v = (rng.standard_normal((n, 2, head_dim)).astype(np.float32) for _ in range(2))
        rotation = {"cos_sin": table(np.arange(first, first + n), n_rot),
                    "interleaved": interleaved}  # fmt: skip
        rotated = one_by_one.rope_store(q, k, v, first, **rotation)
        options = {"parents": parents, "scale": 0.1, "max_chunks": (first + n + 255) // 256}
        options["window"] = window
        want = one_by_one.attention(rotated[n_before:], first + n_before, **options)
        got = at_once.store_and_attend(q, k, v, first, n_before=n_before, **rotation, **options)
        assert same_bits(got, want), (first, n)
        assert at_once.content() == one_by_one.content(), (first, n)


@pytest.mark.parametrize("kv_type", KV_TYPES)
def test_copied_positions_are_those_copied(kv_type: str) -> None:
    rng = np.random.default_rng(9)
    caches = pair_of_caches(kv_type, 2, 32, 512)
    data = [rng.standard_normal((1, 2, 32)).astype(np.float32) for _ in range(2)]
    q = np.zeros((1, 2, 32), np.float32)
    caches[0].rope_store(q, *data, 300)
    caches[0].copy(300, 37)
    for slot in (300, 37):
        caches[1].rope_store("scalar", 1, q, *data, slot)
    assert caches[0].content() == caches[1].content()
    assert set(caches[0].content(0)) == {0xFF}


# --- The head ------------------------------------------------------------------------------------


def heads(x: np.ndarray, spec: object, **more: object) -> tuple:
    return gpu.head(x, spec, **more), gpu.head(x, spec, on_cpu=True, **more)


def check_heads(got: tuple, want: tuple) -> None:
    assert np.array_equal(got[0], want[0])
    assert same_bits(got[1], want[1])
    # Summed in double on both sides, in different orders.
    np.testing.assert_allclose(got[2], want[2], rtol=2e-7)
    if want[3] is not None:
        assert same_bits(got[3], want[3])


@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K"])
def test_heads_give_what_the_cpu_gives(name: str) -> None:
    rng = np.random.default_rng(10)
    n_in, n_out = small_n_in(name), 2200
    x = rows_of_x(3, n_in, rng)
    norm = gpu.Norm("rms", rng.standard_normal(n_in).astype(np.float32), None, 1e-5)
    bias = rng.standard_normal(n_out).astype(np.float32)
    spec = product(name, n_out, random_weights(name, n_out, n_in, rng), bias=bias)
    for top_k, wants_logits in ((1, False), (5, True), (256, False)):
        check_heads(*heads(x, spec, norm=norm, n_tokens=2195, top_k=top_k,
                           wants_logits=wants_logits))  # fmt: skip
    blocks = sorted(rng.choice(138, 11, replace=False).tolist())
    if 137 not in blocks:
        blocks[-1] = 137  # the last block is a part of one
    check_heads(*heads(x, spec, norm=norm, n_tokens=2195, blocks=blocks, top_k=200,
                       wants_logits=True))  # fmt: skip


@pytest.mark.parametrize("name", ["F32", "Q4_0", "Q6_K"])
def test_blocks_that_no_head_has_change_no_bits(name: str, device: str) -> None:
    rng = np.random.default_rng(14)
    n_in, n_out = small_n_in(name), 600
    x = rows_of_x(3, n_in, rng)
    spec = product(name, n_out, random_weights(name, n_out, n_in, rng))
    blocks = [0, 7, 36, 37]  # the last one is a part of one
    options = {"n_tokens": 597, "top_k": 60, "wants_logits": True}
    want = gpu.head(x, spec, blocks=blocks, **options)
    for n in (1, 12, 150):  # 150: more than one piece of the scan
        blocks_run = gpu.n_blocks_run()
        got = gpu.head(x, spec, blocks=[*blocks, *[gpu.NO_HEAD_BLOCK] * n], **options)
        assert device == "cuda" or gpu.n_blocks_run() > blocks_run
        for a, b in zip(got, want, strict=True):
            assert a.tobytes() == b.tobytes(), n


def test_heads_of_many_rows_give_what_the_cpu_gives() -> None:
    rng = np.random.default_rng(13)
    x = rows_of_x(20, 64, rng)
    spec = product("Q4_0", 48, random_weights("Q4_0", 48, 64, rng))
    check_heads(*heads(x, spec, n_tokens=48, top_k=3, wants_logits=True))


def test_of_equal_logits_the_lowest_token_wins() -> None:
    x = np.ones((1, 16), np.float32)
    matrix = np.zeros((3000, 16), np.float32)
    matrix[[70, 2500, 2999, 5]] = 1
    matrix[[40, 41]] = -0.0
    spec = product("F32", 3000, matrix.tobytes())
    got, want = heads(x, spec, n_tokens=3000, top_k=8)
    check_heads(got, want)
    assert got[0].tolist() == [[5, 70, 2500, 2999, 0, 1, 2, 3]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_told(bad: float) -> None:
    rng = np.random.default_rng(11)
    x = np.zeros((2, 16), np.float32)
    x[:, 0] = 1
    matrix = rng.standard_normal((40, 16)).astype(np.float32)
    bias = np.zeros(40, np.float32)
    bias[33] = bad
    spec = product("F32", 40, matrix.tobytes(), bias=bias)
    got, want = heads(x, spec, n_tokens=40, top_k=3)
    assert np.array_equal(got[0], want[0])
    assert (got[0][0, 0] == -1) == (bad != -np.inf)
    assert same_bits(np.isnan(got[2]).astype(np.float32), np.isnan(want[2]).astype(np.float32))


def test_fewer_tokens_than_wanted_end_with_none() -> None:
    rng = np.random.default_rng(12)
    x = rng.standard_normal((2, 16)).astype(np.float32)
    spec = product("F32", 20, rng.standard_normal((20, 16)).astype(np.float32).tobytes())
    got, want = heads(x, spec, n_tokens=20, top_k=32, blocks=[1])
    check_heads(got, want)
    assert (got[0][:, :4] >= 16).all()
    assert (got[0][:, 4:] == -1).all()
