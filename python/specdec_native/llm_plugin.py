"""A plugin of the `llm` command: ``pip install "specdec-native[llm]"``, then ``llm -m pycode ...``.

Models that come with the package and those that `specdec-native pull` knows are there by name;
``llm specdec add FILE.gguf --name mine --draft DRAFT.gguf`` adds more.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, cast

from ._extras import missing

try:
    import click
    import llm
    import pydantic
except ImportError as _error:
    raise missing("specdec_native.llm_plugin", "llm", _error) from None

from ._embedded import embedded_drafts, embedded_models
from ._names import find_draft, find_model
from .decoder import Decoder
from .download import KNOWN_MODELS
from .errors import SpecdecError
from .grammar import Grammar
from .model import Model

_hook = cast("Callable[[Callable[..., Any]], Callable[..., Any]]", llm.hookimpl)


def _own_file() -> pathlib.Path:
    return pathlib.Path(cast("Any", llm).user_dir()) / "specdec-native.json"


def _added() -> dict[str, dict[str, Any]]:
    """What `llm specdec add` has kept: name -> {"model", "draft"}."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(_own_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return found


class SpecdecModel(llm.Model):
    """A model of this package; loaded with the first prompt."""

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        temperature: float | None = pydantic.Field(None, ge=0, description="0: the best token")
        top_p: float | None = pydantic.Field(None, gt=0, le=1)
        top_k: int | None = pydantic.Field(None, ge=0, description="0: all")
        min_p: float | None = pydantic.Field(None, ge=0, lt=1)
        seed: int | None = pydantic.Field(None, ge=0, description="the same one: the same text")
        max_tokens: int | None = pydantic.Field(None, ge=0, description="None: 512")

    def __init__(self, model_id: str, model: str, draft: str | None) -> None:
        self.model_id = model_id
        self._names = (model, draft)
        self._decoder: Decoder | None = None

    def _loaded(self) -> Decoder:
        if self._decoder is None:
            model, draft = self._names
            target = Model(find_model(model))
            other = None if draft is None else Model(find_model(draft))
            self._decoder = Decoder(target, draft=other)
        return self._decoder

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        try:
            yield from self._answer(prompt, response, conversation)
        except SpecdecError as error:
            raise llm.ModelError(str(error)) from error

    def _answer(
        self, prompt: llm.Prompt, response: llm.Response, conversation: llm.Conversation | None
    ) -> Iterator[str]:
        decoder = self._loaded()
        given = prompt.options.model_dump(exclude_none=True)
        if prompt.schema is not None:
            schema = prompt.schema
            kind = isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)
            given["grammar"] = Grammar.json_schema(
                cast("type[pydantic.BaseModel]", schema).model_json_schema() if kind else schema
            )
        messages = _messages(prompt, conversation)
        if decoder.target.chat_template is None:
            text = "\n".join(str(message["content"]) for message in messages)
            chunks = decoder.stream(text, **{"max_tokens": 512, **given})
        else:
            chunks = decoder.stream_chat(messages, **given)
        with chunks:
            for chunk in chunks:
                yield chunk.text
        result = chunks.result
        response.response_json = {"speculation": result.stats.to_dict(), "seed": result.seed}
        response.set_usage(input=result.prompt_tokens, output=len(result.token_ids))


def _messages(prompt: llm.Prompt, conversation: llm.Conversation | None) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    system = prompt.system
    for earlier in conversation.responses if conversation is not None else []:
        system = system or earlier.prompt.system
        messages.append({"role": "user", "content": earlier.prompt.prompt})
        messages.append({"role": "assistant", "content": cast("llm.Response", earlier).text()})
    if system:
        messages.insert(0, {"role": "system", "content": system})
    messages.append({"role": "user", "content": prompt.prompt})
    return messages


@_hook
def register_models(register: Callable[..., None]) -> None:
    for pair in embedded_models():
        register(SpecdecModel(pair.name, pair.name, f"{pair.name}-draft"))
    for name in KNOWN_MODELS:
        draft = f"{name}-draft" if name in embedded_drafts() else None
        register(SpecdecModel(name, name, draft))
    for name, entry in _added().items():
        register(SpecdecModel(name, entry["model"], entry["draft"]))


@_hook
def register_commands(cli: click.Group) -> None:
    @cli.group(name="specdec")
    def specdec() -> None:
        """Models of specdec-native."""

    @specdec.command()
    @click.argument("file")
    @click.option("--name", required=True, help="what `llm -m` calls it")
    @click.option("--draft", help="a smaller model of its vocabulary (default: that of a name)")
    def add(file: str, name: str, draft: str | None) -> None:
        """Add a model: a GGUF file, or hf:ORG/REPO/FILE.gguf."""
        try:
            paths = [find_model(file), find_draft(file) if draft is None else find_model(draft)]
        except SpecdecError as error:
            raise click.ClickException(str(error)) from None
        model, other = (None if path is None else str(path.absolute()) for path in paths)
        entries = {**_added(), name: {"model": model, "draft": other}}
        _own_file().write_text(json.dumps(entries, indent=2), encoding="utf-8")

    @specdec.command()
    @click.argument("name")
    def remove(name: str) -> None:
        """Take a model out again; its file stays."""
        entries = _added()
        if entries.pop(name, None) is None:
            raise click.ClickException(f"there is no model {name!r} that was added")
        _own_file().write_text(json.dumps(entries, indent=2), encoding="utf-8")


__all__ = ["SpecdecModel", "register_commands", "register_models"]
