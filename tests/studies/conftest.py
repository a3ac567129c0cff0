"""Plots are drawn but not rendered, which would be most of a small study's time."""

from __future__ import annotations

import pathlib

import pytest


@pytest.fixture
def rendered() -> None:
    """Plots become the pictures that users get."""


@pytest.fixture(autouse=True)
def _only_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "rendered" in request.fixturenames:
        return
    matplotlib = pytest.importorskip("matplotlib.figure")
    from specdec_native.studies import report

    def draw(folder: pathlib.Path, plot: report.Plot) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        plot.draw(matplotlib.Figure(figsize=plot.size))
        for ending in ("png", "svg"):
            (folder / f"{plot.name}.{ending}").write_text("")
        return "<svg/>"

    monkeypatch.setattr(report, "draw", draw)
