"""The study `samplers`: what it samples with, what it compares, its CSV. No speed is asserted."""

from __future__ import annotations

import csv
import itertools
import json

import pytest

import specdec_native as sd
from specdec_native.studies import command, sampler_tables, samplers
from specdec_native.studies.questions import QUESTIONS

for package in ("pandas", "matplotlib", "rich", "rouge_score", "sacrebleu", "rapidfuzz"):
    pytest.importorskip(package)

SHORT = ("--sweep-tokens", "8", "--sweep-rounds", "1", "--noises", "0.5", "--orders", "3", "2")


def study(folder, *more, draft=True, code=0):
    arguments = ["samplers", "-m", "manuals", "--out", str(folder), "-n", "24", "-q"]
    arguments += ["-md", "manuals-draft"] if draft else []
    assert command.main([*arguments, *SHORT, *map(str, more)]) == code
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "qa.csv"
    path.write_text(
        "question,answer,temperature\nHow is a file opened?,With the open function.,1\n"
    )
    return path


@pytest.mark.usefixtures("rendered")
def test_every_processor_by_every_model(tmp_path, questions):
    out = tmp_path / "out"
    rows = study(out, "--questions", questions)
    asked = [r for r in rows if r["task"] == "question 1"]
    expected = {
        "greedy": {"temperature": 0.0},
        "multinomial": {"temperature": 0.8},
        "topk": {"temperature": 0.8, "top_k": 10},
        "TopKwNoise 0.5": {"temperature": 0.8, "top_k": 10, "noise_scale": 0.5},
    }
    main = [r for r in asked if r["method"] in ("plain", "speculative", "ngram")]
    assert [(r["processor"], r["method"]) for r in main if r["method"] == "plain"] == [
        (processor, "plain") for processor in expected
    ]
    assert len(main) == 4 * 3
    for r in main:
        assert json.loads(r["sampling"]) == expected[r["processor"]]
        assert r["identical"] is (None if r["method"] == "plain" else
                                  True if r["method"] == "ngram" or r["processor"] == "greedy"
                                  else None)  # fmt: skip
    options = {r["method"]: json.loads(r["options"]) for r in asked}
    assert options["ngram"] == {"n": 2, "filler_top_k": 3, "min_count": 1, "gamma": 4}
    assert options["ngram N=2"] == {"n": 1, "filler_top_k": 3, "min_count": 1, "gamma": 4}
    assert options["ngram filler=1"]["filler_top_k"] == 1
    assert options["ngram min_count=2"]["min_count"] == 2
    assert options["speculative"] == {"gamma": 4}
    assert {r["processor"] for r in asked if " " in r["method"]} == {"greedy"}
    swept = [r for r in rows if r["task"] == "noise sweep"]
    assert {(r["noise_scale"], r["method"]) for r in swept} == {
        (noise, method) for noise in (0, 0.5) for method in ("plain", "speculative", "ngram")
    }
    page = (out / "report.md").read_text()
    assert "Greedy: 0 of 1 speculative outputs and 0 of 1 ngram outputs differ" in page
    assert {path.name.split("-")[0] for path in (out / "plots").glob("*.png")} == {"speed", "noise"}


def test_texts_follow_their_samplers_and_scores_their_texts(tmp_path, questions):
    """A sampler that is not passed on gives other tokens than the decoder alone."""
    rows = study(tmp_path / "out", "--questions", questions)
    chosen = {
        "greedy": sd.SamplingParams(temperature=0.0, seed=42),
        "multinomial": sd.SamplingParams(temperature=0.8, seed=42),
        "topk": sd.SamplingParams(temperature=0.8, top_k=10, seed=42),
        "TopKwNoise 0.5": sd.SamplingParams(temperature=0.8, top_k=10, noise_scale=0.5, seed=42),
    }
    texts = set()
    with sd.Model(sd.embedded("manuals").target) as model, sd.Decoder(model) as decoder:
        for processor, params in chosen.items():
            result = decoder.generate("How is a file opened?", max_tokens=24, params=params)
            mine = [
                r for r in rows
                if r["task"] == "question 1" and r["processor"] == processor
                and r["method"] in ("plain", "ngram")
            ]  # fmt: skip
            assert len(mine) == 2
            assert all(r["token_ids"] == list(result.token_ids) for r in mine)
            texts.add(result.text)
    assert len(texts) == 4
    for r in rows:
        words = r["text"].lower().split()
        pairs = list(itertools.pairwise(words))
        assert r["distinct_1"] == pytest.approx(len(set(words)) / len(words))
        assert r["distinct_2"] == pytest.approx(len(set(pairs)) / len(pairs))
        assert (r["score"] is None) == (r["task"] == "noise sweep")


def test_the_csv_has_the_columns_of_the_original(tmp_path, questions):
    out = tmp_path / "out"
    rows = study(out, "--questions", questions)
    with (out / "results.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert ",".join(table[0]).startswith(
        "question,answer,temperature,model,processor,output,score,acceptance_rate,tokens_per_sec"
    )
    assert {(line["model"], line["processor"]) for line in table} == {
        (model, processor)
        for model in ("autoregressive", "speculative", "ngram")
        for processor in ("greedy", "multinomial", "topk", "TopKwNoise")
    }
    assert len(table) == 12
    (line,) = (x for x in table if (x["model"], x["processor"]) == ("speculative", "topk"))
    (row,) = (r for r in rows if (r["method"], r["processor"]) == ("speculative", "topk"))
    assert line["question"] == "How is a file opened?"
    assert line["answer"] == "With the open function."
    assert line["output"] == row["text"]
    assert float(line["acceptance_rate"]) == pytest.approx(row["accepted"] / row["drafted"])
    assert float(line["tokens_per_sec"]) == pytest.approx(row["tokens_per_second"])
    plain = next(x for x in table if x["model"] == "autoregressive")
    assert plain["acceptance_rate"] == ""


def test_without_a_draft_model_the_rest_is_run(tmp_path):
    rows = study(tmp_path / "out", "--limit", 1, "-n", 4, draft=False)
    assert {"plain", "ngram"} <= {r["method"] for r in rows}
    assert "speculative" not in {r["method"] for r in rows}
    assert "speculative is left out" in (tmp_path / "out" / "report.md").read_text()
    assert len(QUESTIONS) == 30


def test_greedy_outputs_that_differ_are_counted():
    def row(method, identical, processor="greedy"):
        return {"method": method, "identical": identical, "processor": processor, "error": ""}

    rows = [row("plain", None), row("speculative", False), row("speculative", True)]
    rows += [row("ngram", True), row("ngram", True), row("ngram", False, "topk")]
    told = sampler_tables.greedy_verdict(rows)
    assert "1 of 2 speculative outputs and 0 of 2 ngram outputs differ" in told


@pytest.mark.parametrize(
    "arguments,error",
    [
        (["--temperature", "0"], "--temperature must be between 0.001"),
        (["--noises", "0"], "--noises must be between 0.001 and 100, not 0.0"),
        (["--orders", "1"], "--orders must be between 2 and 17, not 1"),
        (["--orders", "3", "3"], "--orders names a value twice"),
        (["--gamma", "65"], "--gamma must be between 1 and 64, not 65"),
        (["--questions", "bad.csv"], "line 2: question must be text, found only 'q'"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("q\nWhat?\n")
    with pytest.raises(sd.InvalidArgumentError) as caught:
        study(tmp_path / "out", *arguments)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_noise_sweep_has_its_own_prompt(tmp_path):
    rows = study(tmp_path / "out", "--limit", 1, "-n", 4)
    swept = [r for r in rows if r["task"] == "noise sweep" and r["method"] == "plain"]
    with sd.Model(sd.embedded("manuals").target) as model, sd.Decoder(model) as decoder:
        for r in swept:
            params = sd.SamplingParams(
                temperature=0.8, top_k=10, noise_scale=r["noise_scale"], seed=42
            )
            result = decoder.generate(samplers.SWEEP_PROMPT, max_tokens=8, params=params)
            assert r["token_ids"] == list(result.token_ids)
