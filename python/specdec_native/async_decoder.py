"""One conversation for asyncio."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

from ._checks import unset
from ._native_options import DrafterChoice, OnProgress, OnRound, Prompt
from .engine import Engine
from .errors import SessionBusyError
from .grammar import Grammar
from .memory import Memory
from .model import KvType, Message, Model, StrPath, refuse_copy
from .options import SamplingParams
from .requests import AsyncStream
from .results import GenerationResult


class AsyncDecoder:
    """A `Decoder` for asyncio: one conversation with a model, whose calls are awaited.

    What a new prompt shares with what was said before is not read again. A second call while one
    runs raises `SessionBusyError`; for many at once there is `Engine`. Cancelling the task that
    waits ends the call within one pass of the model.

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
    ) -> None:
        # Weakly, or a stream that is dropped would stay at work.
        self._last: weakref.ref[AsyncStream] | None = None
        self._engine = Engine(
            target,
            drafter=drafter,
            draft=draft,
            verifier=verifier,
            n_ctx=n_ctx,
            kv_type=kv_type,
            memory=memory,
            max_requests=1,
            max_queue=1,
            when_full="wait",  # calls that were ended may still be there until the pass ends
        )

    @property
    def target(self) -> Model:
        """The model object given; it may have been closed meanwhile."""
        return self._engine.target

    @property
    def n_ctx(self) -> int:
        """Positions of the context."""
        return self._engine.n_ctx

    @property
    def busy(self) -> bool:
        """Whether a call or a stream is running."""
        running = self._running
        return running is not None and not running.done

    @property
    def _running(self) -> AsyncStream | None:
        """The last call or stream, as long as somebody has it."""
        return None if self._last is None else self._last()

    async def generate(
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
    ) -> GenerationResult:
        """Continues a prompt.

        Cancelling the task ends the call within one pass.

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
        return await self._begin(options).finished()

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
    ) -> AsyncStream:
        """As `generate`, but returns an asynchronous iterator over `Chunk`s at once.

        Cancelling the task that reads it, leaving its ``async with`` block or dropping it ends the
        call within one pass.

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
        return self._begin(options)

    async def chat(
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
    ) -> GenerationResult:
        """Answers a conversation, with the chat template of the model file.

        Cancelling the task ends the call within one pass.

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
        return await self._begin(options).finished()

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
    ) -> AsyncStream:
        """As `chat`, but returns an asynchronous iterator over `Chunk`s at once.

        Cancelling the task that reads it, leaving its ``async with`` block or dropping it ends the
        call within one pass.

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
        return self._begin(options)

    def cancel(self) -> None:
        """Ends the running call or stream within one pass; without one it has no effect."""
        running = self._running
        if running is not None:
            running.cancel()

    def close(self) -> None:
        """Ends a running call or stream and releases the caches; may be called again."""
        self._engine.close()

    @property
    def closed(self) -> bool:
        return self._engine.closed

    def _begin(self, options: Mapping[str, Any]) -> AsyncStream:
        engine = self._engine
        call = engine._call({**options, "time_limit": None})
        running = self._running
        if running is not None and not running.done and not running.cancelled:
            raise SessionBusyError(
                "the decoder is running another call: wait for it or end it with cancel(); an "
                "Engine runs many at once"
            )
        stream = engine._stream(call)
        self._last = weakref.ref(stream)
        return stream

    async def __aenter__(self) -> AsyncDecoder:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_copy("AsyncDecoder")

    def __copy__(self) -> NoReturn:
        refuse_copy("AsyncDecoder")

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy("AsyncDecoder")
