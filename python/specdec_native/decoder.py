"""Decoders: text in, text out, plainly or speculatively."""

from __future__ import annotations

import dataclasses
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, get_args

from . import _core
from ._checks import Unset, check_all, check_choice, check_whole, unset
from ._convert import Call, round_callback, to_check, to_chunk, to_result
from ._option_table import CHECKS
from .errors import ClosedError, InvalidArgumentError, OutputMismatchError, SessionBusyError
from .grammar import Grammar
from .model import (
    KvType,
    Message,
    Model,
    check_model,
    check_token_ids,
    flush_log,
    on_main_thread,
    refuse_copy,
    to_bytes,
)
from .options import (
    MAX_STOP_STRINGS,
    Cascade,
    Drafter,
    DraftModel,
    LayerSkip,
    NGram,
    SamplingParams,
    SuffixAutomaton,
    TokenRecycling,
)
from .results import Chunk, GenerationResult, Round
from .stream import Stream, StreamWorker

Prompt = str | Sequence[int]
OnToken = Callable[[Chunk], object]
OnProgress = Callable[[int, int], object]
OnRound = Callable[[Round], object]


_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingParams))
_DRAFTERS: dict[str, Callable[..., Drafter]] = {
    "model": DraftModel,
    "ngram": NGram,
    "suffix": SuffixAutomaton,
    "recycling": TokenRecycling,
    "layerskip": LayerSkip,
}
DrafterChoice = Drafter | Cascade | Sequence[Drafter | str] | str


class Decoder:
    """One conversation with a model.

    What a new prompt shares with what the decoder holds is not read again. A decoder belongs to one
    thread at a time: a second call while one runs raises `SessionBusyError`. Make one decoder per
    thread; they share the model.

    It keeps what it needs alive: models may be closed once it exists. Whatever ends a call or a
    stream (the end, an error, an exception of a callback, `cancel`, Ctrl-C), the decoder can be
    used again.

    Args:
        target: the model whose text this is.
        drafter: "auto": each pass uses what is expected to be fastest of n-gram and suffix lookup
            and the `draft` model, or decodes plainly, from measured costs and acceptance; a
            `Cascade` or list of drafters: the same among them; one of `DraftModel`, `NGram`,
            `SuffixAutomaton`, `TokenRecycling`, `LayerSkip`: drafts of its own fixed length. The
            names of the command line mean those with their defaults: "model" (which is `draft`),
            "ngram", "suffix", "recycling", "layerskip", several with commas, "none"; None: plain
            decoding.
        draft: a smaller model of the same vocabulary, for "auto" and "model"; None: none.
        verifier: "auto" (greedy at temperature 0, match above), "greedy", "match", "standard",
            "block" or "topk_importance"; docs/verifiers.md compares them.
            "topk_importance_published" is for comparison only: it is not lossless, and warns.
        n_ctx: 2 or more; positions of the context; None: the model's.
        kv_type: elements of the caches; None: the model's.
        use_cache: False, for experiments: every pass of the target and of the draft model reads its
            whole context again, and nothing is kept between calls; the same tokens, slower.

    Raises:
        InvalidArgumentError: names the option and its range.
        UnsupportedModelError: the draft model has another vocabulary.
        ResourceLimitError: not enough memory for `n_ctx`.
    """

    def __init__(
        self,
        target: Model,
        *,
        drafter: DrafterChoice | None = "auto",
        draft: Model | None = None,
        verifier: str = "auto",
        n_ctx: int | None = None,
        kv_type: KvType | None = None,
        use_cache: bool = True,
    ) -> None:
        self._slot = _core.CallSlot()
        self._session: _core.Session | None = None
        self._worker: StreamWorker | None = None
        check_model("target", target)
        options, draft = session_options(
            {
                "drafter": drafter,
                "draft": draft,
                "verifier": verifier,
                "n_ctx": n_ctx,
                "kv_type": kv_type,
                "use_cache": use_cache,
            }
        )
        self._target = target
        self._model = target._keep()
        self._session = _core.Session(
            target._native,
            None if draft is None else draft._native,
            options,
            poll_signals=on_main_thread(),
        )
        flush_log()

    @property
    def target(self) -> Model:
        """The model object given; it may have been closed meanwhile."""
        return self._target

    @property
    def n_ctx(self) -> int:
        """Positions of the context."""
        return self._native.n_ctx

    @property
    def memory_bytes(self) -> int:
        """Memory of caches and work space; the weights are the model's."""
        return self._native.memory_bytes

    @property
    def busy(self) -> bool:
        """Whether a call or a stream is running, on this thread or another."""
        self._native  # noqa: B018  # ClosedError comes first
        worker = self._worker
        return self._slot.busy or (worker is not None and not worker.finished.is_set())

    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 128,
        params: SamplingParams | None = None,
        logit_bias: Mapping[int, float] = unset({}),
        repetition_penalty: float = unset(1.0),
        presence_penalty: float = unset(0.0),
        frequency_penalty: float = unset(0.0),
        penalty_last_n: int = unset(64),
        temperature: float = unset(0.0),
        top_k: int = unset(0),
        top_p: float = unset(1.0),
        min_p: float = unset(0.0),
        noise_scale: float = unset(0.0),
        seed: int | None = unset(None),
        stop: str | Sequence[str] | None = None,
        schema: Mapping[str, Any] | str | None = None,
        grammar: Grammar | None = None,
        speculate: bool = True,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        render_special: bool = False,
        parse_special: bool = True,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
        on_token: OnToken | None = None,
        verify_output: bool = False,
    ) -> GenerationResult:
        """Continues a prompt.

        Args:
            prompt: text, to which no chat template is applied (see `chat`), or token ids.
            max_tokens: 0 or more; at most so many; None: until the context is full.
            params: a `SamplingParams`; single options override its fields; None: its defaults.
            logit_bias: token id -> what is added to its logit, -inf bans the token.
            repetition_penalty: (0, 100]; divides positive logits of seen tokens, multiplies
                negative ones.
            presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
            frequency_penalty: [-100, 100]; subtracted once per occurrence.
            penalty_last_n: -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
            temperature: [0, 1000000]; 0 takes the best token, ties to the lowest id.
            top_k: 0 or more; keep the best so many tokens; 0: all.
            top_p: (0, 1]; keep the best tokens that make up this probability; 1: all.
            min_p: [0, 1); drop tokens below this share of the best one's probability; 0: none.
            noise_scale: [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the
                survivors' logits.
            seed: 0 or more; the same one gives the same tokens, unless `stats.reproducible` says
                no; None: a new one, which the result reports.
            stop: a string or up to 64; the text ends before the first that appears; None: no
                string.
            schema: the text is JSON of this JSON schema, a dict or JSON text; needs llguidance, as
                `grammar` does; None: any text.
            grammar: a `Grammar`, which the text follows; None: any text.
            speculate: False: decode this request plainly, whatever drafters there are.
            ignore_eos: forbid the tokens that end a generation, as llama.cpp's --ignore-eos does:
                they are never drawn, and the model goes on until `max_tokens`, a stop string or a
                full context.
            logprobs: 0 to 100; log-probabilities, and so many alternatives per token; None: none.
            render_special: spell control tokens out in the text.
            parse_special: recognise control tokens that a text prompt spells out.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
            on_token: called with each `Chunk`; returning False ends the generation, and an
                exception ends it and passes through.
            verify_output: decode once more without a drafter, from the start of the prompt, and
                compare; `result.check` tells. Above temperature 0 only the verifier `match` can be
                checked so: the others keep the distribution, not the tokens.

        Raises:
            InvalidArgumentError: names the option and its range.
            OutputMismatchError: `verify_output` found a difference.
            ContextFullError: the prompt and one token do not fit into `n_ctx`.
            SessionBusyError: another call is running.

        Ctrl-C ends the call with KeyboardInterrupt; the decoder can be used again.
        """
        options = locals()
        with self._slot as cancel:
            call = self._call(options, cancel)
            set_prompt(call.request, prompt, self._model)
            return self._run(call)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 128,
        params: SamplingParams | None = None,
        logit_bias: Mapping[int, float] = unset({}),
        repetition_penalty: float = unset(1.0),
        presence_penalty: float = unset(0.0),
        frequency_penalty: float = unset(0.0),
        penalty_last_n: int = unset(64),
        temperature: float = unset(0.0),
        top_k: int = unset(0),
        top_p: float = unset(1.0),
        min_p: float = unset(0.0),
        noise_scale: float = unset(0.0),
        seed: int | None = unset(None),
        stop: str | Sequence[str] | None = None,
        schema: Mapping[str, Any] | str | None = None,
        grammar: Grammar | None = None,
        speculate: bool = True,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        render_special: bool = False,
        parse_special: bool = True,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> Stream:
        """As `generate`, but returns an iterator over `Chunk`s that is also a context manager.

        Closing or dropping the iterator ends the generation; then its `result` tells what there
        was. `on_progress` and `on_round` are called on another thread.

        Args:
            prompt: text, to which no chat template is applied, or token ids.
            max_tokens: 0 or more; at most so many; None: until the context is full.
            params: a `SamplingParams`; single options override its fields; None: its defaults.
            logit_bias: token id -> what is added to its logit, -inf bans the token.
            repetition_penalty: (0, 100]; divides positive logits of seen tokens, multiplies
                negative ones.
            presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
            frequency_penalty: [-100, 100]; subtracted once per occurrence.
            penalty_last_n: -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
            temperature: [0, 1000000]; 0 takes the best token, ties to the lowest id.
            top_k: 0 or more; keep the best so many tokens; 0: all.
            top_p: (0, 1]; keep the best tokens that make up this probability; 1: all.
            min_p: [0, 1); drop tokens below this share of the best one's probability; 0: none.
            noise_scale: [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the
                survivors' logits.
            seed: 0 or more; the same one gives the same tokens, unless `stats.reproducible` says
                no; None: a new one, which the result reports.
            stop: a string or up to 64; the text ends before the first that appears; None: no
                string.
            schema: the text is JSON of this JSON schema, a dict or JSON text; needs llguidance, as
                `grammar` does; None: any text.
            grammar: a `Grammar`, which the text follows; None: any text.
            speculate: False: decode this request plainly, whatever drafters there are.
            ignore_eos: forbid the tokens that end a generation, as llama.cpp's --ignore-eos does:
                they are never drawn, and the model goes on until `max_tokens`, a stop string or a
                full context.
            logprobs: 0 to 100; log-probabilities, and so many alternatives per token; None: none.
            render_special: spell control tokens out in the text.
            parse_special: recognise control tokens that a text prompt spells out.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        with self._slot as cancel:
            call = self._call(options, cancel)
            set_prompt(call.request, prompt, self._model)
            return self._start(call)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = 512,
        params: SamplingParams | None = None,
        logit_bias: Mapping[int, float] = unset({}),
        repetition_penalty: float = unset(1.0),
        presence_penalty: float = unset(0.0),
        frequency_penalty: float = unset(0.0),
        penalty_last_n: int = unset(64),
        temperature: float = unset(0.0),
        top_k: int = unset(0),
        top_p: float = unset(1.0),
        min_p: float = unset(0.0),
        noise_scale: float = unset(0.0),
        seed: int | None = unset(None),
        stop: str | Sequence[str] | None = None,
        schema: Mapping[str, Any] | str | None = None,
        grammar: Grammar | None = None,
        speculate: bool = True,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        render_special: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
        on_token: OnToken | None = None,
        verify_output: bool = False,
    ) -> GenerationResult:
        """Answers a conversation, with the chat template of the model file.

        Args:
            messages: dicts with "role" and "content"; message text cannot forge control tokens.
            max_tokens: 0 or more; at most so many; None: until the context is full.
            params: a `SamplingParams`; single options override its fields; None: its defaults.
            logit_bias: token id -> what is added to its logit, -inf bans the token.
            repetition_penalty: (0, 100]; divides positive logits of seen tokens, multiplies
                negative ones.
            presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
            frequency_penalty: [-100, 100]; subtracted once per occurrence.
            penalty_last_n: -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
            temperature: [0, 1000000]; 0 takes the best token, ties to the lowest id.
            top_k: 0 or more; keep the best so many tokens; 0: all.
            top_p: (0, 1]; keep the best tokens that make up this probability; 1: all.
            min_p: [0, 1); drop tokens below this share of the best one's probability; 0: none.
            noise_scale: [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the
                survivors' logits.
            seed: 0 or more; the same one gives the same tokens, unless `stats.reproducible` says
                no; None: a new one, which the result reports.
            stop: a string or up to 64; the text ends before the first that appears; None: no
                string.
            schema: the text is JSON of this JSON schema, a dict or JSON text; needs llguidance, as
                `grammar` does; None: any text.
            grammar: a `Grammar`, which the text follows; None: any text.
            speculate: False: decode this request plainly, whatever drafters there are.
            ignore_eos: forbid the tokens that end a generation, as llama.cpp's --ignore-eos does:
                they are never drawn, and the model goes on until `max_tokens`, a stop string or a
                full context.
            logprobs: 0 to 100; log-probabilities, and so many alternatives per token; None: none.
            render_special: spell control tokens out in the text.
            tools: function descriptions, for templates that know them; None: none.
            template: a jinja2 template, or the name of a format (chatml, llama2, llama3, zephyr,
                gemma, phi3, phi4, raw) or of one of the file's templates, instead of the file's
                own; None: the file's.
            template_args: further variables for the template; None: none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
            on_token: called with each `Chunk`; returning False ends the generation, and an
                exception ends it and passes through.
            verify_output: decode once more without a drafter, from the start of the prompt, and
                compare; `result.check` tells. Above temperature 0 only the verifier `match` can be
                checked so: the others keep the distribution, not the tokens.

        Raises:
            TemplateError: no template, or it is wrong, refuses the messages or exceeds its limits.
            SpecdecError: as `generate`.
        """
        options = locals()
        with self._slot as cancel:
            return self._run(self._chat_call(options, cancel))

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = 512,
        params: SamplingParams | None = None,
        logit_bias: Mapping[int, float] = unset({}),
        repetition_penalty: float = unset(1.0),
        presence_penalty: float = unset(0.0),
        frequency_penalty: float = unset(0.0),
        penalty_last_n: int = unset(64),
        temperature: float = unset(0.0),
        top_k: int = unset(0),
        top_p: float = unset(1.0),
        min_p: float = unset(0.0),
        noise_scale: float = unset(0.0),
        seed: int | None = unset(None),
        stop: str | Sequence[str] | None = None,
        schema: Mapping[str, Any] | str | None = None,
        grammar: Grammar | None = None,
        speculate: bool = True,
        ignore_eos: bool = False,
        logprobs: int | None = None,
        render_special: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        template_args: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> Stream:
        """As `chat`, but returns an iterator as `stream` does.

        Args:
            messages: dicts with "role" and "content"; message text cannot forge control tokens.
            max_tokens: 0 or more; at most so many; None: until the context is full.
            params: a `SamplingParams`; single options override its fields; None: its defaults.
            logit_bias: token id -> what is added to its logit, -inf bans the token.
            repetition_penalty: (0, 100]; divides positive logits of seen tokens, multiplies
                negative ones.
            presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
            frequency_penalty: [-100, 100]; subtracted once per occurrence.
            penalty_last_n: -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
            temperature: [0, 1000000]; 0 takes the best token, ties to the lowest id.
            top_k: 0 or more; keep the best so many tokens; 0: all.
            top_p: (0, 1]; keep the best tokens that make up this probability; 1: all.
            min_p: [0, 1); drop tokens below this share of the best one's probability; 0: none.
            noise_scale: [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the
                survivors' logits.
            seed: 0 or more; the same one gives the same tokens, unless `stats.reproducible` says
                no; None: a new one, which the result reports.
            stop: a string or up to 64; the text ends before the first that appears; None: no
                string.
            schema: the text is JSON of this JSON schema, a dict or JSON text; needs llguidance, as
                `grammar` does; None: any text.
            grammar: a `Grammar`, which the text follows; None: any text.
            speculate: False: decode this request plainly, whatever drafters there are.
            ignore_eos: forbid the tokens that end a generation, as llama.cpp's --ignore-eos does:
                they are never drawn, and the model goes on until `max_tokens`, a stop string or a
                full context.
            logprobs: 0 to 100; log-probabilities, and so many alternatives per token; None: none.
            render_special: spell control tokens out in the text.
            tools: function descriptions, for templates that know them; None: none.
            template: a jinja2 template, or the name of a format (chatml, llama2, llama3, zephyr,
                gemma, phi3, phi4, raw) or of one of the file's templates, instead of the file's
                own; None: the file's.
            template_args: further variables for the template; None: none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        with self._slot as cancel:
            return self._start(self._chat_call(options, cancel))

    def cancel(self) -> None:
        """Ends the running call or stream soon, from any thread; without one it has no effect.

        It counts from the first line of the call on: also while options are checked, a template is
        rendered or the model's speed is measured.
        """
        self._slot.cancel()
        worker = self._worker
        if worker is not None:
            worker.cancel.set()

    def fork(self) -> Decoder:
        """A second conversation that starts with this one's content, which is stored once."""
        with self._slot:
            self._wait_for_stream()
            other = Decoder.__new__(Decoder)
            other._slot = _core.CallSlot()
            other._worker = None
            other._target = self._target
            other._model = self._model
            other._session = self._native.fork()
            return other

    def reset(self) -> None:
        """Forgets the conversation: the next prompt is read from its start."""
        with self._slot:
            self._wait_for_stream()
            self._native.reset()

    def close(self) -> None:
        """Ends a running call or stream and releases the caches; may be called again.

        A stream is waited for. A call of another thread gets "cancelled" as soon as it can, and the
        caches are released when it has returned.
        """
        self._slot.close()
        worker, self._session = self._worker, None
        if worker is not None:
            worker.cancel.set()
            worker.wait()
            self._worker = None

    @property
    def closed(self) -> bool:
        return self._session is None

    @property
    def _native(self) -> _core.Session:
        if self._session is None:
            raise ClosedError("the decoder is closed")
        return self._session

    def _call(self, options: Mapping[str, Any], cancel: _core.CancelFlag) -> Call:
        """Checks the options of a call, given by name, and makes a request without a prompt."""
        session = self._native
        checked, request = native_request(options, self._model)
        return Call(
            session,
            cancel,
            request,
            checked["logprobs"],
            on_progress=checked["on_progress"],
            on_round=checked["on_round"],
            on_token=checked.get("on_token"),
            verify_output=checked.get("verify_output", False),
        )

    def _chat_call(self, options: Mapping[str, Any], cancel: _core.CancelFlag) -> Call:
        call = self._call(options, cancel)
        set_messages(call.request, options, self._model)
        return call

    def _run(self, call: Call) -> GenerationResult:
        self._wait_for_stream()
        session = call.session
        if call.verify_output:
            session.require_checkable(call.request)
        poll_signals = on_main_thread()
        check = None
        on_token = call.on_token
        on_chunk = None if on_token is None else lambda chunk: on_token(to_chunk(chunk, call))
        try:
            result = session.generate(
                call.request,
                on_chunk=on_chunk,
                on_progress=call.on_progress,
                on_round=round_callback(call.on_round),
                cancel=call.cancel,
                poll_signals=poll_signals,
            )
            if call.verify_output and result.finish_reason != "cancelled":
                check = session.check_output(
                    call.request, result, cancel=call.cancel, poll_signals=poll_signals
                )
        finally:
            flush_log()
        converted = to_result(session, result, call)
        if check is None:
            return converted
        converted = dataclasses.replace(converted, check=to_check(check))
        if not check.identical:
            error = OutputMismatchError(
                f"the output is not what plain decoding gives: {check.difference}"
            )
            error.result = converted
            raise error
        return converted

    def _start(self, call: Call) -> Stream:
        self._wait_for_stream()
        worker = StreamWorker(call)
        stream = Stream(worker)  # nothing runs without somebody who can end it
        try:
            self._worker = worker
            worker.thread.start()
            return stream
        except BaseException:  # KeyboardInterrupt, no more threads
            call.cancel.set()
            raise

    def _wait_for_stream(self) -> None:
        """Lets a stream that ended or was given up come to its end."""
        worker = self._worker
        if worker is None:
            return
        if worker.open:
            raise SessionBusyError(
                "the decoder is streaming: read the stream out, close it, or end it with cancel()"
            )
        worker.wait()
        self._worker = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_copy("Decoder")

    def __copy__(self) -> NoReturn:
        refuse_copy("Decoder")

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy("Decoder")


def session_options(given: Mapping[str, Any]) -> tuple[_core.SessionOptions, Model | None]:
    """What was given by name, checked; and the draft model if there is one."""
    checked = check_all(CHECKS["Decoder"], given)
    options = _core.SessionOptions()
    verifier = given["verifier"]
    check_choice("verifier", verifier, tuple(_core.verifier_names()))
    options.verifier = verifier
    if verifier == "topk_importance_published":
        warnings.warn(
            f"verifier {verifier!r} is not lossless: sampled text does not follow the model",
            UserWarning,
            stacklevel=3,
        )
    options.n_ctx = checked["n_ctx"] or 0
    options.kv_type = checked["kv_type"] or ""
    options.use_cache = checked.get("use_cache", True)
    return options, _set_drafters(options, given["drafter"], given["draft"])


def native_request(
    options: Mapping[str, Any], model: Model
) -> tuple[dict[str, Any], _core.GenerateRequest]:
    """Checks the options of a call, given by name, and makes a request without a prompt."""
    checked = check_all(CHECKS["call"], options)
    request = _core.GenerateRequest()
    if checked["max_tokens"] is not None:
        request.max_tokens = checked["max_tokens"]
    request.sampling = native_sampling(options, model.info.vocab_size)
    request.stop = _stop_strings(checked["stop"])
    request.ignore_eos = checked["ignore_eos"]
    request.speculate = checked["speculate"]
    grammar = _grammar(options["schema"], options["grammar"])
    if grammar is not None:
        request.set_matcher(grammar._matcher(model))
    request.render_special = checked["render_special"]
    request.parse_special = checked.get("parse_special", True)
    if checked["logprobs"] is not None:
        request.n_logprobs = checked["logprobs"]
    return checked, request


def _grammar(schema: object, grammar: object) -> Grammar | None:
    if schema is not None and grammar is not None:
        raise InvalidArgumentError("schema and grammar do not go together: give one of them")
    if schema is not None:
        return Grammar.json_schema(schema)
    if grammar is not None and not isinstance(grammar, Grammar):
        raise InvalidArgumentError(f"grammar must be a Grammar, not {type(grammar).__name__}")
    return grammar


def set_prompt(request: _core.GenerateRequest, prompt: Prompt, model: Model) -> None:
    if isinstance(prompt, str):
        request.set_prompt(to_bytes(prompt))
        return
    request.prompt_ids = check_token_ids("prompt", prompt, model.info.vocab_size)
    if not request.prompt_ids:
        raise InvalidArgumentError("prompt is empty: give at least one token id")


def set_messages(request: _core.GenerateRequest, options: Mapping[str, Any], model: Model) -> None:
    _, request.prompt_ids = model._chat_prompt(
        options["messages"],
        True,
        options["tools"],
        options["template"],
        options["template_args"],
    )


def _set_drafters(
    options: _core.SessionOptions, drafter: DrafterChoice | None, draft: Model | None
) -> Model | None:
    """Fills the drafters' options; returns the draft model if there is one."""
    if draft is not None:
        check_model("draft", draft)
    if drafter is None or (isinstance(drafter, str) and drafter == "none"):
        _refuse_draft(draft, "None")
        options.drafters = []
        return None
    if isinstance(drafter, str) and drafter == "auto":
        options.drafters = _core.parse_drafters("auto", draft is not None)
        options.adaptive = True
        return draft
    items = [_drafter(item, draft) for item in _items(drafter)]
    if not any(isinstance(item, DraftModel) and item.model is draft for item in items):
        _refuse_draft(draft, repr(drafter) if isinstance(drafter, str) else "drafters of your own")
    in_list = not isinstance(drafter, Drafter | str) or (
        isinstance(drafter, str) and "," in drafter
    )
    names: list[str] = []
    for item in items:
        if isinstance(item, DraftModel):
            check_model("DraftModel's model", item.model)
        if in_list and item.gamma is not None:
            raise InvalidArgumentError(
                f"{type(item).__name__} is in a list: its length is chosen while running, "
                "so gamma does not apply"
            )
        name = drafter_name(item)
        if name in names:
            raise InvalidArgumentError(f"{type(item).__name__} is in the list twice")
        names.append(name)
    options.adaptive = in_list
    options.drafters = [_native_drafter(item) for item in items]
    return next((item.model for item in items if isinstance(item, DraftModel)), None)


def _items(drafter: object) -> list[object]:
    """The drafters of a choice, each as an object or a name."""
    if isinstance(drafter, Drafter):
        return [drafter]
    if isinstance(drafter, Cascade):
        return list(drafter.drafters)
    if isinstance(drafter, str):
        return list(drafter.split(","))
    if isinstance(drafter, Sequence) and drafter:
        return list(drafter)
    kinds = ", ".join(kind.__name__ for kind in get_args(Drafter))
    raise InvalidArgumentError(
        f"drafter must be None, one of {kinds}, a Cascade or list of them, or a name: "
        f"{', '.join(_core.drafter_names())}; not {drafter!r}"
    )


def _drafter(item: object, draft: Model | None) -> Drafter:
    if isinstance(item, Drafter):
        return item
    if isinstance(item, str):
        if item not in _DRAFTERS:
            raise InvalidArgumentError(
                f"drafter contains {item!r}, expected one of {', '.join(_core.drafter_names())}, "
                "or several of them with commas, without none and auto"
            )
        if item == "model":
            if draft is None:
                raise InvalidArgumentError("drafter 'model' needs a draft model: draft=Model(...)")
            return DraftModel(draft)
        return _DRAFTERS[item]()
    raise InvalidArgumentError(f"drafter: a list of drafters contains {type(item).__name__}")


def _refuse_draft(draft: Model | None, drafter: str) -> None:
    if draft is not None:
        raise InvalidArgumentError(
            f"draft is not used with drafter={drafter}: it goes with 'auto' and 'model', or give "
            "drafter=DraftModel(draft)"
        )


def drafter_name(drafter: Drafter) -> str:
    return next(name for name, kind in _DRAFTERS.items() if type(drafter) is kind)


_NativeDrafter = (
    _core.DraftModelOptions
    | _core.NGramOptions
    | _core.SuffixOptions
    | _core.RecyclingOptions
    | _core.LayerSkipOptions
)
_NATIVE_DRAFTERS: dict[type[Drafter], Callable[[], _NativeDrafter]] = {
    DraftModel: _core.DraftModelOptions,
    NGram: _core.NGramOptions,
    SuffixAutomaton: _core.SuffixOptions,
    TokenRecycling: _core.RecyclingOptions,
    LayerSkip: _core.LayerSkipOptions,
}


def _native_drafter(drafter: Drafter) -> _NativeDrafter:
    """Every option of a drafter, under its own name; a model goes with the session."""
    native = _NATIVE_DRAFTERS[type(drafter)]()
    for field in dataclasses.fields(drafter):
        value = getattr(drafter, field.name)
        if field.name == "model":
            continue
        if field.name == "corpus":
            value = to_bytes(value or "")
        setattr(native, field.name, value)
    return native


def native_sampling(options: Mapping[str, Any], vocab_size: int) -> _core.SamplingParams:
    """Of `params` and what overrides it."""
    params = options["params"]
    if params is None:
        params = SamplingParams()
    if not isinstance(params, SamplingParams):
        raise InvalidArgumentError(f"params must be SamplingParams, not {type(params).__name__}")
    given = {
        name: options[name]
        for name in _SAMPLING
        if name in options and not isinstance(options[name], Unset)
    }
    params = dataclasses.replace(params, **given)
    native = _core.SamplingParams()
    for name in _SAMPLING:
        if name not in ("seed", "logit_bias"):
            setattr(native, name, getattr(params, name))
    native.seed = secrets.randbits(32) if params.seed is None else params.seed
    for token in params.logit_bias:
        check_whole("a token id in logit_bias", token, 0, vocab_size - 1)
    native.logit_bias = list(params.logit_bias.items())
    return native


def _stop_strings(stop: object) -> list[str]:
    strings = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if (
        not isinstance(strings, Sequence)
        or len(strings) > MAX_STOP_STRINGS
        or not all(isinstance(s, str) and s for s in strings)
    ):
        raise InvalidArgumentError(
            f"stop must be a str or at most {MAX_STOP_STRINGS} of them, none empty, not {stop!r}"
        )
    return [s.encode("utf-8", "replace").decode() for s in strings]
