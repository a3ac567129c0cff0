"""Warps, the choice of a token, and log-probabilities against slow references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_reference import adjusted, chi_square_z, warped
from helpers import examples, native

m = native("decode")


def dense(result: tuple[list[int], list[float]], n: int) -> np.ndarray:
    tokens, probs = result
    assert tokens == sorted(set(tokens))
    row = np.zeros(n)
    row[tokens] = probs
    return row


def check_warp(
    logits: np.ndarray, params: dict[str, Any], prefix: list[int], position: int = 0
) -> None:
    noise = lambda token: m.gaussian_noise(params.get("seed", 0), position, token)  # noqa: E731
    got = dense(m.warp(logits, params, prefix, position), len(logits))
    want = warped(logits, params, prefix, noise)
    assert np.array_equal(got > 0, want > 0)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


WARPS: list[dict[str, Any]] = [
    {},
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.7, "top_k": 5},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.0, "top_k": 10_000},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 0.8, "top_p": 0.01},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.8},
    {"temperature": 1.3, "top_k": 20, "top_p": 0.95, "min_p": 0.1},
    {"temperature": 1.3, "top_p": 0.95, "min_p": 0.02},
    {"temperature": 1.0, "top_k": 6, "noise_scale": 0.5, "seed": 9},
    {"temperature": 1.0, "noise_scale": 0.3, "seed": 4},
    {"temperature": 0.7, "repetition_penalty": 1.4, "penalty_last_n": -1},
    {"temperature": 0.7, "presence_penalty": 0.5, "frequency_penalty": 0.3, "penalty_last_n": 3},
    {"repetition_penalty": 5.0, "penalty_last_n": 64},
    {"temperature": 1.0, "repetition_penalty": 2.0, "penalty_last_n": 0},
    {"temperature": 1.0, "logit_bias": [(3, 5.0), (0, -math.inf), (3, 1.0)]},
    {
        "temperature": 0.9,
        "top_k": 4,
        "top_p": 0.7,
        "logit_bias": [(7, 4.0)],
        "repetition_penalty": 1.2,
        "presence_penalty": -1.0,
    },
]


@pytest.mark.parametrize("params", WARPS, ids=lambda p: ",".join(p) or "greedy")
@pytest.mark.parametrize("n", [8, 40, 700])
def test_warps_equal_the_reference(params: dict[str, Any], n: int) -> None:
    rng = np.random.default_rng(n)
    for position in range(12):
        logits = (rng.normal(size=n) * 3).astype(np.float32)
        prefix = rng.integers(0, n, size=rng.integers(0, 30)).tolist()
        check_warp(logits, params, prefix, position)


@pytest.mark.parametrize("temperature", [0.7, 1.37, 1e-8])
@pytest.mark.parametrize("best", [0.0, 3.1, 3000.1, -1e4, 3e38])
def test_min_p_of_whole_vocabularies_equals_the_reference(temperature: float, best: float) -> None:
    """All floats around the least one that is kept, where the sum of two floats would be wrong."""
    rng = np.random.default_rng(3)
    top = np.float32(best)
    bound = np.float32(np.float64(top) + temperature * math.log(0.05))
    near = [bound]
    for _ in range(20):
        near = [np.nextafter(near[0], np.float32(-np.inf)), *near]
        near.append(np.nextafter(near[-1], np.float32(np.inf)))
    for n in (64, 65, 2000):
        logits = rng.choice(np.array([*near, -np.inf], np.float32), size=n)
        logits[n // 2] = top
        check_warp(logits, {"temperature": temperature, "min_p": 0.05}, [])


@pytest.mark.parametrize("top_p", [0.9, 0.9999])
def test_top_p_of_whole_vocabularies_equals_the_reference(top_p: float) -> None:
    rng = np.random.default_rng(4)
    for n in (64, 65, 2000, 5001):
        logits = (rng.normal(size=n) * 4).astype(np.float32)
        logits[1::7] = -np.inf
        check_warp(logits, {"temperature": 0.8, "top_p": top_p}, [])


def apart(x: float) -> float:
    """Not so small that its distance from the best logit is that of 0: order would be by id."""
    return x if abs(x) > 1e-6 else 0.0


# Some rows are all ties, or have tokens that are far from the others or banned.
ROWS = st.one_of(
    st.lists(st.integers(0, 2).map(float), min_size=8, max_size=30),
    st.lists(st.floats(-20, 20, width=32).map(apart), min_size=8, max_size=60),
    st.lists(
        st.sampled_from([0.0, 0.0, 1.0, -80.0, 90.0, -math.inf]), min_size=8, max_size=40
    ).filter(lambda row: max(row) > -math.inf),
).map(lambda row: np.array(row, np.float32))
PREFIXES = st.lists(st.integers(0, 7), max_size=10)


@pytest.mark.parametrize("params", WARPS, ids=lambda p: ",".join(p) or "greedy")
@given(logits=ROWS, prefix=PREFIXES, position=st.integers(0, 99))
@settings(max_examples=examples(10))
def test_warps_of_any_row_equal_the_reference(
    params: dict[str, Any], logits: np.ndarray, prefix: list[int], position: int
) -> None:
    check_warp(logits, params, prefix, position)


@given(
    logits=ROWS,
    prefix=PREFIXES,
    position=st.integers(0, 99),
    params=st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.sampled_from([0.0, 0.2, 1.0, 3.0]),
            "top_k": st.sampled_from([0, 1, 2, 7, 50]),
            "top_p": st.sampled_from([1.0, 0.97, 0.5]),
            "min_p": st.sampled_from([0.0, 0.03, 0.6]),
            "noise_scale": st.sampled_from([0.0, 0.4]),
            "repetition_penalty": st.sampled_from([1.0, 1.3, 0.7]),
            "frequency_penalty": st.sampled_from([0.0, 0.2]),
            "presence_penalty": st.sampled_from([0.0, -1.0]),
            "penalty_last_n": st.sampled_from([-1, 0, 4, 64]),
            "logit_bias": st.lists(
                st.tuples(st.integers(0, 7), st.sampled_from([-2.0, 5.0])), max_size=3
            ),
            "seed": st.integers(0, 99),
        },
    ),
)
@settings(max_examples=examples(50))
def test_combinations_of_warps_equal_the_reference(
    logits: np.ndarray, prefix: list[int], position: int, params: dict[str, Any]
) -> None:
    check_warp(logits, params, prefix, position)


def test_warping_leaves_the_row_alone() -> None:
    logits = np.linspace(-2, 2, 9, dtype=np.float32)
    before = logits.copy()
    m.warp(logits, {"temperature": 1.0, "logit_bias": [(1, 9.0)], "presence_penalty": 1.0}, [4], 0)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("temperature", [1e-300, 1e-8, 1e8])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    _, probs = m.warp(np.array([30, -30, 29], np.float32), {"temperature": temperature}, [], 0)
    assert np.isfinite(probs).all()
    assert math.isclose(sum(probs), 1.0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "row", [[1, math.nan, 2], [math.nan, 1, 2], [1, math.inf], [-math.inf, -math.inf]]
)
def test_rows_that_are_not_finite_are_refused(row: list[float], temperature: float) -> None:
    with pytest.raises(m.Error, match="numerical"):
        m.warp(np.array(row, np.float32), {"temperature": temperature}, [], 0)


@pytest.mark.parametrize(
    ("option", "bad"),
    [
        ("temperature", [-0.1, math.nan, math.inf]),
        ("top_k", [-1]),
        ("top_p", [0.0, 1.5, -1.0, math.nan]),
        ("min_p", [1.0, -0.1, math.nan]),
        ("noise_scale", [-1.0, math.nan, 1e9]),
        ("repetition_penalty", [0.0, -1.0, math.nan]),
        ("presence_penalty", [101.0, math.nan]),
        ("frequency_penalty", [-101.0, math.nan]),
        ("penalty_last_n", [-2]),
        ("logit_bias", [[(-1, 0.0)], [(0, math.nan)], [(0, math.inf)]]),
    ],
)
def test_bad_options_are_named_with_their_range(option: str, bad: list[Any]) -> None:
    for value in bad:
        with pytest.raises(m.Error, match=f"invalid_argument: {option}.* must be"):
            m.validate_params({option: value})
    m.validate_params({})


def test_own_log_exp_and_cos_are_accurate() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.uniform(0, 1, 20000),
            10.0 ** rng.uniform(-300, 300, 20000),
            1 - 2.0 ** -np.arange(1, 53),
        ]
    )
    np.testing.assert_allclose(m.fixed_log(x), np.log(x), rtol=1e-15, atol=0)
    assert m.fixed_log(np.array([0.0]))[0] == -math.inf
    y = rng.uniform(-707, 707, 40000)
    np.testing.assert_allclose(m.fixed_exp(y), np.exp(y), rtol=1e-15, atol=0)
    assert m.fixed_exp(np.array([-1e9, -math.inf, 0.0])).tolist() == [0.0, 0.0, 1.0]
    t = rng.uniform(0, 1, 40000)
    np.testing.assert_allclose(m.fixed_cos_turns(t), np.cos(2 * np.pi * t), atol=1e-15)


def test_random_numbers_have_the_same_bits_everywhere() -> None:
    """Golden values: a change breaks every seed that users have noted."""
    assert m.gumbel_noise(7, 100, 31999) == -0.8535836575590392
    assert m.gaussian_noise(7, 100, 31999) == 0.4093519871701065


def test_gumbel_noise_follows_its_law_within_its_bounds() -> None:
    noise = np.sort([m.gumbel_noise(5, i // 50, i % 50) for i in range(40000)])
    low, high = m.gumbel_bounds()
    assert low < noise[0]
    assert noise[-1] < high
    grid = (np.arange(len(noise)) + 0.5) / len(noise)
    distance = np.abs(np.exp(-np.exp(-noise)) - grid).max()
    assert distance < 2.2 / math.sqrt(len(noise))  # Kolmogorov-Smirnov, p about 1e-4


def test_gaussian_noise_follows_its_law() -> None:
    noise = np.array([m.gaussian_noise(5, i // 50, i % 50) for i in range(40000)])
    cdf = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in np.sort(noise)])
    grid = (np.arange(len(noise)) + 0.5) / len(noise)
    assert np.abs(cdf - grid).max() < 2.2 / math.sqrt(len(noise))


@pytest.mark.parametrize("params", [{}, {"top_k": 40}, {"top_p": 0.9}, {"min_p": 1e-6}])
def test_the_pruned_choice_equals_the_exhaustive_one(params: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    for position in range(400):
        n = int(rng.choice([2, 9, 63, 64, 65, 127, 192, 3000]))
        logits = (rng.normal(size=n) * rng.choice([0.0, 0.5, 3.0, 20.0])).astype(np.float32)
        if position % 3 == 0:  # what a grammar leaves
            logits[rng.choice(n, n - 1 - int(rng.integers(0, n // 2)), replace=False)] = -math.inf
        fast, slow = m.gumbel_argmax(logits, {"temperature": 1.0, **params}, 3, position)
        assert fast == slow


def test_the_gumbel_choice_follows_the_distribution() -> None:
    probs = [0.4, 0.3, 0.15, 0.1, 0.04, 0.009, 0.001]
    law = dict(enumerate(probs))
    counts = dict(enumerate(m.gumbel_counts(probs, 12, 200_000)))
    assert chi_square_z(counts, law) < 5
    wrong = dict(enumerate([0.39, 0.31, *probs[2:]]))
    assert chi_square_z(counts, wrong) > 5  # the test can fail


def test_draws_follow_their_weights_and_never_take_weight_zero() -> None:
    weights = [0.0, 3.0, 0.0, 1.0, 0.0]
    counts = m.draw_counts(weights, 2, 50_000)
    assert counts[0] == counts[2] == counts[4] == 0
    assert chi_square_z({1: counts[1], 3: counts[3]}, {1: 0.75, 3: 0.25}) < 5


def test_residual_is_the_positive_part() -> None:
    target = [0.5, 0.2, 0.2, 0.1]
    draft = {0: 0.25, 2: 0.75}
    got = m.residual(target, list(draft), [math.log(p) for p in draft.values()])
    np.testing.assert_allclose(got, [0.25, 0.2, 0.0, 0.1], atol=1e-15)
    same = m.residual([0.25, 0.75], [0, 1], [math.log(0.25), math.log(0.75)])
    assert np.isfinite(same).all()
    assert sum(same) > 0  # never nothing to draw from


@given(
    logits=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    repeats=st.sampled_from([1, 1, 50]),
    k=st.integers(0, 70),
)
def test_top_k_tokens_are_sorted_and_stable(logits: list[int], repeats: int, k: int) -> None:
    row = np.array(logits * repeats, np.float32)
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    for n in {k, len(row) // 2, len(row), len(row) + 5}:
        assert m.top_k_tokens(row, n) == order[:n]


def test_logprobs_are_log_softmax_with_the_best_alternatives() -> None:
    rng = np.random.default_rng(2)
    logits = (rng.normal(size=50) * 5).astype(np.float32)
    row = logits.astype(np.float64)
    want = row - row.max() - np.log(np.exp(row - row.max()).sum())
    token, logprob, top = m.token_logprobs(logits, 17, 4)
    assert token == 17
    assert math.isclose(logprob, want[17], rel_tol=1e-12)
    assert [t for t, _ in top] == np.argsort(-row, kind="stable")[:4].tolist()
    np.testing.assert_allclose([p for _, p in top], want[[t for t, _ in top]], rtol=1e-12)


def test_adjusted_logits_equal_the_reference() -> None:
    params = {
        "logit_bias": [(2, -1.5)],
        "repetition_penalty": 1.3,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.1,
        "penalty_last_n": 5,
    }
    logits = np.array([1, -1, 2, 0.5, -3], np.float32)
    prefix = [0, 0, 1, 2, 2, 2, 4]
    assert np.array_equal(
        m.adjusted_logits(logits, params, prefix), adjusted(logits, params, prefix)
    )


def test_whole_vocabularies_are_normalised_by_the_fixed_exponential() -> None:
    # Wide and scalar code must agree to the last bit; 10,007 leaves a tail for every width.
    logits = np.random.default_rng(4).normal(0, 40, size=10_007).astype(np.float32)
    _, probs = m.warp(logits, {"temperature": 0.7}, [], 0)
    weights = (logits.astype(np.float64) - np.float64(logits.max())) / 0.7
    want = m.fixed_exp(weights) * probs[int(logits.argmax())]
    assert probs == want.tolist()
    assert abs(sum(probs) - 1) < 1e-12


def test_draws_from_whole_vocabularies_follow_the_weights() -> None:
    # Several blocks of the search, an empty one among them; every tenth token has weight.
    weights = np.zeros(3000)
    weights[5::10] = np.random.default_rng(1).uniform(0.5, 1.5, size=300)
    weights[600:1200] = 0.0
    counts = m.draw_counts(weights.tolist(), 7, 60_000)
    seen = {i: n for i, n in enumerate(counts) if n}
    law = {i: float(w / weights.sum()) for i, w in enumerate(weights) if w > 0}
    assert chi_square_z(seen, law) < 5
