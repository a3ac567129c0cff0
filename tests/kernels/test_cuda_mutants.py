"""tools/cuda_mutants.py: that its mutants still change something, and name tests that exist.
Running them takes an hour of one processor; docs/cuda_kernels.md has the table."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import cuda_mutants  # noqa: E402


@pytest.mark.parametrize("mutant", cuda_mutants.MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_changes_its_file_and_names_tests(mutant: cuda_mutants.Mutant) -> None:
    text = (ROOT / cuda_mutants.BACKEND / mutant.file).read_text("utf-8")
    assert mutant.apply(text) != text
    file, word = mutant.tests.split()[:2]
    tests = (ROOT / f"tests/kernels/test_{file}.py").read_text("utf-8")
    assert re.search(rf"def test_\w*{word}", tests)


def test_the_table_is_of_mutants_that_exist() -> None:
    page = (ROOT / "docs" / "cuda_kernels.md").read_text("utf-8")
    rows = page.split("## Changes that tests notice")[1].split("## ")[0].splitlines()
    listed = {row.split(" | ")[0][2:] for row in rows if row.startswith("| ") and "`" in row}
    assert listed
    assert listed <= {mutant.what for mutant in cuda_mutants.MUTANTS}
    assert len(cuda_mutants.MUTANTS) >= 27
