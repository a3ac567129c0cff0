"""Prompts of files for make_draft.py and make_head.py: what is no prompt is said at the start."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

import tiny_models
from in_process import run_script

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}<a>"


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def write_target(path, chat):
    config = tiny_models.TinyConfig(n_layers=4, context_length=256)
    extra = {"tokenizer.chat_template": TEMPLATE} if chat else {}
    return tiny_models.write_tiny(path, config, extra=extra)


@pytest.mark.parametrize(
    ("name", "content", "more", "text"),
    [
        ("e.txt", "", (), "has no prompts; give another file"),
        ("e.jsonl", "\n\n", (), "has no prompts; give another file"),
        ("e.jsonl", '{"prompt": ""}', (), "none has 1 to 159 tokens; give other prompts"),
        ("e.txt", "the " * 400, (), "none has 1 to 159 tokens; give other prompts"),
        ("e.txt", "the", ("--eval-tokens", 256), "--eval-tokens 256: leaves no room for --eval"),
    ],
)
@pytest.mark.parametrize("tool", ["make_draft.py", "make_head.py"])
def test_prompts_that_cannot_be_measured_are_refused_before_text_is_written(
    tmp_path, tool, name, content, more, text
):
    target, prompts = write_target(tmp_path / "target.gguf", chat=False), tmp_path / name
    with sd.Model(target) as model:
        assert model.tokenize("") == []
    prompts.write_text(content)
    before = sorted(tmp_path.iterdir())
    done = run_script(TOOLS / tool, target, tmp_path / "x.gguf", "--eval", prompts, *more)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{tool}: --eval")
    assert text in line
    assert "--eval-tokens" in line or str(prompts) in line
    assert sorted(tmp_path.iterdir()) == before


def test_prompts_that_do_not_fit_are_left_out_and_others_take_their_place(tmp_path):
    from draft_prompts import fitting_prompts

    path = tmp_path / "e.jsonl"
    texts = ["", "in", "the " * 99, "b"]
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    said = []
    with sd.Model(write_target(tmp_path / "target.gguf", chat=False)) as model:
        found = fitting_prompts(model, path, "--eval", 20, said.append)
        assert sorted(found) == sorted(map(model.tokenize, ("in", "b")))
    assert said == ["--eval: 2 of 4 prompts; the others are empty or of more than 20 tokens"]


BAD_LINES = [
    ('{"prompt": null}', "`prompt` is null, expected text"),
    ('{"prompt": ["a"]}', '`prompt` is ["a"], expected text'),
    ('{"turns": "abc"}', '`turns` is "abc", expected texts in a list'),
    ('{"turns": []}', "`turns` is [], expected texts"),
    ('{"turns": [null, "b"]}', "`turns`: the first is null, expected text"),
    ('{"messages": {"role": "user"}}', "`messages` is {"),
    ('{"messages": []}', "`messages` is [], expected objects in a list"),
    ('{"messages": ["a"]}', ""),
    ('{"text": "a"}', "has none of these"),
    ('["prompt"]', 'is ["prompt"]'),
    ("null", "is null"),
    ("[" * 100_000, "is nested too deeply"),
    ('{"prompt": "a"', "delimiter"),
]


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(("line", "text"), BAD_LINES, ids=[line[:30] for line, _ in BAD_LINES])
def test_what_is_no_prompt_is_named_with_file_and_line(tmp_path, line, text, chat):
    from draft_prompts import file_prompts
    from training_safety import ToolError

    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"turns": ["in the", "b"]}) + "\n\n" + line + "\n")
    with sd.Model(write_target(tmp_path / "target.gguf", chat)) as model:
        with pytest.raises(ToolError) as found:
            file_prompts(model, path, "--prompts")
    message = str(found.value)
    assert message.startswith(f"--prompts {path}: line 3: ")
    assert text in message
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 300


@pytest.mark.parametrize("chat", [True, False])
def test_every_form_of_a_prompt_is_read(tmp_path, chat):
    from draft_prompts import file_prompts

    path = tmp_path / "mine.jsonl"
    one = {"role": "user", "content": "in"}
    records = ({"prompt": "in"}, {"turns": ["in", "b"]}, {"messages": [one]})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    with sd.Model(write_target(tmp_path / "target.gguf", chat)) as model:
        expected = model.tokenize("<user>in</><a>" if chat else "in")
        assert file_prompts(model, path) == [expected] * 3
