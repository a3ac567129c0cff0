"""Connections of strangers: silent ones, slow ones, too many, heads without end, all at once."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import select
import socket
import time

import pytest

pytest.importorskip("specdec_native", reason="the package is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from server_process import ServerProcess  # noqa: E402
from specdec_native.server import command, connections  # noqa: E402
from specdec_native.server.command import _hosts, parser  # noqa: E402

MOST = 12
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(scope="module")
def served(tiny_path):
    options = ("-t", "1", "-c", "200000", "--max-connections", MOST)
    limits = ("--read-timeout", "1", "--write-timeout", "2", "--max-requests", "16")
    limits += ("--keep-alive", "2")
    with ServerProcess(tiny_path, *options, *limits) as made:
        made.n_idle = made.sockets()
        yield made
        assert "Traceback" not in made.read_log()


def connect(served, **options):
    made = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    for name, value in options.items():
        made.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    return made


def read_all(connection):
    """Until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            data += part
    return data


def answer_of(data):
    """Status and JSON of the last answer in `data`."""
    head, _, body = data[data.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def wait_for(what):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


BEGUN = {
    "nothing": b"",
    "byte": b"P",
    "head": HEAD[:60],
    "no body": HEAD + b"Content-Length: 100\r\n\r\n",
    "part of a body": HEAD + b"Content-Length: 100\r\n\r\n{",
    "chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
}


@pytest.mark.parametrize("is_second", [False, True])
def test_a_request_that_does_not_go_on_is_given_up(served, is_second):
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(connect(served)) for name in BEGUN}
        for name, connection in opened.items():
            if is_second:
                connection.sendall(GET)
                data = b""
                while not data.endswith(b"}"):
                    data += connection.recv(1 << 16)
                assert data.startswith(b"HTTP/1.1 200 ")
            connection.sendall(BEGUN[name])
        for name, connection in opened.items():
            data = read_all(connection)
            if is_second and name == "nothing":
                assert data == b""
                continue
            status, body = answer_of(data)
            assert (status, body["error"]["code"]) == (408, "timeout"), name
            assert data.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("options", "seconds"), [((), 75), (("--keep-alive", "9"), 9)])
def test_a_connection_is_kept_longer_than_clients_keep_theirs(
    tiny_path, monkeypatch, options, seconds
):
    """What closes first must not be the server: a request on its way to it would be lost."""
    openai = pytest.importorskip("openai", reason="openai is not installed")

    class Made(Exception):
        pass

    def config(*args, timeout_keep_alive, **rest):
        raise Made(timeout_keep_alive)

    monkeypatch.setattr("uvicorn.Config", config)
    with pytest.raises(Made) as made:
        command.main([str(tiny_path), "-t", "1", *options])
    assert made.value.args == (seconds,)
    assert seconds > openai.DEFAULT_CONNECTION_LIMITS.keepalive_expiry


def test_a_request_that_begins_with_the_one_before_it_must_go_on_too(served):
    with connect(served) as connection:
        connection.sendall(GET + HEAD)
        data = read_all(connection)
        assert data.startswith(b"HTTP/1.1 200 ")
        assert answer_of(data)[0] == 408


@pytest.mark.parametrize(
    ("begun", "drop"),
    [(b"", b"P"), (HEAD, b"X: y\r\n"), (GET, b"G"), (HEAD + b"Content-Length: 100\r\n\r\n", b" ")],
    ids="line head second body".split(),
)
def test_dripping_bytes_buy_no_time(served, begun, drop):
    with connect(served) as connection:
        connection.sendall(begun)
        data = b""
        deadline = time.monotonic() + 60
        with contextlib.suppress(ConnectionError):
            while b"408" not in data:
                assert time.monotonic() < deadline
                connection.sendall(drop)
                if select.select([connection], [], [], 0.2)[0]:
                    data += connection.recv(1 << 16)
        assert answer_of(data)[0] == 408


@pytest.mark.parametrize("stream", [False, True])
def test_a_reader_who_takes_nothing_is_given_up(served, stream):
    n = served.n_idle
    wait_for(lambda: served.sockets() == n)  # of the tests before
    # A long answer, which stops for the reader; and one that is over before it is read.
    body = {"prompt": "the cat", "max_tokens": 6000 if stream else 2000, "ignore_eos": True}
    body |= {"stream": stream, "logprobs": 60}
    data = json.dumps(body).encode()
    with connect(served, SO_RCVBUF=1 << 12) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        wait_for(lambda: served.sockets() > n)
        wait_for(lambda: served.sockets() == n)
    metrics = httpx.get(f"{served.url}/metrics", timeout=60).text
    assert "specdec_requests_running 0.0" in metrics


def test_a_flood_of_connections_keeps_nobody_out(served):
    with contextlib.ExitStack() as stack:
        flood = [stack.enter_context(connect(served)) for _ in range(5 * MOST)]
        for i, connection in enumerate(flood):
            with contextlib.suppress(ConnectionError):
                connection.sendall(HEAD[: i % 40])
        wait_for(lambda: served.sockets() < 3 * MOST)
        for _ in range(3):
            assert httpx.get(f"{served.url}/health", timeout=60).status_code == 200
    answer = httpx.post(f"{served.url}/v1/completions", content=BODY,
                        headers={"Content-Type": "application/json"})  # fmt: skip
    assert answer.status_code == 200


def test_those_at_work_do_not_make_way(served):
    body = {"prompt": "the cat", "max_tokens": 100000, "ignore_eos": True, "stream": True}
    url = f"{served.url}/v1/completions"
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=60))
        for _ in range(MOST):
            response = stack.enter_context(client.stream("POST", url, json=body))
            assert response.status_code == 200
        with connect(served) as connection:
            status, answer = answer_of(read_all(connection))
        assert (status, answer["error"]["code"]) == (503, "too_many_connections")


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\nA: b\r\nA"]
)
def test_heads_without_end_are_refused(served, head):
    before = served.rss()
    for _ in range(20):
        with connect(served) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(head)
            for _ in range(200):
                connection.sendall(b"x" * (1 << 10))
            status, body = answer_of(read_all(connection))
            assert status == 400
            assert body["error"]["type"] == "invalid_request_error"
    assert served.rss() < before + (8 << 20)


@pytest.mark.parametrize("request_", [GET, REQUEST, GET + REQUEST])
def test_requests_that_come_at_once_are_answered_in_turn(served, request_):
    n = 40
    with connect(served) as connection:
        connection.sendall(
            request_ * n + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        data = read_all(connection)
    assert data.count(b"HTTP/1.1 200 ") == n * request_.count(b"Host") + 1


def metric(served, name):
    text = httpx.get(f"{served.url}/metrics", timeout=60).text
    return float(re.search(rf"^{name} (\S+)$", text, re.M)[1])


@pytest.mark.parametrize("behind", [b"", GET, GET * 20])
def test_who_asks_for_more_and_hangs_up_ends_the_request(served, behind):
    def cancelled():
        text = httpx.get(f"{served.url}/metrics", timeout=60).text
        found = re.search(
            r'^specdec_requests_finished_total{reason="cancelled"} (\S+)$', text, re.M
        )
        return 0.0 if found is None else float(found[1])

    before = cancelled()
    body = json.dumps({"prompt": "the cat", "max_tokens": 150000, "ignore_eos": True}).encode()
    with connect(served) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body + behind)
        wait_for(lambda: metric(served, "specdec_requests_running") == 1)
    wait_for(lambda: metric(served, "specdec_requests_running") == 0)
    wait_for(lambda: cancelled() == before + 1)


def test_requests_ahead_are_bounded(served):
    body = json.dumps({"prompt": "the cat", "max_tokens": 150000, "ignore_eos": True}).encode()
    before = served.rss()
    with connect(served) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_for(lambda: metric(served, "specdec_requests_running") == 1)
        connection.settimeout(0.3)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(64):
                connection.sendall(GET * 20000)  # a megabyte
        assert served.rss() < before + (16 << 20)


def test_an_answer_that_comes_early_is_the_only_one(served):
    head = HEAD.replace(b"application/json", b"text/plain") + b"Transfer-Encoding: chunked\r\n\r\n"
    for rest in (b"zz\r\n", b"1\r\nx\r\n", b""):
        with connect(served) as connection:
            connection.sendall(head)
            data = connection.recv(1 << 16)
            connection.sendall(rest)
            data += read_all(connection)
        assert data.count(b"HTTP/1.1 ") == 1
        assert answer_of(data)[0] == 415


def test_other_protocols_are_not_changed_to(served):
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with connect(served) as connection:
        connection.sendall(GET.replace(b"\r\n\r\n", upgrade))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    assert "WebSocket" not in served.read_log()


@pytest.mark.parametrize(
    ("soft", "hard", "asked", "has", "raised"),
    [
        (1024, 4096, 512, 512, 1024),  # enough
        (256, 4096, 512, 512, 512 + 448),
        (256, 600, 512, 600 - 448, 600),
        (256, 256, 512, 1, 256),
        (256, resource.RLIM_INFINITY, 10_000, 10_000, 10_448),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 10_000, 10_000, resource.RLIM_INFINITY),
    ],
)
def test_files_are_enough_for_the_connections(monkeypatch, soft, hard, asked, has, raised):
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))
    found = connections.with_enough_files(connections.Limits(asked, 3, 4))
    assert (found.connections, found.read_seconds, found.write_seconds) == (has, 3, 4)
    assert limits[-1] == (raised, hard)


@pytest.mark.parametrize(
    ("arguments", "answered", "refused"),
    [
        ([], ["localhost", "127.0.0.1", "[::1]"], ["10.0.0.1", "a.example"]),
        (["--allow-host", "a.example"], ["localhost", "a.example"], ["b.example"]),
        (["--host", "0.0.0.0"], ["anything"], []),
        (["--unix-socket", "s"], ["anything"], []),
        (
            ["--host", "0.0.0.0", "--allow-host", "a.example", "--allow-host", "B.example"],
            ["localhost", "a.example", "b.example"],
            ["10.0.0.1", "c.example"],
        ),
        (["--host", "10.0.0.1", "--allow-host", "a"], ["10.0.0.1", "a"], ["b"]),
        (["--unix-socket", "s", "--allow-host", "a.example"], ["a.example"], ["b.example"]),
        (["--host", "0.0.0.0", "--allow-host", "*"], ["anything"], []),
    ],
)
def test_names_that_are_allowed_are_the_only_ones(arguments, answered, refused):
    hosts = [host.lower() for host in _hosts(parser().parse_args(["m", *arguments]))]
    for name in answered:
        assert "*" in hosts or name in hosts
    for name in refused:
        assert "*" not in hosts
        assert name not in hosts
