"""Options that the commands with an engine share."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from ._names import find_draft, find_model
from .errors import InvalidArgumentError, TemplateError

if TYPE_CHECKING:
    from .model import Model


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, not {text}")
    return number


def size(text: str) -> int:
    """A number of bytes, or with K, M, G."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    return positive(text if factor == 1 else text[:-1]) * factor


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a GGUF file, hf:ORG/REPO/FILE.gguf, or a name that `specdec-native pull` knows",
    )
    parser.add_argument(
        "-md",
        "--draft",
        metavar="FILE",
        help="a smaller model of its vocabulary, or a name; none: no draft (default: the one that "
        "comes with a model known by name)",
    )
    parser.add_argument("--drafter", metavar="NAME", help="as of `specdec generate` (default auto)")
    parser.add_argument("-t", "--threads", type=positive, metavar="N", help="threads")
    parser.add_argument("-c", "--ctx", type=positive, metavar="N", help="positions of each request")
    parser.add_argument(
        "--max-requests", type=positive, default=16, metavar="N", help="at once (default 16)"
    )
    parser.add_argument(
        "--kv-bytes", type=size, metavar="N", help="memory of all caches: bytes, or with K, M, G"
    )
    parser.add_argument(
        "--memory",
        metavar="FILE",
        help="keep prompts and answers in this file (readable for you only) and draft from those "
        "of earlier requests; never changes a text, only how fast it comes",
    )
    parser.add_argument(
        "--memory-tokens",
        type=positive,
        metavar="N",
        help="tokens that --memory holds (default 262144)",
    )
    parser.add_argument(
        "-n", "--max-tokens", type=positive, metavar="N", help="where a request gives no number"
    )
    parser.add_argument(
        "--chat-template",
        metavar="NAME",
        help="a format, one of the model's templates, or a file with a jinja2 template",
    )


def model_paths(args: argparse.Namespace) -> tuple[str, str | None]:
    """Files of the model and of its draft; fetches what is not there yet."""

    def note(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    target = str(find_model(args.model, notify=note))
    draft = args.draft
    if draft is None and args.drafter in (None, "auto"):
        own = find_draft(args.model)
        return target, None if own is None else str(own)
    if draft is None or draft == "none":
        return target, None
    return target, str(find_model(draft, notify=note))


def chat_template(args: argparse.Namespace) -> str | None:
    """A file's text, or what was given."""
    given: str | None = args.chat_template
    if given is None:
        return None
    is_file = False
    with contextlib.suppress(OSError, ValueError):  # a template is no name of a file
        is_file = pathlib.Path(given).is_file()
    try:
        return pathlib.Path(given).read_text(encoding="utf-8") if is_file else given
    except UnicodeDecodeError:
        raise InvalidArgumentError(f"--chat-template: {given} is no UTF-8 text") from None


def check_template(model: Model, template: str | None) -> None:
    """Raises InvalidArgumentError for a name that means none, before any request meets it."""
    if template is None:
        return
    with contextlib.suppress(TemplateError):  # it may want other messages
        model.apply_chat_template([{"role": "user", "content": "x"}], template=template)


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """Of `Model`."""
    return {} if args.threads is None else {"n_threads": args.threads}


def engine_options(args: argparse.Namespace) -> dict[str, Any]:
    """Of `Engine`."""
    options: dict[str, Any] = {"n_ctx": args.ctx, "max_requests": args.max_requests}
    if args.drafter is not None:
        options["drafter"] = args.drafter
    if args.kv_bytes is not None:
        options["kv_bytes"] = args.kv_bytes
    if args.memory is not None:
        from .memory import Memory

        limit = {} if args.memory_tokens is None else {"max_tokens": args.memory_tokens}
        options["memory"] = Memory(args.memory, **limit)
    elif args.memory_tokens is not None:
        raise InvalidArgumentError("--memory-tokens needs --memory FILE")
    return options
