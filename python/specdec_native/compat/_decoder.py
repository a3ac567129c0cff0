"""`SpeculativeDecoder` as two of the forerunners had it, one class for both."""

from __future__ import annotations

import time
import warnings
from statistics import fmean
from types import TracebackType
from typing import TypedDict, overload

from .._checks import check_whole
from ..decoder import Decoder
from ..download import Notify
from ..errors import InvalidArgumentError, OutputMismatchError
from ..model import StrPath
from ..options import DraftModel
from ..results import GenerationResult
from ._functions import generate_speculative_tokens, validate_tokens
from ._models import Tokenizer, fallback_note, load_model

_MOST_TOKENS = 2**31 - 1
_LONGEST_DRAFT = 64

_clock = time.perf_counter


class Timings(TypedDict):
    """One way of decoding, run several times; seconds of whole calls, the prompt included."""

    times: list[float]
    tokens_per_second: list[float]
    avg_time: float
    avg_tokens_per_second: float


class BenchmarkResult(TypedDict):
    """What `SpeculativeDecoder.benchmark` returns; None where there was no baseline.

    `speedup` is the mean time of the baseline over the mean time of speculation,
    `latency_reduction` is what was saved of the baseline's time, in per cent.
    """

    speculative: Timings
    baseline: Timings | None
    speedup: float | None
    latency_reduction: float | None


class SpeculativeDecoder:
    """A target model and the smaller one that drafts for it, by name.

    Models are named as for `load_model`. Attributes: `approx_model`, `target_model` (both
    `specdec_native.Model`), `tokenizer` (the target's), `device` ("cpu" or "cuda": where the target
    runs), `note` (why it is not on the GPU that was asked for; "" if it is), `last_result` (the
    `GenerationResult` of the last call). `gamma`, `max_tokens`, `temperature` and `seed` may be
    assigned; they hold from the next call on.

    Args:
        approx_model_name: the draft model.
        target_model_name: the model whose text is wanted.
        gamma: 0 to 64; tokens drafted per pass of the target, of `speculative_sample`.
        max_tokens: new tokens of `speculative_sample`: exactly so many, unless the model ends.
        device: "cuda" falls back to the CPU; "cpu"; "auto".
        draft_model_name: another word for `approx_model_name`; then both models are keywords.
        temperature: of `speculative_sample`; 0 takes the best token.
        seed: the same one gives the same text, whatever the draft model and gamma; None: a new one
            in each call, which `last_result.seed` tells.
        notify: called with a sentence before a download.

    Raises:
        InvalidArgumentError: names the argument.
        UnsupportedModelError: the models do not share their vocabulary.
    """

    @overload
    def __init__(
        self,
        approx_model_name: StrPath,
        target_model_name: StrPath,
        gamma: int = 4,
        max_tokens: int = 20,
        device: object = "cuda",
        *,
        temperature: float = 1.0,
        seed: int | None = None,
        notify: Notify = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        target_model_name: StrPath,
        draft_model_name: StrPath,
        gamma: int = 4,
        max_tokens: int = 20,
        device: object = "cuda",
        temperature: float = 1.0,
        seed: int | None = None,
        notify: Notify = ...,
    ) -> None: ...

    def __init__(
        self,
        approx_model_name: StrPath | None = None,
        target_model_name: StrPath | None = None,
        gamma: int = 4,
        max_tokens: int = 20,
        device: object = "cuda",
        *,
        draft_model_name: StrPath | None = None,
        temperature: float = 1.0,
        seed: int | None = None,
        notify: Notify = lambda text: None,
    ) -> None:
        if approx_model_name is not None and draft_model_name is not None:
            raise InvalidArgumentError(
                "approx_model_name and draft_model_name are the same model: give one of them"
            )
        draft = draft_model_name if approx_model_name is None else approx_model_name
        if draft is None or target_model_name is None:
            missing = "target_model_name" if draft is not None else "approx_model_name"
            raise InvalidArgumentError(
                f"SpeculativeDecoder needs two models, and {missing} is missing"
            )
        self.gamma = check_whole("gamma", gamma, 0, _LONGEST_DRAFT)
        self.max_tokens = check_whole("max_tokens", max_tokens, 0, _MOST_TOKENS)
        self.temperature = temperature
        self.seed = seed
        self.last_result: GenerationResult | None = None
        # The draft model first: it runs most often and gets its place on a GPU first.
        self.approx_model = load_model(draft, device, notify=notify)
        self.target_model = load_model(target_model_name, device, notify=notify)
        self.tokenizer = Tokenizer(self.target_model)
        self.device = "cuda" if self.target_model.info.n_gpu_layers > 0 else "cpu"
        self.note = fallback_note(self.target_model, device)
        if self.approx_model.info.n_params > self.target_model.info.n_params:
            warnings.warn(
                "the draft model is larger than the target: the order is (draft, target); for the "
                "other order there is SpeculativeDecoder.for_target(target, draft)",
                UserWarning,
                stacklevel=2,
            )
        self._decoders: dict[int | None, Decoder] = {}
        self._decoder(self.gamma)  # an unsuitable pair is an error now

    @classmethod
    def for_target(
        cls,
        target_model_name: StrPath,
        draft_model_name: StrPath,
        device: object = "cuda",
    ) -> SpeculativeDecoder:
        """The target first, as one of the forerunners had it."""
        return cls(draft_model_name, target_model_name, device=device)

    def speculative_sample(self, input_text: str) -> str:
        """The text and its continuation by `max_tokens` tokens, sampled at `temperature`.

        What is sampled follows the target's distribution exactly: with a seed it is the very text
        that the target gives alone with that seed.
        """
        self.last_result = self._decoder(self.gamma).generate(
            input_text,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )
        return input_text + self.last_result.text

    def speculative_decode(
        self, prompt: str, max_tokens: int = 100, num_speculative_tokens: int = 17
    ) -> str:
        """The prompt and its greedy continuation: the very text that the target gives alone."""
        self.last_result = self._decoder(num_speculative_tokens).generate(
            prompt, max_tokens=max_tokens, temperature=0
        )
        return prompt + self.last_result.text

    def benchmark(
        self,
        prompt: str,
        max_tokens: int = 100,
        num_runs: int = 3,
        compare_baseline: bool = True,
        *,
        num_speculative_tokens: int = 17,
    ) -> BenchmarkResult:
        """Times greedy decoding with drafts against the target alone.

        Both take turns, every run reads the prompt anew, and one run of each before the others is
        not counted.

        Raises:
            OutputMismatchError: the two gave different tokens: a bug, please report it.
        """
        num_runs = check_whole("num_runs", num_runs, 1, 1_000_000)
        ways = {"speculative": self._decoder(num_speculative_tokens)}
        if compare_baseline:
            ways["baseline"] = self._decoder(None)
        results: dict[str, list[GenerationResult]] = {name: [] for name in ways}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for run in range(num_runs + 1):
            for name, decoder in ways.items():
                decoder.reset()
                begin = _clock()
                result = decoder.generate(prompt, max_tokens=max_tokens, temperature=0)
                seconds = _clock() - begin
                if run > 0:
                    results[name].append(result)
                    times[name].append(seconds)
        _require_same_tokens(results)
        self.last_result = results["speculative"][-1]
        timings = {name: _timings(results[name], times[name]) for name in ways}
        speculative, baseline = timings["speculative"], timings.get("baseline")
        out = BenchmarkResult(
            speculative=speculative, baseline=baseline, speedup=None, latency_reduction=None
        )
        if baseline is not None:
            out["speedup"] = baseline["avg_time"] / speculative["avg_time"]
            out["latency_reduction"] = (1 - speculative["avg_time"] / baseline["avg_time"]) * 100
        return out

    def generate_draft_tokens(
        self, input_ids: list[int], num_speculative_tokens: int = 17
    ) -> list[int]:
        """The draft model's best tokens after these; fewer when it ends."""
        return generate_speculative_tokens(self.approx_model, input_ids, num_speculative_tokens)

    def verify_tokens(
        self, input_ids: list[int], draft_tokens: list[int]
    ) -> tuple[list[int], int | None]:
        """Drafted tokens that are the target's own choice, and the index of the first that is not.

        None in place of the index when all are.
        """
        accepted = validate_tokens(self.target_model, input_ids, draft_tokens)
        return accepted, None if len(accepted) == len(draft_tokens) else len(accepted)

    def close(self) -> None:
        """Releases models and caches; may be called again."""
        for decoder in self._decoders.values():
            decoder.close()
        self._decoders.clear()
        self.approx_model.close()
        self.target_model.close()

    def __enter__(self) -> SpeculativeDecoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _decoder(self, gamma: int | None) -> Decoder:
        """One that drafts so many tokens, kept until another number is wanted; None: nothing."""
        if gamma is not None:
            gamma = check_whole("num_speculative_tokens", gamma, 0, _LONGEST_DRAFT)
        if gamma not in self._decoders:
            for old in [kept for kept in self._decoders if (kept is None) == (gamma is None)]:
                self._decoders.pop(old).close()
            drafter = None if gamma is None else DraftModel(self.approx_model, gamma=gamma)
            self._decoders[gamma] = Decoder(self.target_model, drafter=drafter)
        return self._decoders[gamma]


def _timings(results: list[GenerationResult], times: list[float]) -> Timings:
    pairs = zip(results, times, strict=True)
    speeds = [len(result.token_ids) / seconds for result, seconds in pairs]
    return Timings(
        times=times,
        tokens_per_second=speeds,
        avg_time=fmean(times),
        avg_tokens_per_second=fmean(speeds),
    )


def _require_same_tokens(results: dict[str, list[GenerationResult]]) -> None:
    every = [result for runs in results.values() for result in runs]
    for result in every:
        if result.token_ids != every[0].token_ids:
            error = OutputMismatchError(
                "runs of one prompt at temperature 0 gave different tokens: their times cannot be "
                "compared"
            )
            error.result = result
            raise error
