"""Text that follows a schema or a grammar: masks of the tokens that may come next.

The grammars are llguidance's; ``pip install "specdec-native[grammar]"``. Every row of a pass is
masked along its own path, so that constrained text is drafted and verified as any other, and equals
constrained plain decoding token by token.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from typing import Any

from ._extras import missing
from .errors import InvalidArgumentError, UnsupportedModelError
from .model import Model, to_bytes

_MAX_SOURCE = 1 << 20
# Between the parts of JSON: enough to lay it out, too little for a model to lose itself in.
_SPACE = r" |\n[ \t]{0,40}"
_tokenizers: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Grammar:
    """What a text may be. Made by `json_schema`, `json`, `regex`, `gbnf` or `lark`.

    Attributes:
        kind: which of them made it.
        source: as it was given; a schema as JSON text.
    """

    def __init__(self, kind: str, source: str, compiled: str) -> None:
        self.kind = kind
        self.source = source
        self._compiled = compiled
        self._ready: list[Any] = []
        error = _llguidance().LLMatcher.validate_grammar(compiled)
        if error and not error.startswith("WARNING"):
            raise InvalidArgumentError(f"{kind}: {error.strip()}")

    @classmethod
    def json_schema(cls, schema: object) -> Grammar:
        """Texts that are JSON of a JSON schema, given as a dict or as JSON text.

        Raises:
            InvalidArgumentError: it is no schema, or uses a keyword that cannot be followed.
        """
        if isinstance(schema, str):
            _check_source("json_schema", schema)
            try:
                schema = json.loads(schema)
            except (ValueError, RecursionError) as error:
                raise InvalidArgumentError(f"json_schema: not JSON: {error}") from None
        if not isinstance(schema, (Mapping, bool)):
            raise InvalidArgumentError(
                f"json_schema must be a dict or JSON text of one, not {type(schema).__name__}"
            )
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        try:
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"json_schema: not JSON: {error}") from None
        _check_source("json_schema", text)
        make = _llguidance().LLMatcher.grammar_from_json_schema
        try:
            compiled = make(text, defaults={"whitespace_pattern": _SPACE})
        except ValueError as error:
            raise InvalidArgumentError(f"json_schema: {error}") from None
        return cls("json_schema", text, compiled)

    @classmethod
    def json(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression matches as a whole."""
        _check_source("regex", pattern)
        return cls("regex", pattern, _llguidance().LLMatcher.grammar_from_regex(pattern))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """Texts of a context-free grammar in llguidance's variant of Lark's form (EBNF)."""
        _check_source("lark", text)
        return cls("lark", text, _llguidance().LLMatcher.grammar_from_lark(text))

    @classmethod
    def gbnf(cls, text: str) -> Grammar:
        """Texts of a grammar in llama.cpp's form."""
        _check_source("gbnf", text)
        module = _llguidance()
        try:
            translated = module.gbnf_to_lark.gbnf_to_lark(text)
        except Exception as error:  # of its parser, of no one type
            raise InvalidArgumentError(f"gbnf: {error}") from None
        return cls("gbnf", text, module.LLMatcher.grammar_from_lark(translated))

    def matches(self, model: Model, text: str) -> bool:
        """Whether a whole text is one of the grammar's, in the tokens of a model."""
        matcher = self._matcher(model)
        ids = _tokenizer(model).tokenize_str(text)
        return int(matcher.try_consume_tokens(ids)) == len(ids) and bool(matcher.is_accepting())

    def _prepare(self, model: Model, n: int) -> None:
        """Makes the matchers of the next `n` requests, on a thread that may take its time."""
        self._ready = [self._matcher(model) for _ in range(n)]

    def _matcher(self, model: Model) -> Any:
        """At the beginning of a text, for one request."""
        if self._ready:
            return self._ready.pop()
        matcher = _llguidance().LLMatcher(_tokenizer(model), self._compiled, log_level=0)
        if matcher.is_error():
            raise InvalidArgumentError(f"{self.kind}: {matcher.get_error().partition(chr(10))[0]}")
        return matcher

    def __repr__(self) -> str:
        shown = self.source if len(self.source) <= 60 else self.source[:57] + "..."
        return f"<specdec_native.Grammar {self.kind}: {shown!r}>"


def _check_source(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{name} must be a str, not {type(text).__name__}")
    if not text or len(text) > _MAX_SOURCE:
        raise InvalidArgumentError(
            f"{name} has {len(text)} characters, expected 1 to {_MAX_SOURCE}"
        )


def _llguidance() -> Any:
    try:
        import llguidance
        import llguidance.gbnf_to_lark
    except ImportError as error:
        raise missing("a schema or grammar", "grammar", error) from None
    return llguidance


class _Vocabulary:
    """What llguidance asks of a tokenizer. Does not keep the model."""

    def __init__(self, model: Model) -> None:
        native = model._native
        self.tokens = native.token_bytes()
        self.special_token_ids = native.hidden_ids()
        self.eos_token_id = model.eos_token_id
        self.bos_token_id = model.bos_token_id
        self._native = weakref.ref(native)
        for token in self.special_token_ids:
            # Marked as no text: a grammar cannot ask for a control token by its spelling.
            self.tokens[token] = b"\xff" + (self.tokens[token] or str(token).encode())
        self._ids: dict[bytes, int] = {}

    def __call__(self, text: str) -> list[int]:
        """Of exactly this text: llguidance counts bytes, and many vocabularies put a space before
        whatever begins a text."""
        native, given = self._native(), to_bytes(text)
        ids: list[int] = []
        if native is not None:
            ids = native.tokenize(given, add_special=False, parse_special=False, poll_signals=False)
        first, rest = ids[:1], ids[1:]
        spelled = b"".join(self.tokens[token] for token in ids)
        if spelled == given:
            return ids
        if first and spelled == b" " + given:
            return self._longest(self.tokens[first[0]][1:]) + rest
        return self._longest(given)

    def _longest(self, data: bytes) -> list[int]:
        """The longest token each time, as far as there are any."""
        if not self._ids:
            self._ids = {data: token for token, data in enumerate(self.tokens) if data}
            self._most = max(map(len, self._ids))
        ids: list[int] = []
        while data:
            sizes = range(min(len(data), self._most), 0, -1)
            size = next((size for size in sizes if data[:size] in self._ids), 0)
            if size == 0:
                break
            ids.append(self._ids[data[:size]])
            data = data[size:]
        return ids


def _tokenizer(model: Model) -> Any:
    """Made once per model: it takes a moment with a large vocabulary."""
    native = model._native
    found = _tokenizers.get(native)
    if found is not None:
        return found
    ends = native.eog_ids()
    if not ends:
        raise UnsupportedModelError("this model has no token that ends a text: no grammar can end")
    module = _llguidance()
    vocabulary = _Vocabulary(model)
    made = module.LLTokenizer(
        module.TokenizerWrapper(vocabulary), n_vocab=len(vocabulary.tokens), eos_token=list(ends)
    )
    _tokenizers[native] = made
    return made
