"""The study `peers`: how other engines are asked, timed and compared. No speed is asserted."""

from __future__ import annotations

import http.server
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading

import pytest
from test_studies import row

import specdec_native as sd
from specdec_native.studies import command, peer_engines, peers
from specdec_native.studies.engines import Workbench
from specdec_native.studies.figures import tidy
from specdec_native.studies.peer_engines import SCRIPT, PeerProcess, Request
from specdec_native.studies.plan import Method, Pair

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

FAKES = pathlib.Path(__file__).parents[1] / "fakes"
PROMPTS = ("def add(a, b):\n    ", "import os\nimport os\nimport os\n")


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": f"p{i}", "prompt": p}) + "\n"
                            for i, p in enumerate(PROMPTS)))  # fmt: skip
    return path


@pytest.fixture
def fake_python(tmp_path):
    """A Python whose llama_cpp is tests/fakes/llama_cpp."""
    path = tmp_path / "fake_python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={FAKES} exec {sys.executable} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def study(folder, prompts, *more):
    arguments = ["peers", str(prompts), "-m", "pycode", "-md", "pycode-draft", "-q"]
    arguments += ["--out", str(folder), "-n", "12", "--rounds", "2", "--methods", "plain,ngram"]
    assert command.main([*arguments, *map(str, more)]) == 0
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- the loop around llama.cpp's API


def fake_process(fake_python, draft="draft.gguf", **environment):
    old = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        load = {"target": "target.gguf", "draft": draft, "n_ctx": 400, "n_threads": 1}
        return PeerProcess("llama.cpp", str(fake_python), load)
    finally:
        for name, value in old.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def model_says(prompt, n, is_draft=False, end=1000):
    sys.path.insert(0, str(FAKES))
    try:
        import llama_cpp
    finally:
        sys.path.remove(str(FAKES))
        sys.modules.pop("llama_cpp", None)
    os.environ["FAKE_END"] = str(end)
    context, text = llama_cpp.Context(b"draft" if is_draft else b"target"), list(prompt)
    while len(text) < len(prompt) + n:
        token = context.next_token(text)
        if token == llama_cpp.END:
            break
        text.append(token)
    del os.environ["FAKE_END"]
    return text[len(prompt) :]


@pytest.mark.parametrize("prompt", [[1, 2, 3], list(range(1, 10)) * 3, [5]])
def test_drafting_never_changes_what_llama_cpp_says(fake_python, prompt):
    process = fake_process(fake_python)
    try:
        request = Request(tuple(prompt), 40, 1)
        answers = {
            kind: process.generate(request, kind, fresh=True) for kind in ("none", "ngram", "model")
        }
    finally:
        process.close()
    expected = model_says(prompt, 40)
    assert len(expected) == 40
    for kind, answer in answers.items():
        assert answer["token_ids"] == expected, kind
        assert answer["passes"] + answer["accepted"] == 40 + answer["stop"], kind
        assert answer["drafted"] >= answer["accepted"]
    assert answers["none"]["passes"] == 40
    assert answers["model"]["accepted"] > 10
    assert answers["model"]["drafted"] > answers["model"]["accepted"]  # wrong at every fifth
    assert answers["ngram"]["accepted"] > 0


def test_an_end_inside_a_draft_ends_the_answer(fake_python):
    process = fake_process(fake_python, FAKE_END="20")
    try:
        for kind in ("none", "ngram", "model"):
            answer = process.generate(Request((1, 2, 3), 40, 1), kind, fresh=True)
            assert answer["token_ids"] == model_says([1, 2, 3], 40, end=20)
            assert answer["stop"] is True
            assert len(answer["token_ids"]) == 17
    finally:
        process.close()


def test_a_conversation_goes_on_in_the_cache(fake_python, tmp_path):
    log = tmp_path / "log"
    process = fake_process(fake_python, FAKE_LOG=str(log))
    try:
        for kind in ("none", "model", "ngram"):
            first = process.generate(Request((1, 2, 3), 10, 1), kind, fresh=True)
            prompt = (1, 2, 3, *first["token_ids"], 4, 5)
            log.write_text("")
            second = process.generate(Request(prompt, 10, 1), kind, fresh=False)
            assert second["token_ids"] == model_says(prompt, 10)
            fed = [n for is_draft, n in map(json.loads, log.read_text().splitlines())
                   if not is_draft]  # fmt: skip
            assert fed[0] <= 3  # the rest of the prompt only
    finally:
        process.close()


def test_the_context_is_never_overrun(fake_python):
    process = fake_process(fake_python)
    try:
        answer = process.generate(Request(tuple([1, 2] * 195), 50, 1), "model", fresh=True)
    finally:
        process.close()
    assert len(answer["token_ids"]) == 10


def test_a_model_that_cannot_be_loaded_is_one_line(fake_python):
    load = {"target": "missing.gguf", "draft": None, "n_ctx": 64, "n_threads": 1}
    with pytest.raises(sd.UnsupportedModelError, match=r"cannot load missing.gguf") as caught:
        PeerProcess("llama.cpp", str(fake_python), load)
    assert "\n" not in str(caught.value)


def test_the_script_needs_nothing_of_this_package():
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "llama.cpp"], input='{"target": "", "draft": '
        'null, "n_ctx": 1, "n_threads": 1}\n', capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"missing": "llama_cpp"}


# ---------------------------------------------------------------- the study


def test_peers_take_turns_with_ours_and_stand_in_one_table(tmp_path, prompts, fake_python):
    rows = study(tmp_path / "out", prompts, "--peer-python", fake_python)
    names = ["plain", "ngram", "llama.cpp", "llama.cpp ngram", "llama.cpp model"]
    first = [r["method"] for r in rows if r["task"] == "p0" and r["round"] == 0]
    second = [r["method"] for r in rows if r["task"] == "p0" and r["round"] == 1]
    assert first == names
    assert second == names[1:] + names[:1]
    for r in rows:
        if r["engine"] == "llama.cpp":
            assert r["peer"] == "llama-cpp-python fake"
            assert r["identical"] is None  # others may round differently: no gate
        elif r["method"] == "ngram":
            assert r["identical"] is True
    with sd.Model(sd.embedded().target) as model:
        ids = model.tokenize(PROMPTS[0])
    theirs = [r for r in rows if r["task"] == "p0" and r["engine"] == "llama.cpp"]
    assert all(r["token_ids"] == model_says(ids, 12) for r in theirs)
    assert all(r["prompt_tokens"] == len(ids) for r in theirs)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| llama.cpp model |" in page
    assert "| plain | llama.cpp |" in page
    assert "llama-cpp-python fake" in page
    assert str(fake_python) not in (tmp_path / "out" / "study.json").read_text()


def test_what_is_not_installed_is_a_note_or_an_error(tmp_path, prompts):
    empty = tmp_path / "empty_python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    empty.chmod(empty.stat().st_mode | stat.S_IXUSR)
    for flags, error in (
        (["--peer-python", empty], "llama.cpp needs llama_cpp, which is not installed: CMAKE_ARGS"),
        (["--peer-python", empty, "--transformers"], "transformers needs accelerate, which is not"),
        (["--peer-python", tmp_path / "none"], "none cannot be run: No such file"),
        (["--llama-server", "127.0.0.1:1"], "no server answers at http://127.0.0.1:1/props"),
        (["--workers", 2], "without --workers or --ray"),
    ):
        with pytest.raises(sd.SpecdecError) as caught:
            study(tmp_path / "out", prompts, *flags)
        assert error in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
    with pytest.raises(sd.InvalidArgumentError, match="no prompts: give a file"):
        command.main(["peers", "-m", "pycode", "--out", str(tmp_path / "out"), "-q"])


def test_a_peer_that_nobody_asked_for_is_a_note(tmp_path, prompts, monkeypatch):
    def missing(*given):
        raise peer_engines.MissingPeerError("llama.cpp needs llama_cpp, which is not installed")

    monkeypatch.setattr(peer_engines, "process_engine", missing)
    rows = study(tmp_path / "out", prompts)
    assert {r["method"] for r in rows} == {"plain", "ngram"}
    assert "Without llama.cpp: llama.cpp needs" in (tmp_path / "out" / "report.md").read_text()


def test_spec_bench_and_humaneval_are_limited_by_kind(tmp_path, fake_python):
    spec_bench, humaneval = tmp_path / "s.jsonl", tmp_path / "h.jsonl"
    spec_bench.write_text("".join(
        json.dumps({"question_id": i, "category": c, "turns": ["x = ", "y = "]}) + "\n"
        for i, c in enumerate(("qa", "qa", "writing"))
    ))  # fmt: skip
    humaneval.write_text(json.dumps({"task_id": "HumanEval/0", "prompt": "def f():\n"}) + "\n")
    arguments = ["peers", "-m", "pycode", "-md", "pycode-draft", "-q", "--out", tmp_path / "out"]
    arguments += ["--spec-bench", spec_bench, "--humaneval", humaneval, "--limit", 1, "-n", 4]
    arguments += ["--methods", "plain", "--rounds", 1, "--peer-python", fake_python]
    assert command.main([str(a) for a in arguments]) == 0
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {(r["task"], r["turn"]) for r in rows} == {
        ("qa/0", 0), ("qa/0", 1), ("mt_bench/2", 0), ("mt_bench/2", 1), ("HumanEval/0", 0),
    }  # fmt: skip


# ---------------------------------------------------------------- servers


class Server(http.server.BaseHTTPRequestHandler):
    native = True
    seen: list = []  # noqa: RUF012

    def log_message(self, *given):
        pass

    def answer(self, value, code=200):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/props" and self.native:
            self.answer({"build_info": "b1"})
        elif self.path == "/v1/models" and not self.native:
            self.answer({"data": []})
        else:
            self.answer({"error": "none"}, 404)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((self.path, body))
        if self.path == "/completion":
            timings = {"prompt_ms": 5.0, "predicted_ms": 20.0, "predicted_n": 4, "draft_n": 3,
                       "draft_n_accepted": 2}  # fmt: skip
            self.answer(
                {"tokens": [5, 6, 7, 8], "content": "x", "timings": timings, "stop_type": "limit"}
            )
        else:
            self.answer({"choices": [{"text": "import os", "finish_reason": "stop"}]})


@pytest.fixture
def server(request):
    kind = type("Kind", (Server,), {"native": request.param, "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{running.server_port}", kind.seen
        running.shutdown()
        thread.join()


def server_engine(bench, pair, address):
    bench.outside["server"] = address
    return bench.engine(pair, Method("llama-server", engine="llama-server"))


@pytest.mark.parametrize("server", [True], indirect=True)
def test_a_llama_server_gets_token_ids_and_tells_its_times(server):
    address, seen = server
    pair = Pair("p", str(sd.embedded().target))
    with Workbench([pair]) as bench:
        engine = server_engine(bench, pair, address)
        engine.start()
        outcome = engine.generate(Request((1, 2), 9, 3, {"temperature": 0.0}))
        engine.generate(Request((1, 2, 5), 9, 3, {"temperature": 0.8, "top_k": 40}))
        assert engine.version == "llama-server b1"
    assert outcome.token_ids == (5, 6, 7, 8)
    stats = outcome.stats
    assert (stats["tokens_per_second"], stats["total_ms"]) == (200.0, 25.0)
    assert (stats["drafted"], stats["accepted"], stats["rounds"]) == (3, 2, 2)
    assert outcome.finish_reason == "length"
    (path, first), (_, second) = seen
    assert path == "/completion"
    wanted = {"prompt": [1, 2], "n_predict": 9, "seed": 3, "temperature": 0.0,
              "cache_prompt": False, "return_tokens": True, "repeat_penalty": 1.0, "top_k": 0,
              "top_p": 1.0, "min_p": 0.0}  # fmt: skip
    assert first == wanted
    assert (second["cache_prompt"], second["top_k"]) == (True, 40)


@pytest.mark.parametrize("server", [False], indirect=True)
def test_another_server_is_asked_in_openais_words(server):
    address, seen = server
    pair = Pair("p", str(sd.embedded().target))
    with Workbench([pair]) as bench:
        target = bench.target(pair)
        engine = server_engine(bench, pair, address)
        outcome = engine.generate(Request(tuple(target.tokenize("import")), 9, 3))
        assert list(outcome.token_ids) == target.tokenize("import os", add_special=False)
    assert outcome.text == "import os"
    assert outcome.finish_reason == "stop"
    assert outcome.stats["tokens_per_second"] is None  # it told no times
    assert outcome.stats["total_ms"] > 0
    assert seen[0] == ("/v1/completions", {"prompt": "import", "max_tokens": 9, "seed": 3})


@pytest.mark.parametrize("server", [True], indirect=True)
def test_a_server_runs_in_the_study(server, tmp_path, prompts):
    rows = study(tmp_path / "out", prompts, "--llama-server", server[0])
    theirs = [r for r in rows if r["method"] == "llama-server"]
    assert len(theirs) == 4
    assert {r["peer"] for r in theirs} == {"llama-server b1"}
    assert "| llama-server |" in (tmp_path / "out" / "report.md").read_text()


# ---------------------------------------------------------------- the engines themselves


def test_llama_cpp_reads_the_same_file(tmp_path, prompts):
    pytest.importorskip("llama_cpp")
    rows = study(tmp_path / "out", prompts)
    for task in ("p0", "p1"):
        by_method = {r["method"]: r for r in rows if r["round"] == 0 and r["task"] == task}
        plain = by_method["llama.cpp"]
        assert len(plain["token_ids"]) == 12
        for name in ("llama.cpp", "llama.cpp ngram", "llama.cpp model"):
            assert by_method[name]["token_ids"] == plain["token_ids"]
            assert by_method[name]["rounds"] + by_method[name]["accepted"] == 12
        assert plain["token_ids"][:2] == by_method["plain"]["token_ids"][:2]
    assert sum(r["accepted"] for r in rows if r["method"] == "llama.cpp model") > 0


def test_transformers_reads_the_same_file(tmp_path, prompts):
    for name in ("torch", "transformers", "accelerate", "gguf"):
        pytest.importorskip(name)
    rows = study(tmp_path / "out", prompts, "--transformers", "--limit", 1)
    by_method = {r["method"]: r for r in rows if r["round"] == 0}
    names = ("transformers", "transformers ngram", "transformers model")
    plain = by_method["transformers"]
    assert len(plain["token_ids"]) > 0
    for name in names:
        assert by_method[name]["token_ids"] == plain["token_ids"]
    assert plain["rounds"] >= len(plain["token_ids"])
    assert by_method["transformers model"]["rounds"] < plain["rounds"]
    # The same weights: the first tokens agree, later ones may part by rounding.
    assert plain["token_ids"][:2] == by_method["plain"]["token_ids"][:2]


# ---------------------------------------------------------------- figures


def engine_row(method, speed, *, engine, drafter="none", tokens=(1, 2, 3)):
    return {**row("a", method, speed, tokens=tokens), "engine": engine, "drafter": drafter,
            "temperature": 0.0, "n_threads": 2, "exact": engine == "specdec"}  # fmt: skip


def test_like_is_compared_with_like():
    rows = tidy([
        engine_row("plain", 10, engine="specdec"),
        engine_row("ngram", 40, engine="specdec", drafter="ngram"),
        engine_row("llama.cpp", 5, engine="llama.cpp", tokens=(1, 2, 9)),
        engine_row("llama.cpp ngram", 20, engine="llama.cpp", drafter="ngram"),
    ])  # fmt: skip
    table = peers.like_table(rows, "s")
    assert [line[:3] for line in table.rows] == [
        ["plain", "llama.cpp", "2.00 (2.00-2.00)"],
        ["ngram", "llama.cpp ngram", "2.00 (2.00-2.00)"],
        ["best: ngram", "best: llama.cpp ngram", "2.00 (2.00-2.00)"],
    ]
    cells = {line[0]: line for line in peers.engines_table(rows, "s").rows}
    assert cells["llama.cpp"][2] == "0.50 (0.50-0.50)"
    assert cells["llama.cpp ngram"][4] == "4.00"  # times its own plain
    assert cells["ngram"][4] == "4.00"
    assert (cells["llama.cpp"][7], cells["llama.cpp ngram"][7]) == ("0/1", "1/1")
