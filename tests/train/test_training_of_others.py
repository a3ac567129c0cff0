"""Texts and states of another target: make_draft.py and make_head.py take none of them over."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import re

import pytest

import tiny_models
from in_process import run_script

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
ONLY_TEXT = ("--tokens", 1, "--answer-tokens", 8, "--text-only", "--threads", 1)


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def write_target(path, seed):
    return tiny_models.write_tiny(path, tiny_models.TinyConfig(n_layers=4), dtype="Q8_0", seed=seed)


def targets_of_one_name_and_size(folder):
    first, second = (write_target(folder / f"{seed}.gguf", seed) for seed in (1, 2))
    assert first.stat().st_size == second.stat().st_size
    assert first.read_bytes() != second.read_bytes()
    return first, second


@pytest.mark.parametrize("tool", ["make_draft.py", "make_head.py"])
def test_texts_of_other_weights_are_refused(tmp_path, tool):
    first, second = targets_of_one_name_and_size(tmp_path)
    data = tmp_path / "texts"

    def write(target):
        return run_script(TOOLS / tool, target, tmp_path / "x", "--data", data, *ONLY_TEXT)

    assert write(first).returncode == 0
    assert write(first).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*")}
    refused = write(second)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert re.search(r"data\.json: target's sha256 is '\w+', expected '\w+'.* --data$", line)
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*")} == before


def test_folders_of_texts_that_know_less_of_their_target_can_still_be_used(tmp_path):
    import draft_data
    from target_fingerprint import fingerprint
    from training_safety import ToolError

    ours = fingerprint(write_target(tmp_path / "target.gguf", 1))
    draft_data.Store(tmp_path / "texts", ours, {})
    meta = tmp_path / "texts" / "data.json"
    older = {key: value for key, value in ours.items() if key != "sha256"}
    meta.write_text(json.dumps({"target": older}))
    draft_data.Store(tmp_path / "texts", ours, {})
    for kept in (older | {"name": "another"}, older | {"sha256": None}, {}, None, [1]):
        meta.write_text(json.dumps({"target": kept}))
        with pytest.raises(ToolError, match=r"data\.json: target.* give another --data"):
            draft_data.Store(tmp_path / "texts", ours, {})


@dataclasses.dataclass
class Shape:
    size: int


def test_a_state_for_other_weights_is_refused(tmp_path):
    import torch

    import training_job
    from target_fingerprint import fingerprint
    from training_safety import ToolError

    ours, other = map(fingerprint, targets_of_one_name_and_size(tmp_path))
    path = tmp_path / "x.state"

    class Training:
        module = torch.nn.Linear(2, 2)
        n_steps, epoch = 1, 0.5

        def run(self, *_):
            pass

        def state(self):
            return {"shape": {"size": 3}}

    training_job.keep_training(Training(), path, ours, lambda: None, str)
    assert training_job.load_state(path, Shape(3), ours)["shape"] == {"size": 3}
    with pytest.raises(ToolError, match=r"x\.state: is of a target with other weights; give that"):
        training_job.load_state(path, Shape(3), other)
    older = torch.load(path, weights_only=True)
    del older["target"]
    torch.save(older, path)
    assert training_job.load_state(path, Shape(3), ours) == older
