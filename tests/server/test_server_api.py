"""The HTTP interface: what it answers, what it refuses, and that its text is the engine's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import types

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="the extra `server` is missing")

from specdec_native.server.app import PAGE, create_app  # noqa: E402
from specdec_native.server.chat import _Chat  # noqa: E402
from specdec_native.server.schemas import ChatRequest  # noqa: E402
from specdec_native.server.settings import Settings  # noqa: E402

PROMPT = "the cat in the hat"
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def client(tiny):
    engine = sd.Engine(tiny, n_ctx=512, max_requests=4)
    app = create_app(engine, Settings("tiny", max_body_bytes=1 << 20))
    with testclient.TestClient(app) as made:
        yield made


def chat(client, **fields):
    return client.post("/v1/chat/completions", json={"messages": MESSAGES, **fields})


def complete(client, **fields):
    return client.post("/v1/completions", json={"prompt": PROMPT, **fields})


def events(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in response.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


SAMPLINGS = [
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 6},
    {"temperature": 1.0, "min_p": 0.05, "seed": 7, "presence_penalty": 1.0},
    {"temperature": 1.0, "seed": 8, "frequency_penalty": 0.5, "repeat_penalty": 1.2},
    {"logit_bias": {"271": 4.0, "101": -100}},
    {"stop": ["e"], "temperature": 1.0, "seed": 9},
]


@pytest.mark.parametrize("fields", SAMPLINGS)
def test_text_is_the_decoders(client, tiny, fields):
    options = dict(fields)
    if "repeat_penalty" in options:
        options["repetition_penalty"] = options.pop("repeat_penalty")
    if "logit_bias" in options:
        options["logit_bias"] = {271: 4.0, 101: float("-inf")}
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        plain = decoder.generate(PROMPT, max_tokens=24, **options)
        answer = decoder.chat(MESSAGES, max_tokens=24, **options)
    body = complete(client, max_tokens=24, **fields).json()
    assert body["choices"][0]["text"] == plain.text
    assert body["choices"][0]["finish_reason"] == plain.finish_reason
    assert body["usage"]["completion_tokens"] == len(plain.token_ids)
    body = chat(client, max_completion_tokens=24, **fields).json()
    assert body["choices"][0]["message"] == {"role": "assistant", "content": answer.text}
    assert body["usage"]["prompt_tokens"] == answer.prompt_tokens


@pytest.mark.parametrize("call", [chat, complete])
@pytest.mark.parametrize("n", [1, 3])
def test_streams_say_the_same_as_whole_answers(client, call, n):
    fields = {"temperature": 1.0, "seed": 3, "max_tokens": 20, "n": n}
    whole = call(client, **fields).json()
    more = {"include_usage": True, "include_speculation": True}
    chunks = events(call(client, stream=True, stream_options=more, **fields))
    assert len({chunk["id"] for chunk in chunks}) == 1
    for choice in whole["choices"]:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        if "message" in choice:
            text = "".join(part["delta"].get("content", "") for part in parts)
            assert text == choice["message"]["content"]
        else:
            assert "".join(part["text"] for part in parts) == choice["text"]
        reasons = [part["finish_reason"] for part in parts]
        assert reasons == [None] * (len(parts) - 1) + [choice["finish_reason"]]
    assert chunks[-1]["choices"] == []
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert chunks[-1]["usage"][name] == whole["usage"][name]
    told = [chunk["specdec"] for chunk in chunks if isinstance(chunk.get("specdec"), dict)]
    assert sum(len(t["token_ids"]) for t in told) == whole["usage"]["completion_tokens"]
    for t in told:
        assert len(t["sources"]) == len(t["token_ids"])
        drafters = [bool(source) for source in t["sources"]]
        assert drafters == t["from_draft"]
    assert all(len(t["pieces"]) == max(1, len(t["token_ids"])) for t in told)


def test_choices_have_the_seeds_that_follow(client):
    fields = {"temperature": 1.0, "max_tokens": 12}
    three = chat(client, seed=40, n=3, **fields).json()
    for i, choice in enumerate(three["choices"]):
        alone = chat(client, seed=40 + i, **fields).json()
        assert choice["message"] == alone["choices"][0]["message"]
    assert [told["seed"] for told in three["specdec"]] == [40, 41, 42]
    assert len({choice["message"]["content"] for choice in three["choices"]}) > 1


def test_several_prompts_and_token_ids(client, tiny):
    ids = tiny.tokenize(PROMPT)
    one = complete(client, max_tokens=6).json()["choices"][0]["text"]
    body = complete(client, prompt=[PROMPT, "other"], n=2, max_tokens=6).json()
    assert [choice["text"] for choice in body["choices"][:2]] == [one, one]
    assert complete(client, prompt=ids, max_tokens=6).json()["choices"][0]["text"] == one
    assert complete(client, prompt=[ids], max_tokens=6).json()["choices"][0]["text"] == one
    assert complete(client, echo=True, max_tokens=6).json()["choices"][0]["text"] == PROMPT + one


def test_log_probabilities_are_the_decoders(client, tiny):
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        expected = decoder.chat(MESSAGES, max_tokens=5, logprobs=2)
    body = chat(client, max_tokens=5, logprobs=True, top_logprobs=2).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert [entry["id"] for entry in content] == list(expected.token_ids)
    for entry, position in zip(content, expected.logprobs, strict=True):
        assert entry["logprob"] == pytest.approx(position.logprob)
        assert [t["id"] for t in entry["top_logprobs"]] == [t.token_id for t in position.top]
        assert bytes(entry["bytes"]).decode(errors="replace") == entry["token"]
    streamed = events(chat(client, max_tokens=5, logprobs=True, top_logprobs=2, stream=True))
    told = [c["logprobs"]["content"] for e in streamed for c in e["choices"] if c["logprobs"]]
    assert [entry for part in told for entry in part] == content
    old = complete(client, max_tokens=4, logprobs=2).json()["choices"][0]
    assert len(old["logprobs"]["tokens"]) == len(old["logprobs"]["token_logprobs"]) == 4
    assert all(len(top) == 2 for top in old["logprobs"]["top_logprobs"])


@pytest.mark.parametrize("stream", [False, True])
def test_parts_of_characters_are_told_by_their_bytes(client, tiny, stream):
    parts = [i for i, b in enumerate(tiny._native.token_bytes()) if len(b) == 1 and b[0] >= 0x80]
    first, second = parts[:2]
    fields = {"max_tokens": 3, "logit_bias": {str(first): 1000, str(second): 500}}
    answer = chat(client, logprobs=True, top_logprobs=2, stream=stream, **fields)
    old = complete(client, logprobs=2, stream=stream, **fields)
    if stream:
        entries = [
            entry
            for event in events(answer)
            for choice in event["choices"]
            for entry in (choice["logprobs"] or {"content": []})["content"]
        ]
        told = [c["logprobs"] for e in events(old) for c in e["choices"] if c["logprobs"]]
        tops = [top for part in told for top in part["top_logprobs"]]
    else:
        entries = answer.json()["choices"][0]["logprobs"]["content"]
        tops = old.json()["choices"][0]["logprobs"]["top_logprobs"]
    expected = [list(tiny._native.token_bytes()[token]) for token in (first, second)]
    for entry, top in zip(entries, tops, strict=True):
        assert entry["bytes"] == expected[0]
        assert [other["bytes"] for other in entry["top_logprobs"]] == expected
        assert list(top) == [f"bytes:\\x{value[0]:02x}" for value in expected]


TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ %s }}{% endfor %}; {% endfor %}"
)


@pytest.mark.parametrize(
    ("shows", "given", "shown"),
    [
        ("call.function.arguments | tojson", '{"a": "b"}', '{"a": "b"}'),
        ("call.function.arguments.a", '{"a": "b"}', "b"),
        ("'-' + call.function.arguments", '{"a": "b"}', '-{"a": "b"}'),
        ("call.function.arguments", "no JSON", "no JSON"),
        ("call.function.arguments", "[1]", "[1]"),
        ("call.function.arguments", '{"a": 9223372036854775808}', '{"a": 9223372036854775808}'),
        ("call.function.arguments.a", '{"a": 9223372036854775807}', "9223372036854775807"),
    ],
)
def test_calls_of_a_conversation_reach_templates_of_both_kinds(client, shows, given, shown):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": given}}
    body = ChatRequest.model_validate(
        {
            "messages": [
                {"role": "developer", "content": "be brief"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
            ]
        }
    )
    server = client.app.state.server
    settings = Settings("tiny", chat_template=TEMPLATE.replace("%s", shows))
    ids = _Chat(dataclasses.replace(server, settings=settings), body).prompt()
    text = server.engine.target.detokenize(ids)
    assert f"system: be brief; assistant: {shown}; " in text


@pytest.mark.parametrize(("choice", "least"), [("auto", -(10**400)), ("required", 0)])
def test_schemas_of_tools_may_have_large_bounds(client, choice, least):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    bounds = {"type": "integer", "maximum": 2**64, "minimum": least}
    function = {"name": "f", "parameters": {"properties": {"a": bounds}}}
    server = client.app.state.server
    settings = Settings("tiny", chat_template="{{ tools | tojson }}")
    body = ChatRequest.model_validate(
        {"messages": MESSAGES, "tools": [{"function": function}], "tool_choice": choice}
    )
    ids = _Chat(dataclasses.replace(server, settings=settings), body).prompt()
    assert "1.8446744073709552e+19" in server.engine.target.detokenize(ids)


def test_schemas_of_tools_that_nest_too_deep_are_refused(client):
    schema = {}
    for _ in range(500):
        schema = {"items": schema}
    function = {"name": "f", "parameters": schema}
    response = chat(client, tools=[{"type": "function", "function": function}])
    assert response.status_code == 400, response.text
    assert "nests deeper than 64" in response.json()["error"]["message"]


def test_max_tokens_of_the_server_are_those_of_completions_too(tiny):
    engine = sd.Engine(tiny, n_ctx=256)
    app = create_app(engine, Settings("tiny", default_max_tokens=21))
    with testclient.TestClient(app) as client:
        for fields, n in (({}, 21), ({"max_tokens": None}, 21), ({"max_tokens": 3}, 3)):
            body = complete(client, ignore_eos=True, **fields).json()
            assert body["usage"]["completion_tokens"] == n


@pytest.mark.parametrize("stream", [False, True])
def test_what_can_never_fit_is_not_to_be_tried_again(tiny, stream):
    engine = sd.Engine(tiny, n_ctx=4096, kv_bytes=1 << 17)
    with testclient.TestClient(create_app(engine, Settings("tiny"))) as client:
        response = complete(client, max_tokens=3000, stream=stream)
        assert response.status_code == 400
        assert "kv_bytes" in response.json()["error"]["message"]
        assert response.json()["error"]["param"] == "max_tokens"


def test_tools_that_are_not_to_be_called_go_with_a_format(client):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    for wanted, choice in (("json_object", "none"), ("text", "auto")):
        tools = {"tools": [TOOL], "tool_choice": choice}
        answer = chat(client, response_format={"type": wanted}, max_tokens=9, **tools)
        assert answer.status_code == 200, answer.text


def test_one_of_several_calls_can_be_the_most(client):
    call = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = {"messages": MESSAGES, "tools": tools}
    server = client.app.state.server
    settings = Settings("tiny", chat_template="<tool_call>{{ messages }}")
    for parallel, n in ((None, 2), (True, 2), (False, 1)):
        body = ChatRequest.model_validate({**asked, "parallel_tool_calls": parallel})
        reader = _Chat(dataclasses.replace(server, settings=settings), body).reader()
        assert len(reader.feed(call + call).calls) == n


THOUGHT = " <think>one two </think>\n\nthree"
MIND = "{% for m in messages %}{{ m.content }}{% endfor %}{# </think> #}"


@contextlib.contextmanager
def saying(client, text, template):
    """The engine says `text`, whatever it is asked; the file's template is `template`."""
    server = client.app.state.server
    engine = server.engine
    grammar = sd.Grammar.gbnf("root ::= " + json.dumps(text, ensure_ascii=False))

    class Speaker:
        target = engine.target

        def stream(self, prompt, **options):
            return engine.stream(prompt, **{**options, "grammar": grammar})

    settings = Settings("tiny", chat_template=template)
    changed = dataclasses.replace(server, engine=Speaker(), settings=settings)
    client.app.state.server = changed
    try:
        yield
    finally:
        client.app.state.server = server


def message_of(response, stream):
    """The message and its end, whichever way it came."""
    if not stream:
        choice = response.json()["choices"][0]
        return choice["message"], choice["finish_reason"]
    choices = [choice for event in events(response) for choice in event["choices"]]
    message = {"content": "", "reasoning_content": "", "tool_calls": []}
    for choice in choices:
        for name, value in choice["delta"].items():
            if name in message:
                message[name] += value
    return message, choices[-1]["finish_reason"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("given", "template", "reasoning", "content"),
    [
        ({}, MIND, "one two", "three"),
        ({}, MIND + "<think>\n", "<think>one two", "three"),
        ({"reasoning_format": "deepseek"}, MIND, "one two", "three"),
        ({"reasoning_format": "none"}, MIND, "", THOUGHT),
        ({"grammar": "root ::= [a-z]"}, MIND, "", THOUGHT),
        ({}, "{{ messages[0].content }}", "", THOUGHT),
        ({"max_tokens": 12}, MIND, "one tw", ""),
    ],
)
def test_thoughts_are_apart_from_the_answer(client, given, template, reasoning, content, stream):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    with saying(client, THOUGHT, template):
        message, _ = message_of(chat(client, stream=stream, **given), stream)
    assert message.get("reasoning_content", "") == reasoning
    assert message["content"] == content


def test_the_server_can_be_told_to_leave_thoughts_in_the_text(client):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    with saying(client, THOUGHT, MIND):
        server = client.app.state.server
        settings = dataclasses.replace(server.settings, reasoning_format="none")
        client.app.state.server = dataclasses.replace(server, settings=settings)
        for given, content in (({}, THOUGHT), ({"reasoning_format": "auto"}, "three")):
            message, _ = message_of(chat(client, **given), False)
            assert message["content"] == content


def test_marks_are_those_of_the_template_that_is_named(client):
    server = client.app.state.server

    sources = {"": "plain", "tool_use": "[TOOL_CALLS]", "thinker": "</think>"}
    model = types.SimpleNamespace(chat_templates=sources, chat_template="plain")
    engine = types.SimpleNamespace(target=model)

    body = ChatRequest.model_validate({"messages": MESSAGES})
    for name, source in (
        *((None, "[TOOL_CALLS]"), ("thinker", "</think>"), ("chatml", "chatml")),
        ("{{ messages }}", "{{ messages }}"),
    ):
        settings = Settings("tiny", chat_template=name)
        changed = dataclasses.replace(server, engine=engine, settings=settings)
        assert _Chat(changed, body)._template() == source


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"properties": {"a": {"const": "</tool_call>!"}},
                 "type": "object", "required": ["a"], "additionalProperties": False}},
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["<tool_call>", "[TOOL_CALLS]", ""])
def test_a_required_call_that_is_cut_off_is_no_text(client, form, stream):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    server = client.app.state.server
    settings = Settings("tiny", chat_template=form + "{{ messages[0].content }}")
    client.app.state.server = dataclasses.replace(server, settings=settings)
    fields = {"tools": [TOOL], "tool_choice": "required", "stream": stream, "temperature": 1.0}
    try:
        message, reason = message_of(chat(client, seed=1, **fields), stream)
        [call] = message["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"a": "</tool_call>!"}
        assert (message["content"] or "", reason) == ("", "tool_calls")
        told = set()
        for n in range(200):
            message, reason = message_of(chat(client, seed=1, max_tokens=n, **fields), stream)
            assert not message["content"]
            if reason == "tool_calls":
                break
            assert reason == "length"
            for part in message.get("tool_calls", ()):
                assert part["function"]["name"] == "f"
                told.add(part["function"]["arguments"])
        assert reason == "tool_calls"
        assert any(arguments.startswith('{"a":') for arguments in told) or stream
    finally:
        client.app.state.server = server


def test_plain_decoding_can_be_asked_for(client):
    fields = {"max_tokens": 40}
    plain = chat(client, speculation=False, **fields).json()
    fast = chat(client, **fields).json()
    assert plain["choices"] == fast["choices"]
    assert plain["specdec"][0]["drafted"] == 0 == plain["timings"]["draft_n"]


def test_users_draft_from_their_own_texts_only(tiny):
    memory = sd.Memory()
    engine = sd.Engine(tiny, drafter=sd.NGram(gamma=6), memory=memory, n_ctx=512)
    app = create_app(engine, Settings("tiny", api_keys=frozenset({"one", "two"})))

    def accepted(key, **fields):
        answer = client.post(
            "/v1/completions",
            json={"prompt": PROMPT, "max_tokens": 40, "ignore_eos": True, **fields},
            headers={"Authorization": f"Bearer {key}"},
        ).json()
        return answer["timings"]["draft_n_accepted"]

    with testclient.TestClient(app) as client:
        alone = accepted("one", remember=False)
        assert memory.n_texts == 0
        for key, user in (("one", None), ("one", "ann"), ("two", None), ("two", "ann")):
            assert accepted(key, user=user) == alone
        assert memory.n_texts == 4
        assert accepted("one", user="ann") > alone
        assert accepted("one", user="ann", remember=False) == alone
        assert accepted("two") > alone
    assert memory.n_texts == 4


def test_parts_of_a_message_are_joined(client):
    parts = [{"type": "text", "text": "the cat"}, {"type": "text", "text": "in the hat"}]
    one = chat(client, messages=[{"role": "user", "content": parts}], max_tokens=4).json()
    two = chat(
        client, messages=[{"role": "user", "content": "the cat\nin the hat"}], max_tokens=4
    ).json()
    assert one["choices"] == two["choices"]


REFUSED = [
    ({"messages": []}, 400, "messages"),
    ({"messages": [{"content": "x"}]}, 400, "messages.0.role"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "messages.0.content.0.type",
    ),
    ({"temperature": -1}, 400, "temperature"),
    ({"temperature": "hot"}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"n": 0}, 400, "n"),
    ({"n": 17}, 400, "n"),
    ({"max_tokens": -1}, 400, "max_tokens"),
    ({"logit_bias": {"x": 1}}, 400, "logit_bias.x"),
    ({"logit_bias": {"999999": 1}}, 400, None),
    ({"stop": [""]}, 400, "stop.0"),
    ({"temprature": 1}, 400, "temprature"),
    ({"tool_choice": "required"}, 400, "tool_choice"),
    ({"response_format": {"type": "grammar"}}, 400, "response_format"),
    ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}, 400, "grammar"),
    ({"json_schema": {}, "grammar": "root ::= [a]"}, 400, "grammar"),
    (
        {
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": "required",
            "response_format": {"type": "json_object"},
        },
        400,
        "response_format",
    ),
    *(
        ({"tools": [{"function": {"name": "f"}}], "tool_choice": choice, name: value}, 400, name)
        for choice in (None, "auto")
        for name, value in (
            ("response_format", {"type": "json_object"}),
            ("json_schema", {}),
            ("grammar", "root ::= [a]"),
        )
    ),
    ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "messages"),
]


@pytest.mark.parametrize(("fields", "status", "param"), REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_wrong_requests_are_refused_with_the_field(client, fields, status, param, stream):
    response = chat(client, stream=stream, **fields)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"null", "application/json", 400),
        (b"[" * 100000, "application/json", 400),
        (b'{"prompt": "x", "\xed\xa0\x80": 1}', "application/json", 400),
        ('{"prompt": "x", "\\ud800": 1}'.encode("utf-16"), "application/json", 400),
        (b'{"prompt": "x", "temperature": NaN}', "application/json", 400),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"prompt": "x"}', "text/plain", 415),
        (b'{"prompt": "' + b"x" * (1 << 20) + b'"}', "application/json", 413),
    ],
    ids="empty cut bytes list null deep halves utf16 nan large type long".split(),
)
def test_bodies_that_are_none_are_refused(client, content, kind, status):
    response = client.post("/v1/completions", content=content, headers={"Content-Type": kind})
    assert response.status_code == status
    assert response.json()["error"]["message"]


def test_half_characters_are_no_accident(client):
    response = client.post(
        "/v1/completions",
        content=b'{"prompt": "\\ud800 a", "max_tokens": 2}',
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 200


def test_models_health_metrics_and_description(client):
    models = client.get("/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert client.get("/v1/models/tiny").json()["id"] == "tiny"
    assert client.get("/v1/models/a/b").status_code == 404
    assert client.get("/health").json()["status"] == "ok"
    before = client.get("/metrics").text
    complete(client, max_tokens=3, ignore_eos=True)
    after = client.get("/metrics").text

    def value(text, name):
        return sum(float(li.split()[-1]) for li in text.splitlines() if li.startswith(name))

    assert value(after, "specdec_generated_tokens_total") == 3 + value(
        before, "specdec_generated_tokens_total"
    )
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/infill", "/tokenize"} <= set(paths)


def test_other_addresses_and_methods_are_refused_in_the_same_form(client):
    for response in (
        client.get("/v1/nothing"),
        client.get("/v1/completions"),
        client.put("/health"),
    ):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["message"]


def test_tokens_there_and_back(client, tiny):
    ids = client.post("/tokenize", json={"content": PROMPT}).json()["tokens"]
    assert ids == tiny.tokenize(PROMPT, add_special=False)
    assert client.post("/detokenize", json={"tokens": ids}).json()["content"] == PROMPT
    pieces = client.post("/tokenize", json={"content": PROMPT, "with_pieces": True}).json()
    assert [entry["id"] for entry in pieces["tokens"]] == ids
    wrong = client.post("/detokenize", json={"tokens": [10**9]})
    assert wrong.status_code == 400


def test_models_without_tokens_for_it_do_not_fill_in(client):
    response = client.post("/infill", json={"input_prefix": "a", "input_suffix": "b"})
    assert response.status_code == 404
    assert "fim_pre" in response.json()["error"]["message"]
    assert complete(client, suffix="b").status_code == 404


def test_keys_are_asked_for(tiny):
    app = create_app(
        sd.Engine(tiny, n_ctx=256), Settings("tiny", api_keys=frozenset({"s3cret", "b"}))
    )
    with testclient.TestClient(app) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            response = client.get("/v1/models", headers=headers)
            assert response.status_code == 401
            assert response.json()["error"]["code"] == "invalid_api_key"
            assert client.get("/metrics", headers=headers).status_code == 401
            for path in (
                *("/metrics%0A", "/v1/models%0A", "/v1/models/tiny", "/openapi.json", "/nowhere"),
                *("/v1/models/", "//metrics", "/%6detrics", "/health/../metrics", "/health%0A"),
            ):
                for method in ("GET", "HEAD", "POST"):
                    answer = client.request(
                        method, f"http://testserver{path}", headers=headers, follow_redirects=False
                    )
                    assert answer.status_code == 401, (method, path)
            for path, body in (
                ("/v1/chat/completions", {"messages": MESSAGES}),
                ("/v1/completions", {"prompt": PROMPT}),
                *(
                    ("/infill", {}),
                    ("/tokenize", {"content": "a"}),
                    ("/detokenize", {"tokens": []}),
                ),
            ):
                for end in ("", "%0A", "/"):
                    url = f"http://testserver{path}{end}"
                    answer = client.post(url, json=body, headers=headers, follow_redirects=False)
                    assert answer.status_code == 401, url
        for key in ("s3cret", "b"):
            headers = {"Authorization": f"Bearer {key}"}
            assert client.get("/v1/models", headers=headers).status_code == 200
        assert client.get("/health").status_code == 200
        for path in ("/", *(f"/{path.name}" for path in PAGE.iterdir())):
            if path != "/index.html":
                assert client.get(path).status_code == 200


def test_other_names_are_not_answered(tiny):
    app = create_app(sd.Engine(tiny, n_ctx=256), Settings("tiny"), hosts=("localhost", "[::1]"))
    with testclient.TestClient(app) as client:
        for host, status in (
            *(("localhost", 200), ("localhost:8080", 200), ("LOCALHOST", 200), ("[::1]:80", 200)),
            *(("evil.example", 403), ("localhost.evil.example", 403), ("", 403)),
        ):
            assert client.get("/health", headers={"Host": host}).status_code == status, host


def test_the_page_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in PAGE.iterdir():
        name = path.name
        text = client.get(f"/{name}").text
        assert "innerHTML" not in text
        assert text.replace("http://www.w3.org/2000/svg", "").count("://") == 0
    assert client.get("/../app.py").status_code == 404
    assert client.get("/%2e%2e/app.py").status_code == 404
