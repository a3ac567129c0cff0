"""The studies spec-bench, speed-bench and humaneval: what they ask, compute and refuse."""

from __future__ import annotations

import json

import pytest
from test_studies import row, study

import specdec_native as sd
import tiny_models
from specdec_native.studies import benchmark_data, benchmark_report, command, figures, runner
from specdec_native.studies.engines import Workbench
from specdec_native.studies.methods import parse_methods
from specdec_native.studies.plan import Block, Pair, Task, plain

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

QUESTIONS = (
    ("writing", ["def first(", "def second("]),
    ("coding", ["import os\n", "import sys\n"]),
    ("qa", ["class A:\n"]),
    ("qa", ["class B:\n"]),
    ("rag", ["word " * 600]),
)


def lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.fixture
def spec_bench(tmp_path):
    return lines(
        tmp_path / "spec_bench.jsonl",
        [
            {"question_id": 80 + i, "category": category, "turns": turns}
            for i, (category, turns) in enumerate(QUESTIONS)
        ],
    )


@pytest.mark.usefixtures("rendered")
def test_spec_bench_asks_every_turn_and_compares_every_token(tmp_path, spec_bench):
    rows = study(
        tmp_path / "out", spec_bench, "--methods", "ngram:2,model", "-n", 10, "--rounds", 1,
        name="spec-bench",
    )  # fmt: skip
    assert {r["method"] for r in rows} == {"plain", "ngram:2", "model"}
    assert {(r["task"], r["turn"]) for r in rows} == {
        ("mt_bench/80", 0), ("mt_bench/80", 1), ("mt_bench/81", 0), ("mt_bench/81", 1),
        ("qa/82", 0), ("qa/83", 0),
    }  # fmt: skip
    assert {(r["category"], r["sub_category"]) for r in rows} == {
        ("mt_bench", "writing"), ("mt_bench", "coding"), ("qa", "qa"),
    }  # fmt: skip
    assert all(r["identical"] is True for r in rows if r["method"] != "plain")
    # A prompt that is shifted by one, or another one's, gives other tokens.
    with sd.Model(sd.embedded().target) as model, sd.Decoder(model, drafter=None) as decoder:
        for i, (_, turns) in enumerate(QUESTIONS[:4]):
            expected = list(decoder.generate(turns[0], max_tokens=10).token_ids)
            own = [r for r in rows if r["task"].endswith(f"/{80 + i}") and r["turn"] == 0]
            assert len(own) == 3
            assert all(r["token_ids"] == expected for r in own)
            assert {r["prompt_tokens"] for r in own} == {len(model.tokenize(turns[0]))}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "1 of 5 prompts are left out: with an answer of 10 tokens" in page
    assert "| qa | 2 |" in page
    assert "Conversations of several turns: 2; each" in page
    assert "ratio of means" in page
    assert "looks at the first of several answers only" in page
    plots = {path.name.split("-categories")[0] for path in (tmp_path / "out/plots").glob("*.png")}
    assert {"speedup", "tokens-per-pass"} <= plots


def test_questions_go_through_the_chat_template(tmp_path, spec_bench):
    keys = {"tokenizer.chat_template": "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"}
    model = tiny_models.write_tiny(tmp_path / "tiny.gguf", dtype="Q8_0", seed=1, extra=keys)
    pair = Pair("tiny", str(model))
    with Workbench([pair]) as bench:
        (task, _), *_ = benchmark_data.spec_bench(spec_bench)
        block = Block(pair, task, (plain(),), 4)
        first = bench.target(pair).detokenize(runner.prompt_ids(bench, block, ()))
        second = bench.target(pair).detokenize(runner.prompt_ids(bench, block, ("its answer",)))
    assert first == "[You are a helpful assistant.][def first(]"
    assert second == f"{first}[its answer][def second(]"


def test_a_method_without_its_draft_model_is_left_out_and_named(tmp_path, spec_bench):
    arguments = ["spec-bench", str(spec_bench), "-m", "pycode", "--out", str(tmp_path / "out")]
    arguments += ["--methods", "model,ngram", "--limit", "1", "--turns", "1", "-n", "4", "-q"]
    assert command.main([*arguments, "--rounds", "1"]) == 0
    lines_ = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines_]
    assert {(r["method"], r["turn"]) for r in rows} == {("plain", 0), ("ngram", 0)}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "model is left out: no draft model: --draft" in page
    with pytest.raises(sd.InvalidArgumentError, match="--turns must be at least 1, not 0"):
        command.main([*arguments, "--turns", "0"])


def test_limit_counts_prompts_of_each_category(tmp_path, spec_bench):
    rows = study(
        tmp_path / "out", spec_bench, "--methods", "plain,suffix", "--limit", 1, "--rounds", 1,
        "--temperature", 0.8, name="spec-bench",
    )  # fmt: skip
    assert {r["task"] for r in rows} == {"mt_bench/80", "qa/82"}
    assert all(r["identical"] is True for r in rows if r["method"] == "suffix")
    assert json.loads(rows[0]["sampling"]) == {
        "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05,
    }  # fmt: skip


def test_speed_bench_keeps_its_facts(tmp_path):
    path = lines(
        tmp_path / "qualitative.jsonl",
        [{"question_id": "a", "category": "stem", "sub_category": "physics", "difficulty": None,
          "turns": ["x = "], "source": "set", "src_id": "1", "multiturn": False}],
    )  # fmt: skip
    rows = study(
        tmp_path / "out", path, "--methods", "suffix-keep", "--rounds", 1, name="speed-bench"
    )
    assert {(r["task"], r["category"], r["sub_category"], r["source"]) for r in rows} == {
        ("stem/a", "stem", "physics", "set")
    }
    assert {r["method"] for r in rows} == {"plain", "suffix-keep"}
    assert "throughput split" in (tmp_path / "out" / "report.md").read_text()


def test_speed_bench_reads_the_parquet_file_of_its_preparation(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "test.parquet"
    entry = {"question_id": "a", "category": "stem", "turns": ["x", "y"], "difficulty": None}
    pd.DataFrame([entry]).to_parquet(path)
    ((task, facts),) = benchmark_data.speed_bench(path)
    assert (task.id, task.turns, task.category) == ("stem/a", ("x", "y"), "stem")
    assert facts == {"sub_category": "", "difficulty": "", "source": ""}
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(sd.InvalidArgumentError, match=r"test.parquet: not Parquet"):
        benchmark_data.speed_bench(path)


def test_parquet_without_its_reader_is_one_line(tmp_path, monkeypatch):
    import pandas as pd

    def missing(path):
        raise ImportError("no engine")

    monkeypatch.setattr(pd, "read_parquet", missing)
    with pytest.raises(sd.InvalidArgumentError, match="to read Parquet, pip install pyarrow"):
        benchmark_data.speed_bench(tmp_path / "test.parquet")


def test_humaneval_is_continued_without_a_template_and_asked_with_one(tmp_path):
    path = lines(
        tmp_path / "h.jsonl",
        [{"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    pass\n"}],
    )
    ((raw, _),) = benchmark_data.humaneval(path, chat=False)
    assert (raw.form, raw.turns, raw.reference) == ("raw", ("def f():\n",), "    pass\n")
    rows = study(tmp_path / "out", path, "--methods", "plain", "--rounds", 1, name="humaneval")
    assert rows[0]["form"] == "raw"
    assert rows[0]["prompt_tokens"] < 10
    keys = {
        "tokenizer.chat_template": "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
        "{% endfor %}"
    }
    model = tiny_models.write_tiny(tmp_path / "tiny.gguf", dtype="Q8_0", seed=1, extra=keys)
    pair = Pair("tiny", str(model))
    with Workbench([pair]) as bench:
        ((chat, _),) = benchmark_data.humaneval(path, chat=True)
        ids = runner.prompt_ids(bench, Block(pair, chat, (plain(),), 4), ())
        text = bench.target(pair).detokenize(ids)
    assert text == (
        "<system>You are a helpful assistant.<user>Complete this function:\n```python\n"
        "def f():\n\n```"
    )


def test_what_a_user_writes_stays_text_in_a_chat(tmp_path):
    """As `Decoder.chat` reads it: control tokens that a message spells out are letters."""
    keys = {"tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"}
    model = tiny_models.write_tiny(tmp_path / "tiny.gguf", dtype="Q8_0", seed=1, extra=keys)
    pair = Pair("tiny", str(model))
    with Workbench([pair]) as bench, sd.Decoder(bench.target(pair)) as decoder:
        target = bench.target(pair)
        spelled = (
            target.detokenize([i], render_special=True) for i in range(target.info.vocab_size)
        )
        special = next(
            s
            for s in spelled
            if len(target.tokenize(s)) < len(target.tokenize(s, parse_special=False))
        )
        task = Task("t", (f"a {special} b",), form="chat")
        ids = runner.prompt_ids(bench, Block(pair, task, (plain(),), 4), ())
        expected = decoder.chat([{"role": "user", "content": task.turns[0]}], max_tokens=1)
        assert len(ids) == expected.stats.prompt_tokens
        assert len(ids) > len(target.tokenize(task.turns[0]))


@pytest.mark.parametrize(
    "name,entry,error",
    [
        ("spec-bench", {"category": "qa", "turns": ["a"]}, "question_id must be text or a number"),
        ("spec-bench", {"question_id": 1, "turns": ["a"]}, "category must be text, found nothing"),
        ("spec-bench", {"question_id": 1, "category": "qa", "turns": "a"}, "turns must be a list"),
        ("speed-bench",
         {"question_id": "q", "category": "qa", "turns": [
             "FULL BENCHMARK DATA SHOULD BE FETCHED FROM THE SOURCE USING SPECDEC_BENCH"]},
         "qa/q still has a placeholder"),
        ("humaneval", {"task_id": "HumanEval/1"}, "prompt must be text, found nothing"),
        ("humaneval", {"prompt": "def f"}, "task_id must be text or a number"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_one_line(tmp_path, name, entry, error):
    path = lines(tmp_path / "bad.jsonl", [entry])
    with pytest.raises(sd.InvalidArgumentError) as caught:
        study(tmp_path / "out", path, name=name)
    assert error in str(caught.value)
    assert "line 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_question_that_is_there_twice_is_refused(tmp_path):
    entry = {"question_id": 1, "category": "qa", "turns": ["a"]}
    path = lines(tmp_path / "twice.jsonl", [entry, entry])
    with pytest.raises(sd.InvalidArgumentError, match="qa/1 is there twice"):
        study(tmp_path / "out", path, name="spec-bench")


def test_methods_are_named_with_lengths():
    found = {m.name: (m.drafter, dict(m.options)) for m in parse_methods("auto,model:4, suffix")}
    assert found == {
        "plain": ("none", {}), "auto": ("auto", {}), "model:4": ("model", {"draft_max": 4}),
        "suffix": ("suffix", {}),
    }  # fmt: skip
    for wrong in ("bogus", "auto:3", "ngram:", "ngram:0", "ngram:65", "model-keep", ""):
        with pytest.raises(sd.InvalidArgumentError, match="--methods"):
            parse_methods(wrong)


# ---------------------------------------------------------------- figures


def rows_of_two_questions():
    """The first question is fast and gains nothing, the second is slow and gains four times."""
    rows = []
    for name, plain_ms, own_ms in (("fast", (10, 10), (10, 10)), ("slow", (100, 300), (25, 75))):
        for turn in (0, 1):
            for method, ms in (("plain", plain_ms[turn]), ("x", own_ms[turn])):
                rows.append(
                    {**row(name, method, 1000 * 3 / ms), "turn": turn, "category": name,
                     "total_ms": float(ms), "temperature": 0.0}
                )  # fmt: skip
    return figures.tidy(rows)


def test_the_ratio_of_means_is_the_originals_and_not_the_mean_of_ratios():
    rows = rows_of_two_questions()
    own = [r for r in rows if r["method"] == "x"]
    base = [r for r in rows if r["method"] == "plain"]
    # 6 tokens of both turns in 20 and 400 ms; in 20 and 100 ms.
    assert benchmark_report.original_speed(base) == pytest.approx((6 / 20 + 6 / 400) / 2)
    assert benchmark_report.ratio_of_means(own, base) == pytest.approx(
        (6 / 20 + 6 / 100) / (6 / 20 + 6 / 400)
    )
    found = figures.summary(own)
    assert found["speedup"] == pytest.approx(2.0)  # geometric, of 1, 1, 4, 4
    assert benchmark_report.ratio_of_means(own, []) is None


def test_the_slowest_prompt_is_named():
    rows = rows_of_two_questions()
    own = [dict(r) for r in rows if r["method"] == "x"]
    own[1]["speedup"] = 0.5
    assert benchmark_report.slowest(own) == "fast, turn 2 (0.50)"
    assert benchmark_report.slowest([]) == "-"


def test_tables_tell_each_category():
    over_all, wide, long = benchmark_report.tables_of(rows_of_two_questions(), "s")
    assert over_all.rows[1][:5] == ["x", "144.2", "2.00 (1.00-4.00)", "2.00", "1.14"]
    assert wide.rows == [["fast", "2", "1.00 (1.00-1.00)"], ["slow", "2", "4.00 (4.00-4.00)"]]
    assert [line[:2] for line in long.rows] == [
        ["fast", "plain"], ["fast", "x"], ["slow", "plain"], ["slow", "x"],
    ]  # fmt: skip
