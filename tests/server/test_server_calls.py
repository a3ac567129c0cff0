"""Calls of functions of models whose marks are control tokens, as Mistral's are."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="the extra `server` is missing")

from specdec_native.server.app import create_app  # noqa: E402
from specdec_native.server.chat import _Chat  # noqa: E402
from specdec_native.server.schemas import ChatRequest  # noqa: E402
from specdec_native.server.settings import Settings  # noqa: E402

CONTROLS = ["[TOOL_CALLS]", "[ARGS]", "[INST]", "<|python_tag|>"]
SHOWN = "{{ messages[-1].content }}"
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("time", "weather")
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    vocabulary = tiny_models.byte_tokenizer()
    for i, mark in enumerate(CONTROLS):
        at = vocabulary["tokenizer.ggml.tokens"].index(f"[PAD{i}]")
        vocabulary["tokenizer.ggml.tokens"][at] = mark
        vocabulary["tokenizer.ggml.token_type"][at] = 3
    path = tiny_models.write_tiny(
        tmp_path_factory.mktemp("marks") / "marks.gguf", tiny_models.TinyConfig(), extra=vocabulary
    )
    with sd.Model(path) as model:
        with testclient.TestClient(create_app(sd.Engine(model), Settings("tiny"))) as made:
            yield made


class Spoken:
    """A request whose tokens are known before, a few to the chunk."""

    def __init__(self, result: Any, chunks: list[Any]) -> None:
        self.result = result
        self._chunks = iter(chunks)

    def __aiter__(self) -> Spoken:
        return self

    async def __anext__(self) -> Any:
        for chunk in self._chunks:
            return chunk
        raise StopAsyncIteration

    def cancel(self) -> None: ...


@contextlib.contextmanager
def speaking(client, tokens, template, size, lag=0):
    """The engine says `tokens`, `size` to the chunk, and its text comes `lag` characters later."""
    server = client.app.state.server
    model = server.engine.target
    result = server.engine.submit("a", max_tokens=1).result()
    text = model.detokenize(tokens)
    result = dataclasses.replace(
        result, text=text, token_ids=tuple(tokens), finish_reason="stop", stop_reason="eos"
    )
    chunks, given = [], 0
    for at in range(0, len(tokens), size):
        ids = tuple(tokens[at : at + size])
        end = max(given, len(model.detokenize(tokens[: at + size]).rstrip("\ufffd")) - lag)
        chunks.append(sd.Chunk(text[given:end], ids, (False,) * len(ids)))
        given = end
    chunks.append(sd.Chunk(text[given:], (), ()))

    class Speaker:
        target = model

        def stream(self, prompt, **options):
            assert not options.get("render_special")
            return Spoken(result, chunks)

    settings = Settings("tiny", chat_template=template)
    client.app.state.server = dataclasses.replace(server, engine=Speaker(), settings=settings)
    try:
        yield
    finally:
        client.app.state.server = server


def asked(client, stream, **fields):
    """Content and calls of the answer."""
    messages = [{"role": "user", "content": "a"}]
    body = {"messages": messages, "tools": TOOLS, "stream": stream, **fields}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    if not stream:
        message = response.json()["choices"][0]["message"]
        return message["content"] or "", message.get("tool_calls", [])
    content, calls = "", []
    for line in response.text.split("\n\n"):
        if line and line != "data: [DONE]":
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                content += choice["delta"].get("content", "")
                calls += choice["delta"].get("tool_calls", [])
    return content, calls


MISTRAL = "{# [TOOL_CALLS] #}" + SHOWN
CALL = '{"name": "time", "arguments": {"zone": "Zürich [/INST]"}}'
SAID = [
    (MISTRAL, f"[TOOL_CALLS][{CALL}]<|endoftext|>", "", ["time"]),
    (MISTRAL, f"Für dich:[INST] [TOOL_CALLS][{CALL}, {CALL}]", "Für dich: ", ["time"] * 2),
    (
        MISTRAL,
        'a ü[TOOL_CALLS]time[ARGS]{"zone": "ü"}[TOOL_CALLS]weather[ARGS]{}<|endoftext|>',
        "a ü",
        ["time", "weather"],
    ),
    (SHOWN, f"<|python_tag|>{CALL}", "", ["time"]),
    (SHOWN, f"a <|python_tag|>{CALL}<|endoftext|>", "a ", ["time"]),
    # No calls: control tokens are no text, whichever they are.
    (MISTRAL, "ä [INST]b[TOOL_CALLS] c[ARGS]d<|endoftext|>", "ä b cd", []),
    (SHOWN, "<|python_tag|>print(1)[INST]<|endoftext|>", "print(1)", []),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("template", "said", "content", "names"), SAID)
def test_calls_are_found_though_their_marks_are_control_tokens(
    client, template, said, content, names, stream
):
    model = client.app.state.server.engine.target
    tokens = model.tokenize(said, add_special=False, parse_special=True)
    for size, lag in ((1, 0), (3, 0), (1, 2), (4, 5), (1000, 0)):
        with speaking(client, tokens, template, size, lag):
            text, calls = asked(client, stream)
        assert (text, [call["function"]["name"] for call in calls]) == (content, names)
        for call in calls:
            json.loads(call["function"]["arguments"])


def test_without_tools_marks_are_no_text(client):
    model = client.app.state.server.engine.target
    tokens = model.tokenize("a[TOOL_CALLS]b", add_special=False, parse_special=True)
    with speaking(client, tokens, MISTRAL, 1):
        for more in ({"tools": []}, {"tool_choice": "none"}):
            assert asked(client, True, **more) == ("ab", [])


ANSWERED = (
    "{# [TOOL_CALLS] #}{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{% if c.id is not defined or c.id | length != 9 %}{{ raise_exception('9 please') }}{% endif %}"
    "{{ c.id }}={% endfor %}{% if m.role == 'tool' %}"
    "{% if m.tool_call_id | length != 9 %}{{ raise_exception('9 please') }}{% endif %}"
    "{{ m.tool_call_id }};{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_mistrals_can_be_answered(client, stream):
    model = client.app.state.server.engine.target
    tokens = model.tokenize(f"[TOOL_CALLS][{CALL}]", add_special=False, parse_special=True)
    with speaking(client, tokens, ANSWERED, 1):
        _, [call] = asked(client, stream)
        assert len(call["id"]) == 9
        assert call["id"].isalnum()
        call.pop("index", None)
        for name, kept in ((call["id"], True), ("call_0123456789ab", False), ("12345-789", False)):
            given = {**call, "id": name}
            messages = [
                {"role": "assistant", "content": None, "tool_calls": [given]},
                {"role": "tool", "content": "1", "tool_call_id": name},
            ]
            asked(client, stream, messages=messages)
            body = ChatRequest.model_validate({"messages": messages})
            text = model.detokenize(_Chat(client.app.state.server, body).prompt())
            called, answered = text.rstrip(";").split("=")
            assert called == answered
            assert (called == name) == kept


def test_calls_of_others_have_the_ids_of_openai(client):
    model = client.app.state.server.engine.target
    tokens = model.tokenize(CALL, add_special=False)
    with speaking(client, tokens, SHOWN, 1):
        _, [call] = asked(client, False)
    assert call["id"].startswith("call_")
