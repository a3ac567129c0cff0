"""EAGLE-3 heads on the command line."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import pytest

import eagle_reference
import tiny_models
from helpers import specdec_binary


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("eagle")
    config = tiny_models.TinyConfig(n_layers=4)
    head = eagle_reference.head_for(config)
    return (
        tiny_models.write_tiny(folder / "target.gguf", config, seed=3),
        eagle_reference.write_eagle3(folder / "head.gguf", head, config, seed=4),
    )


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [specdec_binary(), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def generated(*arguments: object) -> dict[str, Any]:
    done = run("generate", "-p", "the cat in the hat", "-n", 24, "-t", 1, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_head_drafts_the_same_text(files: tuple[pathlib.Path, pathlib.Path]) -> None:
    target, head = files
    plain = generated("-m", target, "--drafter", "none")
    for drafter in ("eagle", "model", "auto", "eagle,ngram"):
        found = generated("-m", target, "-md", head, "--drafter", drafter)
        assert found["text"] == plain["text"], drafter
        if drafter in ("eagle", "model"):
            assert found["stats"]["drafted"] > 0


def test_a_head_is_described_and_refused_by_name(
    files: tuple[pathlib.Path, pathlib.Path],
) -> None:
    target, head = files
    done = run("inspect", head)
    assert done.returncode == 0, done.stderr
    assert "eagle3" in done.stdout
    done = run("generate", "-m", head, "-p", "a")
    assert done.returncode != 0
    assert "says nothing by itself" in done.stderr
    done = run("generate", "-m", target, "-md", target, "--drafter", "eagle", "-p", "a")
    assert done.returncode != 0
    assert "is a model, and drafter 'eagle' needs a head" in done.stderr


def test_a_head_is_refused_by_bench_before_it_measures(
    files: tuple[pathlib.Path, pathlib.Path],
) -> None:
    target, head = files
    done = run("bench", "-m", target, "-md", head, "--rows", 1, "--ctx", 4, "--rounds", 1)
    assert done.returncode == 4
    assert done.stdout == ""
    assert f"{head} is a head, which has no passes of its own to time" in done.stderr
    assert "leave out -md" in done.stderr
