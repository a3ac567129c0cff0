"""Trains the small models of models/: a target and a draft with one vocabulary.

    python tools/train_models.py pycode --work /tmp/pycode all
    python tools/train_models.py manuals --work /tmp/manuals corpus vocabulary target draft

Stages, each of which leaves its result in the working folder and continues where it was stopped:

    corpus       the documents, from this Python's standard library or from Debian's packages
    vocabulary   tokenizer.json, and the documents as token ids
    target       trains the target on them
    texts        lets the target write, for the draft to learn from
    draft        trains the draft to predict what the target predicts
    checkpoint   saves both in the format of transformers
    report       losses, tokens per byte and a sample, as report.json

A CPU is enough: about an hour for each pair on two cores. A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys
import time

# Waiting threads that spin would take the cores of whoever else works on this machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from training import corpus, loop, recipes, vocabulary


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

    def target(self) -> None:
        recipe = self.recipe
        torch.manual_seed(1)
        model = recipes.build(recipe, recipe.target).to(loop.device())
        self.log(f"target: {model.num_parameters() / 1e6:.2f} M parameters on {loop.device()}")
        held_out = self.row("held_out")
        state = loop.train(
            model,
            loop.windows(self.row("train"), recipe.window, recipe.batch, seed=1),
            loop.next_token_loss,
            rates=(recipe.matrix_rate, recipe.other_rate),
            minutes=self.args.minutes,
            max_steps=self.args.steps,
            checkpoint=self.path("target.pt"),
            log=self.log,
            evaluate=lambda: loop.held_out_loss(model, held_out, recipe.window, 16),
        )
        self.log(f"target: {state}, held-out {loop.held_out_loss(model, held_out, recipe.window):.4f}")


STAGES = ("corpus", "vocabulary", "target")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(recipes.RECIPES))
    parser.add_argument("stages", nargs="+", choices=[*STAGES, "all"])
    parser.add_argument("--work", type=pathlib.Path, required=True, help="working folder")
    parser.add_argument("--texts", type=pathlib.Path, help="take the documents from this folder")
    parser.add_argument("--minutes", type=float, default=30, help="longest time of one training")
    parser.add_argument("--steps", type=int, default=3000, help="most steps of one training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    workshop = Workshop(args)
    for stage in STAGES if "all" in args.stages else args.stages:
        getattr(workshop, stage)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
