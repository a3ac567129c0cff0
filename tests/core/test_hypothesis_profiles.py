"""The profile `thorough` reaches every test with generated cases, also those that say how many."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

TESTS = pathlib.Path(__file__).resolve().parents[1]
FILES = [p for p in sorted(TESTS.rglob("test_*.py")) if "hypothesis" in p.read_text("utf-8")]
SAY = (
    "import conftest, hypothesis, helpers\n"
    "print(helpers.examples(25), helpers.examples(400), hypothesis.settings().derandomize)\n"
)


@pytest.mark.parametrize("ci", ["", "true"])  # hypothesis has a profile of its own for CI
@pytest.mark.parametrize(
    ("profile", "said"), [("usual", "25 400 True"), ("thorough", "3125 50000 False")]
)
def test_a_thorough_run_draws_more_cases_and_others(profile: str, said: str, ci: str) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("CI", "GITHUB_ACTIONS", "TF_BUILD")}
    env |= {"SPECDEC_HYPOTHESIS": profile} | ({"CI": ci} if ci else {})
    out = subprocess.run(
        [sys.executable, "-c", SAY], cwd=TESTS, env=env, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == said


def name_of(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    return (child for child in ast.walk(node) if isinstance(child, ast.FunctionDef))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_test_settles_what_the_profile_says(path: pathlib.Path) -> None:
    """What `-m hypothesis` does not see, a run of that profile does not reach."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or name_of(call) != "settings":
            continue
        for keyword in call.keywords:
            assert keyword.arg not in ("derandomize", "database", "deadline"), ast.unparse(call)
            if keyword.arg == "max_examples":
                assert name_of(keyword.value) == "examples", ast.unparse(call)
    for function in functions(tree):
        inner = [d for f in functions(function) if f is not function for d in f.decorator_list]
        if function.name.startswith("test_") and "given" in map(name_of, inner):
            marks = [name_of(d) for d in function.decorator_list]
            assert "pytest.mark.hypothesis" in marks, function.name
