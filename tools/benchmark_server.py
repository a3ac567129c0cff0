"""How a server of OpenAI's API does under load: tokens per second in all, time to the first token
and between tokens, at 1, 2, 4, 8, 16 requests at once.

    python tools/benchmark_server.py URL PROMPTS.jsonl [--loads 1,2,4,8,16] [--requests 16]
        [--max-tokens 128] [--field speculation=false] [--against URL]... [--fresh]

Each line of PROMPTS has `turns` (its first is asked) or `prompt`. With `--against` every load is
measured on all servers in turns, and the ratio to each is printed: who is first rotates. Texts at
temperature 0 are compared with those of load 1: on a server that promises it they are equal at
every load. `--fresh` asks other questions at each load instead, so that nobody has read a prompt
before. Needs httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Answer:
    """One request: when its pieces came, in seconds after it was sent, and its text."""

    text: str = ""
    times: list[float] = field(default_factory=list)
    n_tokens: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass
class Load:
    """All requests of one load."""

    answers: list[Answer]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return sum(answer.n_tokens for answer in self.answers) / self.seconds

    def first_ms(self) -> list[float]:
        return [1000 * answer.times[0] for answer in self.answers if answer.times]

    def between_ms(self) -> list[float]:
        """Mean time per token behind the first piece, per request: pieces may be of several."""
        return [
            1000 * (answer.times[-1] - answer.times[0]) / (answer.n_tokens - 1)
            for answer in self.answers
            if answer.n_tokens > 1
        ]


async def ask(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> Answer:
    answer = Answer()
    started = time.perf_counter()
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{url}: {response.status_code} {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            event = json.loads(line.removeprefix("data: "))
            if event.get("usage"):
                answer.n_tokens = event["usage"]["completion_tokens"]
            if event.get("timings"):
                answer.drafted = event["timings"].get("draft_n", 0)
                answer.accepted = event["timings"].get("draft_n_accepted", 0)
            for choice in event["choices"]:
                content = choice["delta"].get("content")
                if content:
                    answer.text += content
                    answer.times.append(time.perf_counter() - started)
    return answer


async def measure(url: str, bodies: list[dict[str, Any]], at_once: int) -> Load:
    """So many requests at once until all are answered; a new one for each that ends."""
    waiting = list(enumerate(bodies))[::-1]
    answers: list[Answer] = [Answer()] * len(bodies)

    async def work() -> None:
        while waiting:
            i, body = waiting.pop()
            answers[i] = await ask(client, url, body)

    # A connection each: some servers close them as they like.
    limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=None, limits=limits) as client:
        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return Load(answers, time.perf_counter() - started)


def percentiles(values: list[float]) -> str:
    """The median and the 95th."""
    if len(values) < 2:
        return f"{values[0]:.0f}" if values else "-"
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return f"{cuts[9]:.0f} / {cuts[18]:.0f}"


def row(name: str, load: Load) -> str:
    drafted = sum(answer.drafted for answer in load.answers)
    accepted = sum(answer.accepted for answer in load.answers)
    share = f"{100 * accepted / drafted:.0f} %" if drafted else "-"
    return (
        f"| {name} | {load.tokens_per_second:.1f} | {percentiles(load.first_ms())} "
        f"| {percentiles(load.between_ms())} | {share} |"
    )


def read_bodies(args: argparse.Namespace, part: int = 0, n_parts: int = 1) -> list[dict[str, Any]]:
    """Requests spread over all prompts; those of one part are in no other."""
    extra = {}
    for setting in args.field:
        name, _, value = setting.partition("=")
        extra[name] = json.loads(value)
    texts = []
    for line in args.prompts.read_text("utf-8").splitlines():
        entry = json.loads(line)
        texts.append(entry["turns"][0] if "turns" in entry else entry["prompt"])
    step = max(1, len(texts) // (args.requests * n_parts))
    chosen = texts[::step][part::n_parts][: args.requests]
    return [
        {
            "model": "any",
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "max_tokens": args.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }
        for text in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("prompts", type=pathlib.Path)
    parser.add_argument(
        "--against", metavar="URL", action="append", default=[], help="another server, in turns"
    )
    parser.add_argument("--loads", default="1,2,4,8,16", help="requests at once, with commas")
    parser.add_argument("--requests", type=int, default=16, help="of each load")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument(
        "--field", action="append", default=[], metavar="NAME=JSON", help="of every request"
    )
    parser.add_argument("--fresh", action="store_true", help="other prompts at each load")
    args = parser.parse_args()
    sizes = [int(part) for part in args.loads.split(",")]
    bodies = read_bodies(args)
    urls = [args.url, *args.against]
    print(f"{len(bodies)} requests of at most {args.max_tokens} tokens at temperature 0\n")
    print("| at once | tokens/s | first token, ms: median / p95 | each further, ms | accepted |")
    print("|---|---|---|---|---|")
    alone: dict[str, list[str]] = {}
    different = 0
    for i, at_once in enumerate(sizes):
        if args.fresh:
            bodies = read_bodies(args, i, len(sizes))
        first = i % len(urls)
        loads = {}
        for url in urls[first:] + urls[:first]:
            loads[url] = asyncio.run(measure(url, bodies, at_once))
            texts = [answer.text for answer in loads[url].answers]
            before = alone.setdefault(url, texts)
            if url == args.url and not args.fresh:
                different += sum(a != b for a, b in zip(before, texts, strict=True))
        for url in urls:
            name = f"{at_once}" if len(urls) == 1 else f"{at_once}, {url}"
            print(row(name, loads[url]), flush=True)
        for url in args.against:
            ratio = loads[args.url].tokens_per_second / loads[url].tokens_per_second
            print(f"| {at_once}, ratio to {url} | {ratio:.2f} | | | |", flush=True)
    if different:
        sys.exit(f"{args.url}: {different} texts are not those of the first load")
    if args.fresh:
        return
    print(f"\n{args.url}: every text is that of the first load")


if __name__ == "__main__":
    main()
