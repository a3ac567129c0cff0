"""Many requests at once on one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NoReturn

from . import _core
from ._checks import check_all, unset
from ._gate import Gate
from ._native_options import (
    DrafterChoice,
    OnProgress,
    OnRound,
    Prompt,
    native_request,
    session_options,
    set_messages,
    set_prompt,
)
from ._option_table import CHECKS
from .errors import ClosedError, QueueFullError
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
    refuse_copy,
)
from .options import SamplingParams
from .requests import AsyncStream, EngineCall, Request, State
from .results import EngineStats, GenerationResult


class Engine:
    """Runs many requests at once on one model; threads and asyncio tasks may share it.

    Requests arrive at any time. They share the passes of the model, and what their prompts have in
    common with one another and with earlier ones is read once; drafts of all of them are weighed
    against one another. Each gets exactly the tokens that it would get alone, whatever else is
    going on (at temperature 0 and under `match`; under the other verifiers where drafts have a
    fixed length).

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
        max_requests: 1 to 64; requests at work at once; the others wait for their turn.
        max_queue: 0 to 1048576; requests that wait at most.
        when_full: what a request gets that finds the queue full: "error": `QueueFullError`; "wait":
            it waits for a place, asynchronous ones without blocking the loop.
        kv_bytes: 1 or more; memory of all caches together, of the draft model's and of those that
            are kept, too; a request starts when its longest course fits; None: what `max_requests`
            of `n_ctx` can need, at most half of the memory that is free.
        share_prefixes: read what prompts have in common only once; caches of requests that have
            ended are kept for it as long as there is room, those used last the longest.

    Raises:
        InvalidArgumentError: names the option and its range.
        UnsupportedModelError: the draft model has another vocabulary.
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
        max_requests: int = 16,
        max_queue: int = 256,
        when_full: Literal["error", "wait"] = "error",
        kv_bytes: int | None = None,
        share_prefixes: bool = True,
    ) -> None:
        given = locals()
        self._native_engine: _core.Engine | None = None
        check_model("target", target)
        checked = check_all(CHECKS["Engine"], given)
        options = _core.EngineOptions()
        options.session, draft_model = session_options(given)
        options.max_requests = checked["max_requests"]
        options.max_queue = checked["max_queue"]
        options.kv_bytes = checked["kv_bytes"] or 0
        options.share_prefixes = checked["share_prefixes"]
        self._waits = checked["when_full"] == "wait"
        self._target = target
        self._model = target._keep()
        self._gate = Gate()
        self._native_engine = _core.Engine(
            target._native,
            None if draft_model is None else draft_model._native,
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
        """Positions of the context of each request."""
        return self._native.n_ctx

    def submit(
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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> Request:
        """Begins to continue a prompt and returns at once.

        The `Request` is an iterator over `Chunk`s, and has `result()`, `cancel()` and `stats`.
        Dropping it ends the request. Of a full queue see `when_full`; `on_progress` and `on_round`
        are called on the engine's thread and hold everybody up.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.

        Raises:
            InvalidArgumentError: names the option and its range.
            ContextFullError: the prompt and one token do not fit into `n_ctx`.
            ResourceLimitError: its longest course does not fit into `kv_bytes`.
            QueueFullError: as `when_full` says.
        """
        options = locals()
        return self._submit(self._call(options))

    def submit_chat(
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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> Request:
        """Begins to answer a conversation and returns at once.

        The `Request` is an iterator over `Chunk`s, and has `result()`, `cancel()` and `stats`.
        Dropping it ends the request. Of a full queue see `when_full`; `on_progress` and `on_round`
        are called on the engine's thread and hold everybody up.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        return self._submit(self._call(options))

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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> GenerationResult:
        """Continues a prompt.

        Cancelling the task ends the request within one pass.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        return await self._stream(self._call(options)).finished()

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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> AsyncStream:
        """As `generate`, but returns an asynchronous iterator over `Chunk`s at once.

        Cancelling the task that reads it, leaving its ``async with`` block or dropping it ends the
        request within one pass.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        return self._stream(self._call(options))

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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> GenerationResult:
        """Answers a conversation, with the chat template of the model file.

        Cancelling the task ends the request within one pass.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        return await self._stream(self._call(options)).finished()

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
        time_limit: float | None = None,
        on_progress: OnProgress | None = None,
        on_round: OnRound | None = None,
    ) -> AsyncStream:
        """As `chat`, but returns an asynchronous iterator over `Chunk`s at once.

        Cancelling the task that reads it, leaving its ``async with`` block or dropping it ends the
        request within one pass.

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
            time_limit: [0, 1000000000]; seconds from now, waiting for its turn included, after
                which the request ends with finish_reason "timeout" and what there is by then; None:
                none.
            on_progress: called with (tokens read, tokens of the prompt) while the prompt is read.
            on_round: called with a `Round` after each pass of the target model.
        """
        options = locals()
        return self._stream(self._call(options))

    def stats(self) -> EngineStats:
        """What is going on, and what has been done since the start."""
        try:
            return EngineStats(**self._native.stats())
        finally:
            flush_log()

    def close(self) -> None:
        """Ends all requests with "cancelled", and the engine's thread; may be called again."""
        native, self._native_engine = self._native_engine, None
        if native is not None:
            try:
                native.close()
            finally:
                self._gate.close()
                flush_log()

    @property
    def closed(self) -> bool:
        return self._native_engine is None

    @property
    def _native(self) -> _core.Engine:
        if self._native_engine is None:
            raise ClosedError("the engine is closed")
        return self._native_engine

    def _call(self, options: Mapping[str, Any]) -> EngineCall:
        """Checks what was given by name: a prompt or messages."""
        native = self._native
        checked, request = native_request(options, self._model)
        if "messages" in options:
            set_messages(request, options, self._model)
        else:
            set_prompt(request, options["prompt"], self._model)
        return EngineCall(
            native,
            request,
            checked["logprobs"],
            checked["time_limit"],
            checked["on_progress"],
            checked["on_round"],
        )

    def _try(self, call: EngineCall, state: State, in_turn: bool) -> bool:
        """Hands a request over; whether there was a place for it, and nobody waited before."""
        if self._waits and not in_turn and not self._gate.is_empty:
            return False
        submitted = self._native.submit(
            call.request,
            state.told,
            rounds=call.on_round is not None,
            time_limit=state.time_left,
            poll_signals=on_main_thread(),
        )
        if not submitted and not self._waits:
            stats = self.stats()
            raise QueueFullError(
                f"{stats.running} requests are at work and {stats.queued} wait for their turn: "
                'try again later, or use a larger max_queue or when_full="wait"'
            )
        return submitted

    def _submit(self, call: EngineCall) -> Request:
        state = State(call, self._gate)
        try:
            request = Request(call, state)
            if not (
                self._try(call, state, False)
                or self._gate.wait(lambda: self._try(call, state, True), lambda: state.time_left)
            ):
                state.never_began("end", call.timed_out())
            return request
        except BaseException:  # whose traceback may keep the request
            state.cancel()
            raise

    def _stream(self, call: EngineCall) -> AsyncStream:
        state = State(call, self._gate)
        try:
            return AsyncStream(call, state, lambda state, in_turn: self._try(call, state, in_turn))
        except BaseException:
            state.cancel()
            raise

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_copy("Engine")

    def __copy__(self) -> NoReturn:
        refuse_copy("Engine")

    def __deepcopy__(self, memo: object) -> NoReturn:
        refuse_copy("Engine")
