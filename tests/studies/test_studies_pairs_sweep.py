"""The studies `pairs` and `sweep`: grids, figures, files. No speed is asserted."""

from __future__ import annotations

import argparse
import csv
import json
import pathlib
from typing import Any

import pytest

import specdec_native as sd
from specdec_native.studies import command, figures, pairs, sweep, times
from specdec_native.studies.engines import Workbench
from specdec_native.studies.plan import Pair
from specdec_native.studies.study import find_study

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


def run(name: str, folder: pathlib.Path, *more: Any, models: Any = None) -> list[dict[str, Any]]:
    models = models or ["-m", "pycode", "-md", "pycode-draft"]
    arguments = [name, *models, "--out", str(folder), "-q", *map(str, more)]
    assert command.main(arguments) == 0
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def blocks_of(name: str, pair: Pair, *more: str, ctx: int = 4096) -> tuple[list[Any], list[str]]:
    study = find_study(name)
    args = command.parser_of(study).parse_args(["--out", "x", "-c", str(ctx), *more])
    args.pairs, args.notes = [pair], []
    with Workbench([pair], n_ctx=ctx) as bench:
        return list(study.blocks(args, bench)), args.notes


def row(method: str, ms: float | None, **more: Any) -> dict[str, Any]:
    base = {
        "pair": "p", "block": "b", "task": "t", "method": method, "baseline": "plain", "round": 0,
        "turn": 0, "exact": True, "token_ids": [1, 2, 3], "error": "", "emitted": 3,
        "total_ms": ms, "tokens_per_second": None if ms is None else 3000 / ms,
        "drafted": 0, "accepted": 0, "rounds": 0, "plain_steps": 3, "in_set": None,
        "candidate_acceptance": None, "candidate_positions": 0, "exclusive": True,
    }  # fmt: skip
    return {**base, **more}


# ---------------------------------------------------------------- times


def test_speed_ups_are_ratios_of_mean_times():
    base = [row("plain", ms, round=i) for i, ms in enumerate((1000, 3000, 99000))]
    own = [row("x", ms, round=i) for i, ms in enumerate((500, 500))]
    assert times.mean_speedup(own, base) == pytest.approx(2000 / 500)  # of both, not of ratios
    assert times.latency_reduction(4.0) == pytest.approx(0.75)
    assert times.mean_and_deviation(base[:2]) == (pytest.approx(2.0), pytest.approx(1.0))


def test_runs_without_times_or_with_errors_do_not_count():
    base = [row("plain", 1000), row("plain", None, round=1)]
    own = [row("x", 500), row("x", 100, round=1), row("x", 1, round=2, error="no")]
    assert times.mean_speedup(own, base) == pytest.approx(2.0)
    assert times.mean_speedup([row("x", None)], base) is None
    assert times.mean_and_deviation([row("x", None)]) == (None, None)
    assert times.latency_reduction(None) is None


# ---------------------------------------------------------------- pairs


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return folder, run("pairs", folder, "-n", 24, "--rounds", 1, "--gamma", 5)


def test_pairs_asks_its_three_prompts_as_they_are(measured):
    _, rows = measured
    prompts = [
        "The future of Artificial Intelligence is",
        "Write a short story about a robot learning to feel emotions:",
        "Write the lyrics to the song 'Happy Birthday'.",
    ]
    assert list(pairs.PROMPTS.values()) == prompts
    assert {r["form"] for r in rows} == {"raw"}
    with sd.Model(sd.embedded().target) as model, sd.Decoder(model, drafter=None) as decoder:
        for name, text in pairs.PROMPTS.items():
            expected = list(decoder.generate(text, max_tokens=24).token_ids)
            mine = [r for r in rows if r["task"] == name]
            assert len(mine) == 6
            assert all(r["token_ids"] == expected for r in mine)
            assert {r["prompt_tokens"] for r in mine} == {len(model.tokenize(text))}


def test_pairs_counts_what_a_decoder_alone_accepts(measured):
    folder, rows = measured
    shipped = sd.embedded()
    with sd.Model(shipped.target) as target, sd.Model(shipped.draft) as draft:
        drafters = {
            "greedy:5": sd.DraftModel(draft, gamma=5, sampling="greedy"),
            "sampled:5": sd.DraftModel(
                draft, gamma=5, sampling="sampled", temperature=1.0, draft_top_k=50
            ),
        }
        drafters["greedy:5, no cache"] = drafters["greedy:5"]
        for method, drafter in drafters.items():
            with sd.Decoder(target, drafter=drafter, verifier="greedy") as decoder:
                for name, text in pairs.PROMPTS.items():
                    stats = decoder.generate(text, max_tokens=24, seed=42).stats
                    (mine,) = [r for r in rows if (r["task"], r["method"]) == (name, method)]
                    assert (mine["drafted"], mine["accepted"]) == (stats.drafted, stats.accepted)
                    line = table(folder / "tables" / "pairs.csv", prompt=name, method=method)
                    assert line["acceptance"] == figures.percent(stats.acceptance_rate)


def table(path: pathlib.Path, **wanted: str) -> dict[str, str]:
    with path.open(newline="") as file:
        (line,) = [e for e in csv.DictReader(file) if wanted.items() <= e.items()]
    return line


def test_only_the_methods_without_a_cache_read_again(measured):
    _, rows = measured
    for r in rows:
        uncached = "no cache" in r["method"]
        assert (r["reread_tokens"] > 0) == uncached
        assert (r["draft_reread_tokens"] > 0) == (r["method"] == "greedy:5, no cache")
        assert r["baseline"] == (
            "plain, no cache" if r["method"].startswith("greedy:5, ") else "plain"
        )


def test_the_report_of_pairs_shows_the_published_beside_the_measured(measured):
    folder, _ = measured
    page = (folder / "report.md").read_text()
    assert "Does the published pattern hold?" in page
    assert "| Pythia 1.4B + 160M | sampled draft | 50-71 / 28-40 / 46-52 % |" in page
    assert table(folder / "tables" / "configurations.csv", method="sampled:5")
    assert list((folder / "plots").glob("speedup-*.png"))


def test_several_pairs_are_one_study(tmp_path):
    models = ["--pair", "pycode", "pycode-draft", "--pair", "manuals", "manuals-draft"]
    rows = run("pairs", tmp_path, "-n", 4, "--rounds", 1, "--limit", 1, "--gamma", 2, 4,
               models=models)  # fmt: skip
    assert len({r["pair"] for r in rows}) == 2
    assert {r["gamma"] for r in rows} == {2, 4, None}
    with (tmp_path / "tables" / "pairs.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["pair"] for line in lines} == {r["pair"] for r in rows}
    shares = {r["pair"].split("-")[0]: r["draft_share"] for r in rows}
    assert shares == {"pycode": pytest.approx(0.168, abs=1e-3),
                      "manuals": pytest.approx(0.131, abs=1e-3)}  # fmt: skip


def test_a_short_context_makes_fewer_tokens_and_says_so():
    shipped = sd.embedded()
    pair = Pair("pycode", str(shipped.target), str(shipped.draft))
    blocks, notes = blocks_of("pairs", pair, ctx=64)
    assert [b.max_tokens for b in blocks] == [b.max_tokens for b in blocks if b.max_tokens < 64]
    assert len(notes) == 3
    assert "because the context has 64" in notes[0]
    assert {b.max_tokens for b in blocks_of("pairs", pair)[0]} == {100}


def pattern(**speeds: Any) -> list[str]:
    """config -> (ms, accepted of 100 drafted, share of the draft)."""
    rows = [row("plain", 1000.0, draft_share=0.1), row(pairs.UNCACHED, 4000.0, draft_share=0.1)]
    for method, (ms, accepted, share) in speeds.items():
        name = method.replace("_", " ")
        rows.append(
            row(
                name, ms, config=name, gamma=17, drafted=100, accepted=accepted, draft_share=share,
                baseline=pairs.UNCACHED if name == "no cache" else "plain",
            )
        )  # fmt: skip
    return pairs.pattern(figures.tidy(rows))


def test_the_published_pattern_is_judged_by_the_rows():
    holds = pattern(greedy=(1100.0, 80, 0.3), sampled=(1400.0, 40, 0.3), no_cache=(2000.0, 80, 0.3))
    assert "sampled ones: holds**, in 1 of 1" in holds[0]
    assert "higher in 1 of 1" in holds[0]
    assert "stays above 1: holds**, in 1 of 1 cases. Speed-ups 2.00 to 2.00" in holds[1]
    assert "0.25 to 0.25 times the speed" in holds[1]
    assert "stay below 1: holds**, in 1 of 1" in holds[2]
    refuted = pattern(greedy=(900.0, 10, 0.3), sampled=(500.0, 40, 0.3), no_cache=(5000.0, 10, 0.3))
    assert all("is refuted**, in 0 of 1" in text for text in refuted)
    unknown = pattern(greedy=(900.0, 10, 0.1))
    assert all("cannot be told**" in text for text in unknown)
    assert "10 % of p" in unknown[2]
    untimed = pattern(greedy=(None, 50, 0.3), sampled=(None, 40, 0.3), no_cache=(None, 50, 0.3))
    assert all("cannot be told**" in text for text in untimed)
    assert "higher in 1 of 1" in untimed[0]


def test_a_noisy_machine_is_told():
    quiet = [row("plain", ms, round=i, draft_share=0.1) for i, ms in enumerate((1000, 1100))]
    noisy = [row("plain", ms, round=i, draft_share=0.1) for i, ms in enumerate((1000, 3000))]
    assert len(pairs.pattern(figures.tidy(quiet))) == 3
    assert "deviate by up to 50 % of their mean" in pairs.pattern(figures.tidy(noisy))[3]


# ---------------------------------------------------------------- sweep


def test_the_grid_has_the_27_settings_of_the_original(tiny_path, tiny_draft_path):
    blocks, notes = blocks_of("sweep", Pair("tiny", str(tiny_path), str(tiny_draft_path)))
    settings = [
        (b.axes["experiment"], b.axes["prompt_length"], b.max_tokens, method.axes.get("n"))
        for b in blocks
        for method in b.methods
    ]
    both = (None, 2)
    assert settings == [
        *(("prompt_length", n, 128, d) for n in (64, 128, 256, 512, 1024) for d in both),
        *(("max_tokens", 256, n, d) for n in (32, 64, 128, 256, 512) for d in both),
        *(("n_value", 256, 128, d) for d in (None, 1, 2, 4, 8, 16, 32)),
    ]
    assert len(settings) == 27
    assert {b.rounds for b in blocks} == {5}
    assert not notes


def test_a_short_context_shrinks_the_grid_and_says_so():
    shipped = sd.embedded()
    pair = Pair("pycode", str(shipped.target), str(shipped.draft))
    blocks, notes = blocks_of("sweep", pair)  # the models have 512 positions
    lengths = [b.axes["prompt_length"] for b in blocks if b.axes["experiment"] == "prompt_length"]
    assert lengths == [64, 128, 256, 384]
    assert [b.max_tokens for b in blocks if b.axes["experiment"] == "max_tokens"] == [
        32, 64, 128, 256,
    ]  # fmt: skip
    assert [note.split(": ")[1].split(",")[0] for note in notes] == [
        "prompt length 512 is 384 here",
        "prompt length 1024 is left out",
        "max tokens 512 is left out",
    ]
    blocks, notes = blocks_of("sweep", pair, ctx=96)
    assert "the base is 64 + 32 tokens instead of 256 + 128, because the context has 96" in notes[0]
    assert all(b.axes["prompt_length"] + b.max_tokens <= 96 for b in blocks)
    blocks, notes = blocks_of("sweep", pair, ctx=16)
    assert not blocks
    assert "too short" in notes[-1]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    out = folder / "own.csv"
    models = ["--big_model", "pycode", "--small_model", "pycode-draft"]
    small = ["-n", 32, "--prompt-length", 40, "--depths", 1, 3, "--rounds", 2, "--limit", 3]
    return folder, run("sweep", folder / "out", "--output", out, *small, models=models)


def test_the_csv_has_exactly_the_columns_of_the_original(swept):
    folder, rows = swept
    text = (folder / "own.csv").read_text()
    assert (folder / "out" / "experiment_results.csv").read_text() == text
    header, *lines = text.splitlines()
    assert header == ("experiment,prompt_length,max_tokens,n,method,time,time_std,acceptance_rate")
    assert [line.split(",")[:5] for line in lines] == [
        [experiment, *settings]
        for experiment, *settings in (
            *(("prompt_length", str(n), "32", *how) for n in (10, 20, 80) for how in BOTH),
            *(("max_tokens", "40", str(n), *how) for n in (8, 16, 64) for how in BOTH),
            ("n_value", "40", "32", "", "Normal"),
            ("n_value", "40", "32", "1", "Speculative"),
            ("n_value", "40", "32", "3", "Speculative"),
        )
    ]
    for line in csv.DictReader(text.splitlines()):
        mine = [
            r["total_ms"] / 1000
            for r in rows
            if (r["experiment"], r["prompt_length"], r["max_tokens"], r["method"])
            == (line["experiment"], int(line["prompt_length"]), int(line["max_tokens"]),
                f"n={line['n']}" if line["n"] else "plain")
        ]  # fmt: skip
        assert float(line["time"]) == pytest.approx((mine[0] + mine[1]) / 2)
        assert float(line["time_std"]) == pytest.approx(abs(mine[0] - mine[1]) / 2, abs=1e-9)
        assert (line["acceptance_rate"] == "") == (line["method"] == "Normal")


BOTH = (("", "Normal"), ("2", "Speculative"))


def test_prompts_are_the_first_tokens_of_the_essay_and_accepted_is_what_a_decoder_counts(swept):
    folder, rows = swept
    shipped = sd.embedded()
    with sd.Model(shipped.target) as target, sd.Model(shipped.draft) as draft:
        tokens = target.tokenize(sweep.ESSAY * 3)
        for line in csv.DictReader((folder / "own.csv").read_text().splitlines()):
            depth = int(line["n"] or 0)
            length, n_tokens = int(line["prompt_length"]), int(line["max_tokens"])
            drafter = sd.DraftModel(draft, gamma=depth) if depth else None
            with sd.Decoder(target, drafter=drafter) as decoder:
                out = decoder.generate(tokens[:length], max_tokens=n_tokens, ignore_eos=True)
            if depth:
                assert float(line["acceptance_rate"]) == pytest.approx(out.stats.acceptance_rate)
            mine = [
                r
                for r in rows
                if (r["experiment"], r["prompt_length"], r["max_tokens"], r["n"])
                == (line["experiment"], length, n_tokens, depth or None)
            ]
            assert len(mine) == 2
            assert all(r["token_ids"] == list(out.token_ids) for r in mine)
            assert {r["prompt_tokens"] for r in mine} == {length}
            assert {r["emitted"] for r in mine} == {n_tokens}


def test_there_are_five_plots_by_the_names_of_the_original(swept):
    folder, _ = swept
    names = {path.stem for path in (folder / "out" / "plots").glob("*.png")}
    assert names == {
        "prompt_length_effect", "max_tokens_effect", "n_effect", "acceptance_rate", "speedup",
    }  # fmt: skip
    assert {p.size for p in sweep.plots([], "", "")} == {(12.0, 6.0)}


def test_lines_are_means_over_rounds_and_acceptance_is_of_sums():
    axes = {"experiment": "n_value", "prompt_length": 8, "max_tokens": 3}
    rows = [
        *(row("plain", ms, round=i, **axes) for i, ms in enumerate((4000, 8000))),
        row("n=2", 1000, drafted=10, accepted=1, n=2, **axes),
        row("n=2", 2000, drafted=2, accepted=2, n=2, round=1, **axes),
        row("n=1", None, n=1, error="broken", **axes),
    ]
    plain, failed, two = sweep.lines_of(figures.tidy(rows))
    assert (plain["time"], plain["time_std"], plain["n"]) == (6.0, 2.0, None)
    assert (two["time"], two["time_std"], two["speedup"]) == (1.5, 0.5, pytest.approx(4.0))
    assert two["acceptance_rate"] == pytest.approx(3 / 12)
    assert (failed["time"], failed["acceptance_rate"], failed["speedup"]) == (None, None, None)


def test_sweep_has_a_folder_of_its_own_and_another_output_is_no_other_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["sweep", "-m", "pycode", "-md", "pycode-draft", "-q", "-n", "8"]
    small += ["--prompt-length", "8", "--depths", "1", "--rounds", "1", "--limit", "1"]
    assert command.main(small) == 0
    before = (tmp_path / "exp_results" / "runs.jsonl").read_bytes()
    assert command.main([*small, "--output", "again.csv"]) == 0
    assert (tmp_path / "exp_results" / "runs.jsonl").read_bytes() == before
    assert (tmp_path / "again.csv").exists()


def test_spread_over_processes_it_has_the_same_settings_without_times(tmp_path):
    small = ["-n", 8, "--prompt-length", 8, "--depths", 1, 2, "--rounds", 1, "--limit", 2]
    run("sweep", tmp_path / "a", *small)
    run("sweep", tmp_path / "b", *small, "--workers", 2, "-t", 1)
    alone, shared = (
        list(csv.DictReader((tmp_path / d / sweep.CSV).read_text().splitlines())) for d in "ab"
    )
    assert all(line.pop("time") and line.pop("time_std") for line in alone)
    assert all((line.pop("time"), line.pop("time_std")) == ("", "") for line in shared)
    assert alone == shared


def test_a_second_pair_has_files_of_its_own(tmp_path):
    models = ["--pair", "pycode", "pycode-draft", "--pair", "manuals", "manuals-draft"]
    small = ["-n", 8, "--prompt-length", 8, "--depths", 1, "--rounds", 1, "--limit", 1]
    run("sweep", tmp_path / "out", "--output", tmp_path / "own.csv", *small, models=models)
    mark = "-manuals-neox-7m-q8-0---manuals-neox-draft-q8-0"
    for folder, stem in ((tmp_path, "own"), (tmp_path / "out", "experiment_results")):
        found = {path.name for path in folder.glob("*.csv")} - {"rows.csv"}
        assert found == {f"{stem}.csv", f"{stem}{mark}.csv"}
    names = {path.stem for path in (tmp_path / "out" / "plots").glob("*.png")}
    assert len(names) == 10
    assert {"speedup", f"speedup{mark}"} <= names


@pytest.mark.parametrize(
    "arguments,error",
    [
        (["pairs", "--gamma", "0"], "--gamma must be 1 to 64, not 0"),
        (["sweep", "--depths", "65"], "--depth and --depths must be 1 to 64, not 65"),
        (["sweep", "--prompt-length", "2"], "--prompt-length must be at least 8, not 2"),
        (["sweep", "-c", "16"], "too short"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, arguments, error):
    more = ["-m", "pycode", "-md", "pycode-draft", "--out", str(tmp_path / "out")]
    with pytest.raises(sd.SpecdecError) as caught:
        command.main([*arguments, *more])
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["pairs", "sweep"])
def test_both_need_a_draft_model(tmp_path, name):
    with pytest.raises(sd.InvalidArgumentError, match="needs a draft model: --draft"):
        command.main([name, "-m", "pycode", "--out", str(tmp_path / "out")])
    assert isinstance(command.parser_of(find_study(name)), argparse.ArgumentParser)
