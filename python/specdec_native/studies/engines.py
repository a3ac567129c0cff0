"""Who decodes: a workbench keeps the models of one process, and one engine per method."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..decoder import Decoder
from ..errors import InvalidArgumentError, SpecdecError
from ..model import Model, check_pair
from ..options import (
    Drafter,
    DraftModel,
    LayerSkip,
    NGram,
    SamplingParams,
    SuffixAutomaton,
    TokenRecycling,
)
from .plan import Method, Pair, Scalar

DRAFTERS: dict[str, Callable[..., Drafter]] = {
    "ngram": NGram,
    "suffix": SuffixAutomaton,
    "recycling": TokenRecycling,
    "layerskip": LayerSkip,
}
MOST_ENGINES = 16  # that keep their caches at a time


@dataclass(frozen=True)
class Request:
    """What one run asks for.

    Attributes:
        prompt: token ids.
        sampling: temperature and what else `SamplingParams` takes, without the seed.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    seed: int
    sampling: Mapping[str, Scalar] = field(default_factory=dict)
    ignore_eos: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        stats: as `DecodeStats.to_dict`; other engines give what they know of it.
        wall_ms: of the whole call, its prompt included.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    stats: Mapping[str, Any]
    wall_ms: float
    summary: str = ""


class Engine(Protocol):
    """One way to decode, with its models loaded."""

    def start(self) -> None:
        """A new conversation: nothing of an earlier one may help or hinder."""

    def generate(self, request: Request) -> Outcome: ...

    def close(self) -> None: ...


class OwnEngine:
    """A decoder of this package."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def start(self) -> None:
        self._decoder.reset()

    def generate(self, request: Request) -> Outcome:
        start = time.perf_counter()
        result = self._decoder.generate(
            request.prompt,
            max_tokens=request.max_tokens,
            params=SamplingParams(**request.sampling, seed=request.seed),  # type: ignore[arg-type]
            ignore_eos=request.ignore_eos,
        )
        wall_ms = (time.perf_counter() - start) * 1000
        return Outcome(
            result.token_ids,
            result.text,
            result.finish_reason,
            result.stats.to_dict(),
            wall_ms,
            result.summary,
        )

    def close(self) -> None:
        self._decoder.close()


# Other engines, by the name in Method.engine: "module:function", called with (workbench, pair,
# method). Imported when first used: what they need is optional.
ENGINES: dict[str, str] = {
    "llama.cpp": "specdec_native.studies.peer_engines:process_engine",
    "transformers": "specdec_native.studies.peer_engines:process_engine",
    "llama-server": "specdec_native.studies.peer_server:server_engine",
}


class Workbench:
    """The models of the pairs, loaded when first needed, and the engines made of them."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        n_threads: int | None = None,
        n_ctx: int = 4096,
        device: str = "auto",
    ) -> None:
        self.pairs = {pair.name: pair for pair in pairs}
        self.n_threads = n_threads
        self.device = device
        self.outside: dict[str, str] = {}  # where other engines are: "python", "server"
        self._n_ctx = n_ctx
        self._models: dict[str, Model] = {}
        self._engines: collections.OrderedDict[str, Engine] = collections.OrderedDict()
        self._warm: set[str] = set()

    def model(self, path: str) -> Model:
        if path not in self._models:
            self._models[path] = Model(
                path,
                n_threads=self.n_threads,
                device=self.device,  # type: ignore[arg-type]
            )
        return self._models[path]

    def target(self, pair: Pair) -> Model:
        return self.model(pair.target)

    def draft(self, pair: Pair) -> Model:
        if pair.draft is None:
            raise InvalidArgumentError(f"{pair.name} has no draft model: give --draft")
        return self.model(pair.draft)

    def n_ctx(self, pair: Pair) -> int:
        """Positions: as asked for, within what the target was trained on."""
        trained = self.target(pair).info.context_length
        return min(self._n_ctx, trained) if trained > 0 else self._n_ctx

    def check(self) -> None:
        """Loads every pair; an error if one cannot work together."""
        for pair in self.pairs.values():
            target = self.target(pair)
            if pair.draft is not None:
                report = check_pair(target, self.draft(pair))
                if not report.compatible:
                    raise InvalidArgumentError(
                        f"{pair.draft} cannot draft for {pair.target}: {report.reason}"
                    )

    def adopt(self, pair: Pair, model: Model) -> None:
        """A target that is loaded already, and stays so."""
        self._models[pair.target] = model._keep()

    def add(self, pair: Pair, method: Method, engine: Engine) -> None:
        """An engine that somebody else made."""
        self._engines[_key(pair, method)] = engine

    def engine(self, pair: Pair, method: Method) -> Engine:
        key = _key(pair, method)
        if key in self._engines:
            self._engines.move_to_end(key)
            return self._engines[key]
        while len(self._engines) >= MOST_ENGINES:
            oldest, engine = self._engines.popitem(last=False)
            engine.close()
            self._warm.discard(oldest)
        if method.engine == "specdec":
            engine = OwnEngine(self._decoder(pair, method))
        elif method.engine in ENGINES:
            module, _, function = ENGINES[method.engine].partition(":")
            engine = getattr(importlib.import_module(module), function)(self, pair, method)
        else:
            raise InvalidArgumentError(f"there is no engine {method.engine!r}")
        self._engines[key] = engine
        return engine

    def warm_up(self, pair: Pair, method: Method, request: Request) -> None:
        """Before the first measured run of an engine: pages, clocks, the costs `auto` measures."""
        key = _key(pair, method)
        if key not in self._warm:
            self._warm.add(key)
            engine = self.engine(pair, method)
            engine.start()
            short = dataclasses.replace(
                request, prompt=request.prompt[-32:], max_tokens=min(request.max_tokens, 16)
            )
            engine.generate(short)

    def _decoder(self, pair: Pair, method: Method) -> Decoder:
        target = self.target(pair)
        more: dict[str, Any] = {"verifier": method.verifier, "n_ctx": self.n_ctx(pair)}
        more |= method.decoder
        if method.drafter == "auto":
            draft = None if pair.draft is None else self.draft(pair)
            return Decoder(target, drafter="auto", draft=draft, **more)
        with warnings.catch_warnings():  # a study runs the lossy verifier on purpose, and says so
            warnings.filterwarnings("ignore", message=".*is not lossless", category=UserWarning)
            return Decoder(target, drafter=self._drafter(pair, method), **more)

    def _drafter(self, pair: Pair, method: Method) -> Drafter | None:
        try:
            if method.drafter == "none":
                return None
            if method.drafter == "model":
                return DraftModel(self.draft(pair), **method.options)  # type: ignore[arg-type]
            if method.drafter in DRAFTERS:
                return DRAFTERS[method.drafter](**method.options)
        except TypeError as error:
            raise InvalidArgumentError(f"{method.name}: {error}") from None
        raise InvalidArgumentError(
            f"{method.name}: drafter must be none, auto, model, {', '.join(DRAFTERS)}, "
            f"not {method.drafter!r}"
        )

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()
        for model in self._models.values():
            model.close()
        self._models.clear()

    def __enter__(self) -> Workbench:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _key(pair: Pair, method: Method) -> str:
    how = (method.engine, method.drafter, dict(method.options), method.verifier)
    return repr((pair.name, method.name, *how, dict(method.decoder)))


def impossible(workbench: Workbench, pair: Pair, method: Method) -> str:
    """Why a method cannot be had for a pair; "" when it can."""
    if method.drafter == "model" and pair.draft is None:
        return "no draft model: --draft"
    try:
        workbench.engine(pair, method)
    except SpecdecError as error:
        return str(error)
    return ""
