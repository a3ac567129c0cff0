"""``specdec-native serve``."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import ipaddress
import logging
import os
import pathlib
import socket
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._engine_options import (
    add_engine_options,
    chat_template,
    check_template,
    engine_options,
    loading_options,
    model_paths,
    positive,
    size,
)
from .._extras import missing
from ..errors import InvalidArgumentError

if TYPE_CHECKING:
    from ..engine import Engine
    from .settings import Settings


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_args(arguments)
    try:
        import prometheus_client  # noqa: F401
        import pydantic  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise missing("`serve`", "server", error) from None
    from .app import create_app
    from .connections import BACKLOG, Limits, protocol, with_enough_files
    from .running import Service

    settings = settings_of(args)
    if not args.unix_socket and not settings.api_keys and not is_loopback(args.host):
        print(
            f"specdec-native: {args.host} can be reached by other computers, and no key is asked "
            "for; --api-key or --api-key-file changes that",
            file=sys.stderr,
        )
    check_address(args)
    level = "debug" if args.verbose else "info"
    logging.basicConfig(level=level.upper(), stream=sys.stderr)  # loading has warnings, too
    engine = make_engine(args, settings)
    settings = named(settings, args, engine)
    app = create_app(engine, settings, hosts=_hosts(args))
    limits = with_enough_files(Limits(args.max_connections, args.read_timeout, args.write_timeout))
    if limits.connections < args.max_connections:
        print(
            f"specdec-native: at most {limits.connections} connections: this process may not have "
            "more files open (ulimit -n)",
            file=sys.stderr,
        )
    config = uvicorn.Config(
        app,
        host=args.host,
        port=args.port,
        uds=args.unix_socket,
        log_level=level,
        access_log=args.verbose,
        http=protocol(limits),
        timeout_keep_alive=args.keep_alive,
        backlog=BACKLOG,
        server_header=False,
        lifespan="on",
    )
    server = Service(config, engine, args.grace)
    server.run()  # SIGTERM and SIGINT: no new requests, those that run come to their end
    return 0 if server.started else 1


def settings_of(args: argparse.Namespace) -> Settings:
    from .settings import Settings

    return Settings(
        model_id=args.alias or pathlib.Path(args.model).stem,
        api_keys=frozenset(_keys(args)),
        max_body_bytes=args.max_body,
        default_max_tokens=args.max_tokens,
        chat_template=chat_template(args),
        reasoning_format=args.reasoning_format,
        page=not args.no_page,
        allowed_origins=tuple(args.allow_origin),
    )


def make_engine(args: argparse.Namespace, settings: Settings) -> Engine:
    from ..engine import Engine
    from ..model import Model

    target, draft = model_paths(args)
    model = Model(target, **loading_options(args))
    other = None if draft is None else Model(draft, **loading_options(args))
    check_template(model, settings.chat_template)
    return Engine(model, draft=other, **engine_options(args))


def named(settings: Settings, args: argparse.Namespace, engine: Engine) -> Settings:
    """With the name of the file that a repository's name led to, and was not known before."""
    if args.alias or not args.model.startswith("hf:"):
        return settings
    return dataclasses.replace(settings, model_id=pathlib.Path(engine.target.info.path).stem)


def check_address(args: argparse.Namespace) -> None:
    """Whether the server can listen there: known before a model is loaded, and said in one line.

    Raises:
        OSError: it cannot; says where, and why.
    """
    if args.unix_socket:
        _check_socket(args.unix_socket)
        return
    where = f"--host {args.host} --port {args.port}"
    try:
        kind, _, _, _, address = socket.getaddrinfo(args.host, args.port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen there: {error.strerror}", where) from None


def _check_socket(path: str) -> None:
    """A socket that nobody listens on any more is replaced; one of another server is not."""
    where = f"--unix-socket {path}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if not os.path.lexists(path):
                probe.bind(path)
                pathlib.Path(path).unlink()
                return
            if not stat.S_ISSOCK(pathlib.Path(path).stat().st_mode):
                raise OSError(errno.EEXIST, "there is a file that is no socket")
            with contextlib.suppress(ConnectionRefusedError):
                probe.connect(path)
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except OSError as error:
        reason = error.strerror or str(error)  # "AF_UNIX path too long" has no number
        raise OSError(error.errno, f"cannot listen there: {reason}", where) from None


def _keys(args: argparse.Namespace) -> list[str]:
    keys = list(args.api_key)
    if args.api_key_file is not None:
        try:
            text = args.api_key_file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise InvalidArgumentError(
                f"--api-key-file: {args.api_key_file} is no UTF-8 text"
            ) from None
        found = [line.strip() for line in text.splitlines() if line.strip()]
        if not found:
            raise InvalidArgumentError(f"--api-key-file: {args.api_key_file} holds no key")
        keys += found
    return keys


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hosts(args: argparse.Namespace) -> tuple[str, ...]:
    """Whom requests may be meant for; from elsewhere this host has names that nobody knows here."""
    if not args.allow_host and (args.unix_socket or not is_loopback(args.host)):
        return ("*",)
    return ("localhost", "127.0.0.1", "[::1]", args.host, *args.allow_host)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, not {text}")
    return port


def parser(
    kind: type[argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    made = kind(
        prog="specdec-native serve",
        description="Serve a model over HTTP in the form of OpenAI's API, with a page at /. "
        "Requests share passes, and each gets the tokens that it would get alone.",
    )
    add_engine_options(made)
    made.add_argument("--host", default="127.0.0.1", help="address (default 127.0.0.1)")
    made.add_argument("--port", type=_port, default=8080, help="port (default 8080; 0: any)")
    made.add_argument("--unix-socket", metavar="PATH", help="listen there instead")
    made.add_argument(
        "--alias", metavar="NAME", help="what /v1/models calls the model (default: the file's name)"
    )
    made.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="ask for this key, or others"
    )
    made.add_argument(
        "--api-key-file", type=pathlib.Path, metavar="FILE", help="the same, one a line"
    )
    made.add_argument(
        "--max-body", type=size, default=8 << 20, metavar="N", help="bytes of a request (8M)"
    )
    made.add_argument(
        "--reasoning-format",
        choices=("auto", "none"),
        default="auto",
        help="auto: what a model thinks is `reasoning_content`; none: a part of the text",
    )
    made.add_argument(
        "--max-connections", type=positive, default=512, metavar="N", help="at once (default 512)"
    )
    made.add_argument(
        "--read-timeout",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="in which a request must arrive whole (default 60)",
    )
    made.add_argument(
        "--write-timeout",
        type=positive,
        default=120,
        metavar="SECONDS",
        help="after which a client that takes nothing of its answer is given up (default 120)",
    )
    made.add_argument(
        "--keep-alive",
        type=positive,
        default=75,
        metavar="SECONDS",
        help="after which a connection without a request is closed (default 75)",
    )
    made.add_argument("--no-page", action="store_true", help="no page at /")
    made.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages of this site may call the server",
    )
    made.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer to this name, too, e.g. behind a proxy on this computer; with a --host that "
        "others can reach or a --unix-socket: to no names but these and its own",
    )
    made.add_argument(
        "--grace",
        type=positive,
        metavar="SECONDS",
        help="on SIGTERM wait at most so long for what runs (default: to its end, or to the next "
        "signal)",
    )
    made.add_argument("-v", "--verbose", action="store_true", help="a line for each request")
    return made
