"""`/v1/chat/completions`."""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .._chat import MAX_DEPTH
from ..errors import InvalidArgumentError, TemplateError
from ..grammar import Grammar
from ..model import Model
from . import answers
from .call_forms import MISTRAL, mistral_id
from .errors import invalid
from .generation import (
    Generations,
    Server,
    engine_options,
    generations,
    grammar_of,
    in_thread,
    seeds,
    unless_gone,
)
from .marks import MarkedText, hidden_marks
from .reading import read
from .reasoning import ThoughtReader, begins_in_thought, thinks
from .reply import ReplyReader
from .schemas import ChatRequest, JsonFormat, Message, NamedTool, Part, SchemaFormat
from .tool_calls import ToolCallReader, call_begins


class _Chat:
    """One request, understood."""

    def __init__(self, server: Server, body: ChatRequest) -> None:
        self.server = server
        self.body = body
        self.model: Model = server.engine.target
        self.id = f"chatcmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.n = body.n or 1
        self.prefill = ""
        self.call_schema: dict[str, Any] | None = None  # a call must be made
        self.in_thought = False  # the prompt opens one
        self.hidden: dict[int, str] = {}  # marks of calls that the text leaves out
        self.tools = self._tools()
        self.options = engine_options(body)
        self.options["max_tokens"] = _first(
            body.max_completion_tokens, body.max_tokens, server.settings.default_max_tokens
        )
        if body.logprobs or body.top_logprobs:
            self.options["logprobs"] = body.top_logprobs or 0

    def _tools(self) -> list[dict[str, Any]]:
        choice = self.body.tool_choice
        tools = [tool.model_dump(exclude_none=True) for tool in self.body.tools or []]
        if choice in (None, "auto", "none"):
            return [] if choice == "none" else tools
        if not tools:
            raise invalid("tool_choice: there are no tools to choose", "tool_choice")
        if isinstance(choice, NamedTool):
            name = choice.function.name
            tools = [tool for tool in tools if tool["function"]["name"] == name]
            if not tools:
                raise invalid(f"tool_choice: there is no tool {name!r}", "tool_choice")
        self.prefill = call_begins(self._template())
        self.call_schema = {"anyOf": [_call_schema(tool["function"]) for tool in tools]}
        return tools

    def _template(self) -> str:
        """The source of the one that is used, or the name of a format, which has no marks."""
        templates = self.model.chat_templates
        given = self.server.settings.chat_template
        if given is not None:
            return templates.get(given, given)
        return templates.get("tool_use") or self.model.chat_template or ""

    def _grammar(self) -> Grammar | None:
        wanted = self.body.response_format
        given = {
            "tool_choice": self.call_schema is not None,
            "response_format": isinstance(wanted, (SchemaFormat, JsonFormat)),
            "json_schema": self.body.json_schema is not None,
            "grammar": self.body.grammar is not None,
        }
        names = [name for name, there in given.items() if there]
        if len(names) > 1:
            raise invalid(f"{' and '.join(names)} do not go together", names[1], "invalid_value")
        if self.call_schema is not None:
            return Grammar.json_schema(self.call_schema)
        if names and self.tools:  # of text that is held to a form no part can be a call
            raise invalid(
                f'{names[0]} and tools do not go together: tool_choice "none" asks for the '
                'format, "required" without a format for a call',
                names[0],
                "invalid_value",
            )
        if isinstance(wanted, SchemaFormat):
            return Grammar.json_schema(wanted.json_schema.schema_)
        return Grammar.json() if isinstance(wanted, JsonFormat) else grammar_of(self.body)

    def prompt(self) -> list[int]:
        """Token ids; and compiles what the answer is to follow."""
        grammar = self._grammar()
        if grammar is not None:
            self.options["grammar"] = grammar
            grammar._prepare(self.model, self.n)
        if self.tools:
            self.hidden = hidden_marks(self.model, self._template())
        ids = self._templated()
        if self.prefill:
            ids += self.model.tokenize(self.prefill, add_special=False, parse_special=True)
        return ids

    def _templated(self) -> list[int]:
        messages = [self._entry(message) for message in self.body.messages]
        arguments = dict(self.body.chat_template_kwargs or {})
        if self.body.reasoning_effort is not None:
            arguments.setdefault("reasoning_effort", self.body.reasoning_effort)
        template = self.server.settings.chat_template

        def ids(messages: list[dict[str, Any]]) -> list[int]:
            tools = [_in_64_bits(tool, 1) for tool in self.tools] or None
            text, found = self.model._chat_prompt(messages, True, tools, template, arguments)
            self.in_thought = begins_in_thought(text)
            return found

        with_objects = [_with_objects(message) for message in messages]
        try:
            return ids(with_objects)
        except (TemplateError, InvalidArgumentError):  # or a number in them has no 64 bits
            if with_objects == messages:
                raise
            return ids(messages)  # a template for arguments as text

    def _entry(self, message: Message) -> dict[str, Any]:
        """A message as templates expect it."""
        entry = message.model_dump(exclude_none=True)
        content = message.content
        # None goes with calls of tools; templates expect a text.
        entry["content"] = _joined(content) if isinstance(content, list) else content or ""
        if message.role == "developer" and "developer" not in self._template():
            entry["role"] = "system"  # most templates would leave it out without a word
        return _with_short_ids(entry) if MISTRAL in self._template() else entry

    def reader(self) -> ReplyReader:
        marks = MarkedText(self.model, self.hidden) if self.hidden else None
        return ReplyReader(self._thoughts(), self._calls(), marks)

    def _thoughts(self) -> ThoughtReader | None:
        wanted = self.body.reasoning_format or self.server.settings.reasoning_format
        # Text that follows a grammar begins with what the grammar says.
        if wanted == "none" or "grammar" in self.options or not thinks(self._template()):
            return None
        return ThoughtReader(is_open=self.in_thought)

    def _calls(self) -> ToolCallReader | None:
        if not self.tools:
            return None
        functions = [tool["function"] for tool in self.tools]
        reader = ToolCallReader(
            [function["name"] for function in functions],
            self._template(),
            {function["name"]: function.get("parameters") for function in functions},
            1 if self.body.parallel_tool_calls is False else None,
            required=self.call_schema is not None,
            hidden=self.hidden.values(),
        )
        reader.feed(self.prefill)
        return reader

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.server.settings.model_id,
        }


def _call_schema(function: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": function.get("parameters") or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _in_64_bits(value: Any, depth: int) -> Any:
    """Templates know no larger integers, and schemas have them as bounds."""
    if depth > MAX_DEPTH:
        return value  # the template's checks refuse it
    if isinstance(value, dict):
        return {name: _in_64_bits(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_in_64_bits(item, depth + 1) for item in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        limit = sys.float_info.max
        return float(min(max(value, int(-limit)), int(limit)))
    return value


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    """Ids may be of another server, or of answers before this one knew what templates take."""

    def short(entry: dict[str, Any], name: str) -> dict[str, Any]:
        given = entry.get(name)
        return {**entry, name: mistral_id(given)} if isinstance(given, str) else entry

    calls = message.get("tool_calls")
    if calls:
        message = {**message, "tool_calls": [short(call, "id") for call in calls]}
    return short(message, "tool_call_id")


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Arguments of calls as objects: OpenAI's API has them as text, most templates do not, and
    would quote the text once more, or fail."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": [_with_object(call) for call in calls]} if calls else message


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": arguments}}


def _joined(parts: list[Part]) -> str:
    return "\n".join(part.text for part in parts)


async def chat_completions(request: Request) -> Response:
    server: Server = request.app.state.server
    chat = _Chat(server, await read(ChatRequest, request))
    prompt = await in_thread(chat.prompt)
    if not chat.body.stream:
        return JSONResponse(await unless_gone(request, _whole(chat, prompt)))
    events = _events(chat, prompt)
    return answers.stream(await anext(events), events)


def _submit(chat: _Chat, prompt: list[int], running: Generations) -> None:
    for seed in seeds(chat.body, chat.n):
        running.submit(prompt, {**chat.options, "seed": seed})


async def _whole(chat: _Chat, prompt: list[int]) -> dict[str, Any]:
    async with generations(chat.server, chat.body) as running:
        _submit(chat, prompt, running)
        results = await running.whole()
    choices = []
    for i, result in enumerate(results):
        reader = chat.reader()
        said = reader.feed(result.text, result.token_ids)
        said.add(reader.finish(result))
        choice = {
            "index": i,
            "message": said.message(is_call=chat.call_schema is not None),
            "logprobs": None,
            "finish_reason": reader.reason(result),
        }
        if result.logprobs is not None:
            entries = answers.token_logprobs(chat.model, result.token_ids, result.logprobs)
            choice["logprobs"] = {"content": entries, "refusal": None}
        choices.append(choice)
    return {
        **chat.head("chat.completion"),
        "choices": choices,
        "usage": answers.usage(results, len(prompt), chat.n),
        "timings": answers.timings(results[0]),
        "specdec": [answers.speculation(result) for result in results],
    }


async def _events(chat: _Chat, prompt: list[int]) -> AsyncIterator[str]:
    wanted = chat.body.stream_options
    with_usage = bool(wanted and wanted.include_usage)
    head = chat.head("chat.completion.chunk")
    if with_usage:
        head["usage"] = None

    def told(index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **more}
        return {**head, "choices": [choice]}

    async with generations(chat.server, chat.body) as running:
        _submit(chat, prompt, running)
        readers = [chat.reader() for _ in range(chat.n)]
        for i in range(chat.n):
            yield answers.event(told(i, {"role": "assistant", "content": ""}))

        async with aclosing(running.pieces()) as pieces:
            async for piece in pieces:
                chunk, index = piece.chunk, piece.index
                more: dict[str, Any] = {}
                if chunk.logprobs is not None:
                    entries = answers.token_logprobs(chat.model, chunk.token_ids, chunk.logprobs)
                    more["logprobs"] = {"content": entries, "refusal": None}
                reader = readers[index]
                n_calls = reader.n_calls
                extra = {}
                if wanted is not None and wanted.include_speculation:
                    extra = {"specdec": answers.chunk_speculation(chat.model, piece)}
                found = reader.feed(chunk.text, chunk.token_ids).deltas(n_calls)
                if not found and (more or extra):
                    found = [{"content": ""}]
                for delta in found:
                    yield answers.event({**told(index, delta, **more), **extra})
                    more, extra = {}, {}
        results = running.results()
    for i, result in enumerate(results):
        reader = readers[i]
        n_calls = reader.n_calls
        for delta in reader.finish(result).deltas(n_calls):
            yield answers.event(told(i, delta))
        last = told(i, {}, finish_reason=reader.reason(result))
        if i == chat.n - 1:
            last["timings"] = answers.timings(results[0])
            last["specdec"] = [answers.speculation(r) for r in results]
        yield answers.event(last)
    if with_usage:
        yield answers.event(
            {**head, "choices": [], "usage": answers.usage(results, len(prompt), chat.n)}
        )
    yield answers.DONE
