"""What drafters keep and read is bounded, and so are the rows of a pass."""

from __future__ import annotations

from typing import Any

import pytest
from test_decode import plain_greedy, run

from helpers import native

m = native("decode")


def ngram(**options: Any) -> Any:
    return m.Session({"vocab_size": 10}, {"kind": "ngram", **options})


def fresh_tokens(first: int, n: int) -> list[int]:
    """Tokens that were never there; none of them may be drafted."""
    return list(range(first, first + n))


def test_ngrams_that_are_kept_are_bounded_and_the_newer_half_stays() -> None:
    session = ngram(keep_store=True)
    session.begin([1, 2, 3])
    n = (1 << 17) // 4  # contexts of four lengths each
    session.begin(fresh_tokens(1000, n))
    assert session.propose([1, 2], 1) == [3]
    # Seen again it counts on from where it was: three is still what follows most often.
    session.begin([1, 2, 3])
    session.begin([1, 2, 4])
    assert session.propose([1, 2], 1) == [3]
    for i in range(1, 4):
        session.begin(fresh_tokens(1000 + i * n, n + 10))
    assert session.propose([1, 2], 1) == []


def test_ngrams_of_a_text_that_goes_on_are_counted_once() -> None:
    session = ngram(keep_store=True)
    session.begin([1, 2])
    session.commit([1, 2, 5], 1)
    session.begin([1, 2, 5, 1, 3])  # two and three followed once each: the newer one
    assert session.propose([1], 1) == [3]
    session.begin([9, 1, 2])  # another text
    assert session.propose([1], 1) == [2]


@pytest.mark.parametrize("filler", [1, 3])
def test_a_text_that_goes_on_is_drafted_as_if_it_were_new(filler: int) -> None:
    texts = [[1, 2, 3, 1, 2, 4], [1, 2, 3, 1, 2, 4, 1, 2, 5, 6, 1], [1, 2, 3, 1, 2, 4, 1, 2, 5, 7]]
    top = [[8, 9, 1]] * 2 if filler > 1 else []
    session = ngram(filler_top_k=filler)
    for text in [*texts, texts[0], texts[2], texts[1]]:
        new = ngram(filler_top_k=filler)
        for one in (session, new):
            one.begin(text)
            one.commit([*text, 1, 2], 2, top)
        for start in ([1], [2], [1, 2], [3, 1, 2], [4], [9]):
            assert session.propose(start, 4) == new.propose(start, 4)


@pytest.mark.parametrize("most", [64, 512])
@pytest.mark.parametrize("verifier", ["greedy", "match", "topk_importance"])
def test_combs_have_no_more_rows_than_a_pass_takes(verifier: str, most: int) -> None:
    target = {"vocab_size": 40, "n_ctx": 1200, "seed": 4, "order": 2, "max_tree_rows": most}
    draft = {**target, "seed": 5, "mix_seed": 4, "mix": 0.95}
    session = m.Session(target, {"kind": "model", "toy": draft, "branch": 16})
    prompt = [1, 2, 3]
    out = run(session, prompt=prompt, max_tokens=120, gamma=40, verifier=verifier)
    assert out["token_ids"] == plain_greedy(session, prompt, 120)
    assert max(session.batches("target")) == 1 + (most - 1) // 16 * 16


@pytest.mark.parametrize("verifier", ["greedy", "match"])
def test_recycled_trees_have_no_more_rows_than_a_pass_takes(verifier: str) -> None:
    target = {"vocab_size": 40, "n_ctx": 1200, "seed": 4, "order": 1, "max_tree_rows": 16}
    session = m.Session(target, {"kind": "recycling"})
    out = run(session, prompt=[1, 2, 3], max_tokens=300, gamma=64, verifier=verifier)
    assert out["token_ids"] == plain_greedy(session, [1, 2, 3], 300)
    assert max(session.batches("target")) == 16
