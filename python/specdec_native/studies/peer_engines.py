"""Engines of others, beside ours in a study: llama.cpp and transformers in processes of their own,
and servers that speak llama.cpp's or OpenAI's protocol."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import InvalidArgumentError, SpecdecError, UnsupportedModelError
from .engines import Outcome, Request, Workbench
from .plan import Method, Pair

SCRIPT = pathlib.Path(__file__).with_name("peer_scripts") / "serve.py"
INSTALL = {
    "llama.cpp": "CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36, there or for "
    "the Python that --peer-python names",
    "transformers": "pip install torch transformers gguf accelerate, there or for the Python that "
    "--peer-python names",
}
ANSWER_S = 3600.0  # of a server


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


# ---------------------------------------------------------------- servers


class ServerEngine:
    """A server that has the same model loaded: llama.cpp's own protocol, else OpenAI's.

    What it drafts with is its own affair; its timings are taken where it tells them.
    """

    def __init__(self, workbench: Workbench, pair: Pair, method: Method) -> None:
        address = workbench.outside["server"]
        self._address = (address if "://" in address else f"http://{address}").rstrip("/")
        self._target = workbench.target(pair)
        self._native = True
        self._fresh = True
        try:
            properties = self._get("/props")
            self.version = f"llama-server {properties.get('build_info', '')}".strip()
        except _NotThereError:
            self._native = False
            self._get("/v1/models")
            self.version = "a server of OpenAI's protocol"

    def _get(self, path: str) -> dict[str, Any]:
        return self._open(urllib.request.Request(self._address + path), 20.0)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, headers)
        return self._open(request, ANSWER_S)

    def _open(self, request: urllib.request.Request, timeout: float) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            if error.code in (404, 405):
                raise _NotThereError(f"{request.full_url}: {error}") from None
            said = error.read(300).decode("utf-8", "replace").strip().splitlines()
            raise UnsupportedModelError(
                f"{request.full_url}: {error} {said[0] if said else ''}".rstrip()
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UnsupportedModelError(
                f"no server answers at {request.full_url}: {reason}"
            ) from None
        if not isinstance(answer, dict):
            raise UnsupportedModelError(f"{request.full_url}: expected a JSON object")
        return answer

    def start(self) -> None:
        self._fresh = True

    def generate(self, request: Request) -> Outcome:
        start = time.perf_counter()
        answer = self._completion(request) if self._native else self._openai(request)
        wall_ms = (time.perf_counter() - start) * 1000
        self._fresh = False
        if answer["decode_ms"] is None:  # all that is known is how long we waited
            answer |= {"prompt_ms": 0.0, "decode_ms": wall_ms, "rate_tokens": 0}
        text = answer.pop("text", None)
        text = self._target.detokenize(answer["token_ids"]) if text is None else text
        return outcome_of(answer, text, wall_ms)

    def _completion(self, request: Request) -> dict[str, Any]:
        """llama.cpp's: token ids both ways."""
        temperature = request.sampling.get("temperature", 0.0)
        answer = self._post(
            "/completion",
            {
                "top_k": 0, "top_p": 1.0, "min_p": 0.0, **request.sampling,
                "temperature": temperature, "repeat_penalty": 1.0, "seed": request.seed,
                "prompt": list(request.prompt), "n_predict": request.max_tokens,
                "cache_prompt": not self._fresh, "return_tokens": True,
            },
        )  # fmt: skip
        tokens = answer.get("tokens")
        if not isinstance(tokens, list):
            raise UnsupportedModelError(f"{self._address}/completion gave no token ids")
        stop = answer.get("stop_type") == "eos"
        if stop and tokens and not self._target.detokenize(tokens[-1:]):
            tokens = tokens[:-1]  # the end itself is no token of the answer
        return _timed({"token_ids": tokens, "stop": stop}, answer.get("timings"))

    def _openai(self, request: Request) -> dict[str, Any]:
        """OpenAI's: text both ways, so the token ids are those of the text it gave."""
        answer = self._post(
            "/v1/completions",
            {
                **{k: v for k, v in request.sampling.items() if k in ("temperature", "top_p")},
                "prompt": self._target.detokenize(request.prompt, render_special=True),
                "max_tokens": request.max_tokens, "seed": request.seed,
            },
        )  # fmt: skip
        try:
            choice = answer["choices"][0]
            text = choice["text"]
            stop = choice.get("finish_reason") == "stop"
        except (KeyError, IndexError, TypeError, AttributeError):
            raise UnsupportedModelError(
                f"{self._address}/v1/completions: no choices in the answer"
            ) from None
        tokens = self._target.tokenize(text, add_special=False)
        found = {"token_ids": tokens, "stop": stop, "text": text}
        return _timed(found, answer.get("timings"))

    def close(self) -> None:
        pass


class _NotThereError(SpecdecError):
    """The server does not know this path."""


def _timed(answer: dict[str, Any], timings: Any) -> dict[str, Any]:
    n = len(answer["token_ids"])
    known = timings if isinstance(timings, dict) else {}
    accepted = known.get("draft_n_accepted") or 0
    return {
        **answer,
        "prompt_ms": known.get("prompt_ms", 0.0),
        "decode_ms": known.get("predicted_ms"),
        "rate_tokens": known.get("predicted_n", n),
        "passes": max(known.get("predicted_n", n) - accepted, 0),
        "drafted": known.get("draft_n") or 0,
        "accepted": accepted,
    }


def process_engine(workbench: Workbench, pair: Pair, method: Method) -> ProcessEngine:
    return ProcessEngine(workbench, pair, method)


def server_engine(workbench: Workbench, pair: Pair, method: Method) -> ServerEngine:
    return ServerEngine(workbench, pair, method)
