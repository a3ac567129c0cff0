"""Clients that people use: LangChain, LlamaIndex, litellm, OpenAI's package for JavaScript.

Each is a program in tests/clients/, or a block of docs/server.md, which runs in a process of its
own: Python's with $SPECDEC_CLIENTS_PYTHON, or the tests' own Python; JavaScript's with node, where
`npm install openai` was run in $SPECDEC_CLIENTS_NODE.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("specdec_native", reason="the package is not installed")
httpx = pytest.importorskip("httpx", reason="httpx is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")
pytest.importorskip("llguidance", reason="llguidance is not installed")

from server_process import ServerProcess  # noqa: E402

ROOT = pathlib.Path(__file__).parents[2]
PYTHON = os.environ.get("SPECDEC_CLIENTS_PYTHON", sys.executable)
NODE_FOLDER = pathlib.Path(os.environ.get("SPECDEC_CLIENTS_NODE", "."))
QUESTION = "the cat in the hat"
KEY = {"Authorization": "Bearer secret"}
# They look for other hosts where they can.
ALONE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "TIKTOKEN_CACHE_DIR": "/nonexistent",
    "NO_PROXY": "127.0.0.1",
}
CLIENTS = {
    "langchain": ("langchain_openai", "langchain-openai"),
    "llama_index": ("llama_index.llms.openai_like", "llama-index-llms-openai-like"),
    "litellm": ("litellm", "litellm"),
}


@pytest.fixture(scope="module")
def served(tiny_path):
    options = ("-t", "1", "-c", "4096", "--api-key", "secret", "--alias", "tiny")
    with ServerProcess(tiny_path, *options) as made:
        yield made


def need(client):
    """Skips, with a reason, where a client is not installed."""
    if client == "openai_js":
        if shutil.which("node") is None:
            pytest.skip("node is not installed")
        if not (NODE_FOLDER / "node_modules" / "openai").is_dir():
            pytest.skip(f"npm install openai, in {NODE_FOLDER} (SPECDEC_CLIENTS_NODE)")
        return
    module, package = CLIENTS[client]
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, timeout=120, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip install {package}, for {PYTHON} (SPECDEC_CLIENTS_PYTHON)")


def run(command, **options):
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **ALONE}, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_module(source, folder, arguments=()):
    """JavaScript, beside the packages that it imports."""
    path = folder / "client.mjs"
    path.write_text(source, encoding="utf-8")
    (folder / "node_modules").symlink_to((NODE_FOLDER / "node_modules").resolve())
    return run(["node", str(path), *arguments])


def post(served, path, **body):
    answer = httpx.post(f"{served.url}{path}", json=body, headers=KEY, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def expected(served):
    messages = [{"role": "user", "content": QUESTION}]
    chat = post(served, "/v1/chat/completions", messages=messages, max_tokens=20)
    text = post(served, "/v1/completions", prompt=QUESTION, max_tokens=20)
    return chat["choices"][0]["message"]["content"], text["choices"][0]["text"], chat["usage"]


@pytest.mark.parametrize("client", [*CLIENTS, "openai_js"])
def test_clients_get_what_the_server_says(served, expected, client, tmp_path):
    need(client)
    arguments = [served.url, QUESTION]
    if client == "openai_js":
        source = (ROOT / "tests/clients/openai_client.mjs").read_text(encoding="utf-8")
        told = json.loads(run_module(source, tmp_path, arguments))
    else:
        program = ROOT / "tests" / "clients" / f"{client}_client.py"
        told = json.loads(run([PYTHON, str(program), *arguments], cwd=tmp_path))
    answer, text, usage = expected
    assert told["plain"] == told["streamed"] == answer
    assert told["completion"] == told["streamed_completion"] == text
    assert told.get("batch", [text]) == [text] * len(told.get("batch", [text]))
    counts = {usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]}
    for kind in ("usage", "streamed_usage"):
        values = told.get(kind, usage).values()
        assert counts <= {value for value in values if isinstance(value, int)}
    assert told["calls"] == [["weather", "str"]]
    assert told["streamed_calls"] == ["weather"]
    assert told["after_call"] is True
    assert told["json_schema"] is True
    assert told.get("function_calling", True) is True
    if client == "openai_js":
        errors = [["AuthenticationError", None], ["BadRequestError", "temperature"]]
        assert told["errors"] == errors


def blocks():
    """Of docs/server.md, by their client."""
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    found = re.findall(r"^```(python|js)\n(.*?)^```", text, re.S | re.M)
    names = {"langchain_openai": "langchain", "llama_index": "llama_index", "litellm": "litellm"}
    made = {}
    for language, source in found:
        client = next((c for module, c in names.items() if module in source), "openai")
        made["openai_js" if language == "js" else client] = source
    return made


def test_the_documentation_shows_every_client():
    assert set(blocks()) == {"openai", "openai_js", *CLIENTS}


@pytest.mark.parametrize("client", ["openai", "openai_js", *CLIENTS])
def test_what_the_documentation_shows_runs(tiny_path, client, tmp_path):
    source = blocks()[client]
    if client == "openai":
        pytest.importorskip("openai", reason="openai is not installed")
    else:
        need(client)
    assert "http://127.0.0.1:8080" in source
    with ServerProcess(tiny_path, "-t", "1", "-c", "1024") as served:
        source = source.replace("http://127.0.0.1:8080", served.url)
        if client == "openai_js":
            shown = run_module(source, tmp_path)
        else:
            python = sys.executable if client == "openai" else PYTHON
            shown = run([python, "-c", source], cwd=tmp_path)
        messages = [{"role": "user", "content": "Why is the sky blue?"}]
        body = post(served, "/v1/chat/completions", messages=messages, max_tokens=100)
    answer = body["choices"][0]["message"]["content"]
    # Whole, and in many they show the stream of the same answer.
    assert shown.count(answer) == source.count("Why is the sky blue?")
