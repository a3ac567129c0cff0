"""What the cards of models/ promise: commands that make the files again, and all licences."""

from __future__ import annotations

import pathlib
import re
import shlex
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
pytest.importorskip("numpy", reason="numpy is not installed")

import train_models  # noqa: E402
from training import card, corpus, licences, recipes  # noqa: E402

CARDS = [
    pytest.param(recipe, which, ROOT / "models" / f"{name}.md", id=name)
    for recipe in recipes.RECIPES.values()
    for which, name in zip(("target", "draft"), recipe.files, strict=True)
]


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


@pytest.mark.parametrize(("recipe", "which", "path"), CARDS)
def test_the_command_of_a_card_trains_as_the_card_says(
    recipe: recipes.Recipe, which: str, path: pathlib.Path
) -> None:
    text = path.read_text("utf-8")
    steps = number(r"tokens in (\d+) steps", text)
    assert steps == (recipe.target_steps if which == "target" else recipe.draft_steps)
    if which == "draft":
        assert number(r"on (\d+) tokens that it wrote", text) == recipe.written
    shape = recipe.target if which == "target" else recipe.draft
    assert f"layers: {shape.layers}, width {shape.hidden}, {shape.heads} heads" in text
    again = card.make_again(recipe, recipe.target_steps, recipe.draft_steps, recipe.written)
    assert "\n".join(again) in text
    (command,) = re.findall(r"^python tools/train_models\.py (.*)$", text, re.MULTILINE)
    args = train_models.arguments(shlex.split(command))
    assert args.stages == list(recipes.STAGES)
    assert (args.recipe, args.steps, args.written) == (recipe.name, None, None)
    assert args.minutes == float("inf")
    assert args.out is None  # below --work: the shipped files stay


def test_other_steps_are_in_the_commands() -> None:
    recipe = recipes.RECIPES["pycode"]
    lines = card.make_again(recipe, 10, 20, 300)
    commands = [line.partition(".py ")[2] for line in lines if line.startswith("python ")]
    target, draft = (train_models.arguments(shlex.split(command)) for command in commands)
    assert [*target.stages, *draft.stages] == list(recipes.STAGES)
    assert (target.steps, draft.steps, draft.written) == (10, 20, 300)


def test_the_extra_of_the_cards_has_what_the_tool_needs() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    (extra,) = re.findall(r"^train = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    found = dict(re.findall(r'"([a-z]+)>=([\d.]+)"', extra))
    assert set(found) == {"gguf", "numpy", "tokenizers", "torch", "transformers"}
    assert found["torch"] == "2.9"
    for path in (ROOT / "models").glob("*-*m.md"):
        assert 'pip install ".[train]"' in path.read_text("utf-8")


def test_every_notice_in_the_corpus_is_in_the_cards() -> None:
    documents = corpus.python_sources()
    if sys.version_info[:2] == (3, 11):  # that of the shipped models
        assert licences.unlisted(documents) == []
        for notice in licences.NOTICES:
            assert any(notice.holds(document.name) for document in documents), notice
    for name in recipes.RECIPES["pycode"].files:
        text = (ROOT / "models" / f"{name}.md").read_text("utf-8")
        assert "\n".join(card.own_terms()) in text
        for holder in ("Secret Labs", "CNRI", "Disney", "Bastian Kleineidam"):
            assert holder in text


def test_a_notice_that_nobody_named_is_found() -> None:
    planted = [
        corpus.Document("new.py", "# Copyright (c) 2020 Somebody Else\n# Licensed under the MIT"),
        corpus.Document("new2.py", "# SPDX-License-Identifier: MIT\n"),
        corpus.Document("mine.py", "# Copyright 2007 G.\n# Licensed to PSF under a Contributor"
                        " Agreement.\n"),
        corpus.Document("plain.py", "x = 1  # permission denied\n"),
        corpus.Document("re/new.py", "# Copyright (c) 1998-2001 by Secret Labs AB.\n"),
    ]  # fmt: skip
    assert licences.unlisted(planted) == ["new.py", "new2.py"]
