"""`specdec` with the block of a file that predicts further tokens."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import pytest

import mtp_reference as mtp
import tiny_models
from helpers import specdec_binary

CONFIG = mtp.MtpConfig(tiny_models.FAMILIES["qwen35"])
PROMPT = "the cat in the hat sat on the mat and "


def run(*args: Any) -> Any:
    return subprocess.run(
        [specdec_binary(), *map(str, args)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("mtp")
    alone = mtp.write_mtp(folder / "mtp.gguf", CONFIG, alone=True)
    return mtp.write_mtp(folder / "model.gguf", CONFIG), alone


def test_text_is_that_of_plain_decoding(files: tuple[pathlib.Path, pathlib.Path]) -> None:
    model, alone = files
    common = ["generate", "-m", model, "-p", PROMPT, "-n", 40, "--json", "--ignore-eos"]
    plain = json.loads(run(*common, "--drafter", "none").stdout)
    for options in (["--drafter", "mtp"], ["-md", alone, "--drafter", "mtp"], ["-md", alone], [],
                    ["--drafter", "mtp,ngram"],
                    ["--drafter", "mtp", "--draft-head", 16, "--gamma", 2]):  # fmt: skip
        done = run(*common, *options)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["text"] == plain["text"]
        if options[:2] == ["--drafter", "mtp"]:
            assert found["stats"]["drafted"] > 0


def test_files_without_the_block_are_refused(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "plain.gguf", CONFIG.target)
    done = run("generate", "-m", path, "--drafter", "mtp", "-p", "a")
    assert done.returncode == 3
    assert "there is no block that predicts further tokens" in done.stderr


def test_families_without_such_blocks_are_named(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "plain.gguf", seed=1)
    done = run("generate", "-m", path, "--drafter", "mtp", "-p", "a")
    assert done.returncode == 4
    assert "no block that predicts further tokens: models of architecture 'llama'" in done.stderr
    assert "use another drafter" in done.stderr
    assert "nextn_predict_layers" not in done.stderr
    extra = {"llama.nextn_predict_layers": 1, "llama.block_count": 3}
    path = tiny_models.write_tiny(tmp_path / "more.gguf", seed=1, extra=extra)
    done = run("generate", "-m", path, "--drafter", "mtp", "-p", "a")
    assert done.returncode != 0
    assert "key 'llama.nextn_predict_layers'" in done.stderr


@pytest.mark.parametrize("drafter", ["mtp,model", "eagle,model", "eagle,mtp,ngram"])
@pytest.mark.parametrize("which", [0, 1])
def test_two_that_run_a_model_are_refused(
    files: tuple[pathlib.Path, pathlib.Path], drafter: str, which: int
) -> None:
    done = run("generate", "-m", files[0], "-md", files[which], "--drafter", drafter, "-p", "a")
    assert done.returncode == 2
    assert "drafts with one model or one head, not with both" in done.stderr
