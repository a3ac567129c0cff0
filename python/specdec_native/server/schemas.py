"""What requests may say. The OpenAPI description is made of these."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import ApiError, invalid

_LARGEST = 2**31 - 1
MAX_CHOICES = 16  # n of a request


def _whole(value: object) -> object:
    """JSON knows one kind of number: 3.0 is 3, but "3" and true are no numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (bool, str)):
        raise PydanticCustomError("int_type", "expected a whole number")
    return value


def _all_whole(values: object) -> object:
    """As `_whole`, of a list: a call for each of a hundred thousand ids would hold up others."""
    if isinstance(values, list) and float in set(map(type, values)):
        return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return values


_NAME = re.compile(r"[0-9]{1,10}")


def _biases(value: object) -> object:
    """The first that is wrong, for which pydantic would make an error each."""
    for name, number in value.items() if isinstance(value, dict) else ():
        if not _NAME.fullmatch(name):
            raise PydanticCustomError("token_name", "expected a token id", {"key": name})
        if type(number) not in (int, float) or not -1000 <= number <= 1000:
            text = "expected a number from -1000 to 1000"
            raise PydanticCustomError("bias", text, {"key": name})
    return value


_WHOLE = BeforeValidator(_whole)
TOKEN_ID = "a token id"
TokenName = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Count = Annotated[int, Field(ge=0, le=_LARGEST), _WHOLE]
Text = Annotated[str, Field(min_length=1)]
T = TypeVar("T")
# A list ends at its first wrong element: one error for each takes gigabytes of a long body.
List = Annotated[list[T], Field(fail_fast=True)]
TokenIds = Annotated[
    List[Annotated[int, Field(ge=0, le=_LARGEST, description=TOKEN_ID)]],
    BeforeValidator(_all_whole),
]
Ids = Annotated[TokenIds, Field(min_length=1)]
Several = Annotated[list[T], Field(fail_fast=True, min_length=1, max_length=16)]


def _kind(value: object) -> str:
    """Which branch of a union is meant. Of all that fail, pydantic would tell in its own words."""
    if isinstance(value, list):
        inner = value[0] if value else None
        return "<lists>" if isinstance(inner, list) else "<list>"
    if isinstance(value, BaseModel):  # when it is written
        return "<object>"
    return {str: "<text>", dict: "<object>", bool: "<flag>"}.get(type(value), "<other>")


def _kind_of_prompt(value: object) -> str:
    is_texts = isinstance(value, list) and bool(value) and isinstance(value[0], str)
    return "<texts>" if is_texts else _kind(value)


def _by_kind(expected: str, kind: Callable[[object], str] = _kind) -> Discriminator:
    return Discriminator(
        kind, custom_error_type="kind", custom_error_message=f"expected {expected}"
    )


_TEXT, _LIST, _OBJECT, _FLAG = Tag("<text>"), Tag("<list>"), Tag("<object>"), Tag("<flag>")
Stop = Annotated[
    Annotated[Text, _TEXT] | Annotated[List[Text], Field(max_length=64), _LIST],
    _by_kind("a text or a list of texts"),
]
Prompt = Annotated[
    Annotated[Text, _TEXT]
    | Annotated[Ids, _LIST]
    | Annotated[Several[Text], Tag("<texts>")]
    | Annotated[Several[Ids], Tag("<lists>")],
    _by_kind("a text, a list of token ids, or a list of such", _kind_of_prompt),
]
Schema = Annotated[
    Annotated[dict[str, Any], _OBJECT] | Annotated[bool, _FLAG], _by_kind("an object or a boolean")
]


@functools.cache
def _fields(kind: type[Body]) -> frozenset[str]:
    return frozenset(field.alias or name for name, field in kind.model_fields.items())


class Body(BaseModel):
    """A field that is not known is refused: it would be lost without a word."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        """The first unknown field, for which pydantic would make an error each."""
        if isinstance(value, dict) and cls.model_config.get("extra") == "forbid":
            known = _fields(cls)
            for name in value:
                if name not in known:
                    raise PydanticCustomError("extra_forbidden", "no such field", {"key": name})
        return value


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = Field(None, description="accepted; nothing is obfuscated")
    include_speculation: bool | None = Field(
        None, description="`specdec` in each chunk: token ids, and which were drafted"
    )


class Sampling(Body):
    """Common to completions and chats. Fields of OpenAI, and those of llama-server."""

    model: str = ""
    temperature: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Count | None = Field(None, description="best so many tokens; 0: all")
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    logit_bias: Annotated[
        dict[TokenName, Annotated[float, Field(ge=-1000, le=1000)]] | None, BeforeValidator(_biases)
    ] = Field(None, description="token id -> what is added to its logit; -100 and below bans it")
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63), _WHOLE] | None = None
    stop: Stop | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), _WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    json_schema: Schema | None = Field(None, description="the text is JSON of it")
    grammar: Text | None = Field(None, description="the text follows it; in llama.cpp's GBNF")
    speculation: bool | None = Field(
        None, description="false: decode plainly; the tokens are the same"
    )
    remember: bool | None = Field(
        None, description="false: neither draft from the server's memory nor be added to it"
    )
    # For bookkeeping on the other side: taken, without effect on the output.
    user: str | None = Field(None, description="each has a part of the server's memory of its own")
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None


def _not_both(schema: dict[str, Any], **others: str) -> None:
    schema["not"] = {
        "properties": {"echo": {"const": True}},
        "required": ["echo"],
        "anyOf": [
            {"properties": {name: {"type": kind}}, "required": [name]}
            for name, kind in others.items()
        ],
    }


class CompletionRequest(Sampling):
    model_config = ConfigDict(
        json_schema_extra=lambda schema: _not_both(schema, logprobs="number", suffix="string")
    )
    prompt: Prompt = Field(description="text, token ids, or up to 16 of them")
    max_tokens: Count | None = Field(None, description="default 16, or the server's --max-tokens")
    logprobs: Annotated[int, Field(ge=0, le=100), _WHOLE] | None = None
    echo: bool | None = Field(
        None, description="begin with the prompt; not with logprobs or suffix"
    )
    suffix: str | None = Field(None, description="what follows the completion; needs FIM tokens")
    best_of: Literal[1] | None = Field(None, description="each choice is the only one tried")


class Part(Body):
    type: Literal["text", "input_text"]
    text: str
    model_config = ConfigDict(extra="allow", strict=True)


Content = Annotated[
    Annotated[str, _TEXT] | Annotated[List[Part], _LIST], _by_kind("a text or a list of parts")
]


class Message(Body):
    """One message. What a template knows beyond these reaches it."""

    role: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    content: Content | None = None
    name: str | None = None
    tool_calls: List[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    model_config = ConfigDict(extra="allow", strict=True)


class FunctionName(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: FunctionName


class Function(Body):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"] = "function"
    function: Function


class JsonSchema(Body):
    name: str = ""
    description: str | None = None
    schema_: Schema = Field(alias="schema")
    strict: bool | None = Field(None, description="it is followed strictly in any case")


class TextFormat(Body):
    type: Literal["text"]


class JsonFormat(Body):
    type: Literal["json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: JsonSchema


def _format(value: object) -> str:
    """Not pydantic's own: its tag could not be told from a field of that name."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>"


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonFormat, Tag("<json_object>")]
    | Annotated[SchemaFormat, Tag("<json_schema>")],
    _by_kind("a type of text, json_object or json_schema", _format),
]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], _TEXT] | Annotated[NamedTool, _OBJECT],
    _by_kind("none, auto, required or a function"),
]


class ChatRequest(Sampling):
    messages: Annotated[List[Message], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=100), _WHOLE] | None = None
    tools: List[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(None, description="false: the first call alone")
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="further variables of the chat template, e.g. enable_thinking"
    )
    reasoning_format: Literal["auto", "deepseek", "none"] | None = Field(
        None,
        description="auto, deepseek: thoughts (<think>) are `reasoning_content`; none: a part of "
        "the text; default: the server's --reasoning-format",
    )
    reasoning_effort: str | None = Field(None, description="a variable of the template")
    verbosity: Any = None


class Extra(Body):
    filename: str = ""
    text: str


class InfillRequest(Sampling):
    n: Literal[1] | None = None
    input_prefix: str = ""
    input_suffix: str = ""
    input_extra: List[Extra] = Field(default=[], description="other files, for context")
    prompt: str = Field("", description="the beginning of what is filled in")
    n_predict: Annotated[int, Field(ge=-1, le=_LARGEST), _WHOLE] = -1
    max_tokens: Count | None = None


class TokenizeRequest(Body):
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(Body):
    tokens: TokenIds


def parse(kind: type[Body], body: object) -> Any:
    """A request; raises ApiError naming the field."""
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object", None, "invalid_type")
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> ApiError:
    entry = error.errors(include_url=False)[0]
    parts = [str(part) for part in entry["loc"] if part not in _TAGS]
    given = entry["input"]
    key = entry.get("ctx", {}).get("key")
    if key is not None:
        parts.append(key)
        given = given[key]
    path = ".".join(parts)
    if entry["type"] == "extra_forbidden":
        return invalid(
            f"{path}: no such field; leave it out, or see /openapi.json for those there are",
            path,
            "unknown_parameter",
        )
    if entry["type"] == "missing":
        return invalid(f"{path}: missing, and required", path, "missing_required_parameter")
    return invalid(f"{path}: {entry['msg']}, got {_shown(given)}", path, "invalid_value")


def _shown(value: object) -> str:
    """Not more of it than a line has."""
    if isinstance(value, (list, dict)):
        return "an array" if isinstance(value, list) else "an object"
    shown = json.dumps(value[:80] if isinstance(value, str) else value, ensure_ascii=False)
    return shown if len(shown) <= 80 else shown[:77] + "..."


# pydantic puts the branch of a union into the path.
_TAGS = frozenset(
    f"<{kind}>" for kind in "text list texts lists object flag json_object json_schema".split()
)
