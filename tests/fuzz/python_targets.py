"""Fuzz targets in Python, with libFuzzer's flags: python tests/fuzz/python_targets.py NAME ...

    safetensors     any bytes as a .safetensors file, whose tensors are read
    tokenizer_json  any bytes as a tokenizer.json
    sentencepiece   any bytes as a tokenizer.model
    server          any bytes as the body of a request, after a byte that chooses its address

Needs atheris. The folder SPECDEC_FUZZ_MODELS holds the model of `server`, tiny.gguf.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import atheris

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
FOLDER = pathlib.Path(tempfile.mkdtemp(prefix="specdec-fuzz-", dir="/dev/shm"))
Target = Callable[[bytes], None]


def says_something(error: Exception) -> None:
    if not str(error):
        raise AssertionError("an error that says nothing")


def safetensors() -> Target:
    with atheris.instrument_imports(include=["gguf_convert"]):
        from gguf_convert.errors import ConvertError
        from gguf_convert.safetensors_file import SafetensorsFile
        from gguf_convert.tensors import n_rows, row_length
    path = FOLDER / "model.safetensors"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            file = SafetensorsFile(path)
        except ConvertError as error:
            says_something(error)
            return
        for tensor in file.tensors.values():
            n = min(n_rows(tensor.shape), 100)
            if row_length(tensor.shape) < 1 << 16:
                assert tensor.read(0, n).size == n * row_length(tensor.shape)
        file.close()

    return run


def tokenizer_json() -> Target:
    with atheris.instrument_imports(include=["gguf_convert"]):
        from gguf_convert.errors import ConvertError
        from gguf_convert.vocabulary_loader import load_vocabulary
    path = FOLDER / "tokenizer.json"
    config = FOLDER / "tokenizer_config.json"
    config.write_text('{"bos_token": "<|endoftext|>"}', encoding="utf-8")

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            vocab = load_vocabulary(FOLDER, {}, pre="gpt-2")
        except ConvertError as error:
            says_something(error)
            return
        assert vocab.keys()

    return run


def sentencepiece() -> Target:
    with atheris.instrument_imports(include=["gguf_convert"]):
        from gguf_convert.errors import ConvertError
        from gguf_convert.vocabulary_loader import load_vocabulary
    path = FOLDER / "tokenizer.model"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        try:
            vocab = load_vocabulary(FOLDER, {})
        except ConvertError as error:
            says_something(error)
            return
        assert vocab.keys()

    return run


ADDRESSES = ["/v1/completions", "/v1/chat/completions", "/infill", "/tokenize", "/detokenize"]


class Client:
    """One application, asked without a network."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        return self._loop.run_until_complete(asyncio.wait_for(self._post(path, body), 60))

    async def _post(self, path: str, body: bytes) -> tuple[int, bytes]:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        status, answer = 0, b""
        for_ever = asyncio.Event()

        async def receive() -> dict[str, Any]:
            if parts:
                return parts.pop()
            await for_ever.wait()  # the client stays
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, answer
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                answer += message.get("body", b"")

        await self._app(scope, receive, send)
        return status, answer


def server() -> Target:
    with atheris.instrument_imports(include=["specdec_native"]):
        import specdec_native as sd
        from specdec_native.server.app import create_app
        from specdec_native.server.settings import Settings

    folder = pathlib.Path(os.environ["SPECDEC_FUZZ_MODELS"])
    engine = sd.Engine(sd.Model(folder / "tiny.gguf", n_threads=1), n_ctx=96, max_requests=2)
    settings = Settings("tiny", chat_template="chatml", default_max_tokens=4)
    client = Client(create_app(engine, settings))

    def run(data: bytes) -> None:
        address = ADDRESSES[data[0] % len(ADDRESSES)] if data else ADDRESSES[0]
        status, answer = client.post(address, data[1:])
        assert status in (200, 400, 404, 413, 422), (status, answer)
        if status != 200:
            assert json.loads(answer)["error"]["message"]
        elif not answer.startswith(b"data: "):
            json.loads(answer)

    return run


TARGETS = {
    "safetensors": safetensors,
    "tokenizer_json": tokenizer_json,
    "sentencepiece": sentencepiece,
    "server": server,
}


def main() -> None:
    run = TARGETS[sys.argv[1]]()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
