"""Offline work: the same bytes whatever happens in between."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from fake_ray import FakeRay  # noqa: E402
from specdec_native import cli  # noqa: E402
from specdec_native.batch.command import Work  # noqa: E402
from specdec_native.batch.lines import options_in_files  # noqa: E402
from specdec_native.batch.run import Setup  # noqa: E402

TEMPLATE = ("--chat-template", "chatml")


def entries():
    made = []
    for i in range(40):
        asked = {"prompt": f"the cat number {i}", "id": f"q{i}", "max_tokens": 10 + i % 7}
        if i % 5 == 1:
            asked["temperature"] = 1.0
        if i % 5 == 2:
            asked = {"messages": [{"role": "user", "content": f"hat {i}"}], "max_tokens": 8}
        if i % 5 == 3:
            asked |= {"seed": 9, "temperature": 0.5, "logprobs": 1, "stop": "e"}
        made.append(asked)
    made[7] = {"prompt": "x", "temprature": 1}
    made[8] = {"nothing": 1}
    made[9] = {"prompt": "x" * 9000, "id": [1, None]}
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("batch") / "in.jsonl"
    lines = [json.dumps(entry) for entry in entries()]
    lines.insert(3, "{broken")
    lines.insert(5, "")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def batch(model, source, output, *options):
    arguments = [str(model), str(source), str(output), "-c", "512", *TEMPLATE, "-q", *options]
    return cli.main(["batch", *arguments])


@pytest.fixture(scope="module")
def expected(tiny_path, source, tmp_path_factory):
    output = tmp_path_factory.mktemp("batch") / "out.jsonl"
    assert batch(tiny_path, source, output) == 0
    return output.read_bytes()


def test_every_line_is_what_it_is_alone(tiny, expected):
    told = [json.loads(line) for line in expected.splitlines()]
    assert [entry["line"] for entry in told] == list(range(41))
    assert "no JSON object" in told[3]["error"]["message"]
    asked = entries()
    asked.insert(3, None)
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        for i, (entry, answer) in enumerate(zip(asked, told, strict=True)):
            if entry is None:
                continue
            assert answer["id"] == entry.pop("id", None)
            if "error" in answer:
                assert i in (8, 9, 10)
                continue
            options = {"seed": i, **entry}
            if "prompt" in options:
                alone = decoder.generate(options.pop("prompt"), **options)
            else:
                alone = decoder.chat(options.pop("messages"), template="chatml", **options)
            assert answer["text"] == alone.text
            assert answer["completion_tokens"] == len(alone.token_ids)
    messages = [answer["error"]["message"] for answer in told if "error" in answer]
    assert "temprature: no such option" in messages[1]
    assert "either prompt or messages" in messages[2]
    assert "context" in messages[3]


def test_drafts_and_company_do_not_change_a_byte(tiny_path, tiny_draft_path, source, tmp_path,
                                                 expected):  # fmt: skip
    for i, options in enumerate((["-md", str(tiny_draft_path), "--max-requests", "3"],
                                 ["--drafter", "none", "--max-requests", "1"])):  # fmt: skip
        output = tmp_path / f"{i}.jsonl"
        assert batch(tiny_path, source, output, *options) == 0
        assert output.read_bytes() == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_was_stopped_goes_on(tiny_path, source, tmp_path, expected, number):
    output = tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    arguments = [str(tiny_path), str(source), str(output), "-c", "512", *TEMPLATE]
    command = [sys.executable, "-m", "specdec_native", "batch", *arguments, "--max-requests", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if partial.exists() and partial.read_bytes().count(b"\n") >= 5:
            process.send_signal(number)
            break
        time.sleep(0.002)
    process.wait(60)
    if not output.exists():  # else it was faster
        kept = partial.read_bytes()
        assert expected.startswith(kept[: kept.rfind(b"\n") + 1])
        with partial.open("ab") as file:
            file.write(b'{"line": 99, "te')  # as if it had died while it wrote
        with pytest.raises(sd.InvalidArgumentError, match="another input"):
            raise_from_batch(tiny_path, source, output, "-n", "3")
        assert batch(tiny_path, source, output) == 0
    assert output.read_bytes() == expected
    assert not partial.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def raise_from_batch(model, source, output, *options):
    from specdec_native.batch import command

    command.main([str(model), str(source), str(output), "-c", "512", *TEMPLATE, *options])


def test_a_finished_output_is_not_replaced(tiny_path, source, tmp_path, capfd):
    output = tmp_path / "out.jsonl"
    output.write_text("mine")
    assert batch(tiny_path, source, output) == 2
    assert "--restart replaces it" in capfd.readouterr().err
    assert output.read_text() == "mine"


@pytest.mark.parametrize("name", ["same.jsonl", "x.partial", "x.partial.json"])
def test_the_input_is_never_overwritten(tiny_path, tmp_path, name, capfd):
    source = tmp_path / name
    source.write_text('{"prompt": "a", "max_tokens": 1}\n')
    output = tmp_path / name.partition(".partial")[0]
    assert batch(tiny_path, source, output, "--restart") == 2
    assert "is the input" in capfd.readouterr().err
    assert source.read_text() == '{"prompt": "a", "max_tokens": 1}\n'


def test_two_runs_do_not_write_one_output(tmp_path):
    output = tmp_path / "out.jsonl"
    first = Work(output, {"a": 1}, restart=False)
    first.add(b"one\n")
    for restart in (False, True):
        with pytest.raises(sd.InvalidArgumentError, match="another run is writing"):
            Work(output, {"a": 1}, restart=restart)
    first.add(b"two\n")
    first.finish()
    assert output.read_bytes() == b"one\ntwo\n"


def test_what_is_no_file_is_not_replaced(tiny_path, source, tmp_path, capfd):
    for output in (tmp_path, "/dev/null"):
        assert batch(tiny_path, source, output, "--restart") == 2
        assert "is no regular file" in capfd.readouterr().err


HOSTILE = [
    *({"prompt": value} for value in (None, 5, {}, [], "", ["a"], [1e999], [True], "\x00")),
    *({"messages": value} for value in (None, 5, {}, [], "x", [5], [{}], [{"role": 1}])),
    *({"messages": [{"role": "user", "content": value}]} for value in (5, {}, [5], [{}])),
    *(
        {"messages": [{"role": "user", "content": "x"}], name: value}
        for name in ("tools", "template", "template_args")
        for value in (5, "x", [1], {"a": 1}, "")
    ),
    *(
        {"prompt": "x", name: value}
        for name in sorted(options_in_files(sd.Engine.submit))
        for value in (-5, "x", [None], {"a": "b"}, 1e999)
    ),
    *({"prompt": "x", name: 1} for name in ("self", "params", "grammar", "on_round", "", "\x00")),
]


def test_no_line_ends_the_run(tiny_path, tmp_path):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps({"max_tokens": 1, **entry}).encode() for entry in HOSTILE]
    lines = [line.replace(b"Infinity", b"1e999") for line in lines]
    lines += [b"\xff", b'{"id": NaN, "prompt": "a"}', b'{"id": "\\ud800", "prompt": "a"}']
    # With a mark at the beginning, and none at the end.
    source.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    assert batch(tiny_path, source, output) == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    told = [json.loads(line, parse_constant=refuse) for line in output.read_bytes().splitlines()]
    assert [entry["line"] for entry in told] == list(range(len(lines)))
    assert told[-1]["id"] == "\ud800"
    assert "NaN is no JSON number" in told[-2]["error"]["message"]
    assert "prompt" in told[0]["error"]["message"]


def test_templates_are_files_or_names_that_mean_something(tiny_path, tmp_path, capfd):
    source = tmp_path / "in.jsonl"
    source.write_text('{"messages": [{"role": "user", "content": "cat"}], "max_tokens": 5}\n')
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }} hat")
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "cat hat", "max_tokens": 5}\n')

    def run(given, chosen):
        output = tmp_path / "out.jsonl"
        arguments = [str(tiny_path), str(given), str(output), "-q", "--restart"]
        code = cli.main(["batch", *arguments, "--chat-template", str(chosen)])
        return code, output.read_text() if output.exists() else ""

    expected = run(plain, "chatml")
    assert expected[0] == 0
    assert run(source, template) == expected
    assert run(source, "{{ messages[0].content }} hat" + "{# long #}" * 40) == expected
    assert run(source, tmp_path / "missing.jinja")[0] == 2
    assert "is no chat template" in capfd.readouterr().err


def test_a_cluster_gives_the_same_bytes(tiny_path, source, tmp_path, expected, monkeypatch):
    ray = FakeRay(dies=(1, 4, 7))
    monkeypatch.setitem(sys.modules, "ray", ray)
    output = tmp_path / "out.jsonl"
    assert batch(tiny_path, source, output, "--ray", "local", "-t", "1") == 0
    assert output.read_bytes() == expected
    assert not ray.up
    assert ray.n_workers == 2 + 3


def test_workers_are_as_large_as_the_smallest_node(tiny_path, source, tmp_path, monkeypatch,
                                                   capfd):  # fmt: skip
    make, seen = Setup.make_engine, []

    def make_smaller(setup):  # more threads than cores would wait for each other
        seen.append(setup.loading["n_threads"])
        return make(dataclasses.replace(setup, loading={**setup.loading, "n_threads": 1}))

    monkeypatch.setattr(Setup, "make_engine", make_smaller)
    for options, n_threads, n_workers in (((), 2, 5), (("-t", "4"), 4, 2), (("-t", "1"), 1, 11)):
        seen.clear()
        ray = FakeRay(cores=(4, 2, 5))
        monkeypatch.setitem(sys.modules, "ray", ray)
        output = tmp_path / "out.jsonl"
        assert batch(tiny_path, source, output, "--ray", "local", "--restart", *options) == 0
        assert ray.n_workers == n_workers
        assert set(seen) == {n_threads}
    assert batch(tiny_path, source, output, "--ray", "local", "--restart", "-t", "6") == 2
    assert "expected at most 5" in capfd.readouterr().err


@pytest.mark.parametrize(
    "dies,said", [(range(1, 99), "before they have loaded"), ((3, 5, 7), "over the same task")]
)
def test_workers_that_go_on_dying_end_the_run(tiny_path, source, tmp_path, monkeypatch, capfd, dies,
                                              said):  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", FakeRay(dies=dies, cores=(1,)))
    output = tmp_path / "out.jsonl"
    assert batch(tiny_path, source, output, "--ray", "local", "-t", "1") == 5
    assert said in capfd.readouterr().err


def test_what_is_wrong_with_the_model_is_said_as_without_a_cluster(source, tmp_path, monkeypatch,
                                                                   capfd):  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", FakeRay())
    model = tmp_path / "model.gguf"
    model.write_bytes(b"nothing")
    assert batch(model, source, tmp_path / "out.jsonl", "--ray", "local") == 3
    assert "model.gguf" in capfd.readouterr().err


def test_without_ray_it_says_what_to_install(tiny_path, source, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert batch(tiny_path, source, tmp_path / "out.jsonl", "--ray", "local") == 2
    assert "pip install 'specdec-native[ray]'" in capfd.readouterr().err


def test_models_by_name_bring_the_draft_that_suits():
    import argparse

    from specdec_native._engine_options import add_engine_options, model_paths

    parser = argparse.ArgumentParser()
    add_engine_options(parser)

    def paths(*arguments):
        return model_paths(parser.parse_args(arguments))

    pair = sd.embedded("pycode")
    assert paths("pycode") == (str(pair.target), str(pair.draft))
    assert paths("pycode", "--drafter", "auto") == (str(pair.target), str(pair.draft))
    assert paths("pycode", "-md", "none") == (str(pair.target), None)
    assert paths("pycode", "--drafter", "ngram") == (str(pair.target), None)
    assert paths(str(pair.target)) == (str(pair.target), None)
    assert paths(str(pair.target), "-md", "pycode-draft") == (str(pair.target), str(pair.draft))
    with pytest.raises(sd.InvalidArgumentError, match="there is no model 'nothing'"):
        paths("nothing")
