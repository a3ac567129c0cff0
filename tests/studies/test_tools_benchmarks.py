"""The benchmark scripts: what they write and refuse, not how fast anything is."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import shutil
import sys

import pytest

import tiny_models
from helpers import specdec_binary
from in_process import run_script

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


def tool(name, *arguments, code=0):
    done = run_script(TOOLS / name, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def load_tool(name):
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(TOOLS))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tools")
    keys = {"tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"}
    config = tiny_models.TinyConfig(context_length=1024)
    return tiny_models.write_tiny(folder / "tiny.gguf", config, dtype="Q8_0", seed=1, extra=keys)


# ---------------------------------------------------------------- the page


def spread(value):
    return {"median": value, "range": [value * 0.9, value * 1.1], "values": [value] * 3}


def forward(isa="avx512_vnni", ctx=256, peer="llama-cpp-python 1.0", file="some-model.gguf"):
    def entry(m):
        result = {"rows": m, "ours_ms": spread(20.0 + m), "ours_over_first": spread(1 + m / 21)}
        if peer:
            result |= {
                "peer_ms": spread(33.0 * m),
                "peer_over_first": spread(float(m)),
                "ours_over_peer": spread((20 + m) / 33 / m),
            }
        return result

    return {
        "kind": "forward",
        "machine": {
            "cpu": "Example CPU", "cores": 2, "n_threads": 2, "memory_gib": 8, "date": "2026-01-02",
        },
        "versions": {"specdec": "1.2.3", "peer": peer},
        "model": {"file": file, "quantisation": "Q4_K", "file_gb": 1.1, "weight_gb": 0.98},
        "isa": isa, "ctx": ctx, "passes": 5,
        "table": [entry(m) for m in (1, 4, 16, 512)],
        "read_gb_s": spread(40.0), "bandwidth_share": spread(0.9), "load_ms": spread(500.0),
        "ours_times_ms": [{}] * 3, "peer_times_ms": [{}] * 3,
    }  # fmt: skip


@pytest.fixture
def docs(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(ROOT / "docs" / "performance.md.in", tmp_path)
    return tmp_path


def write(docs, name, *reports):
    (docs / "benchmarks" / f"{name}.json").write_text(json.dumps(list(reports)))


@pytest.mark.usefixtures("rendered")
def test_the_page_holds_what_was_measured(docs):
    write(docs, "a", forward(), forward(isa="avx2", peer=None), forward(ctx=4096))
    kernel = {"dtype": "Q4_K", "gb_s": spread(41.25), "gmac_s": spread(333.0)}
    shared = {key: forward()[key] for key in ("machine", "versions", "model")}
    write(docs, "b", {"kind": "kernels", "isa": "avx2", "kernels": [kernel], **shared})
    memory = {"kind": "memory", "peak_rss_gb": spread(1.21), "load_ms": spread(550.0), **shared}
    write(docs, "c", memory)
    tool("make_performance_page.py", "--docs", docs)
    page = (docs / "performance.md").read_text()
    assert "an Example CPU" in page
    assert "specdec-native 1.2.3, llama-cpp-python 1.0" in page
    assert "| 4 | 24.0 (21.6-26.4) | 1.19 | 132.0 (118.8-145.2) | 4.00 | 0.18 (0.16-0.20) |" in page
    assert "`SPECDEC_CPU_ISA=avx2`" in page
    assert "One row at context 4096 takes 1.00 times its time at 256." in page
    assert "| Q4_K | 41.2 | 333.0 |" in page
    assert "| some-model | 1.100 | 1.210 | 1.10 | 0.55 | 0.50 |" in page
    assert page.count("Not measured yet.") == 1  # speculation
    assert (docs / "benchmarks" / "some-model.svg").read_text().startswith("<?xml")


def test_a_plot_shows_both_engines_up_to_16_rows():
    figure = pytest.importorskip("matplotlib.figure").Figure()
    load_tool("make_performance_page").draw_ratios(figure, forward())
    (axes,) = figure.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[1, 4, 16]] * 2
    assert list(axes.lines[1].get_ydata()) == [1.0, 4.0, 16.0]
    assert [text.get_text() for text in axes.texts] == ["specdec 1.8", "llama.cpp 16.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "4", "16"]


def test_check_notices_every_kind_of_staleness(docs):
    write(docs, "a", forward())
    assert (
        "performance.md"
        in tool("make_performance_page.py", "--docs", docs, "--check", code=1).stdout
    )
    tool("make_performance_page.py", "--docs", docs)
    tool("make_performance_page.py", "--docs", docs, "--check")
    write(docs, "a", forward(file="other.gguf"))
    stale = tool("make_performance_page.py", "--docs", docs, "--check", code=1).stdout
    assert "performance.md" in stale
    assert "other.svg" in stale
    assert "some-model.svg" in stale  # left over
    page = (docs / "performance.md").read_text()
    assert "**some-model**" in page  # --check writes nothing


def test_a_template_with_an_unknown_section_is_refused(docs):
    (docs / "performance.md.in").write_text("{{nonsense}}")
    assert "nonsense" in tool("make_performance_page.py", "--docs", docs, code=1).stderr


def test_the_committed_page_is_up_to_date():
    if not list((ROOT / "docs" / "benchmarks").glob("*.json")):
        pytest.skip("docs/benchmarks holds no measurements")
    tool("make_performance_page.py", "--check")


def test_kept_measurements_name_no_paths():
    for path in (ROOT / "docs" / "benchmarks").glob("*.json"):
        for text in path.read_text("utf-8").split('"'):
            assert not text.startswith(("/", "~")), f"{path.name}: {text}"


# ---------------------------------------------------------------- measuring


def test_forward_reports_hold_every_value(model, tmp_path):
    out = tmp_path / "out.json"
    tool(
        "bench_llama_cpp.py", "-m", model, "--rows", "1,4", "--ctx", "8,16", "--rounds", 2,
        "--passes", 2, "--no-peer", "-t", 1, "--specdec", specdec_binary(), "--json", out,
    )  # fmt: skip
    reports = json.loads(out.read_text())
    assert [r["ctx"] for r in reports] == [8, 16]
    for report in reports:
        assert report["model"]["file"] == "tiny.gguf"
        assert [len(run["4"]) for run in report["ours_times_ms"]] == [2, 2]
        for entry in report["table"]:
            values = entry["ours_ms"]["values"]
            assert len(values) == 2
            assert entry["ours_ms"]["range"] == [min(values), max(values)]
        assert report["versions"]["peer"] is None
    assert str(model.parent) not in out.read_text()


def test_starts_are_timed_and_two_processes_share_what_was_kept(model, tmp_path, monkeypatch):
    # What AMX's self-check frees would have room for so small a model.
    monkeypatch.setenv("SPECDEC_CPU_ISA", "scalar")
    out = tmp_path / "out.json"
    binary = ("--specdec", specdec_binary())
    done = tool("bench_start.py", "-m", model, "--rounds", 1, "-t", 1, *binary, "--json", out)
    (report,) = json.loads(out.read_text())["models"]
    assert set(report["first_token_ms"]) == {"auto", "kept", "off"}
    assert report["kept_bytes"] > 0
    for way, times in report["first_token_ms"].items():
        assert all(len(times[state]["values"]) == 1 for state in ("cold", "warm"))
        assert f"| tiny.gguf | {way} |" in done.stdout
    two = report["two"]
    assert two["kept"]["anonymous"] < two["auto"]["anonymous"]
    assert list(model.parent.iterdir()) == [model]  # what was kept is gone


def test_a_missing_peer_is_met_with_instructions(model):
    done = tool(
        "bench_llama_cpp.py", "-m", model, "--specdec", specdec_binary(),
        "--peer-python", "/nonexistent/python", code=1,
    )  # fmt: skip
    assert "pip install llama-cpp-python==" in done.stderr


def test_the_driver_runs_parts_and_says_what_it_left_out(model, docs):
    done = tool(
        "run_benchmarks.py", "-m", model, "-t", 1, "--quick", "--out", docs / "benchmarks",
        "--specdec", specdec_binary(), "--only", "forward,memory,prompts",
    )  # fmt: skip
    assert "done: forward, memory" in done.stderr
    assert "left out: prompts (no --prompt)" in done.stderr
    tool("make_performance_page.py", "--docs", docs)
    assert "**tiny**" in (docs / "performance.md").read_text()
    assert (
        "there are forward" in tool("run_benchmarks.py", "-m", model, "--only", "x", code=2).stderr
    )


# ---------------------------------------------------------------- presets of studies


def test_the_driver_runs_studies_and_keeps_their_figures(docs, tmp_path):
    """The recorded figures are those of the study's rows; the page shows them."""
    for name in ("pandas", "matplotlib", "rich", "gguf"):
        pytest.importorskip(name)
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    prompt, questions = tmp_path / "cat.txt", tmp_path / "spec_bench.jsonl"
    prompt.write_text("def add(a, b):\n    return a + b\n\n\ndef add3(a, b, c):\n")
    entries = [{"question_id": i, "category": "qa", "turns": ["import os\n", "no"]} for i in (1, 2)]
    questions.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    pair, studies, out = sd.embedded(), tmp_path / "studies", docs / "benchmarks"
    done = tool(
        "run_benchmarks.py", "-m", pair.target, "-md", pair.draft, "-t", 1, "--quick", "--out", out,
        "--studies", studies, "--prompt", prompt, "--spec-bench", questions, "--temperatures", "0",
        "--only", "prompts,spec-bench,humaneval,adversarial",
    )  # fmt: skip
    assert "done: prompts, spec-bench, adversarial" in done.stderr
    assert "left out: humaneval (no --humaneval)" in done.stderr
    report = json.loads((out / "speculation-prompts.json").read_text())
    (entry,) = report["prompts"]
    assert (entry["id"], entry["different"]) == ("cat", [])
    assert {"plain", "auto", "ngram", "suffix", "model:2", "model:4", "model:7"} <= set(
        entry["methods"]
    )
    rows = [json.loads(r) for r in (studies / "prompts" / "rows.jsonl").read_text().splitlines()]
    (ngram,) = [r for r in rows if r["method"] == "ngram"]
    assert entry["methods"]["ngram"]["drafted"] == ngram["drafted"] > 0
    assert entry["methods"]["ngram"]["speedup"]["median"] == pytest.approx(
        ngram["speedup"], rel=1e-3
    )
    spec_bench = json.loads((out / "speculation-spec-bench-t0.json").read_text())
    assert [p["id"] for p in spec_bench["prompts"]] == ["qa/1"]  # one of its kind, its first turn
    adversarial = json.loads((out / "adversarial.json").read_text())
    assert adversarial["different"] == []
    for case in adversarial["cases"]:
        assert len(case["per_request"]) == 3
        assert case["worst_over_plain"] == max(case["per_request"])
    tool("make_performance_page.py", "--docs", docs)
    page = (docs / "performance.md").read_text()
    assert "**single prompts**: pycode-llama-5m.q8_0, draft pycode-llama-draft" in page
    assert "| real and shuffled in turn |" in page
    for path in out.glob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_reports_survive_their_own_writer(tmp_path):
    common = load_tool("bench_common")
    value = {"a": [1.5, 2, {"b": ["x" * 100, "é"]}], "c": {}, "d": [], "e": None, "f": [[1] * 80]}
    common.write_report(tmp_path / "x.json", value)
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == value


def test_the_quantiser_table_tells_sizes_errors_and_perplexity(tmp_path):
    source = tiny_models.write_tiny(tmp_path / "tiny.gguf", seed=1)
    text = tmp_path / "text.txt"
    text.write_text("the cat in the hat and the inner hat " * 60)
    out = tmp_path / "table.json"
    done = tool(
        "quantize_table.py", source, "--text", text, "--types", "Q4_K_M", "Q8_0", "--chunks", "1",
        "--specdec", specdec_binary(), "--peer-python", "python-that-is-not-there", "--json", out,
    )  # fmt: skip
    assert "| Q4_K_M |" in done.stdout
    report = json.loads(out.read_text("utf-8"))
    assert [row["type"] for row in report["rows"]] == ["Q4_K_M", "Q8_0"]
    first, second = (row["ours"] for row in report["rows"])
    assert first["size_bytes"] < second["size_bytes"] < source.stat().st_size
    assert first["errors"]["all"] > second["errors"]["all"] > 0
    assert first["perplexity"]["value"] > 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.json", "text.txt", "tiny.gguf"]


def test_experts_are_measured_on_a_random_model(tmp_path, capsys, monkeypatch):
    tool = load_tool("benchmark_experts")
    small = {"HIDDEN": 256, "HEADS": 4, "KV_HEADS": 2, "HEAD_DIM": 64, "EXPERTS": 6}
    for name, value in (small | {"USED": 2, "EXPERT_SIZE": 256}).items():
        monkeypatch.setattr(tool, name, value)
    figures = tmp_path / "figures.json"
    arguments = [str(tmp_path / "m.gguf"), "--layers", "2", "--vocab", "1024", "--tokens", "8"]
    arguments += ["--rounds", "1", "--json", str(figures)]
    monkeypatch.setattr(sys, "argv", ["benchmark_experts.py", *arguments])
    tool.main()
    found = json.loads(figures.read_text("utf-8"))
    assert list(found["t_ms"]) == [str(rows) for rows in range(1, 17)]
    assert len(found["prompts"]) == len(tool.PROMPTS)
    assert all(row["plain"] > 0 and row["auto"] > 0 for row in found["prompts"])
    assert "T(M)/T(1)" in capsys.readouterr().out
