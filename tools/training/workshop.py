"""The stages of tools/train_models.py; each reads and leaves files in one working folder."""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers

from training import card, corpus, distil, export, loop, measure, recipes, vocabulary


class Workshop:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.recipe = recipes.RECIPES[args.recipe]
        self.folder: pathlib.Path = args.work
        self.folder.mkdir(parents=True, exist_ok=True)

    def log(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, flush=True)
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")

    def path(self, name: str) -> pathlib.Path:
        return self.folder / name

    def row(self, name: str) -> np.ndarray:
        return np.load(self.path(name + ".npy"))

    def corpus(self) -> None:
        if self.recipe.corpus == "python":
            documents = corpus.python_sources(self.args.texts)
            origin = [f"standard library of Python {sys.version.split()[0]}"]
        else:
            origin = [str(self.args.texts)]
            if self.args.texts is None:
                origin = corpus.fetch_debian(self.path("debian"))
            documents = corpus.manuals(self.args.texts or self.path("debian") / "x")
        parts = dict(zip(("train", "held_out"), corpus.split(documents), strict=True))
        for name, part in parts.items():
            content = [{"name": d.name, "text": d.text} for d in part]
            self.path(name + ".json").write_text(json.dumps(content))
            size = sum(len(d.text.encode()) for d in part)
            self.log(f"corpus, {name}: {len(part)} documents, {size / 1e6:.2f} MB")
        self.path("origin.json").write_text(json.dumps(origin))

    def documents(self, part: str) -> list[corpus.Document]:
        return [corpus.Document(**d) for d in json.loads(self.path(part + ".json").read_text())]

    def vocabulary(self) -> None:
        train = self.documents("train")
        recipe = self.recipe
        tokenizer = vocabulary.train(train, recipe.vocab, split_digits=recipe.split_digits)
        tokenizer.save(str(self.path("tokenizer.json")))
        for part in ("train", "held_out"):
            documents = self.documents(part)
            row = vocabulary.encode(tokenizer, documents)
            np.save(self.path(part + ".npy"), row)
            size = sum(len(d.text.encode()) for d in documents)
            self.log(f"vocabulary, {part}: {len(row)} tokens, {size / len(row):.2f} bytes each")

    def batches_of(self, row: np.ndarray) -> Callable[[bool, int], Iterator[torch.Tensor]]:
        window, batch = self.recipe.window, self.recipe.batch
        return lambda are_long, seed: loop.windows(
            row, window << are_long, batch >> are_long, seed=seed
        )

    def target(self) -> None:
        recipe = self.recipe
        torch.manual_seed(1)
        model = recipes.build(recipe, recipe.target).to(loop.device())
        self.log(f"target: {model.num_parameters() / 1e6:.2f} M parameters on {loop.device()}")
        held_out = self.row("held_out")
        state = loop.train(
            model,
            self.batches_of(self.row("train")),
            loop.next_token_loss,
            rates=(recipe.matrix_rate, recipe.other_rate),
            minutes=self.args.minutes,
            max_steps=self.args.steps,
            checkpoint=self.path("target.pt"),
            log=self.log,
            evaluate=lambda: loop.held_out_loss(model, held_out, recipe.window, 16),
            label="held-out loss",
        )
        self.log(
            f"target: {state}, held-out {loop.held_out_loss(model, held_out, recipe.window):.4f}"
        )

    def load(self, which: str) -> transformers.PreTrainedModel:
        saved = torch.load(self.path(which + ".pt"), map_location=loop.device(), weights_only=True)
        model = recipes.build(self.recipe, getattr(self.recipe, which)).to(loop.device())
        model.load_state_dict(saved["model"])
        return model.eval()

    def texts(self) -> None:
        row = distil.write_texts(
            self.load("target"), self.row("train"), n_tokens=self.args.written, seed=2, log=self.log
        )
        np.save(self.path("written.npy"), row)

    def draft(self) -> None:
        recipe = self.recipe
        torch.manual_seed(3)
        target = self.load("target").requires_grad_(False)
        draft = recipes.build(recipe, recipe.draft).to(loop.device())
        distil.narrow_embeddings(target, draft)
        self.log(f"draft: {draft.num_parameters() / 1e6:.2f} M parameters on {loop.device()}")
        train, written, held_out = map(self.row, ("train", "written", "held_out"))

        def batches_of(are_long: bool, seed: int) -> Iterator[torch.Tensor]:
            window = recipe.window << are_long
            size, own = recipe.batch >> are_long, recipe.batch * 3 // 8 >> are_long
            texts = loop.windows(train, window, size - own, seed=seed)
            return distil.mixed(texts, loop.windows(written, window, own, seed=seed + 1))

        state = loop.train(
            draft,
            batches_of,
            distil.loss_against(target),
            rates=(recipe.matrix_rate, recipe.other_rate),
            minutes=self.args.minutes,
            max_steps=self.args.steps,
            checkpoint=self.path("draft.pt"),
            log=self.log,
            evaluate=lambda: distil.agreement(target, draft, held_out, recipe.window),
            label="agrees with the target",
        )
        self.log(f"draft: {state}")

    def export(self) -> None:
        """Checkpoints as folders, and both as GGUF."""
        for which, file in zip(("target", "draft"), self.recipe.files, strict=True):
            model = self.load(which)
            export.save_checkpoint(model, self.path("tokenizer.json"), self.path(which))
            output = self.args.out / f"{file}.q8_0.gguf"
            export.write_gguf(
                self.path(which),
                output,
                name=f"{self.recipe.title} {which}",
                description=self.recipe.writes,
                size=f"{model.num_parameters() / 1e6:.1f}M",
            )
            self.log(f"{output}: {output.stat().st_size / 1e6:.2f} MB")

    def report(self) -> None:
        """Losses, then acceptance and speed through the installed engine; all as report.json."""
        recipe, held_out = self.recipe, self.row("held_out")
        documents = {part: self.documents(part) for part in ("train", "held_out")}
        n_bytes = {k: sum(len(d.text.encode()) for d in part) for k, part in documents.items()}
        models = {which: self.load(which) for which in ("target", "draft")}
        facts: dict[str, Any] = {
            "origin": json.loads(self.path("origin.json").read_text()),
            "train_bytes": n_bytes["train"],
            "held_out_bytes": n_bytes["held_out"],
            "written_tokens": len(self.row("written")),
            "agreement": distil.agreement(*models.values(), held_out, recipe.window),
            "machine": f"{_processor()}, {self.args.threads} threads",
        }
        files = [self.args.out / f"{name}.q8_0.gguf" for name in recipe.files]
        for (which, model), file in zip(models.items(), files, strict=True):
            saved = torch.load(self.path(which + ".pt"), weights_only=True)
            loss = loop.held_out_loss(model, held_out, recipe.window, 200)
            facts[which] = {
                "parameters": model.num_parameters(),
                "file_bytes": file.stat().st_size,
                "loss": loss,
                "bits_per_byte": loss / np.log(2) * len(held_out) / n_bytes["held_out"],
                **saved["state"],
            }
        facts["measured"] = measure.measure(
            *files, measure.prompts(documents["held_out"]), n_threads=self.args.threads
        )
        self.path("report.json").write_text(json.dumps(facts, indent=2))
        self.log(f"report: {self.path('report.json')}")

    def card(self) -> None:
        facts = json.loads(self.path("report.json").read_text())
        for which, name in zip(("target", "draft"), self.recipe.files, strict=True):
            text = card.card(self.recipe, which, facts)
            (self.args.out / f"{name}.md").write_text(text)


STAGES = ("corpus", "vocabulary", "target", "texts", "draft", "export", "report", "card")


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
