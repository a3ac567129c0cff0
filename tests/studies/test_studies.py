"""`specdec-native study`: what it runs, keeps, compares and writes. No speed is asserted."""

from __future__ import annotations

import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import specdec_native as sd
from fake_ray import FakeRay
from specdec_native.studies import command, engines, figures, runner, spread
from specdec_native.studies.data import own_prompts
from specdec_native.studies.engines import OwnEngine, Workbench
from specdec_native.studies.plan import Block, Method, Pair, Task, plain
from specdec_native.studies.report import Report, Table, Text, common_parts
from specdec_native.studies.store import Store

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

PROMPTS = ("def add(a, b):\n    ", "import os\n", "class Stack:\n    def __init__(self):\n")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    lines = [json.dumps({"id": f"p{i}", "prompt": text}) for i, text in enumerate(PROMPTS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def study(folder, prompts, *more, code=0, name="mine"):
    arguments = [name, str(prompts), "-m", "pycode", "-md", "pycode-draft", "--out", str(folder)]
    arguments += ["-n", "12", "--rounds", "2", "-q", *map(str, more)]
    assert command.main(arguments) == code
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, prompts):
    """The folder and the rows of a study, to be read; its plots are rendered."""
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, study(folder, prompts)


@pytest.fixture
def out(tmp_path, finished):
    """A copy of that folder, to go on in."""
    return shutil.copytree(finished[0], tmp_path / "out")


def what_ran(rows):
    """Everything but the times and when it was."""
    return sorted(
        (r["task"], r["method"], r["round"], r["turn"], tuple(r["token_ids"])) for r in rows
    )


# ---------------------------------------------------------------- a whole study


def test_every_run_gives_a_row_with_every_setting(finished):
    _, rows = finished
    methods = {r["method"] for r in rows}
    assert {"plain", "auto", "ngram", "suffix", "recycling", "model:4"} <= methods
    assert len(rows) == len(PROMPTS) * len(methods) * 2
    for row in rows:
        assert row["emitted"] == 12 or row["finish_reason"] == "stop"
        assert row["commit"] is not None
        assert row["cpu"]
        assert row["version"] == sd.__version__
        assert row["seed"] == 42 + row["round"]
        assert row["max_tokens"] == 12
        assert (row["identical"] is None) == (row["method"] == "plain")
    assert all(r["identical"] for r in rows if r["method"] != "plain")
    assert next(json.loads(r["options"]) for r in rows if r["method"] == "model:2") == {
        "draft_max": 2
    }


def test_the_folder_holds_report_tables_plots_and_rows(finished):
    out, _ = finished
    page = (out / "report.html").read_text()
    assert 'src="data:image/svg+xml;base64,' in page
    assert "http" not in page.split("<body>")[0]
    assert "| plain |" in (out / "report.md").read_text()
    assert list((out / "plots").glob("*.png"))
    assert list((out / "plots").glob("*.svg"))
    assert (out / "rows.csv").read_text().splitlines()[0].startswith("study,version,commit")
    assert list((out / "tables").glob("methods-*.csv"))


def test_methods_take_turns_and_each_round_starts_with_another(finished):
    _, rows = finished
    first = [r["method"] for r in rows if r["task"] == "p0" and r["round"] == 0]
    second = [r["method"] for r in rows if r["task"] == "p0" and r["round"] == 1]
    assert first[0] == "plain"
    assert second == first[1:] + first[:1]


def test_the_prompt_is_the_one_of_the_file(finished):
    """A prompt that is shifted by one, or a wrong one, gives other tokens than the engine alone."""
    _, rows = finished
    with sd.Model(sd.embedded().target) as model, sd.Decoder(model, drafter=None) as decoder:
        for i, prompt in enumerate(PROMPTS):
            expected = list(decoder.generate(prompt, max_tokens=12).token_ids)
            mine = [r for r in rows if r["task"] == f"p{i}"]
            assert all(r["token_ids"] == expected for r in mine)
            assert {r["prompt_tokens"] for r in mine} == {len(model.tokenize(prompt))}


def test_workers_give_the_same_tokens_and_no_times(tmp_path, prompts, finished):
    _, alone = finished
    shared = study(tmp_path / "b", prompts, "--workers", 2, "-t", 1)
    assert what_ran(alone) == what_ran(shared)
    assert all(r["tokens_per_second"] is None and r["speedup"] is None for r in shared)
    assert not any(r["exclusive"] for r in shared)


def test_a_cluster_gives_the_same_tokens(tmp_path, prompts, finished, monkeypatch):
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    _, alone = finished
    shared = study(tmp_path / "b", prompts, "--ray", "local", "-t", 1)
    assert what_ran(alone) == what_ran(shared)
    assert (ray.address, ray.up) == ("local", False)
    assert not any(r["exclusive"] for r in shared)


@pytest.mark.parametrize(
    "ray,error",
    [
        (None, "--ray needs packages that are not installed"),
        (FakeRay(ConnectionError("nobody\nlistens")), "--ray there: no cluster there: nobody"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_one_line(tmp_path, prompts, monkeypatch, ray, error):
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(sd.InvalidArgumentError) as caught:
        study(tmp_path / "out", prompts, "--ray", "there")
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_worker_that_dies_ends_the_study_with_one_line(tmp_path, prompts, monkeypatch):
    """It must not wait for ever for a result that nobody works on."""
    real = spread._send
    killed = []

    def send(pipe, job):
        real(pipe, job)
        if not killed:  # while it still starts: it cannot have finished its job
            killed.append(multiprocessing.active_children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(spread, "_send", send)
    with pytest.raises(sd.ResourceLimitError, match="--workers ended before its work was done"):
        study(tmp_path / "out", prompts, "--workers", 2, "-t", 1, "-n", 200)
    assert not multiprocessing.active_children()


def test_a_conversation_gives_a_row_per_turn(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"turns": ["import os\n", "import sys\n"]}) + "\n")
    rows = study(tmp_path / "out", path)
    by_turn = {turn: [r for r in rows if r["turn"] == turn] for turn in (0, 1)}
    assert len(by_turn[0]) == len(by_turn[1]) > 0
    assert by_turn[1][0]["prompt_tokens"] > by_turn[0][0]["prompt_tokens"] + 10
    assert by_turn[1][0]["reused_prompt_tokens"] > 0


# ---------------------------------------------------------------- going on


def test_a_finished_study_runs_nothing_again(out, prompts, finished):
    _, first = finished
    before = (out / "runs.jsonl").read_bytes()
    assert study(out, prompts) == first
    assert (out / "runs.jsonl").read_bytes() == before


def test_what_a_kill_cut_off_is_run_again(out, prompts, finished):
    _, first = finished
    lines = (out / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (out / "runs.jsonl").write_bytes(b"".join(lines[:7]) + lines[7][:50])
    again = study(out, prompts)
    assert what_ran(again) == what_ran(first)
    assert (out / "runs.jsonl").read_bytes().startswith(b"".join(lines[:7]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_study_loses_and_repeats_nothing(tmp_path, prompts, finished, number):
    out = tmp_path / "out"
    command_line = [sys.executable, "-m", "specdec_native", "study", "mine", str(prompts)]
    command_line += ["-m", "pycode", "-md", "pycode-draft", "--out", str(out)]
    command_line += ["-n", "12", "--rounds", "2"]
    child = subprocess.Popen(
        command_line, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    deadline = time.monotonic() + 60
    runs = out / "runs.jsonl"
    while not (runs.exists() and runs.read_bytes().count(b"\n") >= 5):
        assert time.monotonic() < deadline
        assert child.poll() is None
        time.sleep(0.002)
    child.send_signal(number)
    _, errors = child.communicate(timeout=60)
    kept = runs.read_bytes()
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert "the same command goes on" in errors
    whole = kept[: kept.rfind(b"\n") + 1]
    rows = study(out, prompts)
    assert runs.read_bytes().startswith(whole)
    assert what_ran(rows) == what_ran(finished[1])
    assert len(what_ran(rows)) == len(set(what_ran(rows)))


def test_another_study_in_the_folder_is_not_mixed_in(tmp_path, prompts):
    out, prompts = tmp_path / "out", pathlib.Path(shutil.copy(prompts, tmp_path))
    study(out, prompts, "--rounds", 1)
    with pytest.raises(sd.InvalidArgumentError, match=r"holds another study.*max_tokens.*restart"):
        study(out, prompts, "--rounds", 1, "-n", 13)
    prompts.write_text(prompts.read_text() + '{"prompt": "x = "}\n')
    with pytest.raises(sd.InvalidArgumentError, match=r"holds another study.*prompts"):
        study(out, prompts, "--rounds", 1)
    assert len(study(out, prompts, "--rounds", 1, "--restart")) > 0


def test_blocks_that_are_the_same_are_refused():
    pair = Pair("p", "t.gguf")
    blocks = [Block(pair, Task(name, ("x",)), (plain(),), 4) for name in ("a", "b", "a")]
    command._check_once(blocks[:2])
    with pytest.raises(sd.InvalidArgumentError, match="a is asked twice with the same settings"):
        command._check_once(blocks)


def test_two_processes_do_not_write_one_folder(tmp_path):
    with Store(tmp_path, {}, restart=False):
        with pytest.raises(sd.InvalidArgumentError, match="in use by another study"):
            Store(tmp_path, {}, restart=False)
    Store(tmp_path, {}, restart=False).close()


def test_report_makes_the_pages_of_what_is_there(out, prompts):
    page = (out / "report.md").read_text()
    lines = (out / "runs.jsonl").read_bytes().splitlines(keepends=True)
    (out / "report.md").unlink()
    study(out, prompts, "--report")
    assert (out / "report.md").read_text() == page
    (out / "runs.jsonl").write_bytes(b"".join(reversed(lines)))  # as workers may end
    study(out, prompts, "--report")
    assert (out / "report.md").read_text() == page
    early = [line.replace(b'"bytes_per_step"', b'"unknown"') for line in lines[:-3]]
    (out / "runs.jsonl").write_bytes(b"".join(early))  # of a build that lacked a column
    study(out, prompts, "--report")
    assert "**Incomplete" in (out / "report.md").read_text()


# ---------------------------------------------------------------- errors are one line


@pytest.mark.parametrize(
    "content,error",
    [
        ("", "holds no prompts"),
        ("[1]\n", "line 1: expected a JSON object, found list"),
        ('{"prompt": "a"}\n{"prompt": 3}\n', "line 2: prompt must be text, found int"),
        ('{"prompt": "a"}\nnonsense\n', "line 2: not JSON"),
        ('{"text": "a"}\n', 'line 1: expected "prompt", "turns" or "messages", found \'text\''),
        ('{"turns": []}\n', "line 1: turns must be a list of texts"),
        ('{"id": 2, "prompt": "a"}\n{"prompt": "b"}\n', "line 2: there is a prompt 2 already"),
        ('{"messages": [{"role": "user"}]}\n', "line 1: messages must be a list"),
    ],
)
def test_a_bad_prompt_file_is_one_line(tmp_path, content, error):
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(sd.InvalidArgumentError) as caught:
        study(tmp_path / "out", path)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_lines_end_with_line_feeds_alone(tmp_path):
    """A text may hold U+2028 and other ends of lines; a file may begin with a byte order mark."""
    path = tmp_path / "lines.jsonl"
    path.write_text('\ufeff{"prompt": "a\u2028b\x85c"}\r\n{"prompt": "d"}\n', newline="")
    assert [task.turns for task in own_prompts(path)] == [("a\u2028b\x85c",), ("d",)]


@pytest.mark.parametrize(
    "arguments,error",
    [
        (["-md", "manuals-draft"], "cannot draft for"),
        (["-m", "nothing.gguf"], "nothing.gguf: no such file"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0"),
        (["--limit", "0"], "--limit must be at least 1, not 0"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, prompts, arguments, error):
    with pytest.raises(sd.SpecdecError) as caught:
        study(tmp_path / "out", prompts, *arguments)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_one_line(tmp_path, prompts, monkeypatch):
    monkeypatch.setattr(command, "EXTRA", ("pandas", "no_such_package"))
    with pytest.raises(sd.InvalidArgumentError, match=r"no no_such_package\): pip install"):
        study(tmp_path / "out", prompts)


def test_the_command_line_knows_its_studies(capsys):
    assert command.main(["--help"]) == 0
    assert "mine" in capsys.readouterr().out
    with pytest.raises(sd.InvalidArgumentError, match="there is no study 'none'"):
        command.main(["none"])


# ---------------------------------------------------------------- figures


def row(task, method, speed, *, round_=0, tokens=(1, 2, 3), **more):
    base = {
        "pair": "p", "block": task, "task": task, "method": method, "baseline": "plain",
        "round": round_, "turn": 0, "exact": True, "token_ids": list(tokens), "error": "",
        "emitted": len(tokens), "tokens_per_second": speed, "total_ms": 1000 * len(tokens) / speed,
        "calibration_ms": 0.0, "drafted": 0, "accepted": 0, "rounds": 0,
        "plain_steps": len(tokens), "in_set": None, "candidate_acceptance": None,
        "candidate_positions": 0, "exclusive": True,
    }  # fmt: skip
    return {**base, **more}


def test_speed_ups_are_of_the_same_round_and_means_are_geometric():
    rows = [
        *(row("a", "plain", s, round_=i) for i, s in enumerate((10, 20, 40))),
        *(row("a", "x", s, round_=i) for i, s in enumerate((20, 40, 200))),  # 2, 2, 5
        row("b", "plain", 10), row("b", "x", 80),  # 8
    ]  # fmt: skip
    figures_ = dict(figures.by(figures.tidy(rows), "method"))[("x",)]
    assert figures_["speedup"] == pytest.approx(4.0)  # of 2 and 8
    assert (figures_["speedup_min"], figures_["speedup_max"]) == (2.0, 8.0)
    assert figures_["identical"] == (4, 4)


def test_counts_are_sums_and_not_means_of_ratios():
    rows = figures.tidy([
        row("a", "x", 10, drafted=10, accepted=1, rounds=2, plain_steps=1),
        row("b", "x", 10, drafted=2, accepted=2, rounds=1, plain_steps=0),
    ])  # fmt: skip
    found = figures.summary(rows)
    assert found["acceptance"] == pytest.approx(3 / 12)
    assert found["tokens_per_pass"] == pytest.approx(6 / 4)


def test_the_token_that_ends_an_answer_counts_as_given_by_a_pass():
    """Else plain decoding would have less than one token a pass, the less the shorter it is."""
    ended = row("a", "plain", 10, rounds=0, plain_steps=4, finish_reason="stop")
    assert figures.tokens_per_pass([ended]) == 1
    drafted = row("a", "x", 10, rounds=2, plain_steps=0, accepted=2, finish_reason="stop")
    assert figures.tokens_per_pass([drafted]) == 2


def test_other_tokens_are_found_and_end_with_exit_code_1(tmp_path, prompts, monkeypatch, capsys):
    real = OwnEngine.generate
    calls = []

    def lies(self, request):
        outcome = real(self, request)
        calls.append(1)
        if len(calls) == 25:
            import dataclasses

            return dataclasses.replace(outcome, token_ids=(*outcome.token_ids[:-1], 0))
        return outcome

    monkeypatch.setattr(OwnEngine, "generate", lies)
    rows = study(tmp_path / "out", prompts, code=1)
    assert sum(r["identical"] is False for r in rows) >= 1
    assert "emitted other tokens" in capsys.readouterr().err
    assert "**" in (tmp_path / "out" / "report.md").read_text().splitlines()[2]


def test_which_methods_must_emit_the_tokens_of_plain():
    published = Method("x", "model", verifier="topk_importance_published")
    standard = Method("x", "model", verifier="standard")
    assert not published.is_exact(0.0)
    assert standard.is_exact(0.0)
    assert not standard.is_exact(0.8)
    assert Method("x", "ngram").is_exact(0.8)
    assert not Method("x", engine="llama.cpp").is_exact(0.0)


def test_bandwidth_is_that_of_plain_runs(finished):
    row = {"drafter": "none", "engine": "specdec", "bytes_per_step": 2e9, "tokens_per_second": 10.0}
    rows = [row, {**row, "drafter": "ngram"}, {**row, "tokens_per_second": None}]
    assert figures.read_gb_s(rows) == [20.0]
    assert "Plain decoding read weights at" in (finished[0] / "report.md").read_text()


def test_errors_are_rows_and_the_report_tells_them(tmp_path):
    pair = Pair("pycode", str(sd.embedded().target))
    block = Block(pair, Task("long", ("x" * 4000,)), (plain(),), 4, 1)
    with Workbench([pair]) as bench:
        rows = [r for run in runner.run_block(bench, block, seed=0, common={}) for r in run]
    assert len(rows) == 1
    assert "context" in rows[0]["error"]
    assert rows[0]["emitted"] == 0
    parts = common_parts(figures.tidy(rows), 1, [])
    assert any("Without result" in part.text for part in parts)


def test_tables_survive_bars_in_cells(tmp_path):
    from specdec_native.studies.report import write

    table = Table("t", "T", ["a", "b"], [["x|y", "1"], ["2", "word " * 20]])
    rows = figures.tidy([row("a", "plain", 10)])
    write(tmp_path, Report("R", [Text("say `a` & **b**"), table]), rows)
    assert "| x\\|y | 1 |" in (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<tr><td>x|y</td><td class=text>1</td></tr>" in page  # a column of sentences breaks
    assert f"<td class=text>{'word ' * 20}</td>" in page
    assert "<code>a</code> &amp; <strong>b</strong>" in page


def test_an_engine_made_again_is_warmed_again(monkeypatch):
    monkeypatch.setattr(engines, "MOST_ENGINES", 1)
    pair = Pair("pycode", str(sd.embedded().target))
    request = engines.Request((1, 2, 3), 4, 0)
    with Workbench([pair]) as bench:
        warmed = []
        real = bench.engine
        monkeypatch.setattr(bench, "engine", lambda p, m: warmed.append(m.name) or real(p, m))
        for name in ("a", "a", "b", "a"):
            bench.warm_up(pair, Method(name), request)
    assert warmed == ["a", "b", "a"]


def test_the_lossy_verifier_does_not_warn_in_a_study(recwarn):
    shipped = sd.embedded()
    pair = Pair("pycode", str(shipped.target), str(shipped.draft))
    with Workbench([pair]) as bench:
        bench.engine(pair, Method("x", "model", verifier="topk_importance_published"))
    assert not recwarn.list


# ---------------------------------------------------------------- compare


def test_compare_returns_a_table():
    pair = sd.embedded()
    with sd.Model(pair.target) as model, sd.Model(pair.draft) as draft:
        found = sd.compare(model, PROMPTS, draft=draft, max_tokens=8, rounds=1)
        assert set(found.methods) == {"plain", "auto", "ngram", "suffix", "recycling", "model"}
        assert found.best in found.methods
        assert found.speedup >= 1.0
        assert all(f["identical"] == (3, 3) for n, f in found.methods.items() if n != "plain")
        assert str(found).count("\n") == 7
        assert "| ngram |" in str(found)
        assert len(found.to_pandas()) == len(found.rows) == 18
        named = sd.compare(
            model, PROMPTS[:1], {"short": sd.NGram(draft_max=2), "long": sd.NGram()},
            max_tokens=8, rounds=1, temperature=0.8,
        )  # fmt: skip
        assert set(named.methods) == {"plain", "short", "long"}
        given = sd.compare(
            model, PROMPTS[:1], [sd.NGram(3), "suffix", None], max_tokens=4, rounds=1
        )
        assert set(given.methods) == {"plain", "ngram(n=3)", "suffix"}
        with pytest.raises(sd.InvalidArgumentError, match="prompts"):
            sd.compare(model, "text")
        assert model.tokenize("a")  # still open
