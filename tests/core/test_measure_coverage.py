"""tools/measure_coverage.py: shares by folder, what counts as a loss, the page of the figures."""

from __future__ import annotations

import importlib
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("measure_coverage")


def figures(percent, *, isas=("scalar",), part="cpp", name="cpp/base"):
    return {"isas": list(isas), part: {name: {"lines": 1000, "percent": percent}}}


def test_folders_add_up(tool):
    rows = tool.of_folders({"a/x.cc": (1, 4), "a/y.cc": (2, 2), "a/b/z.cc": (0, 0)})
    assert rows["a"] == {"lines": 6, "percent": 50.0}
    assert rows["a/b"] == {"lines": 0, "percent": 100.0}
    assert rows["total"] == {"lines": 6, "percent": 50.0}


@pytest.mark.parametrize("now, lost", [(90.0, False), (89.5, False), (89.4, True), (95.0, False)])
def test_more_than_half_a_percent_less_is_a_loss(tool, now, lost):
    found = tool.worse(figures(now), figures(90.0))
    assert found == ([f"cpp cpp/base: 90.0 % -> {now} %"] if lost else [])


def test_a_folder_that_was_not_there_lost_nothing(tool):
    assert tool.worse(figures(10.0, name="cpp/new"), figures(90.0)) == []
    assert tool.worse(figures(10.0), {}) == []


@pytest.mark.parametrize("name", ["cpp/backend/cpu", "total"])
def test_kernels_are_compared_where_the_instruction_sets_are_the_same(tool, name):
    kept = figures(90.0, isas=("scalar", "avx2"), name=name)
    assert tool.worse(figures(50.0, isas=("scalar", "avx2"), name=name), kept)
    assert not tool.worse(figures(50.0, name=name), kept)
    python = figures(90.0, isas=("scalar", "avx2"), part="python", name="total")
    assert tool.worse(figures(50.0, part="python", name="total"), python)


def test_the_page_gets_the_figures_between_its_marks(tool, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n")
    tool.write_page({"date": "2026-11-29", "commit": "abc", **figures(87.5)}, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| `cpp/base` | 1000 | 87.5 % |" in text
    assert "old" not in text


def test_the_page_shows_what_is_kept(tool):
    if not tool.KEPT.exists():
        pytest.skip("no figures are kept yet: tools/measure_coverage.py --write")
    kept = json.loads(tool.KEPT.read_text())
    assert tool.table(kept) in tool.PAGE.read_text()
    assert kept["python"]["total"]["percent"] > 80
    assert kept["cpp"]["total"]["percent"] > 80
