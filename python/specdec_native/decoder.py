"""Decoders: text in, text out, plainly or speculatively."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, cast

from . import _core
from ._checks import check_all, unset
from ._convert import Call, round_callback, to_check, to_chunk, to_result
from ._native_options import (
    DrafterChoice,
    OnProgress,
    OnRound,
    OnToken,
    Prompt,
    native_request,
    session_options,
    set_messages,
    set_prompt,
)
from ._option_table import CHECKS
from .errors import ClosedError, OutputMismatchError, SessionBusyError
from .grammar import Grammar
from .memory import Memory
from .model import (
    KvType,
    Message,
    Model,
    StrPath,
    check_model,
    flush_log,
    on_main_thread,
    path_bytes,
    refuse_copy,
)
from .options import (
    SamplingParams,
)
from .results import GenerationResult
from .stream import Stream, StreamWorker


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
            and the `draft` model, or else what the model's file has for predicting further tokens,
            or decodes plainly, from measured costs and acceptance; a `Cascade` or list of drafters:
            the same among them; one of `DraftModel`, `NGram`, `SuffixAutomaton`, `TokenRecycling`,
            `LayerSkip`, `Eagle`, `Mtp`: drafts of its own fixed length. The names of the command
            line mean those with their defaults: "model" and "eagle" (which is `draft`), "mtp",
            "ngram", "suffix", "recycling", "layerskip", several with commas, "none"; None: plain
            decoding.
        draft: a smaller model of the same vocabulary, for "auto" and "model", or an EAGLE-3 head
            that was trained for the model, for "auto" and "eagle", or the file of a block that
            predicts further tokens, for "auto" and "mtp"; None: none.
        verifier: "auto" (greedy at temperature 0, match above), "greedy", "match", "standard",
            "block" or "topk_importance"; docs/verifiers.md compares them.
            "topk_importance_published" is for comparison only: it is not lossless, and warns.
        n_ctx: 2 or more; positions of the context; None: the model's.
        kv_type: elements of the caches; None: the model's.
        memory: texts of earlier requests, in which drafters look up as well, and to which each
            request is added: a `Memory`, which several may share, or a file that one is kept in;
            never changes a text, only how fast it comes; None: nothing outlives a request.
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
        memory: Memory | StrPath | None = None,
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
                "memory": memory,
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

    @classmethod
    def load(
        cls,
        path: StrPath,
        target: Model,
        *,
        drafter: DrafterChoice | None = "auto",
        draft: Model | None = None,
        verifier: str = "auto",
        memory: Memory | StrPath | None = None,
        n_ctx: int | None = None,
        kv_type: KvType | None = None,
    ) -> Decoder:
        """A decoder that goes on from what `save` wrote.

        The next `generate` or `chat` reads only what its prompt does not share with it, and gives
        the tokens that it would give if all had been read afresh. Nothing of the file is needed
        afterwards.

        Args:
            path: the file.
            target: the model it was saved with: the same weights and metadata.
            drafter: "auto": each pass uses what is expected to be fastest of n-gram and suffix
                lookup and the `draft` model, or else what the model's file has for predicting
                further tokens, or decodes plainly, from measured costs and acceptance; a `Cascade`
                or list of drafters: the same among them; one of `DraftModel`, `NGram`,
                `SuffixAutomaton`, `TokenRecycling`, `LayerSkip`, `Eagle`, `Mtp`: drafts of its own
                fixed length. The names of the command line mean those with their defaults: "model"
                and "eagle" (which is `draft`), "mtp", "ngram", "suffix", "recycling", "layerskip",
                several with commas, "none"; None: plain decoding.
            draft: a smaller model of the same vocabulary, for "auto" and "model", or an EAGLE-3
                head that was trained for the model, for "auto" and "eagle", or the file of a block
                that predicts further tokens, for "auto" and "mtp"; None: none.
            verifier: "auto" (greedy at temperature 0, match above), "greedy", "match", "standard",
                "block" or "topk_importance"; docs/verifiers.md compares them.
                "topk_importance_published" is for comparison only: it is not lossless, and warns.
            memory: texts of earlier requests, in which drafters look up as well, and to which each
                request is added: a `Memory`, which several may share, or a file that one is kept
                in; never changes a text, only how fast it comes; None: nothing outlives a request.
            n_ctx: 2 or more; positions of the context; None: as many as when it was saved.
            kv_type: elements of the caches, which must be those that were saved; None: those.

        Raises:
            InvalidArgumentError: it was saved with another model or another `kv_type`.
            ContextFullError: it holds more tokens than `n_ctx`.
            ModelFormatError: the file is damaged, or no such file.
            UnsupportedModelError: another version of this package saved it, or the model is on a
                GPU.
            ModelFileNotFoundError, ModelFileError: the file cannot be read.
            SpecdecError: as the constructor.
        """
        check_model("target", target)
        checked = check_all(CHECKS["kept"], {"n_ctx": n_ctx, "kv_type": kv_type})
        file = path_bytes("path", path)
        saved_ctx, saved_type = _core.kept_options(
            file, target._native, poll_signals=on_main_thread()
        )
        decoder = cls(
            target,
            drafter=drafter,
            draft=draft,
            verifier=verifier,
            n_ctx=checked["n_ctx"] or saved_ctx,
            kv_type=checked["kv_type"] or cast(KvType, saved_type),
            memory=memory,
        )
        try:
            decoder._native.load(file, poll_signals=on_main_thread())
        except BaseException:
            decoder.close()
            raise
        return decoder

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
        return self._slot.busy or (worker is not None and not worker.finished)

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
        remember: bool = True,
        memory_key: str = "",
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
            remember: False: of a decoder with a `memory`, neither draft from it nor add this
                request to it.
            memory_key: whose texts these are: within a `memory`, requests draft from texts of the
                same key only.
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
        remember: bool = True,
        memory_key: str = "",
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
            remember: False: of a decoder with a `memory`, neither draft from it nor add this
                request to it.
            memory_key: whose texts these are: within a `memory`, requests draft from texts of the
                same key only.
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
        remember: bool = True,
        memory_key: str = "",
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
            remember: False: of a decoder with a `memory`, neither draft from it nor add this
                request to it.
            memory_key: whose texts these are: within a `memory`, requests draft from texts of the
                same key only.
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
        remember: bool = True,
        memory_key: str = "",
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
            remember: False: of a decoder with a `memory`, neither draft from it nor add this
                request to it.
            memory_key: whose texts these are: within a `memory`, requests draft from texts of the
                same key only.
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

    def save(self, path: StrPath) -> None:
        """Keeps what the decoder holds in a file, for `load`: the prompt and the text of the last
        call but for its last token. ``generate(prompt, max_tokens=0)`` only reads a prompt.

        A draft model reads first what it has not read. What lookups have learnt is not kept. The
        file takes the place of one that is there when all of it is on the disk; it is as large as
        the caches (`info.kv_bytes_per_token`) and holds what was read in a form that others can
        read out: keep it as secret as the text.

        Raises:
            InvalidArgumentError: nothing was read, `use_cache` is False, or the path names no file
                that may be replaced (a folder, a device, a symbolic link).
            UnsupportedModelError: the model is on a GPU.
            ModelFileError: the system refused to write.
            SessionBusyError: another call is running.
        """
        file = path_bytes("path", path)
        with self._slot:
            self._wait_for_stream()
            try:
                self._native.save(file, poll_signals=on_main_thread())
            finally:
                flush_log()

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
