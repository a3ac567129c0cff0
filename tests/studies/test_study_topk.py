"""The study `topk-importance`: its prompts, its grid, what it counts. No speed is asserted."""

from __future__ import annotations

import argparse
import json

import pytest

import specdec_native as sd
from specdec_native.studies import command, text_metrics, topk_importance, topk_tables

for package in ("pandas", "matplotlib", "rich", "rouge_score", "sacrebleu", "rapidfuzz"):
    pytest.importorskip(package)

LONG = "The first section of this manual tells how a file is opened, read and closed again. " * 8
REST = "Open the file with its name and a mode, and close it when all lines have been read. " * 4


@pytest.fixture
def data(tmp_path):
    alpaca = [
        {"instruction": "Tell how to open a file.", "input": "notes.txt", "output": REST},
        {"instruction": LONG, "input": "", "output": "Yes."},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(alpaca))
    (tmp_path / "wiki.txt").write_text(f" = Files = \n \n {LONG} \n \n Short . \n")
    (tmp_path / "cnn.csv").write_text(f'article,highlights\n"{LONG}",A manual.\n')
    return tmp_path


def study(folder, *more, code=0):
    arguments = ["topk-importance", "-m", "manuals", "-md", "manuals-draft", "--out", str(folder)]
    assert command.main([*arguments, "-n", "8", "-q", *map(str, more)]) == code
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("rendered")
def test_every_data_set_every_method_and_the_tables(tmp_path, data):
    out = tmp_path / "out"
    rows = study(
        out, "--alpaca", data / "alpaca.json", "--wikitext", data / "wiki.txt",
        "--cnn-dm", data / "cnn.csv", "--limit", 1, "--ks", 4, 50,
    )  # fmt: skip
    assert {(r["data_set"], r["gamma"]) for r in rows} == {
        ("alpaca", 5), ("alpaca", 10), ("alpaca", 15), ("wikitext", 5), ("wikitext", 10),
        ("wikitext", 15), ("cnn-dm", 4), ("cnn-dm", 8), ("cnn-dm", 15),
    }  # fmt: skip
    assert {r["temperature"] for r in rows} == {0, 1}
    swept = {(r["gamma"], r["temperature"]) for r in rows if r["k"] == 4}
    assert swept == {(10, 1), (8, 1)}
    assert all(r["emitted"] == 8 and not r["error"] for r in rows)
    for r in rows:
        options = json.loads(r["options"])
        if r["drafter"] == "model":
            assert options["head_tokens"] == 0
            assert options["gamma"] == r["gamma"]
            assert options.get("draft_top_k") == r["k"]
        assert 0 <= r["rouge1"] <= 1
        assert r["rouge1"] == pytest.approx(text_metrics.rouge(r["text"], r["reference"])["rouge1"])
        assert r["edit_distance"] >= 0
        assert (r["identical"] is True) == (
            r["temperature"] == 0 and r["verifier"] in ("standard", "topk_importance")
        )
    sampled = [r for r in rows if r["verifier"].startswith("topk") and r["temperature"] == 1]
    assert all(0 <= r["in_set"] <= 1 for r in sampled)
    page = (out / "report.md").read_text()
    assert "| alpaca | 1 | 10 | TopK-Imp, published rule |" in page
    assert "| 77.94 % | 1.486 |" in page
    table = next((out / "tables").glob("table-1-*.csv")).read_text()
    assert table.count(",direct,") == 3 * 2  # once for all lengths of drafts
    for name in ("table-1", "table-2", "equal", "detail", "text"):
        assert list((out / "tables").glob(f"{name}-*.csv"))
    assert {path.name[:7] for path in (out / "plots").glob("*.png")} == {"accepta", "speedup"}


def test_prompts_and_references_are_cut_at_the_published_tokens(tmp_path, data):
    """A prompt that is shifted by one gives other tokens than the engine alone."""
    rows = study(
        tmp_path / "out", "--alpaca", data / "alpaca.json", "--wikitext", data / "wiki.txt",
        "--cnn-dm", data / "cnn.csv", "--gammas", 3, "--ks", 4, "--temperatures", 0,
    )  # fmt: skip
    short = "Tell how to open a file.\nnotes.txt"
    summary = f"Summarize the article: {LONG.strip()}"
    with sd.Model(sd.embedded("manuals").target) as model, sd.Decoder(model) as decoder:
        encode = model.tokenize
        wiki, answer = encode(LONG.strip()), encode(REST, add_special=False)
        expected = {
            "alpaca 1": (encode(short), model.detokenize(answer[:50])),
            "alpaca 2": (encode(LONG)[:60], "Yes."),
            "wikitext 1": (wiki[:60], model.detokenize(wiki[60:110], strip_space_prefix=False)),
            "cnn-dm 1": (encode(summary)[:256], "A manual."),
        }
        assert {r["task"] for r in rows} == set(expected)
        for task, (prompt, reference) in expected.items():
            result = decoder.generate(prompt, max_tokens=8, ignore_eos=True)
            mine = [r for r in rows if r["task"] == task]
            assert all(r["token_ids"] == list(result.token_ids) for r in mine)
            assert {r["prompt_tokens"] for r in mine} == {len(prompt)}
            assert {r["reference"] for r in mine} == {reference}


def test_accepted_tokens_are_those_of_the_decoder(tmp_path, data):
    rows = study(
        tmp_path / "out", "--wikitext", data / "wiki.txt", "--gammas", 4, "--ks", 8, "-n", 24,
        "--temperatures", 1,
    )  # fmt: skip
    pair = sd.embedded("manuals")
    with sd.Model(pair.target) as model, sd.Model(pair.draft) as draft:
        prompt = model.tokenize(LONG.strip())[:60]
        for verifier, more in (
            ("standard", {}),
            ("topk_importance", {"draft_top_k": 8}),
        ):
            drafter = sd.DraftModel(draft, gamma=4, head_tokens=0, **more)
            with sd.Decoder(model, drafter=drafter, verifier=verifier) as decoder:
                params = sd.SamplingParams(temperature=1.0, seed=42)
                stats = decoder.generate(
                    prompt, max_tokens=24, params=params, ignore_eos=True
                ).stats
            (row,) = (r for r in rows if r["verifier"] == verifier)
            for column in ("drafted", "accepted", "rounds", "emitted", "in_set"):
                assert row[column] == pytest.approx(getattr(stats, column)), column
            assert stats.accepted > 0


def test_own_prompts_and_the_whole_grid(tmp_path):
    (tmp_path / "p.txt").write_text("To open a file\n")
    rows = study(
        tmp_path / "out", "--prompts", tmp_path / "p.txt", "--grid", "--gammas", 2, 3, "--ks", 4,
        9, "--temperatures", 0, 0.7, "-n", 4,
    )  # fmt: skip
    found = {(r["temperature"], r["gamma"], r["verifier"], r["k"]) for r in rows}
    assert len(found) == 2 * 2 * (2 + 2 * 2)
    assert {type(k) for _, _, _, k in found} == {int, type(None)}
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Texts against their references" not in page
    assert "ROUGE" not in page


@pytest.mark.parametrize(
    "arguments,error",
    [
        ([], "no data: give at least one of --alpaca, --wikitext, --cnn-dm and --prompts"),
        (["--wikitext", "wiki.txt", "--gammas", "0"], "--gammas must be between 1 and 64, not 0"),
        (["--wikitext", "wiki.txt", "--ks", "0"], "--ks must be between 1 and"),
        (["--wikitext", "wiki.txt", "--temperatures", "-1"], "--temperatures must be between 0"),
        (["--wikitext", "short.txt"], "no paragraph has 110 tokens"),
        (["--wikitext", "none.txt"], "none.txt cannot be read"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, data, monkeypatch, arguments, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("Too short .\n")
    with pytest.raises(sd.SpecdecError) as caught:
        study(tmp_path / "out", *arguments)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_needs_a_draft_model_and_its_packages(tmp_path, data, monkeypatch):
    arguments = ["topk-importance", "-m", "manuals", "--out", str(tmp_path / "out")]
    arguments += ["--wikitext", str(data / "wiki.txt")]
    with pytest.raises(sd.InvalidArgumentError, match="needs a draft model: --draft"):
        command.main(arguments)
    monkeypatch.setattr(topk_importance.TopkImportance, "extra", ("no_such_package",))
    with pytest.raises(sd.InvalidArgumentError, match=r"no no_such_package\): pip install"):
        command.main(arguments)


# ---------------------------------------------------------------- figures


def row(verifier, gamma=4, k=None, **more):
    base = {
        "pair": "p", "block": "b", "task": "t", "turn": 0, "round": 0, "data_set": "alpaca",
        "method": verifier, "verifier": verifier, "gamma": gamma, "k": k, "temperature": 1.0,
        "error": "", "emitted": 20, "rounds": 10, "plain_steps": 0, "drafted": 40, "accepted": 10,
        "candidate_positions": 0, "candidate_acceptance": None, "in_set": None,
        "tokens_per_second": None, "speedup": None, "total_speedup": None, "identical": None,
        "vocabulary": 1000, "rouge1": None,
    }  # fmt: skip
    return {**base, **more}


def test_what_is_counted_as_acceptance_and_what_it_is_worth():
    published = [
        row("topk_importance_published", accepted=0, emitted=10, candidate_positions=40,
            candidate_acceptance=0.9),
        row("topk_importance_published", accepted=2, emitted=12, candidate_positions=10,
            candidate_acceptance=0.4),
    ]  # fmt: skip
    found = topk_tables.figures_of(published)
    assert found["counted"] == pytest.approx(0.8)  # 36 + 4 of 50
    assert found["acceptance"] == pytest.approx(2 / 80)
    assert found["tokens_per_round"] == pytest.approx(22 / 20)
    a = found["worth"]
    assert sum(a**i for i in range(5)) == pytest.approx(1.1)
    lossless = topk_tables.figures_of([row("topk_importance")])
    assert lossless["counted"] == pytest.approx(10 / 40)
    assert lossless["tokens_per_round"] == 2


def test_the_acceptance_of_so_many_tokens_a_pass():
    solve = topk_tables.lossless_acceptance
    assert solve((1 - 0.6**5) / 0.4, 4) == pytest.approx(0.6)
    assert solve(1.0, 4) == pytest.approx(0, abs=1e-9)
    assert solve(5.0, 4) == 1
    assert solve(4.9999999, 4) == pytest.approx(1)
    assert solve(3.1, 2.1) == 1
    assert solve(1.75, 2) == pytest.approx(0.5)


def test_published_figures_stand_beside_their_own_rows_only():
    cells = topk_tables.published_cells
    assert cells(("alpaca", 1.0, 10, "standard", None)) == ["21.80 %", "1.535"]
    assert cells(("alpaca", 0.0, 15, "topk_importance_published", 50)) == ["99.13 %", "1.473"]
    assert cells(("alpaca", 1.0, 10, "topk_importance_published", 25)) == ["-", "-"]
    assert cells(("alpaca", 1.0, 10, "topk_importance", 50)) == ["-", "-"]
    assert cells(("wikitext", 1.0, 7, "standard", None)) == ["20-45 %", "1.0-1.6"]
    assert cells(("own", 1.0, 10, "standard", None)) == ["-", "-"]


def test_a_report_of_a_part_is_made():
    rows = [row("standard", drafted=0, accepted=0, rounds=0, emitted=0)]
    args = argparse.Namespace()
    report = topk_importance.TopkImportance().report(rows, args)
    assert "Nothing was sampled" in report.parts[0].text
