"""A server and the library under mixed requests for hours: nothing goes wrong, memory is flat."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
for name in ("tests", "tests/server"):
    if str(ROOT / name) not in sys.path:
        sys.path.insert(0, str(ROOT / name))

CALLS = 40  # of a round
MOST_GROWTH = 1.05
PATIENCE_SECONDS = 900.0  # of a client: the machine may be busy, or stop all of us for a while


class Pauses:
    """Notes when this process did not run for a while: somebody stopped it or the machine slept."""

    SHORTEST_SECONDS = 5.0

    def __init__(self) -> None:
        self.n_seen = 0
        self._seconds = 0.0
        self._last = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def note(self, now: float) -> None:
        """Called all the time: what lies between two calls is a pause if it is long."""
        if now - self._last > self.SHORTEST_SECONDS:
            self._seconds += now - self._last
            self.n_seen += 1
        self._last = now

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self.note(time.monotonic())

    def clock(self) -> float:
        """Seconds, without those of the pauses."""
        return time.monotonic() - self._seconds

    def __enter__(self) -> Pauses:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


@dataclass
class Outcome:
    """`rss`: bytes after each round, those of the start left out. `n_paused`: rounds that are not
    counted, as they lost a connection while they were stopped."""

    name: str
    n_requests: int = 0
    hours: float = 0.0
    n_paused: int = 0
    rss: list[int] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Of the last quarter over the second: the first is there to fill what is kept."""
        n = len(self.rss) // 4
        if n < 3:
            return 1.0
        return statistics.median(self.rss[-n:]) / statistics.median(self.rss[n : 2 * n])

    def judge(self) -> None:
        if self.growth > MOST_GROWTH:
            self.findings.append(f"memory grew to {self.growth:.2f} times")


async def _chat(client: Any, url: str, rng: random.Random) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": f"cat {rng.randrange(99)}"}]}
    body |= {"max_tokens": 16, "stream": rng.random() < 0.5, "temperature": rng.choice([0, 1])}
    if rng.random() < 0.3:
        body["logprobs"] = True
    if rng.random() < 0.3:
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        body["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    response = await client.post(f"{url}/v1/chat/completions", json=body)
    assert response.status_code in (200, 429), response.text


async def _look(client: Any, url: str, rng: random.Random) -> None:
    for page in ("health", "metrics", "v1/models", "openapi.json"):
        response = await client.get(f"{url}/{page}")
        assert response.status_code == 200, page


def _server_round(url: str, seed: int) -> int:
    import httpx
    import test_server_load as strangers

    kinds = [
        *(strangers.hang_up, strangers.read_slowly, strangers.send_nonsense),
        *(strangers.ask_too_much, strangers.ask, _chat, _look),
    ]
    rng = random.Random(seed)

    async def run() -> None:
        limits = httpx.Limits(max_connections=12)
        async with httpx.AsyncClient(limits=limits, timeout=PATIENCE_SECONDS) as client:
            jobs = [rng.choice(kinds)(client, url, random.Random(i)) for i in range(CALLS)]
            await asyncio.gather(*jobs)

    asyncio.run(run())
    return CALLS


def _wait_until_idle(url: str) -> None:
    """Its own clock is the number of looks, which stands still when all of us are stopped."""
    import httpx

    names = ("specdec_requests_running 0", "specdec_requests_waiting 0")
    for _ in range(2400):
        text = httpx.get(f"{url}/metrics", timeout=PATIENCE_SECONDS).text
        if all(re.search(rf"^{name}(\.0)?$", text, re.M) for name in names):
            return
        time.sleep(0.05)
    raise AssertionError(f"requests are still there: {text}")


def _serve(served: Any, outcome: Outcome, seed: int, pauses: Pauses) -> None:
    """One round of a server. A connection that broke while all of us were stopped is no finding."""
    import httpx

    before = pauses.n_seen
    try:
        try:
            n_calls = _server_round(served.url, seed)
            _wait_until_idle(served.url)
            outcome.n_requests += n_calls
        except httpx.TransportError:
            time.sleep(1.5)  # for the watch to look again
            if pauses.n_seen == before:
                raise
            outcome.n_paused += 1
            _wait_until_idle(served.url)
    except Exception as error:
        outcome.findings.append(f"{type(error).__name__}: {error}")
    if "Traceback" in served.read_log():
        outcome.findings.append(f"its log: {served.read_log()[-2000:]}")
    if served.process.poll() is not None:
        outcome.findings.append(f"it ended with {served.process.returncode}")
    else:
        outcome.rss.append(served.rss())


class Library:
    def __init__(self, target: pathlib.Path, draft: pathlib.Path, seed: int) -> None:
        script = pathlib.Path(__file__).with_name("soak_library.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(target), str(draft), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def round(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{CALLS}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self._process.wait()
            return {"calls": 0, "rss": 0, "wrong": f"the process ended with {code}"}
        return dict(json.loads(answer))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def models(folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    import tiny_models

    config = tiny_models.TinyConfig(context_length=4096)
    target = tiny_models.write_tiny(folder / "tiny.gguf", config, dtype="Q8_0", seed=1)
    config = tiny_models.TinyConfig(n_layers=1, context_length=4096)
    return target, tiny_models.write_tiny(folder / "draft.gguf", config, seed=2)


def _rounds(
    served: Any,
    calls: Library,
    outcomes: tuple[Outcome, Outcome],
    pauses: Pauses,
    seconds: float,
    seeds: Iterable[int],
    say: Callable[[str], None],
) -> None:
    server, library = outcomes
    deadline = pauses.clock() + seconds
    for number, seed in enumerate(seeds, 1):
        if pauses.clock() >= deadline or server.findings or library.findings:
            return
        start = pauses.clock()
        _serve(served, server, seed, pauses)
        middle = pauses.clock()
        server.hours += (middle - start) / 3600
        told = calls.round()
        library.n_requests = told["calls"]
        library.rss.append(told["rss"])
        library.hours += (pauses.clock() - middle) / 3600
        if told["wrong"]:
            library.findings.append(told["wrong"])
        if number % 20 == 1:
            hours = server.hours + library.hours
            say(
                f"round {number}: server {server.rss[-1:]}, library {library.rss[-1:]}, "
                f"{60 * hours:.0f} minutes"
            )


def run(minutes: float, *, seed: int = 1, say: Callable[[str], None] = print) -> list[Outcome]:
    """Rounds of the one and the other in turn, so that one core suffices, for `minutes` in which
    nobody stopped them; an interrupt (Ctrl+C) ends them earlier, and what was seen counts.
    """
    import test_server_load as strangers

    from server_process import ServerProcess

    server, library = Outcome("server"), Outcome("library")
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        target, draft = models(pathlib.Path(name))
        env = {"SPECDEC_CALIBRATION": name}
        with (
            ServerProcess(target, *strangers.OPTIONS, "-c", "512", env=env) as served,
            Pauses() as pauses,
        ):
            calls = Library(target, draft, seed)
            seeds = itertools.count(seed + 1)
            with contextlib.suppress(KeyboardInterrupt):
                _rounds(served, calls, (server, library), pauses, 60 * minutes, seeds, say)
            calls.close()
    server.judge()
    library.judge()
    return [server, library]
