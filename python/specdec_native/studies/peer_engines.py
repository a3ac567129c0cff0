"""Engines of others, beside ours in a study: each in a process of its own."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import InvalidArgumentError, UnsupportedModelError
from .engines import Outcome, Request, Workbench
from .plan import Method, Pair

SCRIPT = pathlib.Path(__file__).with_name("peer_scripts") / "serve.py"
INSTALL = {
    "llama.cpp": "CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36, there or for "
    "the Python that --peer-python names",
    "transformers": "pip install torch transformers gguf accelerate, there or for the Python that "
    "--peer-python names",
}


class MissingPeerError(InvalidArgumentError):
    """Not installed; the message says how to install it."""


class PeerProcess:
    """Another engine in its own interpreter, its models loaded once.

    Raises:
        MissingPeerError: this Python does not have it.
        UnsupportedModelError: it cannot load the model.
    """

    def __init__(self, engine: str, python: str, load: Mapping[str, Any]) -> None:
        self.engine = engine
        try:
            self._child = subprocess.Popen(
                [python, str(SCRIPT), engine],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, encoding="utf-8",
                start_new_session=True,  # Ctrl-C is for us; it ends when its input does
            )  # fmt: skip
        except OSError as error:
            raise MissingPeerError(f"{python} cannot be run: {error.strerror}") from None
        try:
            answer = self._ask(load)
        except BaseException:
            self.close()
            raise
        self.version = str(answer["version"])

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps(request) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except OSError:
            line = ""
        if not line.endswith("\n"):
            code = self._child.wait()
            raise UnsupportedModelError(f"{self.engine}: its process ended with exit code {code}")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise MissingPeerError(
                f"{self.engine} needs {answer['missing']}, which is not installed: "
                f"{INSTALL[self.engine]}"
            )
        if "error" in answer:
            raise UnsupportedModelError(f"{self.engine}: {answer['error']}")
        return answer

    def generate(self, request: Request, drafter: str, *, fresh: bool) -> dict[str, Any]:
        """Raises: UnsupportedModelError when the engine fails."""
        return self._ask(
            {
                "temperature": 0.0,
                **request.sampling,
                "prompt": list(request.prompt),
                "max_tokens": request.max_tokens,
                "seed": request.seed,
                "drafter": drafter,
                "fresh": fresh,
            }
        )

    def close(self) -> None:
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class ProcessEngine:
    """One way of a process to decode; the methods of a pair share the process."""

    _processes: ClassVar[dict[tuple[int, str, str], PeerProcess]] = {}
    _users: ClassVar[collections.Counter[tuple[int, str, str]]] = collections.Counter()

    def __init__(self, workbench: Workbench, pair: Pair, method: Method) -> None:
        self._key = (id(workbench), pair.name, method.engine)
        if self._key not in self._processes:
            load = {
                "target": pair.target,
                "draft": pair.draft,
                "n_ctx": workbench.n_ctx(pair),
                "n_threads": workbench.target(pair).info.n_threads,
            }
            python = workbench.outside.get("python", sys.executable)
            self._processes[self._key] = PeerProcess(method.engine, python, load)
        self._users[self._key] += 1
        self._process = self._processes[self._key]
        self._target = workbench.target(pair)
        self._drafter = method.drafter
        self._fresh = True

    @property
    def version(self) -> str:
        return self._process.version

    def start(self) -> None:
        self._fresh = True

    def generate(self, request: Request) -> Outcome:
        start = time.perf_counter()
        answer = self._process.generate(request, self._drafter, fresh=self._fresh)
        wall_ms = (time.perf_counter() - start) * 1000
        self._fresh = False
        return outcome_of(answer, self._target.detokenize(answer["token_ids"]), wall_ms)

    def close(self) -> None:
        self._users[self._key] -= 1
        if self._users[self._key] == 0:
            del self._users[self._key]
            self._processes.pop(self._key).close()


def outcome_of(answer: Mapping[str, Any], text: str, wall_ms: float) -> Outcome:
    """An answer in the words of `DecodeStats`."""
    tokens = tuple(answer["token_ids"])
    decode_ms, counted = answer["decode_ms"], answer["rate_tokens"]
    passes, drafted, accepted = answer["passes"], answer["drafted"], answer["accepted"]
    stats = {
        "emitted": len(tokens),
        "rounds": passes,
        "plain_steps": 0,
        "drafted": drafted,
        "accepted": accepted,
        "acceptance_rate": accepted / drafted if drafted else None,
        "tokens_per_second": 1000 * counted / decode_ms if counted and decode_ms else None,
        "prompt_ms": answer["prompt_ms"],
        "decode_ms": decode_ms,
        "total_ms": answer["prompt_ms"] + decode_ms,
    }
    return Outcome(tokens, text, "stop" if answer["stop"] else "length", stats, wall_ms)


def process_engine(workbench: Workbench, pair: Pair, method: Method) -> ProcessEngine:
    return ProcessEngine(workbench, pair, method)
