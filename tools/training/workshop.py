"""The stages of tools/train_models.py; each reads and leaves files in one working folder."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import transformers

from training import (
    card,
    corpus,
    distil,
    export,
    licences,
    loop,
    measure,
    models,
    recipes,
    vocabulary,
)
from training_safety import ToolError, save_bytes, tell

STAGE_OF = {
    **dict.fromkeys(("train.json", "held_out.json", "origin.json"), "corpus"),
    **dict.fromkeys(("train.npy", "held_out.npy", "tokenizer.json"), "vocabulary"),
    **{"target.pt": "target", "written.npy": "texts", "draft.pt": "draft"},
    "report.json": "report",
}


class Workshop:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.recipe = recipes.RECIPES[args.recipe]
        self.folder: pathlib.Path = args.work
        self.out: pathlib.Path = args.out or args.work / "models"
        self.written = args.written or self.recipe.written
        least = (self.own_windows(are_long=False) + 1) * self.recipe.window + 2
        if self.written < least:
            raise ToolError(f"--written {self.written}: at least {least} are needed for a draft")
        for folder in (self.folder, self.out):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ToolError(f"{folder}: cannot be a folder: {error.strerror}") from None
            if not os.access(folder, os.W_OK):
                raise ToolError(f"{folder}: nothing can be written there")
        self._claim()

    def own_windows(self, *, are_long: bool) -> int:
        """Of a draft's batch, those that the target wrote."""
        return self.recipe.batch * 3 // 8 >> are_long

    def _claim(self) -> None:
        """One working folder holds one recipe."""
        mark = self.path("recipe.txt")
        if not mark.exists():
            save_bytes(mark, self.recipe.name.encode())
        found = mark.read_bytes().decode(errors="replace").strip()
        if found != self.recipe.name:
            raise ToolError(f"{self.folder}: is of the recipe '{found}'; give another --work")

    def log(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')} {text}"
        tell(line, sys.stdout)
        with contextlib.suppress(OSError), self.path("log.txt").open("a") as file:
            file.write(line + "\n")

    def path(self, name: str) -> pathlib.Path:
        return self.folder / name

    def read(self, name: str, load: Callable[[pathlib.Path], Any]) -> Any:
        """A file that an earlier stage left."""
        path, stage = self.path(name), STAGE_OF[name]
        try:
            return load(path)
        except FileNotFoundError:
            raise ToolError(f"{path}: is missing: run the stage `{stage}` first") from None
        except (MemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever the bytes of a damaged file lead to
            raise ToolError(
                f"{path}: cannot be read ({str(error)[:200]!r}): run the stage `{stage}` again"
            ) from None

    def row(self, name: str) -> np.ndarray:
        row: np.ndarray = self.read(name + ".npy", lambda path: np.load(path, allow_pickle=False))
        return row

    def json(self, name: str) -> Any:
        return self.read(name, lambda path: json.loads(path.read_text("utf-8")))

    def save_row(self, name: str, row: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.save(buffer, row)
        save_bytes(self.path(name + ".npy"), buffer.getvalue())

    def save_json(self, name: str, values: Any) -> None:
        save_bytes(self.path(name), json.dumps(values, indent=1).encode())

    def corpus(self) -> None:
        if self.recipe.corpus == "python":
            documents = corpus.python_sources(self.args.texts)
            origin = [f"standard library of Python {sys.version.split()[0]}"]
        else:
            origin = [str(self.args.texts)]
            if self.args.texts is None:
                origin = corpus.fetch_debian(self.path("debian"))
            documents = corpus.manuals(self.args.texts or self.path("debian") / "x")
        if self.recipe.corpus == "python" and self.args.texts is None:
            for name in licences.unlisted(documents):
                self.log(f"corpus: {name} has a licence notice that the card does not name")
        parts = dict(zip(("train", "held_out"), corpus.split(documents), strict=True))
        if not all(parts.values()):
            where = self.args.texts or "the corpus"
            raise ToolError(
                f"{where}: {len(documents)} documents of 500 characters or more are too few to "
                "train on and to hold out from; give more"
            )
        for name, part in parts.items():
            content = [{"name": d.name, "text": d.text} for d in part]
            self.save_json(name + ".json", content)
            size = sum(len(d.text.encode()) for d in part)
            self.log(f"corpus, {name}: {len(part)} documents, {size / 1e6:.2f} MB")
        self.save_json("origin.json", origin)

    def documents(self, part: str) -> list[corpus.Document]:
        return self.read(
            part + ".json",
            lambda path: [corpus.Document(**d) for d in json.loads(path.read_text("utf-8"))],
        )

    def vocabulary(self) -> None:
        train = self.documents("train")
        recipe = self.recipe
        tokenizer = vocabulary.train(train, recipe.vocab, split_digits=recipe.split_digits)
        save_bytes(self.path("tokenizer.json"), tokenizer.to_str(pretty=True).encode())
        for part in ("train", "held_out"):
            documents = self.documents(part)
            row = vocabulary.encode(tokenizer, documents)
            least = recipe.window * 2 * (recipe.batch // 2 + 1 if part == "train" else 1) + 2
            if len(row) < least:
                raise ToolError(f"{part}: {len(row)} tokens, {least} are needed: give more text")
            self.save_row(part, row)
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
        model = models.build(recipe, recipe.target).to(loop.device())
        self.log(f"target: {model.num_parameters() / 1e6:.2f} M parameters on {loop.device()}")
        held_out = self.row("held_out")
        state = loop.train(
            model,
            self.batches_of(self.row("train")),
            loop.next_token_loss,
            rates=(recipe.matrix_rate, recipe.other_rate),
            minutes=self.args.minutes,
            max_steps=self.args.steps or recipe.target_steps,
            checkpoint=self.path("target.pt"),
            log=self.log,
            evaluate=lambda: loop.held_out_loss(model, held_out, recipe.window, 16),
            label="held-out loss",
        )
        self.log(
            f"target: {state}, held-out {loop.held_out_loss(model, held_out, recipe.window):.4f}"
        )

    def load(self, which: str) -> transformers.PreTrainedModel:
        model = models.build(self.recipe, getattr(self.recipe, which)).to(loop.device())
        self.read(
            which + ".pt",
            lambda path: model.load_state_dict(
                torch.load(path, map_location=loop.device(), weights_only=True)["model"]
            ),
        )
        return model.eval()

    def texts(self) -> None:
        row = distil.write_texts(
            self.load("target"), self.row("train"), n_tokens=self.written, seed=2, log=self.log
        )
        self.save_row("written", row)

    def draft(self) -> None:
        recipe = self.recipe
        torch.manual_seed(3)
        target = self.load("target").requires_grad_(False)
        draft = models.build(recipe, recipe.draft).to(loop.device())
        distil.narrow_embeddings(target, draft)
        self.log(f"draft: {draft.num_parameters() / 1e6:.2f} M parameters on {loop.device()}")
        train, written, held_out = map(self.row, ("train", "written", "held_out"))

        def batches_of(are_long: bool, seed: int) -> Iterator[torch.Tensor]:
            window = recipe.window << are_long
            size, own = recipe.batch >> are_long, self.own_windows(are_long=are_long)
            texts = loop.windows(train, window, size - own, seed=seed)
            return distil.mixed(texts, loop.windows(written, window, own, seed=seed + 1))

        state = loop.train(
            draft,
            batches_of,
            distil.loss_against(target),
            rates=(recipe.matrix_rate, recipe.other_rate),
            minutes=self.args.minutes,
            max_steps=self.args.steps or recipe.draft_steps,
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
            output = self.out / f"{file}.q8_0.gguf"
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
        pair = {which: self.load(which) for which in ("target", "draft")}
        facts: dict[str, Any] = {
            "origin": self.json("origin.json"),
            "train_bytes": n_bytes["train"],
            "held_out_bytes": n_bytes["held_out"],
            "written_tokens": len(self.row("written")),
            "agreement": distil.agreement(*pair.values(), held_out, recipe.window),
            "machine": f"{_processor()}, {self.args.threads} threads",
        }
        files = [self.out / f"{name}.q8_0.gguf" for name in recipe.files]
        for file in files:
            if not file.is_file():
                raise ToolError(f"{file}: is missing: run the stage `export` first")
        for (which, model), file in zip(pair.items(), files, strict=True):
            saved = self.read(which + ".pt", lambda path: torch.load(path, weights_only=True))
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
        self.save_json("report.json", facts)
        self.log(f"report: {self.path('report.json')}")

    def card(self) -> None:
        facts = self.json("report.json")
        for which, name in zip(("target", "draft"), self.recipe.files, strict=True):
            text = card.card(self.recipe, which, facts)
            save_bytes(self.out / f"{name}.md", text.encode())


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
