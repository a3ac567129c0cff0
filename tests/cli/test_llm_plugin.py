"""The plugin of the `llm` command, through its own command line."""

from __future__ import annotations

import json

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
llm = pytest.importorskip("llm", reason="llm is not installed")
testing = pytest.importorskip("click.testing")

from llm.plugins import load_plugins, pm  # noqa: E402

from specdec_native import llm_plugin  # noqa: E402


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    load_plugins()  # an installed package's own entry point
    if not pm.is_registered(llm_plugin):
        pm.register(llm_plugin, name="specdec-test")
    from llm.cli import cli  # asks the plugins for their commands when it is imported

    def call(*arguments, text=None):
        done = testing.CliRunner().invoke(cli, list(arguments), input=text)
        return done.exit_code, done.output

    return call


def test_models_of_the_package_are_there(run):
    code, text = run("models", "list")
    assert code == 0
    for name in ("pycode", "manuals", "smollm2"):
        assert f": {name}\n" in text


def test_an_added_model_answers_and_goes_on(run, tiny, tiny_path, tiny_draft_path):
    code, text = run("specdec", "add", str(tiny_path), "--name", "mine",
                     "--draft", str(tiny_draft_path))  # fmt: skip
    assert (code, text) == (0, "")
    model = llm.get_model("mine")
    with sd.Decoder(tiny, drafter=None) as decoder:
        messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "the cat"}]
        first = decoder.chat(messages, max_tokens=12).text
        messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "more"}]
        second = decoder.chat(messages, max_tokens=12, temperature=1.0, seed=3).text
    conversation = model.conversation()
    answer = conversation.prompt("the cat", system="be", max_tokens=12)
    assert "".join(answer) == first
    assert answer.usage().output > 0
    assert answer.response_json["speculation"]["emitted"] > 0
    answer = conversation.prompt("more", max_tokens=12, temperature=1.0, seed=3)
    assert answer.text() == second
    assert run("specdec", "remove", "mine")[0] == 0
    code, text = run("specdec", "remove", "mine")
    assert code == 1
    assert "no model 'mine'" in text


def test_a_named_model_is_added_with_its_draft(run, tmp_path):
    assert run("specdec", "add", "pycode", "--name", "mine")[0] == 0
    pair = sd.embedded("pycode")
    entry = json.loads((tmp_path / "specdec-native.json").read_text())["mine"]
    assert entry == {"model": str(pair.target), "draft": str(pair.draft)}


def test_schemas_are_followed(run, tiny_path):
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    run("specdec", "add", str(tiny_path), "--name", "mine")
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9,
              "minimum": 0}}, "required": ["n"], "additionalProperties": False}  # fmt: skip
    answer = llm.get_model("mine").prompt("a number", schema=schema, temperature=1.0, seed=1)
    assert 0 <= json.loads(answer.text())["n"] <= 9


def test_errors_are_one_line(run, tmp_path):
    code, text = run("specdec", "add", "nothing", "--name", "x")
    assert code == 1
    assert "there is no model 'nothing'" in text
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nothing")
    run("specdec", "add", str(broken), "--name", "broken")
    code, text = run("-m", "broken", "hello")
    assert code == 1
    assert "Traceback" not in text
