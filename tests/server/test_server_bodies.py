"""Bodies of requests: what is accepted is what the published description says."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("specdec_native", reason="the package is not installed")
pydantic = pytest.importorskip("pydantic", reason="the extra `server` is not installed")
jsonschema = pytest.importorskip("jsonschema")

from specdec_native.server.errors import ApiError  # noqa: E402
from specdec_native.server.openapi import openapi  # noqa: E402
from specdec_native.server.schemas import (  # noqa: E402
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    InfillRequest,
    TokenizeRequest,
    parse,
)

VALID: dict[type, dict[str, Any]] = {
    CompletionRequest: {"prompt": "a"},
    ChatRequest: {"messages": [{"role": "user", "content": "a"}]},
    InfillRequest: {},
    TokenizeRequest: {"content": "a"},
    DetokenizeRequest: {"tokens": [1]},
}
VOCABULARY = 1 << 31  # as many as a token id may be
# Values near the edges of what some field takes, and what no field takes.
NUMBERS = st.one_of(
    st.sampled_from([-1, 0, 1, 2, 16, 17, 64, 100, 101, 1000, 2**31 - 1, 2**31, 2**63 - 1, 2**63]),
    st.integers(-(2**64), 2**64),
    st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, -100.0, 100.5, 1e6, 2e6]),
    st.floats(allow_nan=False, allow_infinity=False),
)
WORDS = st.one_of(
    st.sampled_from(["", "user", "text", "function", "none", "auto", "required", "json_object"]),
    st.text(max_size=5),
)
NAMES = st.one_of(
    st.sampled_from(
        "role content name type text function parameters 12 12345678901 include_usage schema "
        "json_schema filename".split()
    ),
    st.text(max_size=5),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


def description(kind: type) -> Any:
    document = openapi(VOCABULARY)
    schema = {"$ref": f"#/components/schemas/{kind.__name__}", "components": document["components"]}
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("kind", list(VALID))
@given(data=st.data())
def test_what_is_accepted_is_what_the_description_says(kind, data):
    fields = st.sampled_from([*kind.model_fields, "no_such_field"])
    changes = data.draw(st.dictionaries(fields, VALUES, min_size=1, max_size=2))
    # It travels as JSON: keys are text, and whole reals may come as such.
    body = json.loads(json.dumps({**VALID[kind], **changes}))
    assume(not (body.get("echo") is True and {"logprobs", "suffix"} & body.keys()))
    told = description(kind).is_valid(body)
    refusal = None
    try:
        parse(kind, body)
    except ApiError as error:
        refusal = error
    assert told == (refusal is None), (body, refusal, list(description(kind).iter_errors(body)))
    assert refusal is None or refusal.param.split(".")[0] in changes


MANY = 2000
LONG = [
    (CompletionRequest, {"prompt": [-1] * MANY}, "prompt"),
    (CompletionRequest, {"prompt": [[-1] * MANY] * 16}, "prompt"),
    (CompletionRequest, {"prompt": [[]] * MANY}, "prompt"),
    (CompletionRequest, {"prompt": "a", "stop": [""] * MANY}, "stop"),
    (CompletionRequest, {"prompt": "a", **dict.fromkeys(map(str, range(MANY)))}, "0"),
    (CompletionRequest, {"prompt": "a", "logit_bias": {f"x{i}": 0 for i in range(MANY)}}, "x0"),
    (CompletionRequest, {"prompt": "a", "logit_bias": {str(i): "" for i in range(MANY)}}, "0"),
    (ChatRequest, {"messages": [1] * MANY}, "messages"),
    (ChatRequest, {"messages": [{"role": "user", "content": [1] * MANY}]}, "content"),
    (ChatRequest, {"messages": [{"role": "user", "tool_calls": [1] * MANY}]}, "tool_calls"),
    (ChatRequest, {**VALID[ChatRequest], "tools": [{}] * MANY}, "tools"),
    (
        ChatRequest,
        {**VALID[ChatRequest], "tools": [{"function": dict.fromkeys(map(str, range(MANY)))}]},
        "function",
    ),
    (InfillRequest, {"input_extra": [1] * MANY}, "input_extra"),
    (DetokenizeRequest, {"tokens": [-1] * MANY}, "tokens"),
]


@pytest.mark.parametrize(("kind", "body", "param"), LONG)
def test_a_long_body_ends_at_its_first_mistake(kind, body, param):
    with pytest.raises(pydantic.ValidationError) as found:
        kind.model_validate(body)
    assert found.value.error_count() <= 40
    with pytest.raises(ApiError) as refused:
        parse(kind, body)
    assert param in refused.value.param.split(".")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CompletionRequest, {"prompt": [1.0, *range(MANY)]}),
        (CompletionRequest, {"prompt": [[1.0, *range(MANY)]]}),
        (DetokenizeRequest, {"tokens": [1.0, *range(MANY)]}),
    ],
)
def test_no_call_is_made_for_each_token_id(kind, body):
    calls = []
    sys.setprofile(lambda frame, event, arg: calls.append(event) if event == "call" else None)
    try:
        made = parse(kind, body)
    finally:
        sys.setprofile(None)
    assert len(calls) < 100
    assert "1.0" not in repr(made)


CHAT = VALID[ChatRequest]
FORMAT = {"type": "json_schema", "json_schema": {"name": "x"}}
MISTAKES = [
    (CompletionRequest, {"prompt": 5}, "prompt", "a text, a list of token ids"),
    (CompletionRequest, {"prompt": {}}, "prompt", "got an object"),
    (CompletionRequest, {"prompt": []}, "prompt", "at least 1"),
    (CompletionRequest, {"prompt": ["a"] * 17}, "prompt", "at most 16"),
    (CompletionRequest, {"prompt": [[1]] * 17}, "prompt", "at most 16"),
    (CompletionRequest, {"prompt": ["a", 5]}, "prompt.1", "valid string, got 5"),
    (CompletionRequest, {"prompt": [5, "a"]}, "prompt.1", 'valid integer, got "a"'),
    (CompletionRequest, {"prompt": [[5], [6, -1]]}, "prompt.1.1", "greater than or equal to 0"),
    (CompletionRequest, {"prompt": [[5], "a"]}, "prompt.1", "valid list"),
    (CompletionRequest, {"prompt": "a", "stop": 5}, "stop", "a text or a list of texts, got 5"),
    (CompletionRequest, {"prompt": "a", "stop": ["a"] * 65}, "stop", "at most 64"),
    (CompletionRequest, {"prompt": "a", "stop": ["a", 5]}, "stop.1", "valid string, got 5"),
    (CompletionRequest, {"prompt": "a", "json_schema": 5}, "json_schema", "an object or a bool"),
    (CompletionRequest, {"prompt": "a", "echo": 5}, "echo", "valid boolean, got 5"),
    (ChatRequest, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "a text"),
    (ChatRequest, {**CHAT, "tool_choice": "all"}, "tool_choice", "'none', 'auto' or 'required'"),
    (ChatRequest, {**CHAT, "tool_choice": 5}, "tool_choice", "none, auto, required or a function"),
    (ChatRequest, {**CHAT, "tool_choice": {}}, "tool_choice.function", "missing"),
    (ChatRequest, {**CHAT, "response_format": 5}, "response_format", "a type of text"),
    (ChatRequest, {**CHAT, "response_format": {"type": "x"}}, "response_format", "a type of text"),
    (
        ChatRequest,
        {**CHAT, "response_format": FORMAT},
        "response_format.json_schema.schema",
        "missing",
    ),
    (
        ChatRequest,
        {**CHAT, "response_format": {"type": "json_object", "strict": True}},
        "response_format.strict",
        "no such field",
    ),
]


@pytest.mark.parametrize(("kind", "body", "param", "says"), MISTAKES)
def test_a_refusal_names_the_field_and_what_it_takes(kind, body, param, says):
    with pytest.raises(ApiError) as refused:
        parse(kind, body)
    assert refused.value.param == param
    assert refused.value.message.startswith(f"{param}: ")
    assert says in refused.value.message
