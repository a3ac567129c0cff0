"""tools/train_models.py: from a folder of text to two GGUF files, in miniature."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import signal
import sys

import numpy as np
import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
if not hasattr(torch.optim, "Muon"):
    pytest.skip("torch 2.9 or later is needed for training", allow_module_level=True)
sys.path.insert(0, str(TOOLS))

import train_models  # noqa: E402
from training import corpus, loop, recipes, workshop  # noqa: E402
from training_safety import NotSaved, ToolError  # noqa: E402

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


class Small(torch.nn.Module):
    """As much of a model as the training loop needs."""

    def __init__(self):
        super().__init__()
        layers = torch.nn.ModuleList([torch.nn.Linear(4, 4)])
        self.stack = torch.nn.ModuleDict({"layers": layers})

    @property
    def layers(self):
        return self.stack["layers"]


def train_small(model, checkpoint, loss_of, log=lambda _: None, **options):
    arguments = {"rates": (0.01, 0.01), "minutes": 5.0, "max_steps": 10**6, "label": "x"}
    return loop.train(
        model,
        lambda are_long, seed: iter(lambda: torch.zeros(2, 5), None),
        loss_of,
        checkpoint=checkpoint,
        log=log,
        evaluate=lambda: 0.0,
        **(arguments | options),
    )


def plain_loss(model, batch):
    return model.layers[0](batch[:, :4]).square().mean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_training_is_saved_at_once(number, tmp_path):
    from gguf_convert.atomic_file import Terminated

    calls = []

    def loss_of(model, batch):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), number)
        return plain_loss(model, batch)

    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, Terminated)) as caught:
        train_small(Small(), tmp_path / "x.pt", loss_of)
    assert caught.type is (KeyboardInterrupt if number == signal.SIGINT else Terminated)
    assert signal.getsignal(number) == before
    assert torch.load(tmp_path / "x.pt", weights_only=True)["state"]["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    said = []
    train_small(Small(), tmp_path / "x.pt", plain_loss, said.append, max_steps=5)
    assert said[0] == "continues at step 3"


def test_a_full_disk_stops_the_training_only_at_its_end(tmp_path, monkeypatch):
    def refuse(path, content):
        raise NotSaved(f"{path}: cannot be written: No space left on device")

    monkeypatch.setattr(loop, "save_torch", refuse)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    said = []
    with pytest.raises(NotSaved, match="No space left"):
        train_small(Small(), tmp_path / "x.pt", plain_loss, said.append, max_steps=3)
    assert sum("goes on all the same" in line for line in said) == 3


def test_a_training_that_diverges_keeps_what_was_saved(tmp_path):
    train_small(Small(), tmp_path / "x.pt", plain_loss, max_steps=2)
    before = (tmp_path / "x.pt").read_bytes()

    def loss_of(model, batch):
        return plain_loss(model, batch) * float("nan")

    with pytest.raises(ToolError, match="diverged after step 2: the loss is nan"):
        train_small(Small(), tmp_path / "x.pt", loss_of)
    model = Small()
    with torch.no_grad():
        model.layers[0].weight[0, 0] = float("inf")
    with pytest.raises(ToolError, match="no longer numbers"):
        train_small(model, tmp_path / "y.pt", lambda m, b: m.layers[0].bias.sum(), max_steps=1)
    assert (tmp_path / "x.pt").read_bytes() == before
    assert not (tmp_path / "y.pt").exists()
    for n_bytes in (0, 9, len(before) // 2):
        (tmp_path / "x.pt").write_bytes(before[:n_bytes])
        with pytest.raises(ToolError, match=r"x\.pt: cannot be continued .* delete it"):
            train_small(Small(), tmp_path / "x.pt", plain_loss)


def test_a_stage_names_the_one_that_should_have_run_before(shop):
    with pytest.raises(ToolError, match=r"held_out\.npy: is missing: run the stage `vocabulary`"):
        shop.target()
    with pytest.raises(ToolError, match=r"train\.json: is missing: run the stage `corpus`"):
        shop.vocabulary()
    with pytest.raises(ToolError, match=r"target\.pt: is missing: run the stage `target`"):
        shop.texts()
    with pytest.raises(ToolError, match=r"report\.json: is missing: run the stage `report`"):
        shop.card()
    shop.corpus()
    shop.vocabulary()
    for name, stage in (("held_out.npy", "vocabulary"), ("train.json", "corpus")):
        path = shop.path(name)
        path.write_bytes(path.read_bytes()[:70])
        with pytest.raises(ToolError, match=f"cannot be read .*run the stage `{stage}` again"):
            shop.target() if stage == "vocabulary" else shop.vocabulary()
    with pytest.raises(ToolError, match="is of the recipe"):
        other = {"pycode": "manuals", "manuals": "pycode"}[shop.recipe.name]
        workshop.Workshop(argparse.Namespace(**(vars(shop.args) | {"recipe": other})))


def test_too_little_text_is_said_before_the_training(shop, tmp_path):
    shop.args.texts = tmp_path / "none"
    shop.args.texts.mkdir()
    with pytest.raises(ToolError, match="0 documents of 500 characters or more are too few"):
        shop.corpus()
    shop.args.texts = tmp_path / "texts"
    shop.corpus()
    shop.recipe = dataclasses.replace(shop.recipe, vocab=4096)
    with pytest.raises(ToolError, match=r"the texts give only .* of 4096 tokens"):
        shop.vocabulary()
    shop.recipe = dataclasses.replace(shop.recipe, vocab=275, window=10**6)
    with pytest.raises(ToolError, match=r"tokens, .* are needed: give more text"):
        shop.vocabulary()


def test_too_few_written_tokens_are_said_at_once(tmp_path):
    args = train_models.arguments(["pycode", "all", "--work", str(tmp_path), "--written", "1025"])
    with pytest.raises(ToolError, match="--written 1025: at least 1026 are needed for a draft"):
        workshop.Workshop(args)


def test_files_go_below_the_working_folder_unless_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = train_models.arguments(["pycode", "all", "--work", "w"])
    shop = workshop.Workshop(args)
    assert shop.out == pathlib.Path("w/models")
    assert shop.out.is_dir()  # before the training, not after it
    args = train_models.arguments(["pycode", "export", "--work", "w", "--out", "new/folder"])
    assert workshop.Workshop(args).out.is_dir()
    (tmp_path / "file").write_text("mine")
    args = train_models.arguments(["pycode", "export", "--work", "w", "--out", "file/folder"])
    with pytest.raises(ToolError, match="file/folder: cannot be a folder"):
        workshop.Workshop(args)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "nan"], "--minutes must be a number above 0, got nan"),
        (["--minutes", "inf"], "--minutes must be a number above 0"),
        (["--minutes=-1"], "--minutes must be a number above 0"),
        (["--steps", "0"], "--steps must be 1 to"),
        (["--written=-5"], "--written must be 1 to"),
        (["--threads=-3"], "--threads must be 1 to 1024"),
        (["--texts", "nowhere"], "--texts nowhere: there is no such folder"),
        (["--work", __file__], "is no folder"),
        (["--out", __file__], "is no folder"),
    ],
)
def test_bad_options_are_named_before_anything_is_done(
    arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        train_models.arguments(["pycode", "all", "--work", "w", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_packages_are_looked_at_before_the_training(monkeypatch):
    train_models.check_packages(["target"])
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(SystemExit, match=r"has no Muon optimiser: version 2\.9 or later is needed"):
        train_models.check_packages(["target"])
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(SystemExit, match=r'gguf.*needs pip install "\.\[train\]"'):
        train_models.check_packages(["corpus"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "specdec_native", None)
    train_models.check_packages(["target"])
    with pytest.raises(SystemExit, match=r"needs pip install \."):
        train_models.check_packages(["report"])


def test_without_debian_the_manuals_need_a_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit):
        train_models.arguments(["manuals", "all", "--work", str(tmp_path / "w")])
    assert "no apt-get here: give a folder of .html files" in capsys.readouterr().err
    train_models.arguments(["manuals", "target", "--work", str(tmp_path / "w")])
    with pytest.raises(ToolError, match=r"apt-get download failed .* Debian 12"):
        corpus.fetch_debian(tmp_path / "debian")
