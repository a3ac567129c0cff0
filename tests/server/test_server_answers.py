"""What answers say beside their text: echoes, ends, figures, who waits for whom."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time

import pytest
from test_server_api import MESSAGES, chat, complete, events
from test_server_api import client as client  # a fixture

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
testclient = pytest.importorskip("starlette.testclient", reason="the extra `server` is missing")

from specdec_native.server import reading, schemas  # noqa: E402
from specdec_native.server.app import create_app  # noqa: E402
from specdec_native.server.generation import engine_options, generations  # noqa: E402
from specdec_native.server.schemas import ChatRequest  # noqa: E402
from specdec_native.server.settings import Settings  # noqa: E402


def cached(response, stream=False):
    usage = (events(response)[-1] if stream else response.json())["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    return usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_cached_tokens_are_those_that_were_there_before(tiny, stream):
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    with testclient.TestClient(create_app(sd.Engine(tiny, n_ctx=512), Settings("tiny"))) as client:
        # The choices find each other's; that is nothing saved of one prompt.
        found, size = cached(chat(client, n=4, max_tokens=2, **more), stream)
        assert found == 0
        assert cached(chat(client, n=4, max_tokens=2, **more), stream)[0] > size // 2
        texts = ["a cat sat on a hat " * 3, "winters are long and dark " * 3]
        for text in texts:
            complete(client, prompt=text, max_tokens=1)
        ones = [cached(complete(client, prompt=text, max_tokens=1))[0] for text in texts]
        both, size = cached(complete(client, prompt=texts, n=2, max_tokens=1, **more), stream)
        assert max(ones) < both <= size


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_is_what_was_given(sentencepiece, stream):
    model = sentencepiece
    texts = [" a", "</s>b", "a\r\n"]
    with testclient.TestClient(create_app(sd.Engine(model), Settings("spm"))) as client:
        for prompt, shown in (
            (texts, texts),
            (texts[0], texts[:1]),
            ([1, 2, *model.tokenize("x", add_special=False)], ["<s></s> x"]),
        ):
            fields = {"prompt": prompt, "echo": True, "max_tokens": 0, "stream": stream, "n": 2}
            answer = complete(client, **fields)
            told = events(answer) if stream else [answer.json()]
            found = ["", ""] * len(shown)
            for choice in (choice for event in told for choice in event["choices"]):
                found[choice["index"]] += choice["text"]
            assert found == [text for text in shown for _ in range(2)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", [chat, complete])
def test_what_a_closing_server_cuts_off_does_not_say_that_it_is_whole(tiny, call, stream):
    engine = sd.Engine(tiny, n_ctx=1 << 17)
    with testclient.TestClient(create_app(engine, Settings("tiny"))) as client:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            asked = pool.submit(call, client, max_tokens=100_000, ignore_eos=True, stream=stream)
            deadline = time.monotonic() + 60
            while not engine.stats().running:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            engine.close()
            answer = asked.result(60)
    last = events(answer)[-1] if stream else answer.json()
    assert last["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("call", [chat, complete])
def test_null_is_as_if_it_were_left_out(client, call):
    names = ["ignore_eos", "speculation", "remember", "stream", "n", "seed", "stop", "logit_bias"]
    names += ["echo"] if call is complete else ["parallel_tool_calls"]
    plain = call(client, max_tokens=20)
    nulls = call(client, max_tokens=20, **dict.fromkeys(names))
    assert nulls.json()["choices"] == plain.json()["choices"]
    more = dict.fromkeys(("include_usage", "include_speculation", "include_obfuscation"))
    streamed = events(call(client, max_tokens=20, stream=True, stream_options=more))
    assert not any("usage" in event for event in streamed)
    options = engine_options(ChatRequest(messages=MESSAGES, **dict.fromkeys(names[:3])))
    assert options == {}


@pytest.mark.parametrize("n", [1, 2])
def test_requests_whose_client_hangs_up_are_counted(tiny, n):
    def counted(text, name):
        return sum(float(li.split()[-1]) for li in text.splitlines() if li.startswith(name))

    async def hang_up(server):
        async with generations(server, ChatRequest(messages=MESSAGES)) as running:
            for _ in range(n):
                running.submit([97, 98, 99], {"max_tokens": 100_000, "ignore_eos": True})
            begun = set()
            async for piece in running.pieces():
                begun.add(piece.index)
                if len(begun) == n:
                    break
        deadline = time.monotonic() + 60
        while True:
            text = server.metrics.text(running=0, waiting=0, kv_bytes=0).decode()
            if counted(text, 'specdec_requests_finished_total{reason="cancelled"}') == n:
                return text
            assert time.monotonic() < deadline, text
            await asyncio.sleep(0.01)

    with sd.Engine(tiny, n_ctx=1 << 17) as engine:
        text = asyncio.run(hang_up(create_app(engine, Settings("tiny")).state.server))
    assert counted(text, "specdec_prompt_tokens_total") == 3 * n
    assert counted(text, "specdec_generated_tokens_total") > 0
    assert counted(text, "specdec_request_seconds_count") == n


def test_long_bodies_do_not_hold_up_the_loop(client, monkeypatch):
    threads = []

    def parse(kind, body):
        threads.append(threading.get_ident())
        return schemas.parse(kind, body)

    monkeypatch.setattr(reading, "parse", parse)
    for size in (10, 100_000, 20):
        content = "a" * size
        ids = client.post("/tokenize", json={"content": content}).json()["tokens"]
        assert client.post("/detokenize", json={"tokens": ids}).json()["content"] == content
    assert threads[0] == threads[1] == threads[4] == threads[5]
    assert threads[0] not in threads[2:4]


def test_a_prompt_that_cannot_fit_is_named(client):
    for prompt in ([10**9] * 513, [[1], [10**9] * 513], "a" * 600, ["a", "a" * 600]):
        error = complete(client, prompt=prompt).json()["error"]
        assert error["code"] == "context_length_exceeded"
        assert error["param"] == "prompt"


def test_pages_of_an_allowed_origin_may_send_what_their_client_sends(tiny):
    origin = "https://app.example"
    settings = Settings("tiny", allowed_origins=(origin,))
    with testclient.TestClient(create_app(sd.Engine(tiny, n_ctx=256), settings)) as client:
        for name, status in ((origin, 200), ("https://evil.example", 400)):
            asks = {
                "Origin": name,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
            }
            answer = client.options("/v1/chat/completions", headers=asks)
            assert answer.status_code == status
        shown = client.get("/health", headers={"Origin": origin}).headers
        assert shown["access-control-expose-headers"] == "Retry-After"
