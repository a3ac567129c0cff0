"""Draft models that read a part of the text, compute a part of the head, stop when unsure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import native

decode = native("decode")

TEXT = [int(t) for t in np.random.default_rng(3).integers(0, 40, 300)]


def session(**drafter: Any) -> Any:
    toy = {"vocab_size": 40, "n_ctx": 400, "seed": 5, "order": 3, **drafter.pop("toy", {})}
    return decode.Session(
        {"vocab_size": 40, "n_ctx": 400, "seed": 4}, {"kind": "model", "toy": toy, **drafter}
    )


def best(s: Any, path: list[int], tokens: list[int] | None = None) -> int:
    row = np.array(s.logits("draft", path))
    if tokens is not None:
        row[[t for t in range(40) if t not in tokens]] = -np.inf
    return int(np.argmax(row))


def test_a_long_prompt_is_read_from_its_last_tokens() -> None:
    s = session()
    s.begin(TEXT[:200], first_window=64)
    assert s.n_behind(TEXT[:200]) == 64
    draft = s.propose(TEXT[:200], 3)
    assert s.batches("draft") == [64, 1, 1]
    assert s.n_unread() == 136
    # The toy looks at three tokens only, so the window loses nothing.
    assert draft[0] == best(s, TEXT[:200])
    assert s.draft_cache() == [*TEXT[136:200], *draft[:2]]


def test_a_window_goes_on_with_the_text() -> None:
    s = session()
    s.begin(TEXT[:200], first_window=64)
    draft = s.propose(TEXT[:200], 2)
    text = [*TEXT[:200], draft[0], 7]
    s.align(text)
    assert s.draft_cache() == text[136:-1]
    assert s.n_behind(text) == 1
    s.batches("draft")
    s.propose(text, 2)
    assert s.batches("draft") == [1, 1]


def test_one_that_lags_starts_again() -> None:
    s = session()
    s.begin(TEXT[:100], first_window=32)
    s.propose(TEXT[:100], 1)
    assert s.n_behind(TEXT[:160]) == 60
    assert s.n_behind(TEXT[:200]) == 32
    s.batches("draft")
    s.propose(TEXT[:200], 1)
    assert s.batches("draft") == [32]
    assert s.n_unread() == 168


def test_all_can_be_read_later() -> None:
    s = session()
    s.begin(TEXT[:200], first_window=64)
    s.propose(TEXT[:200], 1)
    s.read_all(TEXT[:201])
    assert s.n_unread() == 0
    assert s.draft_cache() == TEXT[:200]
    assert s.n_behind(TEXT[:201]) == 1
    assert s.propose(TEXT[:201], 1) == [best(s, TEXT[:201])]


def test_a_text_that_does_not_fit_is_not_read_and_the_window_stays() -> None:
    s = session(toy={"n_ctx": 200})
    s.begin(TEXT[:190], first_window=64)
    assert s.can_read_all(TEXT[:185])
    assert not s.can_read_all(TEXT[:186])  # 15 tokens are drafted behind it


def test_what_could_not_be_read_once_is_not_tried_again_in_this_request() -> None:
    s = session(toy={"vocab_size": 20})
    prompt = [30, *(t % 20 for t in TEXT[:199])]
    for _ in range(2):
        s.begin(prompt, first_window=64)
        assert s.can_read_all(prompt)
        s.propose(prompt, 1)
        held = s.draft_cache()
        with pytest.raises(decode.Error, match="no token 30"):
            s.read_all(prompt)
        assert not s.can_read_all(prompt)
        assert s.n_unread() == 136
        assert s.draft_cache() == held


def test_another_text_forgets_the_window() -> None:
    s = session()
    s.begin(TEXT[:200], first_window=64)
    s.propose(TEXT[:200], 1)
    s.align(TEXT[:50])
    assert s.n_unread() == 0
    s.begin(TEXT[250:290], first_window=64)
    assert s.propose(TEXT[250:290], 1) == [best(s, TEXT[250:290])]
    assert s.n_unread() == 0


def test_a_small_context_moves_with_the_text() -> None:
    s = session(toy={"n_ctx": 100})
    s.begin(TEXT[:250], first_window=64)
    for n in range(250, 300):
        assert s.propose(TEXT[:n], 4)[0] == best(s, TEXT[:n])
        s.align(TEXT[: n + 1])


@pytest.mark.parametrize("kept", [16, 32])
def test_a_trimmed_head_drafts_known_tokens(kept: int) -> None:
    s = session(head_tokens=kept)
    prompt = [t % 16 for t in TEXT[:30]] + [35]
    s.begin(prompt)
    allowed = [*range(kept), *range(32, 40)]  # the block of token 35 too
    assert s.propose(prompt, 1) == [best(s, prompt, allowed)]
    if kept == 16:  # a new block comes with the text
        text = [*prompt, 20]
        s.commit(text, 1)
        assert s.propose(text, 1) == [best(s, text, [*allowed, *range(16, 32)])]


def test_the_whole_head_is_the_default_for_small_vocabularies() -> None:
    s, whole = session(), session(head_tokens=0)
    for one in (s, whole):
        one.begin(TEXT[:20])
    assert s.propose(TEXT[:20], 6) == whole.propose(TEXT[:20], 6)


def test_a_draft_ends_behind_an_unlikely_token() -> None:
    s = session()
    s.begin(TEXT[:40], min_probability=0.0)
    whole = s.propose(TEXT[:40], 10)
    probabilities = s.probabilities()
    assert len(whole) == 10
    assert len(probabilities) == 9  # nobody asks after the last
    path = TEXT[:40]
    for token, probability in zip(whole, probabilities, strict=False):
        row = np.array(s.logits("draft", path), dtype=np.float64)
        law = np.exp(row - row.max())
        assert probability == pytest.approx((law / law.sum())[token], rel=1e-5)
        path = [*path, token]
    limit = sorted(probabilities)[4]
    stop = next(i for i, p in enumerate(probabilities) if p < limit)
    again = session()
    again.begin(TEXT[:40], min_probability=limit)
    assert again.propose(TEXT[:40], 10) == whole[: stop + 1]


def law_of(s: Any, path: list[int]) -> np.ndarray:
    row = np.array(s.logits("draft", path), dtype=np.float64)
    weights = np.exp(row - row.max())
    return weights / weights.sum()


@pytest.mark.parametrize("n_siblings", [1, 2, 3])
def test_second_choices_stand_beside_the_chain(n_siblings: int) -> None:
    chain = session()
    chain.begin(TEXT[:40], min_probability=0.0)
    tokens = chain.propose(TEXT[:40], 3)
    s = session()
    s.begin(TEXT[:40], min_probability=0.0, n_siblings=n_siblings)
    drafted, parents, _ = s.propose_tree(TEXT[:40], 3)
    assert len(drafted) == 3 * (1 + n_siblings)
    path, parent = TEXT[:40], -1
    for depth, token in enumerate(tokens):
        first = depth * (1 + n_siblings)
        law = law_of(s, path)
        best = np.argsort(-law, kind="stable")[: 1 + n_siblings]
        assert drafted[first] == token
        assert drafted[first : first + 1 + n_siblings] == best.tolist()
        assert parents[first : first + 1 + n_siblings] == [parent] * (1 + n_siblings)
        questions = [q for q in s.sibling_questions() if q[0] == depth + 1]
        for rank, question in enumerate(questions, start=1):
            left = 1 - law[best[:rank]].sum()
            assert question[1] == rank
            assert question[2] == pytest.approx(law[best[0]], rel=1e-5)
            if rank <= n_siblings:
                assert question[3] == pytest.approx(law[best[rank]] / left, rel=1e-4)
        path, parent = [*path, token], first


def test_a_draft_without_siblings_stays_a_chain() -> None:
    s = session()
    s.begin(TEXT[:40], min_probability=0.0)
    tokens, parents, _ = s.propose_tree(TEXT[:40], 5)
    assert len(tokens) == 5
    assert parents == []
    assert s.sibling_questions() == []


def test_under_shared_noise_siblings_are_the_noisy_runners_up() -> None:
    s = session()
    s.begin(TEXT[:40], min_probability=0.0, n_siblings=2, temperature=1.0)
    drafted, parents, _ = s.propose_tree(TEXT[:40], 2)
    assert parents == [-1, -1, -1, 0, 0, 0]
    assert len(set(drafted[:3])) == 3
    chain = session()
    chain.begin(TEXT[:40], min_probability=0.0, temperature=1.0)
    assert chain.propose(TEXT[:40], 2) == [drafted[0], drafted[3]]
