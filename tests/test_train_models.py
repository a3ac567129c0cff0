"""tools/train_models.py: from a folder of text to two GGUF files, in miniature."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys

import numpy as np
import pytest

TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"
torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
if not hasattr(torch.optim, "Muon"):
    pytest.skip("torch 2.9 or later is needed for training", allow_module_level=True)
sys.path.insert(0, str(TOOLS))

from training import corpus, loop, recipes, workshop  # noqa: E402

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PAGE = """<html><head><title>No</title><script>var x;</script></head><body>
<div class="sphinxsidebar"><p>Navigation</p></div><h1>Name<a class="headerlink">\u00b6</a></h1>
<p>It\u2019s a <b>small</b>
page.</p><ul><li><p>one</p></li><li>two</li></ul><pre>if x:
    y = 1</pre><table><tr><td>a</td><td>b</td></tr></table></body></html>"""


def test_html_becomes_text_without_navigation():
    text = corpus.html_text(PAGE)
    assert text.startswith("Name\n\nIt's a small page.\n\n* one\n")
    assert "* two\n" in text
    assert "if x:\n    y = 1\n" in text
    assert "  a  b" in text
    assert "Navigation" not in text
    assert "var x" not in text


def test_documents_are_held_out_by_their_name():
    documents = [corpus.Document(f"{i}.py", "text") for i in range(2000)]
    train, held_out = corpus.split(documents)
    assert len(train) + len(held_out) == 2000
    assert 20 < len(held_out) < 100
    again = corpus.split(documents[::-1])
    assert {d.name for d in held_out} == {d.name for d in again[1]}


def test_windows_hold_what_follows_and_cover_an_epoch():
    row = np.arange(1000, dtype=np.uint16)
    batches = loop.windows(row, window=10, batch=5, seed=1)
    seen = set()
    for _ in range(19):
        batch = next(batches)
        assert batch.shape == (5, 11)
        assert torch.equal(batch, batch[:, :1] + torch.arange(11, device=batch.device))
        seen.update(batch[:, 0].tolist())
    assert len(seen) == 95


def test_the_rate_rises_stays_and_falls():
    assert loop.rate_at(0, 0.0) < 0.1
    assert loop.rate_at(100, 0.3) == 1.0
    assert loop.rate_at(1000, 1.0) == 0.0
    assert loop.rate_at(1000, 0.9) < loop.rate_at(1000, 0.7)


@pytest.fixture(params=["pycode", "manuals"])
def shop(request, tmp_path, monkeypatch):
    """A workshop for the recipe, made tiny."""
    texts, out = tmp_path / "texts", tmp_path / "out"
    texts.mkdir()
    out.mkdir()
    for i in range(120):
        lines = [f"def function_{i}(value):", f"    return value + {i}", ""]
        name, text = f"m{i}.py", "\n".join(lines * 12)
        if request.param == "manuals":
            name, text = f"m{i}.html", f"<p>{' '.join(lines * 12)}</p>"
        (texts / name).write_text(text)
    recipe = recipes.RECIPES[request.param]
    heads = {"layers": 1, "heads": 2, "kv_heads": 2}
    recipe = dataclasses.replace(
        recipe,
        vocab=275,
        target=recipes.Shape(hidden=64, inner=128, **heads),
        draft=recipes.Shape(hidden=32, inner=64, **heads),
        window=32,
    )
    monkeypatch.setitem(recipes.RECIPES, request.param, recipe)
    arguments = {"recipe": request.param, "work": tmp_path / "work", "out": out, "texts": texts}
    return workshop.Workshop(
        argparse.Namespace(**arguments, minutes=5.0, steps=6, written=1500, threads=1)
    )


def test_a_pair_from_text_to_gguf(shop):
    for stage in ("corpus", "vocabulary", "target", "texts", "draft", "export"):
        getattr(shop, stage)()
    log = shop.path("log.txt").read_text()
    assert "step 6: held-out loss" in log
    files = [shop.args.out / f"{name}.q8_0.gguf" for name in shop.recipe.files]
    with sd.Model(files[0]) as target, sd.Model(files[1]) as draft:
        assert sd.check_pair(target, draft).compatible
        assert target.metadata["general.license"] == "apache-2.0"
        text = shop.documents("held_out")[0].text
        tokenizer = workshop.vocabulary.load(shop.folder)
        assert target.tokenize(text) == tokenizer.encode(text, add_special_tokens=False).ids
        plain = sd.Decoder(target, drafter=None).generate(text[:40], max_tokens=20)
        other = sd.Decoder(target, draft=draft).generate(text[:40], max_tokens=20)
        assert plain.token_ids == other.token_ids

    # Continues where it was stopped, and only then.
    weights = torch.load(shop.path("target.pt"), weights_only=True)
    assert weights["state"]["step"] == 6
    shop.args.steps = 8
    shop.target()
    assert "continues at step 6" in shop.path("log.txt").read_text()
    later = torch.load(shop.path("target.pt"), weights_only=True)
    assert later["state"]["step"] == 8
    assert later["state"]["tokens"] > weights["state"]["tokens"]
