"""What every drafter on a target's hidden states keeps: histories for the tests of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tiny_models

VOCAB_SIZE = tiny_models.TinyConfig().vocab_size
PROMPT = list(b"the cat in the hat sat on the mat and the ")
# Few tokens, so that a head that knows nothing is right now and then.
FEW = {token: -np.inf for token in range(VOCAB_SIZE) if token not in (40, 50, 61, 70, 81)}


def few(**options: Any) -> dict[str, Any]:
    return {"max_tokens": 60, "logit_bias": FEW, **options}


def plain(target: Any, **options: Any) -> Any:
    import specdec_native as sd

    return sd.Decoder(target, drafter=None, **options)


def drafts_of(decoder: Any, prompt: list[int], **options: Any) -> tuple[list[int], list[Any]]:
    rounds: list[Any] = []
    out = decoder.generate(prompt, on_round=rounds.append, ignore_eos=True, **options)
    return out.token_ids, rounds


def by_position(prompt: list[int], rounds: list[Any]) -> dict[int, Any]:
    """What was drafted behind so many tokens."""
    drafts, n = {}, len(prompt)
    for found in rounds:
        if found.drafted:
            drafts[n] = found.drafted
        n += len(found.accepted) + 1
    return drafts


def match_gives_the_plain_tokens(
    target: Any, drafters: Sequence[Any], sampling: dict[str, Any]
) -> None:
    import specdec_native as sd

    reference = plain(target, verifier="match")
    accepted = 0
    for drafter in drafters:
        decoder = sd.Decoder(target, drafter=drafter, verifier="match")
        for seed in range(3):
            options = few(temperature=1.3, seed=seed, **sampling)
            expected = reference.generate(PROMPT, **options)
            found = decoder.generate(PROMPT, **options)
            assert found.token_ids == expected.token_ids
            accepted += found.stats.accepted
    assert accepted > 0


def sampled_pairs_of_tokens(target: Any, decoder: Any, n: int) -> set[tuple[int, ...]]:
    """The first two tokens over n seeds, after a chi-square test against plain decoding."""
    reference = plain(target)
    options = few(max_tokens=2, temperature=1.5, ignore_eos=True)
    counts: dict[tuple[int, ...], list[int]] = {}
    for seed in range(n):
        for i, one in enumerate((reference, decoder)):
            ids = tuple(one.generate(PROMPT, seed=seed + 9000 * i, **options).token_ids)
            counts.setdefault(ids, [0, 0])[i] += 1
    cells = [(a - b) ** 2 / (a + b) for a, b in counts.values() if a + b >= 10]
    assert len(cells) >= 5
    assert (sum(cells) - len(cells)) / np.sqrt(2 * len(cells)) < 4.5
    return set(counts)


def texts_are_plain(target: Any, decoder: Any) -> None:
    reference = plain(target)
    for prompt in (PROMPT, PROMPT * 30, [*PROMPT, 9]):
        for options in (few(), few(temperature=0.7, seed=3)):
            expected = reference.generate(prompt, **options)
            assert decoder.generate(prompt, **options).token_ids == expected.token_ids


def turns_and_forks_draft_as_fresh_ones(target: Any, drafter: Any) -> Any:
    """The decoder, after them."""
    import specdec_native as sd

    options = few(max_tokens=30)
    decoder = sd.Decoder(target, drafter=drafter)
    text = list(PROMPT)
    for turn in ([3, 5], [], [40]):
        text = text + turn
        ids, rounds = drafts_of(decoder, text, **options)
        fresh_ids, fresh = drafts_of(sd.Decoder(target, drafter=drafter), text, **options)
        assert ids == fresh_ids
        found, wanted = by_position(text, rounds), by_position(text, fresh)
        assert len(found.keys() & wanted.keys()) > 2
        assert all(found[n] == wanted[n] for n in found.keys() & wanted.keys())
        fork = decoder.fork()
        both = [drafts_of(d, [*text, *ids, 4], **options) for d in (fork, decoder)]
        assert both[0][0] == both[1][0]
        assert [r.drafted for r in both[0][1]] == [r.drafted for r in both[1][1]]
        text = [*text, *ids]
    return decoder


def engines_give_the_plain_texts(target: Any, drafter: str, **options: Any) -> list[Any]:
    """What the requests got."""
    import specdec_native as sd

    prompts = [PROMPT, PROMPT * 20, PROMPT[:3], PROMPT + PROMPT, PROMPT * 20 + [3]]
    reference = plain(target)
    expected = [reference.generate(p, **few()).token_ids for p in prompts]
    with sd.Engine(target, drafter=drafter, max_requests=3, **options) as engine:
        for _ in range(2):
            futures = [engine.submit(p, **few()) for p in prompts]
            found = [f.result() for f in futures]
            assert [r.token_ids for r in found] == expected
    return found
