"""What tools/bench_studies.py keeps of a study's rows: the gate on tokens, means, counts."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
from test_studies import row

from specdec_native.studies.figures import tidy

pytest.importorskip("pandas")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import bench_studies


def run(task, method, speed, ms, **more):
    return {**row(task, method, speed), "category": "file", "prompt_tokens": 3, "temperature": 0.0,
            "max_tokens": 8, "decode_ms": ms, **more}  # fmt: skip


def test_rows_end_with_line_feeds_alone(tmp_path):
    """A generated text may hold U+2028, which is no end of a line in JSON."""
    rows = [run("a", "plain", 10, 1.0, text="x\u2028y"), run("b", "plain", 10, 1.0, text="z")]
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (tmp_path / "rows.jsonl").write_text(text)
    assert [r["text"] for r in bench_studies.read_rows(tmp_path)] == ["x\u2028y", "z"]


def test_methods_that_emit_other_tokens_are_found():
    rows = tidy([
        run("a", "plain", 10, 1.0), run("a", "plain", 10, 1.0, round=1),
        run("a", "ngram", 10, 1.0), run("a", "ngram", 10, 1.0, round=1),
        run("a", "suffix", 10, 1.0), run("a", "suffix", 10, 1.0, round=1, token_ids=[1, 2, 4]),
    ])  # fmt: skip
    (prompt,) = bench_studies.speculation("x", rows, {})["prompts"]
    assert prompt["different"] == ["suffix"]
    assert prompt["rounds"] == 2
    assert prompt["n_tokens"] == 3


def test_counts_are_those_of_all_rounds_and_values_are_kept():
    rows = tidy([
        run("a", "plain", 10.0, 20.0), run("a", "plain", 20.0, 10.0, round=1),
        run("a", "ngram", 20.0, 10.0, drafted=5, accepted=2),
        run("a", "ngram", 80.0, 5.0, round=1, drafted=7, accepted=4),
    ])  # fmt: skip
    (prompt,) = bench_studies.speculation("x", rows, {})["prompts"]
    cell = prompt["methods"]["ngram"]
    assert (cell["drafted"], cell["accepted"]) == (12, 6)
    assert cell["speedup"] == {"median": 3.0, "range": [2.0, 4.0], "values": [2.0, 4.0]}
    assert cell["tokens_per_second"]["values"] == [20.0, 80.0]
    assert "speedup" not in prompt["methods"]["plain"]


def test_means_over_prompts_are_geometric():
    rows = []
    for task, plain_ms, own_ms, speedup in (("a", 100.0, 50.0, 2.0), ("b", 300.0, 50.0, 8.0)):
        rows.append(run(task, "plain", 10.0, plain_ms))
        rows.append(run(task, "ngram", 10.0 * speedup, own_ms))
    report = bench_studies.speculation("x", tidy(rows), {})
    assert report["methods"] == {"plain": "ok", "ngram": "ok"}
    assert report["summary"]["ngram"] == {
        "tokens_per_second": pytest.approx(40.0), "geomean": pytest.approx(4.0), "min": 2.0,
        "max": 8.0, "total": pytest.approx(4.0), "slowest_prompt": "a (2.00)",
    }  # fmt: skip
    assert report["summary"]["plain"]["geomean"] == 1.0


def test_errors_of_runs_are_not_hidden(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(run("a", "x", 1, 1.0, error="no")) + "\n")
    with pytest.raises(SystemExit, match="x: no"):
        bench_studies.read_rows(tmp_path)
    rows = tidy([run("a", "plain", 10, 1.0), run("a", "x", 1, 1.0, tokens_per_second=None)])
    with pytest.raises(SystemExit, match="x was not timed"):
        bench_studies.speculation("x", rows, {})


def test_errors_are_named_once_with_their_methods(tmp_path):
    rows = [run("a", "plain", 1, 1.0), run("a", "y", 1, 1.0, error="no"),
            run("b", "y", 1, 1.0, error="no"), run("a", "x", 1, 1.0, error="gone")]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(SystemExit) as raised:
        bench_studies.read_rows(tmp_path)
    assert raised.value.code == f"{tmp_path}: x: gone; y: no"


MACHINE = {"cpu": "a CPU", "cores": 4, "n_threads": 2, "memory_gib": 8, "version": "1.2",
           "started": "2026-01-02T03:04:05", "commit": "abc", "isa": "avx2"}  # fmt: skip


def test_facts_are_those_of_the_first_row_and_the_files(tmp_path):
    sizes = {"m.gguf": 1_234_567_890, "d.gguf": 1_000_000}
    for name, size in sizes.items():
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    model, draft = (tmp_path / name for name in sizes)
    rows = [run("a", "plain", 1, 1.0, **MACHINE), run("a", "x", 1, 1.0, **MACHINE, peer="p 2"),
            run("a", "y", 1, 1.0, peer="p 1"), run("a", "z", 1, 1.0, peer="p 2")]  # fmt: skip
    expected = {
        "machine": {"cpu": "a CPU", "cores": 4, "n_threads": 2, "memory_gib": 8,
                    "date": "2026-01-02"},
        "versions": {"specdec": "1.2", "peer": "p 1, p 2"},
        "commit": "abc",
        "isa": "avx2",
        "model": {"file": "m.gguf", "file_gb": 1.235},
        "draft": {"file": "d.gguf", "file_gb": 0.001},
    }  # fmt: skip
    assert bench_studies.about(rows, model, draft) == expected
    expected |= {"draft": None, "versions": {"specdec": "1.2", "peer": None}}
    assert bench_studies.about(rows[:1], model, None) == expected


def test_a_study_of_speculation_is_kept_in_full():
    plain = {"max_tokens": 9, "temperature": 0.5}
    rows = tidy([
        run("a", "plain", 10.0, 40.0, **plain), run("a", "plain", 20.0, 20.0, round=1, **plain),
        run("a", "plain", 10.0, 30.0, turn=1),
        # Nothing drafted in one round, and unknown.
        run("a", "x", 20.0, 10.0, drafted=None, accepted=None),
        run("a", "x", 30.0, 20.0, round=1, drafted=1, accepted=1),
        run("a", "x", 5.0, 60.0, turn=1, token_ids=[9], emitted=1),
        run("a", "b", 20.0, 10.0, token_ids=[9], emitted=1), run("a", "b", 20.0, None, round=1),
    ])  # fmt: skip

    rows[0] |= {"temperature": 0.25, "max_tokens": 8, "category": "first"}

    def spread(*values):
        middle = sum(values) / len(values)
        return {"median": middle, "range": [min(values), max(values)], "values": list(values)}

    def cell(rates, ms, speedups):
        found = {"tokens_per_second": spread(*rates), "decode_ms": spread(*ms)}
        return {**found, "speedup": spread(*speedups)} if speedups else found

    assert bench_studies.speculation("name", rows, {"isa": "avx2"}) == {
        "kind": "speculation",
        "name": "name",
        "isa": "avx2",
        "temperature": 0.25,
        "max_tokens": 8,
        "rounds": 2,
        "methods": {"plain": "ok", "x": "ok", "b": "ok"},
        "prompts": [
            {
                "id": "a", "category": "first", "prompt_tokens": 3, "n_tokens": 3, "rounds": 2,
                "different": ["b"],
                "methods": {
                    "plain": cell([10.0, 20.0], [40.0, 20.0], []),
                    "x": {**cell([20.0, 30.0], [10.0, 20.0], [2.0, 1.5]),
                          "drafted": 1, "accepted": 1},
                    "b": cell([20.0, 20.0], [10.0], [2.0, 1.0]),
                },
            },
            {
                "id": "a, turn 2", "category": "file", "prompt_tokens": 3, "n_tokens": 3,
                "rounds": 1, "different": ["x"],
                "methods": {"plain": cell([10.0], [30.0], []), "x": cell([5.0], [60.0], [0.5])},
            },
        ],
        "summary": {
            # Medians over rounds: 15 and 10 tokens a second.
            "plain": {"tokens_per_second": 12.25, "geomean": 1.0, "min": 1.0, "max": 1.0,
                      "total": 1.0, "slowest_prompt": ""},
            "x": {"tokens_per_second": 11.18, "geomean": 0.9354, "min": 0.5, "max": 1.75,
                  "total": 0.8, "slowest_prompt": "a, turn 2 (0.50)"},
            "b": {"tokens_per_second": 20.0, "geomean": 1.5, "min": 1.5, "max": 1.5,
                  "total": 3.0, "slowest_prompt": "a (1.50)"},
        },
    }  # fmt: skip


def test_each_block_is_a_prompt():
    rows = tidy([run(task, method, 10, 1.0) for task in "ab" for method in ("plain", "x")])
    prompts = bench_studies.speculation("x", rows, {})["prompts"]
    assert [prompt["id"] for prompt in prompts] == ["a", "b"]


def test_what_was_not_timed_is_named():
    rows = tidy([run("a", "plain", 10, 1.0), run("a", "x", 10, 1.0, tokens_per_second=None)])
    with pytest.raises(SystemExit) as raised:
        bench_studies.speculation("x", rows, {})
    assert raised.value.code == "x was not timed: no tokens_per_second, geomean, min, max"


def test_attacks_are_kept_case_by_case():
    def of(case, request, method, ms, **more):
        return run(f"{case} {request}", method, 10.0, ms, case=case, request=request,
                   temperature=0.5, max_tokens=7, **more)  # fmt: skip

    rows = tidy([
        of("one", 0, "plain", 10.0), of("one", 0, "auto", 5.0, drafted=4, accepted=3),
        of("one", 1, "plain", 10.0), of("one", 1, "auto", 12.3456, drafted=2, accepted=0),
        of("one", 2, "plain", 10.0), of("one", 2, "auto", 11.0, token_ids=[9]),
        of("two", 0, "plain", 20.0), of("two", 0, "auto", 30.0),
    ])  # fmt: skip
    rows[0] |= {"temperature": 0.25, "max_tokens": 8}
    assert bench_studies.adversarial(rows, {"isa": "avx2"}) == {
        "kind": "adversarial",
        "isa": "avx2",
        "method": "auto",
        "temperature": 0.25,
        "max_tokens": 8,
        "n_requests": 3,
        "different": ["one 2"],
        "cases": [
            {"name": "one", "total_over_plain": 0.9449, "worst_over_plain": 1.235,
             "median_over_plain": 1.1, "per_request": [0.5, 1.235, 1.1], "drafted": 6,
             "accepted": 3},
            {"name": "two", "total_over_plain": 1.5, "worst_over_plain": 1.5,
             "median_over_plain": 1.5, "per_request": [1.5], "drafted": 0, "accepted": 0},
        ],
    }  # fmt: skip
