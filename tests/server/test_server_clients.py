"""OpenAI's own client against the server."""

from __future__ import annotations

import json

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
openai = pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from server_process import ServerProcess  # noqa: E402

MESSAGES = [{"role": "user", "content": "the cat in the hat"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer",
                           "minimum": 1, "maximum": 9}},
            "required": ["place", "days"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tiny_path):
    options = ("-t", "1", "-c", "4096", "--api-key", "secret", "--alias", "tiny")
    with ServerProcess(tiny_path, *options) as made:
        yield made


@pytest.fixture
def client(served):
    made = openai.OpenAI(base_url=f"{served.url}/v1", api_key="secret", max_retries=0)
    yield made
    made.close()


def test_chats_whole_and_streamed(client, tiny):
    options = {"model": "tiny", "messages": MESSAGES, "max_completion_tokens": 20, "seed": 1}
    answer = client.chat.completions.create(**options)
    with sd.Decoder(tiny, drafter=None) as decoder:
        expected = decoder.chat(MESSAGES, max_tokens=20)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == len(expected.token_ids)
    stream = client.chat.completions.create(
        **options, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == expected.text
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens


def test_completions_with_log_probabilities(client):
    answer = client.completions.create(
        model="tiny", prompt=["one", "two"], max_tokens=5, logprobs=2, n=2, temperature=1, seed=3
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all(len(choice.logprobs.token_logprobs) <= 5 for choice in answer.choices)
    chat = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=3, logprobs=True, top_logprobs=4
    )
    assert all(len(entry.top_logprobs) == 4 for entry in chat.choices[0].logprobs.content)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_call_that_is_required_fits_its_function(client, stream, choice):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    answer = client.chat.completions.create(
        model="tiny", messages=MESSAGES, tools=[WEATHER], tool_choice=choice, stream=stream,
        temperature=1, seed=5,
    )  # fmt: skip
    if stream:
        chunks = list(answer)
        calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
        reason = chunks[-1].choices[0].finish_reason
    else:
        calls = answer.choices[0].message.tool_calls
        reason = answer.choices[0].finish_reason
    assert reason == "tool_calls"
    assert [call.function.name for call in calls] == ["weather"]
    arguments = json.loads(calls[0].function.arguments)
    assert arguments["place"] in ("Paris", "Rome")
    assert 1 <= arguments["days"] <= 9
    # The answer to the call goes back in.
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": None, "tool_calls": [calls[0].to_dict()]},
        {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
    ]
    client.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER], max_tokens=3)


def test_structured_answers_parse(client):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    pydantic = pytest.importorskip("pydantic")

    class Pet(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=6)
        legs: int = pydantic.Field(ge=0, le=9)

    answer = client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Pet, temperature=1, seed=2
    )
    pet = answer.choices[0].message.parsed
    assert isinstance(pet, Pet)
    assert 0 <= pet.legs <= 9
    free = client.chat.completions.create(
        model="tiny", messages=MESSAGES, response_format={"type": "json_object"}, max_tokens=200,
        temperature=1.5, seed=2,
    )  # fmt: skip
    assert free.choices[0].message.content.lstrip().startswith("{")


def test_models_and_errors_have_its_types(client, served):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "specdec-native"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=-1)
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="x" * 9000)
    assert caught.value.code == "context_length_exceeded"
    wrong = openai.OpenAI(base_url=f"{served.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
