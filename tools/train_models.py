"""Trains the small models of models/: a target and a draft with one vocabulary.

    python tools/train_models.py pycode --work /tmp/pycode all
    python tools/train_models.py manuals --work /tmp/manuals target --minutes 60

Stages, each of which leaves its result in the working folder and continues where it was stopped:

    corpus       the documents, from this Python's standard library or from Debian's packages
    vocabulary   tokenizer.json, and the documents as token ids
    target       trains the target on them
    texts        lets the target write, for the draft to learn from
    draft        trains the draft to predict what the target predicts
    export       saves both in the format of transformers, and as GGUF in --out
    report       losses; acceptance and speed through the installed engine; report.json
    card         a model card for each file, from report.json

A CPU is enough: about an hour for each pair on two cores. A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys

# Waiting threads that spin would take the cores of whoever else works on this machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from training import recipes, workshop


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=sorted(recipes.RECIPES))
    parser.add_argument("stages", nargs="+", choices=[*workshop.STAGES, "all"])
    parser.add_argument("--work", type=pathlib.Path, required=True, help="working folder")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("models"), help="folder of the GGUF files"
    )
    parser.add_argument("--texts", type=pathlib.Path, help="take the documents from this folder")
    parser.add_argument("--minutes", type=float, default=30, help="longest time of one training")
    parser.add_argument("--steps", type=int, default=3000, help="most steps of one training")
    parser.add_argument("--written", type=int, default=200_000, help="tokens the target writes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shop = workshop.Workshop(args)
    for stage in workshop.STAGES if "all" in args.stages else args.stages:
        getattr(shop, stage)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
