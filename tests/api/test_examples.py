"""Every example runs as it stands, on the models of the package; so do the notebooks' cells."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from helpers import specdec_binary

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
# A line of the output that shows that the example did what it is for.
SHOWS = {
    "generate": "plain decoding gave the same tokens: True",
    "chat": r"\[.* tokens/s.*; [1-9]\d* tokens not read again\]",
    "which_drafter": r"\| suffix \|.*\| 2/2 \|",
    "rounds": r" model +'.*' right, '.*' wrong; then '.*' \((bonus|correction)\)",
    "structured": r'"genre": "(comedy|drama|documentary)"',
    "many_users": r"--- \d+ rows in \d+ passes of the model",
    "many_prompts": r"-\d+\.\d\d  def set_path\('",
    "kept_prompt": r"[1-9]\d\d tokens were not read again",
    "memory": r"the same tokens: True\n.*\nagain: \d+ tokens in \d passes",
    "openai_client": "usage: 40 tokens written",
    "editor": "def mean",
}
NEEDS = {
    "structured": ["llguidance"],
    "openai_client": ["openai", "uvicorn", "starlette"],
    "editor": ["uvicorn", "starlette"],
}
ARGUMENTS = {
    "chat": [
        *("--model", "pycode", "--template", "chatml", "--max-tokens", "8"),
        *("a = 1", "b = 2"),
    ],
}


def environment(folder: pathlib.Path) -> dict[str, str]:
    beside = str(pathlib.Path(specdec_binary()).parent)
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), beside, os.environ["PATH"]])
    # Nothing may be fetched, and nothing left beside the examples.
    return {**os.environ, "PATH": path, "SPECDEC_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def run(command: list[object], folder: pathlib.Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-1500:]
    return done.stdout


def need(packages: list[str]) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize("name", SHOWS)
def test_the_example_runs_and_shows_what_it_says(name: str, tmp_path: pathlib.Path) -> None:
    need(NEEDS.get(name, []))
    printed = run([sys.executable, EXAMPLES / f"{name}.py", *ARGUMENTS.get(name, [])], tmp_path)
    assert re.search(SHOWS[name], printed), printed[-2000:]
    assert not list(tmp_path.iterdir())


def test_the_commands_run(tmp_path: pathlib.Path) -> None:
    printed = run(["bash", EXAMPLES / "commands.sh"], tmp_path)
    for shown in (r"pair +yes", r'\{"x":? ?', r"perplexity \d", r"rows +median ms"):
        assert re.search(shown, printed), (shown, printed[-3000:])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["first_steps", "how_it_pays"])
def test_the_cells_of_the_notebook_run(name: str, tmp_path: pathlib.Path) -> None:
    if name == "how_it_pays":
        need(["matplotlib"])
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert len(cells) >= 5
    assert not any(c.get("outputs") for c in notebook["cells"])  # kept small
    script = tmp_path / "cells.py"
    script.write_text("import matplotlib\nmatplotlib.use('agg')\n" * (name == "how_it_pays"))
    with script.open("a", encoding="utf-8") as file:
        file.write("\n\n".join(cells))
    printed = run([sys.executable, script], tmp_path)
    assert "pass" in printed or "tokens per round" in printed


def test_the_list_names_every_example() -> None:
    listed = set(re.findall(r"\]\(([\w.]+)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    there = {p.name for p in EXAMPLES.iterdir() if p.suffix in (".py", ".sh", ".ipynb")}
    assert listed == there - {"local_server.py"}
    tested = {f"{name}.py" for name in SHOWS}
    assert tested == {n for n in listed if n.endswith(".py")}
