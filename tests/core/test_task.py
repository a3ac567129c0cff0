"""A request is a state machine: whoever drives it, its tokens are those it has alone."""

from __future__ import annotations

from typing import Any

from test_decode import run

from helpers import native

decode = native("decode")

TOY = {"vocab_size": 40, "n_ctx": 200, "seed": 4, "order": 3, "mix_seed": 5, "mix": 0.7}
DRAFT = {"vocab_size": 40, "n_ctx": 200, "seed": 5, "order": 3, "chain_steps": 8}
TEXT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 1, 4, 1, 5]
SAMPLED = {"temperature": 1.0, "seed": 7}

REQUESTS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (None, {}, {}),
    (None, {}, {"sampling": SAMPLED}),
    ({"kind": "model", "toy": DRAFT}, {}, {"gamma": 3}),
    ({"kind": "model", "toy": DRAFT}, {"follows": True}, {"gamma": 5}),
    ({"kind": "model", "toy": DRAFT}, {}, {"sampling": SAMPLED, "verifier": "standard"}),
    ({"kind": "model", "toy": DRAFT, "branch": 2}, {}, {"verifier": "topk_importance"}),
    ({"kind": "ngram"}, {}, {"eog": [11, 17]}),
    ({"kind": "recycling"}, {}, {"sampling": {**SAMPLED, "repetition_penalty": 1.4}}),
]


def session(drafter: Any, target: dict[str, Any]) -> Any:
    return decode.Session({**TOY, **target}, drafter)


def options(i: int, request: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": TEXT[: len(TEXT) - i], "max_tokens": 12 + 3 * i, **request}


def test_requests_that_take_turns_have_the_tokens_they_have_alone() -> None:
    alone = [
        run(session(drafter, target), **options(i, request))["token_ids"]
        for i, (drafter, target, request) in enumerate(REQUESTS)
    ]
    assert len({tuple(tokens) for tokens in alone}) > 4
    found = decode.Session.by_turns(
        [
            (session(drafter, target), options(i, request))
            for i, (drafter, target, request) in enumerate(REQUESTS)
        ]
    )
    assert found == alone
