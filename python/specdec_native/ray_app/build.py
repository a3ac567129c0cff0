"""Makes the application of arguments."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any, NoReturn

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from .._engine_options import positive
from ..errors import InvalidArgumentError
from ..server.command import parser
from .front import Front
from .replica import Replica
from .router import PrefixRouter

# Where to listen and how to end is Ray Serve's.
_OF_SERVE = (
    *("host", "port", "unix_socket", "verbose", "allow_host"),
    *("max_connections", "read_timeout", "write_timeout", "keep_alive"),
)
_MANY = 10_000


def app(args: Mapping[str, Any]) -> Any:
    """An application for Ray Serve: ``serve run specdec_native.ray_app:app model=FILE replicas=2``.

    Args:
        args: `model` and the options of `specdec-native serve` without their dashes (`draft`,
            `ctx`, `max_requests`, `api_key_file`, ...), and `replicas`: how many engines. Files
            must be at the same paths on every node; models by name are fetched by each node.

    Raises:
        InvalidArgumentError: an option is missing, unknown or out of its range.
    """
    options = _parsed(args)
    threads = options.threads or _threads(options.replicas)
    options.threads = threads
    slack = max(1, options.max_requests // 2)
    replicas = serve.deployment(
        num_replicas=options.replicas,
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=2 * options.max_requests,
        max_queued_requests=256,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=float(options.grace or 300),
        request_router_config=RequestRouterConfig(
            request_router_class=PrefixRouter, request_router_kwargs={"slack": slack}
        ),
    )(Replica)
    front = serve.deployment(
        num_replicas=1,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_MANY,
        graceful_shutdown_timeout_s=float(options.grace or 300),
    )(Front)
    return front.bind(replicas.bind(options), options.max_body)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise InvalidArgumentError(
            f"ray_app: {message.replace('--', '').replace('MODEL', 'model')}"
        )


def _parsed(args: Mapping[str, Any]) -> argparse.Namespace:
    made = parser(_Parser)
    made.add_argument("--replicas", type=positive, default=1)
    words: list[str] = []
    for name, value in args.items():
        if name in _OF_SERVE:
            raise InvalidArgumentError(f"ray_app: {name} is for Ray Serve to know (serve start)")
        if name == "model":
            continue
        flag = "--" + str(name).replace("_", "-")
        if value is True or value == "true":
            words.append(flag)
        elif value is not False and value is not None and value != "false":
            for one in value if isinstance(value, list) else [value]:
                words.append(f"{flag}={one}")
    model = [] if "model" not in args else ["--", str(args["model"])]
    options = made.parse_args([*words, *model])
    for name in ("model", "draft", "chat_template", "api_key_file"):
        given = getattr(options, name)
        if given is not None and len(str(given)) < 4096 and pathlib.Path(given).is_file():
            setattr(options, name, type(given)(pathlib.Path(given).absolute()))
    for name in (options.model, options.draft or ""):
        is_file_name = name.endswith(".gguf") and not name.startswith("hf:")
        if is_file_name and not pathlib.Path(name).is_file():
            raise InvalidArgumentError(f"ray_app: there is no file {name}")
    return options


def _threads(n_replicas: int) -> int:
    """So many for each replica that all cores have work."""
    if not ray.is_initialized():
        return 1
    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    largest = max(cores, default=1)
    return max(1, min(largest, sum(cores) // n_replicas))
