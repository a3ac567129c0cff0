"""The study `adversarial`: useless drafts are valid files, and counts and times add up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from test_studies import row

import specdec_native as sd
import tiny_models
from specdec_native.studies import adversarial, command
from specdec_native.studies.engines import OwnEngine
from specdec_native.studies.figures import tidy

gguf = pytest.importorskip("gguf")
pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


def study(folder, *more, code=0):
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "def add(a, b):\\n    "}\n{"prompt": "import os\\n"}\n')
    arguments = ["adversarial", str(prompts), "-m", "pycode", "-md", "pycode-draft", "-n", "10"]
    arguments += ["--out", str(folder / "out"), "--rounds", "1", "--limit", "4", "-q", *more]
    assert command.main(arguments) == code
    lines = (folder / "out" / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_shuffled_weights_are_the_same_blocks_in_another_order(tmp_path):
    model = tiny_models.write_tiny(tmp_path / "tiny.gguf", dtype="Q8_0", seed=1)
    out = tmp_path / "new" / "shuffled.gguf"
    adversarial.shuffle_weights(model, out)
    assert out.stat().st_size == model.stat().st_size
    moved = 0
    for a, b in zip(gguf.GGUFReader(model).tensors, gguf.GGUFReader(out).tensors, strict=True):
        assert (a.name, a.tensor_type) == (b.name, b.tensor_type)
        same = np.array_equal(a.data, b.data)
        assert same == (len(a.shape) < 2), a.name
        moved += not same
        assert sorted(np.asarray(a.data).tobytes()) == sorted(np.asarray(b.data).tobytes())
    assert moved > 0
    assert [path.name for path in out.parent.iterdir()] == ["shuffled.gguf"]


@pytest.mark.usefixtures("rendered")
def test_the_useless_draft_is_used_alone_and_in_turn_with_the_real_one(tmp_path):
    rows = study(tmp_path, "--attacked", "model:3")
    assert all(r["identical"] is True for r in rows if r["method"] == "model:3")
    own = [r for r in rows if r["method"] == "model:3"]
    by_case = {
        case: [(r["request"], r["pair"].endswith(", shuffled"), r["accepted"]) for r in own
               if r["case"] == case]
        for case in (adversarial.USELESS, adversarial.IN_TURN)
    }  # fmt: skip
    assert [x[:2] for x in by_case[adversarial.USELESS]] == [(i, True) for i in (1, 2, 3, 4)]
    assert [x[:2] for x in by_case[adversarial.IN_TURN]] == [
        (1, False), (2, True), (3, False), (4, True),
    ]  # fmt: skip
    useless = sum(x[2] for x in by_case[adversarial.USELESS])
    real = sum(x[2] for x in by_case[adversarial.IN_TURN] if not x[1])
    assert real > useless
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| shuffled weights | 4 |" in page
    assert "| real and shuffled in turn | 4 |" in page
    assert study(tmp_path, "--attacked", "model:3") == rows  # goes on with the file that is there


def test_other_tokens_end_with_exit_code_1(tmp_path, monkeypatch):
    import dataclasses

    real = OwnEngine.generate
    calls = []

    def lies(self, request):
        outcome = real(self, request)
        calls.append(1)
        if len(calls) == 9:
            return dataclasses.replace(outcome, token_ids=(*outcome.token_ids[:-1], 0))
        return outcome

    monkeypatch.setattr(OwnEngine, "generate", lies)
    rows = study(tmp_path, code=1)
    assert any(r["identical"] is False for r in rows)


def test_only_a_method_with_a_draft_model_can_be_attacked(tmp_path):
    with pytest.raises(sd.InvalidArgumentError, match="--attacked must be a method with a draft"):
        study(tmp_path, "--attacked", "ngram")
    with pytest.raises(sd.InvalidArgumentError, match="needs a draft model"):
        command.main(["adversarial", "x", "-m", "pycode", "--out", str(tmp_path), "-q"])
    assert not (tmp_path / "out").exists()


def request(case, number, round_, plain_ms, own_ms, drafted, accepted):
    shared = {"case": case, "request": number, "temperature": 0.0}
    task = f"{case} {number}"
    return [
        {**row(task, "plain", 1000 * 3 / plain_ms, round_=round_), **shared, "decode_ms": plain_ms},
        {**row(task, "auto", 1000 * 3 / own_ms, round_=round_), **shared, "decode_ms": own_ms,
         "drafted": drafted, "accepted": accepted},
    ]  # fmt: skip


def test_times_and_counts_of_requests_add_up():
    rows = tidy([
        *request("a", 1, 0, 100.0, 110.0, 3, 1), *request("a", 1, 1, 100.0, 130.0, 4, 2),
        *request("a", 2, 0, 300.0, 270.0, 8, 5), *request("b", 1, 0, 10.0, 20.0, 1, 0),
    ])  # fmt: skip
    cases = adversarial.cases_of(rows)
    assert cases["a"]["total"] == pytest.approx(510 / 500)
    assert cases["a"]["ratios"] == {1: pytest.approx(1.2), 2: pytest.approx(0.9)}
    assert (cases["a"]["drafted"], cases["a"]["accepted"]) == (15, 8)
    assert cases["b"]["ratios"] == {1: pytest.approx(2.0)}
    table = adversarial._table(cases, "s")
    assert table.rows[0] == ["a", "2", "1.020", "1.050", "1.200", "8/15", "53.3 %", "3/3"]
