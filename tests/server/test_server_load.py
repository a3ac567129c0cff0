"""A server under strangers: who hangs up, reads slowly, sends nonsense; and one that is stopped."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from server_process import ServerProcess  # noqa: E402

OPTIONS = ("--chat-template", "chatml", "-t", "1", "--max-requests", "4")


@pytest.fixture(scope="module")
def served(tiny_path):
    with ServerProcess(tiny_path, *OPTIONS, "-c", "512") as made:
        yield made


def stats(served):
    text = httpx.get(f"{served.url}/metrics").text
    return {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line and not line.startswith("#")
    }


def wait_until_idle(served):
    deadline = time.monotonic() + 60
    while True:
        now = stats(served)
        if now["specdec_requests_running"] == now["specdec_requests_waiting"] == 0:
            return
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


async def hang_up(client, url, rng):
    body = {
        "prompt": "the cat",
        "max_tokens": 400,
        "ignore_eos": True,
        "stream": rng.random() < 0.7,
    }
    try:
        await asyncio.wait_for(client.post(f"{url}/v1/completions", json=body), rng.random() * 0.2)
    except (TimeoutError, asyncio.TimeoutError, httpx.HTTPError):
        return


async def read_slowly(client, url, rng):
    body = {"prompt": "the hat", "max_tokens": 40, "ignore_eos": True, "stream": True}
    async with client.stream("POST", f"{url}/v1/completions", json=body) as response:
        if response.status_code != 200:
            assert response.status_code == 429
            return
        text = ""
        async for part in response.aiter_text():
            text += part
            await asyncio.sleep(rng.random() * 0.02)
        assert text.endswith("data: [DONE]\n\n")


async def send_nonsense(client, url, rng):
    body = bytes(rng.randrange(256) for _ in range(rng.randrange(300)))
    path = rng.choice(["v1/completions", "v1/chat/completions", "infill", "tokenize"])
    headers = {"Content-Type": "application/json"}
    response = await client.post(f"{url}/{path}", content=body, headers=headers)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["message"]


async def ask_too_much(client, url, rng):
    body = {"prompt": "x " * 2000, "max_tokens": 5}
    response = await client.post(f"{url}/v1/completions", json=body)
    assert response.status_code in (400, 429)


async def ask(client, url, rng):
    body = {"prompt": f"number {rng.randrange(5)}", "max_tokens": 20, "ignore_eos": True}
    response = await client.post(f"{url}/v1/completions", json=body)
    assert response.status_code in (200, 429)
    if response.status_code == 200:
        assert response.json()["usage"]["completion_tokens"] == 20


def storm(url, n, seed):
    rng = random.Random(seed)
    kinds = [hang_up, read_slowly, send_nonsense, ask_too_much, ask]

    async def run():
        limits = httpx.Limits(max_connections=24)
        async with httpx.AsyncClient(limits=limits, timeout=120) as client:
            await asyncio.gather(
                *(rng.choice(kinds)(client, url, random.Random(i)) for i in range(n))
            )

    asyncio.run(run())


@pytest.mark.parametrize("n", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_strangers_leave_nothing_behind(served, n):
    storm(served.url, n // 3, 1)  # what is made once is there now
    wait_until_idle(served)
    before = served.rss()
    storm(served.url, n, 2)
    wait_until_idle(served)
    storm(served.url, n // 3, 3)
    wait_until_idle(served)
    print(f"{n} strangers: {before} bytes before, {served.rss()} after")
    assert served.rss() < 1.05 * before
    assert httpx.get(f"{served.url}/health").json()["status"] == "ok"
    body = {"prompt": "the cat", "max_tokens": 10}
    one = httpx.post(f"{served.url}/v1/completions", json=body).json()["choices"]
    two = httpx.post(f"{served.url}/v1/completions", json=body).json()["choices"]
    assert one == two
    assert "Traceback" not in served.read_log()


def test_requests_of_a_crowd_are_those_of_one_alone(served, tiny):
    prompts = [f"the {word} in the hat" for word in "cat dog bird fish cow".split()] * 3
    bodies = [
        {"prompt": p, "max_tokens": 24, "temperature": i % 2, "seed": i}
        for i, p in enumerate(prompts)
    ]

    async def run():
        async with httpx.AsyncClient(timeout=120) as client:
            answers = await asyncio.gather(
                *(client.post(f"{served.url}/v1/completions", json=body) for body in bodies)
            )
            return [answer.json()["choices"][0]["text"] for answer in answers]

    texts = asyncio.run(run())
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        for body, text in zip(bodies, texts, strict=True):
            prompt = body.pop("prompt")
            assert decoder.generate(prompt, **body).text == text


def test_half_a_request_holds_nobody_up(served):
    with socket.create_connection(("127.0.0.1", served.port)) as half:
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        assert httpx.get(f"{served.url}/health").status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_come_to_their_end(tiny_path, number):
    with ServerProcess(tiny_path, *OPTIONS) as served:
        body = {"prompt": "the cat", "max_tokens": 3000, "ignore_eos": True, "stream": True}
        body["stream_options"] = {"include_usage": True}
        url = f"{served.url}/v1/completions"
        with httpx.stream("POST", url, json=body, timeout=120) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            served.process.send_signal(number)
            events = [line.removeprefix("data: ") for line in lines if line]
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["usage"]["completion_tokens"] == 3000
        code = served.process.wait(60)
        assert code in (0, -number, 128 + number)
        if number == signal.SIGTERM:  # what `systemctl stop` sends is no failure
            unit = pathlib.Path(__file__).parents[2] / "deploy" / "specdec-native.service"
            [clean] = re.findall(r"^SuccessExitStatus=(.+)$", unit.read_text(), re.M)
            assert code in (0, -number, *map(int, clean.split()))
        assert "Traceback" not in served.read_log()


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        ((), [signal.SIGINT, signal.SIGINT]),
        ((), [signal.SIGTERM, signal.SIGTERM]),
        ((), [signal.SIGTERM, signal.SIGINT]),
        (("--grace", "1"), [signal.SIGTERM]),
    ],
    ids="int-int term-term term-int grace".split(),
)
def test_a_second_signal_ends_what_runs_without_a_traceback(tiny_path, options, signals):
    with ServerProcess(tiny_path, *OPTIONS, "-c", "200000", *options) as served:
        body = {"prompt": "the cat", "ignore_eos": True, "max_tokens": 190000}
        url = f"{served.url}/v1/completions"
        with (
            httpx.stream("POST", url, json={**body, "stream": True}, timeout=120) as response,
            socket.create_connection(("127.0.0.1", served.port)) as silent,
            socket.create_connection(("127.0.0.1", served.port)) as half,
            concurrent.futures.ThreadPoolExecutor() as pool,
        ):
            half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Le")
            whole = pool.submit(httpx.post, url, json=body, timeout=120)
            while stats(served)["specdec_requests_running"] < 2:
                time.sleep(0.01)
            served.process.send_signal(signals[0])
            while "Shutting down" not in served.read_log(0.01):
                assert served.process.poll() is None
            for number in signals[1:]:
                served.process.send_signal(number)
            events = [line for line in response.iter_lines() if line]
            assert events[-1] == "data: [DONE]"
            n = json.loads(events[-2].removeprefix("data: "))["timings"]["predicted_n"]
            assert n < body["max_tokens"]
            assert whole.result(60).status_code == 200
            code = served.process.wait(60)
            assert code in (-signals[0], 128 + signals[0])
            del silent
        assert "Traceback" not in served.read_log()


def test_a_third_signal_waits_for_nothing(tiny_path):
    with ServerProcess(tiny_path, *OPTIONS, "-c", "200000") as served:
        body = {"prompt": "the cat", "ignore_eos": True, "stream": True, "max_tokens": 190000}
        with httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=120):
            for _ in range(3):
                served.process.send_signal(signal.SIGTERM)
                time.sleep(0.02)
            assert served.process.wait(60) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_wrong_arguments_are_one_line(tiny_path, capfd):
    from specdec_native import cli

    for arguments, code in (
        ([str(tiny_path) + ".missing.gguf"], 3),
        ([str(tiny_path), "--drafter", "nothing"], 2),
        ([str(tiny_path), "--api-key", ""], 2),
        ([str(tiny_path), "--kv-bytes", "1"], 2),
    ):
        assert cli.main(["serve", *arguments]) == code
        assert len(capfd.readouterr().err.strip().splitlines()) == 1


def test_what_loading_warns_of_is_shown(tiny_path):
    with ServerProcess(tiny_path, "-t", "1", "-c", "4096", "--kv-bytes", "400K") as served:
        assert "requests that give no max_tokens are refused" in served.read_log()


def test_addresses_that_cannot_be_had_are_one_line(tiny_path, served, tmp_path, capfd):
    from specdec_native import cli

    taken = str(tmp_path / "taken.sock")
    no_socket = tmp_path / "file"
    no_socket.write_text("mine")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(taken)
        other.listen()
        for arguments, says in (
            (["--port", served.port], "in use"),
            (["--host", "1.2.3.4", "--api-key", "k"], "1.2.3.4"),
            (["--unix-socket", taken], "in use"),
            (["--unix-socket", no_socket], "no socket"),
            (["--unix-socket", tmp_path / "missing" / "x.sock"], "No such file"),
            (["--unix-socket", tmp_path / ("x" * 200)], "too long"),
        ):
            assert cli.main(["serve", str(tiny_path), *map(str, arguments)]) == 3
            told = capfd.readouterr().err.strip()
            assert len(told.splitlines()) == 1, told
            assert str(arguments[1]) in told
            assert says in told
    assert no_socket.read_text() == "mine"


def test_the_benchmark_measures_and_compares_texts(served, tmp_path):
    root = pathlib.Path(__file__).parents[2]
    prompts = tmp_path / "prompts.jsonl"
    lines = [json.dumps({"turns": [f"the cat number {i}", "more"]}) for i in range(6)]
    prompts.write_text("\n".join(lines))
    command = [sys.executable, str(root / "tools" / "benchmark_server.py"), served.url]
    command += [str(prompts), "--against", served.url, "--loads", "1,3", "--requests", "3"]
    done = subprocess.run(
        [*command, "--max-tokens", "8"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "every text is that of the first load" in done.stdout
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| 1", "| 3", "| ratio"))]
    assert len(rows) == 6
