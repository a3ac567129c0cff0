"""Runs chat templates, which are programs from strangers, within bounds.

jinja2's immutable sandbox keeps a template from reaching Python's internals. What it does not bound
is added here: how large a template is, how much it loops and calls, how much text and how large
values it makes, and how long it takes.
"""

from __future__ import annotations

import datetime
import functools
import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.parser import Parser
from jinja2.runtime import Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from .errors import TemplateError

MAX_TEMPLATE_BYTES = 1 << 20
MAX_TOKENS = 20_000  # of a template, not of a model
MAX_NUMBER_BITS = 4096
MAX_ARGUMENT = 100_000  # of numbers handed to functions and filters: widths, counts, depths
MAX_STEPS = 1_000_000  # passes of loops, calls, filters
MAX_SECONDS = 1.0
MAX_GROWTH = 16 << 20  # characters made by all operations together
GROWTH_PER_INPUT = 64  # the same, in addition, per character of the messages

# Egyptian hieroglyphs, which stand in for other characters in message text: no operation on text
# treats them specially, unlike private-use characters, which repr() escapes.
DISGUISES = range(0x13000, 0x13430)

_FILTERS = """
    abs attr batch capitalize count d default dictsort e escape first float forceescape groupby
    indent int items join last length list lower map max min reject rejectattr replace reverse
    round safe select selectattr slice sort string title trim unique upper wordcount
""".split()
_FORBIDDEN_ATTRIBUTES = frozenset({"format", "format_map", "translate", "expandtabs", "encode"})
_PLAIN_TYPES = (str, bool, int, float, type(None), Undefined)


class _Budget:
    """What one run of a template may still use."""

    def __init__(self, n_input: int = 0) -> None:
        self.size = MAX_GROWTH + GROWTH_PER_INPUT * n_input
        self.growth = self.size
        self.steps = MAX_STEPS
        self.deadline = time.monotonic() + MAX_SECONDS

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise _limit(f"does more than {MAX_STEPS} steps")
        if time.monotonic() > self.deadline:
            raise _limit(f"runs for more than {MAX_SECONDS:g} s")

    def grow(self, n: int) -> None:
        self.growth -= n
        if self.growth < 0:
            raise _limit("makes too much text")


_budget: ContextVar[_Budget] = ContextVar("specdec_template_budget")


def _limit(what: str) -> TemplateError:
    return TemplateError(f"the chat template {what}", reason="limit")


def _expanded(value: Any, memo: dict[int, int]) -> int:
    """Characters of the value written out; a list that is reached twice counts twice."""
    if isinstance(value, str):
        return len(value) + 1
    if isinstance(value, int):
        return 1 + value.bit_length() // 3
    if not isinstance(value, (list, tuple, dict)):
        return 16
    if id(value) not in memo:
        _budget.get().step()
        parts: Iterable[Any] = value
        if isinstance(value, dict):
            parts = itertools.chain(value.keys(), value.values())
        memo[id(value)] = 2 + sum(_expanded(part, memo) for part in parts)
    return memo[id(value)]


def _checked(value: Any) -> Any:
    """The value, unless it is too large when written out, compared or walked."""
    if isinstance(value, (list, tuple, dict)) and _expanded(value, {}) > _budget.get().size:
        raise _limit("makes too large a value")
    return value


def _text(value: Any) -> str:
    """str(value), of types whose text is bounded by `_checked`."""
    if isinstance(value, str):
        return value
    if not isinstance(value, _PLAIN_TYPES):
        _require_plain(value)
        _budget.get().grow(_expanded(value, {}))
    return str(value)


def _written(value: Any) -> str:
    text = _text(value)
    _budget.get().grow(len(text))
    return text


def _require_plain(value: Any) -> None:
    if isinstance(value, dict):
        value = itertools.chain(value.keys(), value.values())
    elif not isinstance(value, (list, tuple)):
        raise _limit(f"writes a value of type {type(value).__name__}")
    for part in value:
        if not isinstance(part, _PLAIN_TYPES):
            _budget.get().step()
            _require_plain(part)


class _Meter(NodeTransformer):
    """Makes loops, macros, `~` and literals report what they do."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.body.insert(0, _step(node))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        self.generic_visit(node)
        node.body.insert(0, _step(node))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:
        self.generic_visit(node)
        return _call("specdec_concat", node.nodes, node)

    def visit_List(self, node: nodes.List) -> nodes.Expr:
        self.generic_visit(node)
        return _call("specdec_pack", [node], node) if node.items else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Expr:
        self.generic_visit(node)
        return _call("specdec_pack", [node], node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        self.generic_visit(node)
        return _call("specdec_pack", [node], node) if node.items else node


def _step(node: nodes.Node) -> nodes.ExprStmt:
    """One pass of a loop or macro, with the text that it writes at most besides expressions."""
    n_written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
    call = _call("specdec_step", [nodes.Const(n_written, lineno=node.lineno)], node)
    return nodes.ExprStmt(call, lineno=node.lineno)


def _call(name: str, arguments: list[nodes.Expr], near: nodes.Node) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=near.lineno)
    return nodes.Call(function, arguments, [], None, None, lineno=near.lineno)


class _Extras(Extension):
    """Bounds the template's length, and ignores `{% generation %}`, which is for training."""

    tags = {"generation"}  # noqa: RUF012

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for n, token in enumerate(stream):
            if n == MAX_TOKENS:
                raise _limit(f"has more than {MAX_TOKENS} parts")
            yield token

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Extras],
            finalize=_written,
            cache_size=0,
        )
        self.filters = {
            name: _bounded_filter(name, function)
            for name, function in self.filters.items()
            if name in _FILTERS
        }
        self.filters["tojson"] = _to_json
        self.globals.pop("lipsum", None)
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        metered: nodes.Template = _Meter().visit(template)
        metered.set_environment(self)
        return metered

    # Called by the metered template.

    def specdec_step(self, n_written: int) -> None:
        _budget.get().step()
        _budget.get().grow(n_written)

    def specdec_pack(self, value: Any) -> Any:
        return _checked(value)

    def specdec_concat(self, *parts: Any) -> str:
        texts = [_text(part) for part in parts]
        _budget.get().grow(sum(map(len, texts)))
        return "".join(texts)

    # Called by jinja2.

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if getattr(obj, "__self__", None) is self:  # one of the three above
            return obj(*args)
        if isinstance(obj, Macro):
            _budget.get().step()
            return super().call(context, obj, *args, **kwargs)
        owner = getattr(obj, "__self__", None)
        name = getattr(obj, "__name__", "") if isinstance(owner, str) else ""
        args = _before_call(name, (owner, *args), kwargs)[1:]
        return _after_call(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        budget = _budget.get()
        budget.step()
        if operator == "+":
            budget.grow(_length(left) + _length(right))
        elif operator == "%" and isinstance(left, str):
            if re.search(r"%[^a-zA-Z%]*[\d*]", left):
                raise _limit("formats with a width")
            _text(list(right) if isinstance(right, tuple) else right)
        elif operator in ("*", "**"):
            _check_product(budget, operator, left, right)
        return _checked(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> None:
        return None  # so that is_safe_attribute refuses it: a format string can ask for any width

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _FORBIDDEN_ATTRIBUTES and super().is_safe_attribute(obj, attr, value)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict)) else 0


def _check_product(budget: _Budget, operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * abs(right)
        if operator == "*":
            bits = left.bit_length() + right.bit_length()
        if bits > MAX_NUMBER_BITS:
            raise _limit("makes too large a number")
    elif isinstance(left, int):
        budget.grow(max(0, left) * _length(right))
    elif isinstance(right, int):
        budget.grow(max(0, right) * _length(left))


def _before_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Checks a call of a filter or method; args[0] is the value or the object it works on."""
    budget = _budget.get()
    budget.step()
    for value in itertools.chain(args[1:], kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_ARGUMENT:
            raise _limit(f"hands a number over {MAX_ARGUMENT} to a function")
    if name == "replace" and len(args) >= 3:
        n_found = _text(args[0]).count(_text(args[1])) + 1
        budget.grow(n_found * len(_text(args[2])))
    elif name == "indent":
        width = kwargs.get("width", args[1] if len(args) > 1 else 4)
        width = len(width) if isinstance(width, str) else int(width)
        budget.grow((_text(args[0]).count("\n") + 1) * width)
    elif name == "join":
        # The method's list comes second, the filter's first.
        at = 1 if len(args) > 1 and not isinstance(args[1], str) else 0
        parts = list(itertools.islice(args[at], MAX_ARGUMENT + 1))
        separator = args[0] if at == 1 else (args[1] if len(args) > 1 else kwargs.get("d", ""))
        budget.grow(len(_text(separator)) * len(parts) + sum(len(_text(p)) for p in parts))
        args = (*args[:at], parts, *args[at + 1 :])
    elif name == "string":
        _text(args[0])
    return args


def _after_call(result: Any) -> Any:
    _budget.get().grow(_length(result))
    return _checked(result)


def _bounded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # jinja2 hands some filters its context, environment or evaluation context first.
    n_skip = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        checked = _before_call(name, args[n_skip:], kwargs)
        return _after_call(function(*args[:n_skip], *checked, **kwargs))

    return call


def _raise_exception(message: object = "") -> NoReturn:
    raise TemplateError(
        f"the chat template refuses these messages: {_text(message)[:1000]}", reason="refused"
    )


def _strftime_now(layout: str) -> str:
    return datetime.datetime.now().strftime(str(layout)[:256])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    budget = _budget.get()
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= 16):
        raise _limit("asks tojson for an indent that is not 0 to 16")
    encoder = json.JSONEncoder(
        ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    chunks = []
    for chunk in encoder.iterencode(value):  # in small pieces, so that the budget ends it
        budget.step()
        budget.grow(len(chunk))
        chunks.append(_escaped(chunk) if ensure_ascii else chunk)
    return "".join(chunks)


def _escaped(text: str) -> str:
    """As json escapes what is not ASCII, but for characters that stand in for others."""
    return "".join(c if c < "\x80" or ord(c) in DISGUISES else json.dumps(c)[1:-1] for c in text)


@functools.lru_cache(maxsize=16)
def _compile(source: str) -> Template:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_TEMPLATE_BYTES:
        raise _limit(f"is larger than {MAX_TEMPLATE_BYTES} bytes")
    # Constant expressions are folded here, by the same metered operations.
    return _Environment().from_string(source)


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The template's text. Raises `TemplateError` for a wrong template and for one past its limits.

    Args:
        source: jinja2 template of at most 1 MiB.
        variables: values of plain types (str, int, float, bool, None, list, dict).
    """
    token = _budget.set(_Budget())
    try:
        _budget.set(_Budget(_expanded(dict(variables), {})))
        return _compile(source).render(**variables)
    except TemplateError:
        raise
    except JinjaError as error:
        raise TemplateError(f"the chat template is wrong: {error}", reason="syntax") from error
    except RecursionError as error:
        raise _limit("nests too deeply") from error
    except Exception as error:  # foreign code can make any mistake
        raise TemplateError(
            f"the chat template failed: {type(error).__name__}: {error}", reason="failed"
        ) from error
    finally:
        _budget.reset(token)
