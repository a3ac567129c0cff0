"""On a real Ray cluster of this computer: batch jobs that are killed, and replicas that serve."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytest.importorskip("ray.serve", reason="the extra `ray` is not installed")

from ray.exceptions import RayActorError  # noqa: E402
from ray.serve.exceptions import BackPressureError  # noqa: E402
from starlette.requests import Request  # noqa: E402

from specdec_native import cli  # noqa: E402
from specdec_native.ray_app import app, known  # noqa: E402
from specdec_native.ray_app.front import Front  # noqa: E402
from specdec_native.ray_app.prefixes import PrefixTable, blocks_of, prompt_of  # noqa: E402
from specdec_native.server.errors import ApiError  # noqa: E402

MANY = 100_000_000
SECONDS = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(true, *, every=0.05):
    """Waits until it is, at most two minutes."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(every)
    return found


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, module_patch):
    """Its address and the process that all others descend from; four cores, as it believes."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("ray") / "log"
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    for name, value in environment.items():
        module_patch.setenv(name, value)
    folder = tempfile.mkdtemp(prefix="ray-")  # not pytest's: names of sockets must be short
    options = ["--num-cpus=4", "--include-dashboard=false", "--disable-usage-stats"]
    options += [
        f"--temp-dir={folder}",
        f"--port={address.partition(':')[2]}",
        "--object-store-memory",
        str(MANY),
    ]
    with log.open("wb") as file:
        head = subprocess.Popen(
            [*command, "--node-ip-address=127.0.0.1", *options],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: b"Ray runtime started" in log.read_bytes() or head.poll() is not None)
            assert head.poll() is None, log.read_text()
            yield address, head.pid
        finally:
            # Asked to end, it waits for the replicas for half a minute, and leaves some behind.
            for number in processes(head.pid, b""):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            head.wait()
            shutil.rmtree(folder, ignore_errors=True)


def processes(ancestor, title):
    """Numbers of processes of that title which descend from `ancestor`."""
    parents, found = {}, []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            number = int(folder.name)
            parents[number] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(title):
                found.append(number)

    def descends(number):
        while number in parents:
            if number == ancestor:
                return True
            number = parents[number]
        return False

    return [number for number in found if descends(number)]


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("batch") / "in.jsonl"
    lines = [
        {"prompt": f"the cat number {i}", "id": i, "max_tokens": 40 + i % 9, "temperature": i % 3}
        for i in range(320)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def batch(model, source, output, *options):
    return ["batch", str(model), str(source), str(output), "-c", "512", "-q", *options]


@pytest.fixture(scope="module")
def expected(tiny_path, questions, tmp_path_factory):
    """Without Ray."""
    output = tmp_path_factory.mktemp("batch") / "out.jsonl"
    assert cli.main(batch(tiny_path, questions, output)) == 0
    data = output.read_bytes()
    assert [json.loads(line)["id"] for line in data.splitlines()] == list(range(320))
    return data


def start_batch(*arguments):
    """`specdec-native batch` in a process of its own, as soon as some lines are done."""
    command = [sys.executable, "-m", "specdec_native", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    partial = pathlib.Path(arguments[3] + ".partial")

    def lines():
        assert process.poll() is None, process.stderr.read().decode()
        return partial.exists() and partial.read_bytes().count(b"\n") >= 16

    until(lines, every=0.002)
    return process


def test_a_killed_job_goes_on_with_every_line_once(cluster, tiny_path, questions, tmp_path,
                                                   expected):  # fmt: skip
    output = tmp_path / "out.jsonl"
    arguments = batch(tiny_path, questions, output, "--ray", cluster[0], "-t", "2")
    process = start_batch(*arguments)
    process.kill()
    process.communicate()
    assert not output.exists()
    kept = (tmp_path / "out.jsonl.partial").read_bytes()
    assert expected.startswith(kept)
    assert 16 <= kept.count(b"\n") < 320
    again = subprocess.run(
        [sys.executable, "-m", "specdec_native", *arguments], check=True, capture_output=True
    )
    assert again.stderr == b""
    assert output.read_bytes() == expected


def test_a_killed_worker_is_replaced_and_no_line_is_lost(cluster, tiny_path, questions, tmp_path,
                                                         expected):  # fmt: skip
    address, head = cluster
    output = tmp_path / "out.jsonl"
    # Those of the job that was killed have gone.
    until(lambda: not processes(head, b"ray::Worker"))
    process = start_batch(*batch(tiny_path, questions, output, "--ray", address, "-t", "2"))
    workers = processes(head, b"ray::Worker")
    assert workers  # the other one may not have begun
    os.kill(workers[0], signal.SIGKILL)
    assert not output.exists()
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, b"")
    assert output.read_bytes() == expected


@pytest.mark.parametrize("number,code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_job_as_without_a_cluster(cluster, tiny_path, questions, tmp_path,
                                                    number, code):  # fmt: skip
    output = tmp_path / "out.jsonl"
    process = start_batch(*batch(tiny_path, questions, output, "--ray", cluster[0], "-t", "2"))
    process.send_signal(number)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors.decode()) == (
        code,
        "interrupted\n" if number == signal.SIGINT else "terminated\n",
    )


class Served:
    """The replicas of `tiny_path` behind Ray Serve."""

    def __init__(self, port, head):
        self.port, self.head = port, head

    def ask(self, path, body=None, **headers):
        """Status, headers in small letters, and JSON or text."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json", **headers}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            answer = urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            told = {name.lower(): value for name, value in answer.headers.items()}
            text = answer.read().decode()
        is_json = told["content-type"].startswith("application/json")
        return answer.status, told, json.loads(text) if is_json else text

    def complete(self, prompt, **options):
        status, headers, told = self.ask("/v1/completions", {"prompt": prompt, **options})
        assert status == 200, told
        return headers["x-specdec-replica"], told

    def figure(self, name):
        """Of each replica."""
        found = {}
        for line in self.ask("/metrics")[2].splitlines():
            if line.startswith(f"specdec_{name}{{"):
                replica = line.partition('replica="')[2].partition('"')[0]
                found[replica] = found.get(replica, 0.0) + float(line.rpartition(" ")[2])
        return found


@pytest.fixture(scope="module")
def served(cluster, tiny_path, tmp_path_factory):
    address, head = cluster
    made = Served(free_port(), head)
    arguments = {"model": str(tiny_path), "replicas": 2, "threads": 1, "ctx": 8192}
    arguments |= {"alias": "tiny", "max_body": "1M", "max_requests": 4}
    one = {"name": "default", "import_path": "specdec_native.ray_app:app", "args": arguments}
    config = {"http_options": {"port": made.port}, "applications": [{"route_prefix": "/", **one}]}
    folder = tmp_path_factory.mktemp("serve")
    path, log = folder / "config.yaml", folder / "log"
    path.write_text(json.dumps(config))  # which is YAML
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(path), "--address", address]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)

        def answers():
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                return made.ask("/health")[0] == 200

        try:
            until(answers, every=0.3)
            yield made
        finally:
            process.kill()  # what it started ends with the cluster
            process.wait()


def test_the_text_is_what_it_is_alone(served, tiny):
    messages = [{"role": "user", "content": "the cat in the hat"}]
    with sd.Decoder(tiny, drafter=None, n_ctx=8192) as decoder:
        text = decoder.generate("the cat", max_tokens=20).text
        chat = decoder.chat(messages, max_tokens=20).text
    assert served.complete("the cat", max_tokens=20)[1]["choices"][0]["text"] == text
    body = {"messages": messages, "max_tokens": 20}
    told = served.ask("/v1/chat/completions", body)[2]
    assert told["choices"][0]["message"]["content"] == chat
    status, headers, events = served.ask("/v1/chat/completions", {**body, "stream": True})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    parts = [line[6:] for line in events.splitlines() if line.startswith("data: ")]
    assert parts.pop() == "[DONE]"
    deltas = [json.loads(part)["choices"][0]["delta"] for part in parts]
    assert "".join(delta.get("content", "") for delta in deltas) == chat
    assert len(deltas) > 5


def test_a_stream_comes_bit_by_bit(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    body = {"prompt": "on and on", "max_tokens": 8000, "stream": True, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"content-type": "application/json"})  # fmt: skip
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    # It runs while its first events are here; a client that hangs up ends it.
    until(lambda: sum(served.figure("requests_running").values()) == 1)
    answer.close()
    connection.close()
    until(lambda: sum(served.figure("requests_running").values()) == 0)
    assert sum(served.figure("requests_finished_total").values()) >= 1


def test_one_that_nobody_waits_for_any_more_ends_too(served):
    body = {"prompt": "without a stream", "max_tokens": 8000, "ignore_eos": True}
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    connection.request("POST", "/v1/completions", json.dumps(body),
                       {"content-type": "application/json"})  # fmt: skip
    until(lambda: sum(served.figure("requests_running").values()) == 1)
    connection.close()
    until(lambda: sum(served.figure("requests_running").values()) == 0)


def test_what_begins_alike_goes_to_one_replica_and_is_read_once(served):
    used = set()
    for i in range(8):
        prompt = f"document {i}: " + f"it says {i}, and so on. " * 30
        first, told = served.complete(prompt + "What?", max_tokens=2)
        assert told["usage"]["prompt_tokens_details"]["cached_tokens"] < 64
        for question in ("Why?", "Who was it?"):
            replica, told = served.complete(prompt + question, max_tokens=2)
            assert replica == first
            cached = told["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert cached >= len(prompt) - 64
        used.add(first)
    assert len(used) == 2


def test_a_conversation_stays_where_it_is(served):
    messages = [{"role": "user", "content": "tell me " * 20}]
    seen, cached = set(), []
    for _ in range(3):
        body = {"messages": messages, "max_tokens": 30}
        _, headers, told = served.ask("/v1/chat/completions", body)
        seen.add(headers["x-specdec-replica"])
        cached.append(told["usage"]["prompt_tokens_details"]["cached_tokens"])
        messages += [told["choices"][0]["message"], {"role": "user", "content": "and then?"}]
    assert len(seen) == 1
    assert cached == sorted(cached)
    assert cached[1] > 100


def test_errors_have_the_form_of_the_server(served):
    for path, body, status, kind in [
        ("/v1/completions", {"prompt": 5}, 400, "invalid_request_error"),
        ("/v1/completions", b"{", 400, "invalid_request_error"),
        ("/v1/completions", b"\xff\xfe", 400, "invalid_request_error"),
        ("/v1/completions", b"[" * 100_000, 400, "invalid_request_error"),
        ("/v1/completions", {"prompt": "a" * (1 << 20)}, 413, "invalid_request_error"),
        ("/v1/completions", None, 405, "invalid_request_error"),
        ("/v1/nothing", {}, 404, "invalid_request_error"),
        ("/v1/completions", {"prompt": "a" * 9000}, 400, "invalid_request_error"),
    ]:
        found, headers, told = served.ask(path, body)
        assert (found, told["error"]["type"]) == (status, kind), told
        assert headers["content-type"] == "application/json"
        assert set(told["error"]) == {"message", "type", "param", "code"}
    status, _, told = served.ask("/v1/completions", {"prompt": "a", "best_of": 3})
    assert told["error"]["param"] == "best_of"
    assert served.ask("/v1/models")[2]["data"][0]["id"] == "tiny"
    assert served.ask("/health")[2]["status"] == "ok"
    assert served.ask("/")[2].startswith("<!doctype html>")


def test_a_replica_that_dies_is_replaced_and_the_others_go_on(served):
    before = set(served.figure("passes_total") or served.figure("kv_bytes"))
    assert len(before) == 2
    replicas = processes(served.head, b"ray::ServeReplica:default:Replica")
    assert len(replicas) == 2
    answers, stop = [], threading.Event()

    def ask(i):
        while not stop.is_set():
            asked = {"prompt": f"{i} " * 80, "max_tokens": 8}
            status, _, told = served.ask("/v1/completions", asked)
            answers.append((i, status, told.get("choices")))

    askers = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for asker in askers:
        asker.start()
    os.kill(replicas[0], signal.SIGKILL)
    try:
        until(lambda: len(set(served.figure("kv_bytes")) - before) == 1, every=0.3)
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    # None of them failed, and each text is the same every time.
    assert {status for _, status, _ in answers} == {200}
    assert len(answers) > 3
    assert len({(i, json.dumps(choices)) for i, _, choices in answers}) == 3
    assert len(set(served.figure("kv_bytes")) & before) == 1
    assert replicas[0] not in processes(served.head, b"ray::ServeReplica:default:Replica")


def test_a_stream_whose_replica_dies_ends_with_an_error(served):
    body = {"prompt": "on and on", "max_tokens": 8000, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{served.port}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        assert answer.readline().startswith(b"data: ")
        for number in processes(served.head, b"ray::ServeReplica:default:Replica"):
            os.kill(number, signal.SIGKILL)
        *_, last = (line for line in answer if line.strip())
    assert json.loads(last[6:])["error"]["code"] == "replica_died"
    # And with none left a request waits for the next one.
    assert len(served.complete("the cat", max_tokens=2)[0]) > 0


class FakeHandle:
    """Of replicas that answer as told, one call after the other."""

    deployment_name = "Replica"

    def __init__(self, *answers):
        self.left = list(answers)
        self.n_calls = 0

    def options(self, **options):
        return self

    @property
    def answer(self):
        return self

    async def remote(self, scope, body, **options):
        self.n_calls += 1
        for message in self.left.pop(0):
            if isinstance(message, Exception):
                raise message
            yield message


def passed(*answers, path="/v1/models"):
    """What a client gets of a front whose replicas answer so."""
    front = Front(FakeHandle(*answers), 100)
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    async def work():
        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        response = await front(Request(scope, receive))
        await response(scope, receive, send)

    asyncio.run(work())
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), body


def test_replicas_that_die_are_asked_again_three_times():
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}
    end = {"type": "http.response.body", "body": b"done", "more_body": False}
    dead, full = RayActorError(), BackPressureError(num_queued_requests=1, max_queued_requests=1)
    assert passed([start, end]) == (200, {b"a": b"b"}, b"done")
    assert passed([dead], [dead], [start, end]) == (200, {b"a": b"b"}, b"done")
    status, _, body = passed([dead], [dead], [dead])
    assert (status, json.loads(body)["error"]["code"]) == (503, "replica_died")
    status, headers, body = passed([full])
    assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")
    assert headers[b"retry-after"] == b"1"
    with pytest.raises(ApiError, match="died"):  # the connection ends
        passed([start, dead])


def test_figures_need_the_key_too(monkeypatch):
    monkeypatch.setitem(known.replicas, "Replica", frozenset(("a", "b")))
    end = {"type": "http.response.body", "body": b"{}", "more_body": False}
    refused = {"type": "http.response.start", "status": 401, "headers": []}
    assert passed([refused, end], path="/metrics") == (401, {}, b"{}")

    def told(name, value):
        start = {"type": "http.response.start", "status": 200}
        text = f"# HELP x_total y\n# TYPE x_total counter\nx_total {value}\n".encode()
        return [{**start, "headers": [(b"x-specdec-replica", name)]}, {**end, "body": text}]

    status, _, body = passed(told(b"a", 1), told(b"b", 2), path="/metrics")
    assert status == 200
    assert {b'x_total{replica="a"} 1.0', b'x_total{replica="b"} 2.0'} <= set(body.splitlines())


@pytest.mark.parametrize(
    "arguments,said",
    [
        ({}, "required: model"),
        ({"model": "/nowhere/m.gguf"}, "there is no file /nowhere/m.gguf"),
        ({"model": "pycode", "replicas": 0}, "expected 1 or more"),
        ({"model": "pycode", "replica": 2}, "unrecognized arguments: replica=2"),
        ({"model": "pycode", "port": 80}, "port is for Ray Serve to know"),
        ({"model": "pycode", "ctx": "many"}, "many"),
    ],
)
def test_arguments_are_checked(arguments, said):
    with pytest.raises(sd.InvalidArgumentError, match=r"^ray_app: ") as caught:
        app(arguments)
    assert said in str(caught.value)


def test_arguments_may_be_what_a_file_of_yaml_has():
    made = app({"model": "pycode", "no_page": True, "api_key": ["a", "b"], "draft": None})
    replica = made._bound_deployment.init_args[0]._bound_deployment.init_args[0]
    assert (replica.no_page, replica.api_key, replica.draft) == (True, ["a", "b"], None)


def test_the_example_of_a_configuration_is_one():
    import yaml
    from ray.serve.schema import ServeDeploySchema

    path = pathlib.Path(__file__).parents[2] / "deploy" / "ray-serve.yaml"
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    [application] = schema.applications
    assert application.import_path == "specdec_native.ray_app:app"
    app({**application.args, "model": "pycode", "api_key_file": None})


def test_prefixes():
    text = "".join(chr(97 + i * i % 26) for i in range(1000))
    blocks = blocks_of(text)
    assert len(blocks) == 1000 // 64
    other = blocks_of(text[:300] + "!" + text[301:])
    assert blocks[:4] == other[:4]
    assert not set(blocks[4:]) & set(other)
    assert len(blocks_of("\ud800" * MANY.bit_length() * 10_000)) == 1024

    table = PrefixTable(n_blocks=20)
    idle = {"a": 0, "b": 0, "c": 0}
    first = table.order(blocks, idle, 2)
    assert first == table.order(blocks, idle, 2)
    assert len({PrefixTable().order([i], idle, 2)[0] for i in range(40)}) == 3
    table.note(blocks[:6], "a")
    table.note(blocks[:3], "b")
    assert table.order(blocks, idle, 2) == ["a", "b", "c"]
    assert table.order(blocks, {"a": 2, "b": 1, "c": 0}, 2) == ["a", "b", "c"]
    assert table.order(blocks, {"a": 3, "b": 1, "c": 0}, 2) == ["b", "c", "a"]
    assert table.order(blocks, {"a": 9, "b": 9, "c": 0}, 2) == ["c", "a", "b"]
    assert table.order([], {"a": 1, "b": 0, "c": 2}, 2) == ["b", "a", "c"]
    table.note(range(17), "c")
    assert len(table) == 20
    assert table.n_read(blocks, "a") == 3  # the ends are forgotten first
    table.keep_only({"b"})
    assert len(table) == 3
    assert table.order(blocks, {"b": 0, "c": 0}, 2)[0] == "b"


def test_prompts_of_bodies():
    assert prompt_of({"prompt": "a"}) == prompt_of({"prompt": ["a", "b"]}) == "a"
    assert prompt_of({"prompt": [1, 2]}) == prompt_of({"prompt": [[1, 2], [3]]}) == "[1, 2]"
    assert prompt_of({"input_prefix": "x", "prompt": "y"}) == "y"
    assert prompt_of({"input_prefix": "x"}) == "x"
    long = [{"role": "user", "content": "a"}]
    assert prompt_of({"messages": [*long, {"role": "user"}]}).startswith(
        prompt_of({"messages": long})[:-2]
    )
    assert prompt_of({"messages": long, "tools": []}) != prompt_of({"messages": long})
    for nothing in (None, 5, [], {}, "x", {"model": "a"}):
        assert prompt_of(nothing) == ""
