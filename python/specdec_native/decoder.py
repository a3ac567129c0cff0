"""Decoders: text in, text out, plainly or speculatively."""

from __future__ import annotations

import dataclasses
import secrets
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, get_args

from . import _core
from ._convert import Call, round_callback, to_check, to_chunk, to_result
from .errors import ClosedError, InvalidArgumentError, OutputMismatchError, SessionBusyError
from .model import Message, Model, check_token_ids, flush_log, refuse_copy, to_bytes
from .options import (
    MAX_LOGPROBS,
    MAX_STOP_STRINGS,
    Cascade,
    Drafter,
    DraftModel,
    KvType,
    LayerSkip,
    NGram,
    SamplingParams,
    SuffixAutomaton,
    TokenRecycling,
    check_choice,
    check_number,
)
from .results import Chunk, GenerationResult, Round
from .stream import Stream, StreamWorker

if TYPE_CHECKING:
    from typing_extensions import Unpack

Prompt = str | Sequence[int]
OnToken = Callable[[Chunk], object]
OnProgress = Callable[[int, int], object]
OnRound = Callable[[Round], object]


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of `Decoder.generate`, `stream`, `chat` and `stream_chat`.

    Sampling, each overriding the field of `params`; see `SamplingParams` for ranges:
        params, temperature, top_k, top_p, min_p, noise_scale, seed, repetition_penalty,
        presence_penalty, frequency_penalty, penalty_last_n, logit_bias.
    Where it ends:
        stop: the text ends before the first of these strings that appears.
        ignore_eos: forbid the tokens that end a generation (`</s>`, `<|im_end|>`, ...), as
            llama.cpp's --ignore-eos does: the model must choose others and goes on until
            `max_tokens`, a stop string or a full context.
    What is reported:
        logprobs: 0 to 100; log-probabilities, and so many alternatives per token.
        render_special: spell control tokens out in the text.
        on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
        on_round: called with a `Round` after each pass of the target model.
    """

    params: SamplingParams | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    noise_scale: float
    seed: int | None
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    penalty_last_n: int
    logit_bias: Mapping[int, float]
    stop: str | Sequence[str] | None
    ignore_eos: bool
    logprobs: int | None
    render_special: bool
    on_progress: OnProgress | None
    on_round: OnRound | None


class ChatOptions(GenerateOptions, total=False):
    """Keyword arguments of `Decoder.chat` and `stream_chat`, besides `GenerateOptions`.

    tools: function descriptions, for templates that know them.
    template: a jinja2 template instead of the file's own.
    template_args: further variables for the template.
    """

    tools: Sequence[Mapping[str, Any]] | None
    template: str | None
    template_args: Mapping[str, Any] | None


_OPTIONS = frozenset(GenerateOptions.__annotations__)
_SAMPLING = frozenset(field.name for field in dataclasses.fields(SamplingParams))


class Decoder:
    """One conversation with a model.

    What a new prompt shares with what the decoder holds is not read again. A decoder belongs to one
    thread at a time: a second call while one runs raises `SessionBusyError`. Make one decoder per
    thread; they share the model.

    Args:
        target: the model whose text this is.
        drafter: "auto": each pass uses what is expected to be fastest of n-gram and suffix lookup
            and the `draft` model, or decodes plainly, from measured costs and acceptance; a
            `Cascade` or list of drafters: the same among them; one of `DraftModel`, `NGram`,
            `SuffixAutomaton`, `TokenRecycling`, `LayerSkip`: drafts of its
            own fixed length; None: plain decoding.
        draft: a smaller model of the same vocabulary, for "auto".
        verifier: "auto" (greedy at temperature 0, match above), "greedy", "match", "standard",
            "block" or "topk_importance"; docs/verifiers.md compares them.
            "topk_importance_published" is for comparison only: it is not lossless, and warns.
        n_ctx: positions of the context; None: the model's own, at most 4096.
        kv_type: elements of the caches; None: the model's.

    Raises:
        InvalidArgumentError: names the option and its range.
        UnsupportedModelError: the draft model has another vocabulary.
        ResourceLimitError: not enough memory for `n_ctx`.
    """

    def __init__(
        self,
        target: Model,
        *,
        drafter: DrafterChoice = "auto",
        draft: Model | None = None,
        verifier: str = "auto",
        n_ctx: int | None = None,
        kv_type: KvType | None = None,
    ) -> None:
        self._session: _core.Session | None = None
        self._worker: StreamWorker | None = None
        if not isinstance(target, Model):
            raise InvalidArgumentError(f"target must be a Model, not {type(target).__name__}")
        options = _core.SessionOptions()
        check_choice("verifier", verifier, _core.verifier_names())
        options.verifier = verifier
        if verifier == "topk_importance_published":
            warnings.warn(
                f"verifier {verifier!r} is not lossless: sampled text does not follow the model",
                UserWarning,
                stacklevel=2,
            )
        if n_ctx is not None:
            check_number("n_ctx", n_ctx, 2, 2**31 - 1, whole=True)
            options.n_ctx = n_ctx
        if kv_type is not None:
            check_choice("kv_type", kv_type, get_args(KvType))
            options.kv_type = kv_type
        draft = _set_drafters(options, drafter, draft)
        self._target = target
        self._session = _core.Session(
            target._native, None if draft is None else draft._native, options
        )
        flush_log()

    @property
    def target(self) -> Model:
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
        """Whether a call is running, on this thread or another."""
        return self._native.busy

    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 128,
        parse_special: bool = True,
        on_token: OnToken | None = None,
        verify_output: bool = False,
        **options: Unpack[GenerateOptions],
    ) -> GenerationResult:
        """Continues a prompt.

        Args:
            prompt: text, to which no chat template is applied (see `chat`), or token ids.
            max_tokens: at most so many; None: until the context is full.
            parse_special: recognise control tokens that a text prompt spells out.
            on_token: called with each `Chunk`; returning False ends the generation, and an
                exception ends it and passes through.
            verify_output: decode once more without a drafter, from the start of the prompt, and
                compare; `result.check` tells. Above temperature 0 only the verifier `match` can be
                checked so: the others keep the distribution, not the tokens.
            **options: see `GenerateOptions`; the default is greedy.

        Raises:
            InvalidArgumentError: names the option and its range.
            OutputMismatchError: `verify_output` found a difference.
            ContextFullError: the prompt and one token do not fit into `n_ctx`.
            SessionBusyError: another call is running.

        Ctrl-C ends the call with KeyboardInterrupt; the decoder can be used again.
        """
        call = self._call(options, max_tokens)
        self._set_prompt(call.request, prompt, parse_special)
        return self._run(call, on_token, options, verify_output)

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = 128,
        parse_special: bool = True,
        **options: Unpack[GenerateOptions],
    ) -> Stream:
        """As `generate`, but returns an iterator over `Chunk`s that is also a context manager.

        Closing or dropping the iterator ends the generation; then its `result` tells what there
        was. `on_progress` is called on another thread.
        """
        call = self._call(options, max_tokens)
        self._set_prompt(call.request, prompt, parse_special)
        return self._start(call, options)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = 512,
        on_token: OnToken | None = None,
        verify_output: bool = False,
        **options: Unpack[ChatOptions],
    ) -> GenerationResult:
        """Answers a conversation, with the chat template of the model file.

        Args:
            messages: dicts with "role" and "content"; message text cannot forge control tokens.
            max_tokens, on_token, verify_output: as of `generate`.
            **options: see `ChatOptions` and `GenerateOptions`.

        Raises:
            TemplateError: no template, or it is wrong, refuses the messages or exceeds its limits.
            Others as `generate`.
        """
        call = self._chat_call(messages, options, max_tokens)
        return self._run(call, on_token, options, verify_output)

    def stream_chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = 512,
        **options: Unpack[ChatOptions],
    ) -> Stream:
        """As `chat`, but returns an iterator as `stream` does."""
        call = self._chat_call(messages, options, max_tokens)
        return self._start(call, options)

    def cancel(self) -> None:
        """Ends the running call at its next token, from any thread; else has no effect."""
        worker, session = self._worker, self._session
        if worker is not None:
            worker.cancel.set()
        if session is not None:
            session.cancel()

    def fork(self) -> Decoder:
        """A second conversation that starts with this one's content, which is stored once."""
        self._wait_for_stream()
        other = Decoder.__new__(Decoder)
        other._worker = None
        other._target = self._target
        other._session = self._native.fork()
        return other

    def reset(self) -> None:
        """Forgets the conversation: the next prompt is read from its start."""
        self._wait_for_stream()
        self._native.reset()

    def close(self) -> None:
        """Ends a running call and releases the caches; may be called again."""
        self.cancel()
        worker, self._worker, self._session = self._worker, None, None
        if worker is not None:
            worker.wait()

    @property
    def closed(self) -> bool:
        return self._session is None

    @property
    def _native(self) -> _core.Session:
        if self._session is None:
            raise ClosedError("the decoder is closed")
        return self._session

    def _call(self, options: GenerateOptions, max_tokens: int | None) -> Call:
        """Checks options and makes a request without a prompt."""
        self._native  # noqa: B018  # ClosedError comes first
        for name in options:
            if name not in _OPTIONS:
                raise TypeError(f"{name!r} is not an option of generation")
        request = _core.GenerateRequest()
        if max_tokens is not None:
            check_number("max_tokens", max_tokens, 0, 2**31 - 1, whole=True)
            request.max_tokens = max_tokens
        request.sampling = native_sampling(options, self._target.info.vocab_size)
        request.stop = _stop_strings(options.get("stop"))
        request.ignore_eos = bool(options.get("ignore_eos", False))
        request.render_special = bool(options.get("render_special", False))
        n_top = options.get("logprobs")
        if n_top is not None:
            check_number("logprobs", n_top, 0, MAX_LOGPROBS, whole=True)
            request.n_logprobs = n_top
        return Call(request, n_top)

    def _set_prompt(
        self, request: _core.GenerateRequest, prompt: Prompt, parse_special: bool
    ) -> None:
        if isinstance(prompt, str):
            request.set_prompt(to_bytes(prompt))
            request.parse_special = bool(parse_special)
            return
        request.prompt_ids = check_token_ids("prompt", prompt, self._target.info.vocab_size)
        if not request.prompt_ids:
            raise InvalidArgumentError("prompt is empty: give at least one token id")

    def _chat_call(
        self, messages: Sequence[Message], options: ChatOptions, max_tokens: int | None
    ) -> Call:
        rest = dict(options)
        tools, template, args = (
            rest.pop(name, None) for name in ("tools", "template", "template_args")
        )
        call = self._call(rest, max_tokens)  # type: ignore[arg-type]
        pieces = self._target._chat_pieces(messages, True, tools, template, args)  # type: ignore[arg-type]
        call.request.set_pieces([(to_bytes(text), special) for text, special in pieces])
        bos = self._target.bos_token_id
        if bos is not None and pieces and pieces[0][0].startswith(self._target.token_text(bos)):
            call.request.add_bos = 0  # the template wrote it
        return call

    def _run(
        self,
        call: Call,
        on_token: OnToken | None,
        options: GenerateOptions,
        verify_output: bool,
    ) -> GenerationResult:
        self._wait_for_stream()
        session = self._native
        if verify_output:
            session.require_checkable(call.request)
        poll_signals = threading.current_thread() is threading.main_thread()
        check = None
        on_chunk = None if on_token is None else lambda chunk: on_token(to_chunk(chunk, call))
        try:
            result = session.generate(
                call.request,
                on_chunk=on_chunk,
                on_progress=options.get("on_progress"),
                on_round=round_callback(options.get("on_round")),
                cancel=_core.CancelFlag(),
                poll_signals=poll_signals,
            )
            if verify_output and result.finish_reason != "cancelled":
                check = session.check_output(
                    call.request, result, cancel=_core.CancelFlag(), poll_signals=poll_signals
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

    def _start(self, call: Call, options: GenerateOptions) -> Stream:
        self._wait_for_stream()
        session = self._native
        if session.busy:
            raise SessionBusyError("the decoder is running another call")
        self._worker = StreamWorker(
            session, call, options.get("on_progress"), options.get("on_round")
        )
        return Stream(self._worker)

    def _wait_for_stream(self) -> None:
        """Lets a stream that ended or was given up come to its end."""
        worker = self._worker
        if worker is None:
            return
        if not (worker.finished.is_set() or worker.cancel.is_set()):
            raise SessionBusyError("the decoder is streaming: read the stream out or close it")
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


DrafterChoice = Drafter | Cascade | Sequence[Drafter] | Literal["auto"] | None


def _set_drafters(
    options: _core.SessionOptions, drafter: DrafterChoice, draft: Model | None
) -> Model | None:
    """Fills the drafters' options; returns the draft model if there is one."""
    if draft is not None:
        if not isinstance(draft, Model):
            raise InvalidArgumentError(f"draft must be a Model, not {type(draft).__name__}")
        if not (isinstance(drafter, str) and drafter == "auto"):
            raise InvalidArgumentError(
                "draft goes with drafter='auto'; otherwise give drafter=DraftModel(draft)"
            )
    if drafter is None:
        options.drafter = "none"
        return None
    if isinstance(drafter, str):
        check_choice("drafter", drafter, ("auto",))
        options.drafter = "auto"
        return draft
    if isinstance(drafter, Drafter):
        options.drafter = drafter_name(drafter)
        return _set_drafter(options, drafter)
    if isinstance(drafter, Cascade):
        drafter = drafter.drafters
    if not isinstance(drafter, Sequence) or not drafter:
        names = ", ".join(kind.__name__ for kind in get_args(Drafter))
        raise InvalidArgumentError(
            f"drafter must be None, 'auto', one of {names}, a Cascade or list of them, "
            f"not {type(drafter).__name__}"
        )
    options.adaptive = True
    names_used: list[str] = []
    items: list[Drafter] = []
    for item in drafter:
        if not isinstance(item, Drafter):
            raise InvalidArgumentError(f"a list of drafters contains {type(item).__name__}")
        if item.gamma is not None or item.draft_min:
            raise InvalidArgumentError(
                f"{type(item).__name__} is in a list: its length is chosen while running, "
                "so gamma and draft_min do not apply"
            )
        if drafter_name(item) in names_used:
            raise InvalidArgumentError(f"{type(item).__name__} is in the list twice")
        names_used.append(drafter_name(item))
        items.append(item)
    for item in items:
        model = _set_drafter(options, item)
        draft = model if model is not None else draft
    lengths = [item.draft_max for item in items if item.draft_max is not None]
    options.draft_max = max(lengths) if lengths else -1
    options.drafter = ",".join(names_used)
    return draft


def drafter_name(drafter: Drafter) -> str:
    names: dict[type, str] = {
        DraftModel: "model",
        NGram: "ngram",
        SuffixAutomaton: "suffix",
        TokenRecycling: "recycling",
        LayerSkip: "layerskip",
    }
    return names[type(drafter)]


def _set_drafter(options: _core.SessionOptions, drafter: Drafter) -> Model | None:
    """Fills one drafter's options; returns its model if it has one."""
    options.draft_min = drafter.draft_min
    if drafter.draft_max is not None:
        options.draft_max = drafter.draft_max
    if drafter.gamma is not None:
        options.gamma = drafter.gamma
    if isinstance(drafter, NGram):
        options.ngram_n = drafter.n
        options.ngram_min_count = drafter.min_count
        options.ngram_filler_top_k = drafter.filler_top_k
        options.ngram_keep = drafter.keep
        return None
    if isinstance(drafter, SuffixAutomaton):
        options.suffix_min_match = drafter.min_match
        options.suffix_max_store = drafter.max_store
        options.suffix_keep = drafter.keep
        if drafter.corpus is not None:
            options.set_suffix_corpus(to_bytes(drafter.corpus))
        return None
    if isinstance(drafter, TokenRecycling):
        options.recycling_top_k = drafter.top_k
        options.recycling_tree = drafter.tree
        options.recycling_keep = drafter.keep
        return None
    if isinstance(drafter, LayerSkip):
        options.draft_layers = drafter.n_layers or 0
        options.draft_sampling = drafter.sampling
        if drafter.temperature is not None:
            options.draft_temperature = drafter.temperature
        return None
    if not isinstance(drafter.model, Model):
        raise InvalidArgumentError(f"DraftModel takes a Model, not {type(drafter.model).__name__}")
    options.draft_sampling = drafter.sampling
    if drafter.temperature is not None:
        options.draft_temperature = drafter.temperature
    options.draft_head = -1 if drafter.head_tokens is None else drafter.head_tokens
    options.draft_top_k = drafter.draft_top_k or 0
    options.draft_branch = drafter.branch
    return drafter.model


def native_sampling(options: GenerateOptions, vocab_size: int) -> _core.SamplingParams:
    given = {name: value for name, value in options.items() if name in _SAMPLING}
    params = options.get("params") or SamplingParams()
    if not isinstance(params, SamplingParams):
        raise InvalidArgumentError(f"params must be SamplingParams, not {type(params).__name__}")
    params = dataclasses.replace(params, **given)  # type: ignore[arg-type]
    native = _core.SamplingParams()
    for name in _SAMPLING - {"seed", "logit_bias"}:
        setattr(native, name, getattr(params, name))
    native.seed = secrets.randbits(32) if params.seed is None else params.seed
    for token in params.logit_bias:
        check_number("logit_bias key", token, 0, vocab_size - 1, whole=True)
    native.logit_bias = list(params.logit_bias.items())
    return native


def _stop_strings(stop: str | Sequence[str] | None) -> list[str]:
    strings = [stop] if isinstance(stop, str) else list(stop or ())
    if len(strings) > MAX_STOP_STRINGS or not all(isinstance(s, str) and s for s in strings):
        raise InvalidArgumentError(
            f"stop must be a str or at most {MAX_STOP_STRINGS} of them, none empty, not {stop!r}"
        )
    return [s.encode("utf-8", "replace").decode() for s in strings]
