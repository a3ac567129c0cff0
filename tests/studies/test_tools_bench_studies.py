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
