"""README's shell block works as printed, line by line in a fresh shell."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from helpers import model_path, specdec_binary

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def shell_block() -> list[str]:
    found = re.search(r"## From the shell\n\n```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1].splitlines()


def run_lines(lines: list[str], folder: pathlib.Path) -> dict[str, str]:
    """What each line printed; every one must succeed. Nobody types: standard input is empty."""
    shutil.copy(ROOT / "README.md", folder)
    beside = str(pathlib.Path(specdec_binary()).parent)
    variables = {**os.environ, "PATH": beside + os.pathsep + os.environ["PATH"]}
    printed: dict[str, str] = {}
    assigned: list[str] = []
    for line in lines:
        script = "\n".join(["set -eu", *assigned, line])
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout[-300:], done.stderr[-600:])
        if re.match(r"\w+=", line):
            assigned.append(line)
        printed[line.split("#")[0].strip()] = done.stdout
    return printed


def check_printed(printed: dict[str, str]) -> None:
    by_command = {line.split()[1]: text for line, text in printed.items() if "=" not in line}
    assert len(by_command["generate"]) > 100
    assert "pair            yes:" in by_command["inspect"]
    assert "perplexity " in by_command["perplexity"]


def test_every_line_of_the_block_works_as_printed(tmp_path: pathlib.Path) -> None:
    model_path("SmolLM2-135M-Instruct.Q4_1.gguf")  # nothing is downloaded in a test
    printed = run_lines(shell_block(), tmp_path)
    check_printed(printed)
    assert (tmp_path / "smaller.gguf").stat().st_size > 50e6


def test_every_line_works_with_the_models_of_the_package(tmp_path: pathlib.Path) -> None:
    """As printed but for the model, which is no chat model."""
    lines = [line.replace("smollm2", "pycode") for line in shell_block() if " chat " not in line]
    assert len(lines) == len(shell_block()) - 1
    check_printed(run_lines(lines, tmp_path))


@pytest.mark.parametrize("command", ["chat", "generate", "inspect", "quantize", "perplexity"])
def test_the_block_shows_every_command(command: str) -> None:
    assert any(line.startswith(f"specdec {command} ") for line in shell_block())
