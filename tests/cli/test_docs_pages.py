"""What the documents show of the programs is what the programs say."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from helpers import specdec_binary

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gen_cli_pages  # noqa: E402

PARTS = re.split(r"^(?=## )", gen_cli_pages.PAGE.read_text("utf-8"), flags=re.MULTILINE)


def test_the_page_of_commands_shows_the_help_of_the_native_program() -> None:
    made = re.split(r"^(?=## )", gen_cli_pages.page([specdec_binary()]), flags=re.MULTILINE)
    assert [part.splitlines()[0] for part in made] == [part.splitlines()[0] for part in PARTS]
    assert made[1] == PARTS[1], "run python tools/gen_cli_pages.py"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse prints flags another way")
def test_the_page_of_commands_shows_the_help_of_specdec_native() -> None:
    made = gen_cli_pages.page([specdec_binary()])
    assert made == gen_cli_pages.PAGE.read_text("utf-8"), "run python tools/gen_cli_pages.py"


def test_the_diagrams_are_what_their_tool_draws() -> None:
    command = [sys.executable, ROOT / "tools" / "draw_diagrams.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
