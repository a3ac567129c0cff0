"""Servers that have the same model loaded, beside ours in a study."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from ..errors import SpecdecError, UnsupportedModelError
from .engines import Outcome, Request, Workbench
from .peer_engines import outcome_of
from .plan import Method, Pair

ANSWER_S = 3600.0


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


def server_engine(workbench: Workbench, pair: Pair, method: Method) -> ServerEngine:
    return ServerEngine(workbench, pair, method)
