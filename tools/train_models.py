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

The number of steps and of tokens that the target writes are those of the shipped files; --minutes
ends a training earlier. Ctrl-C and SIGTERM save at once, the same command goes on. A CPU is enough:
about two hours for each pair on two cores. A GPU is used where there is one. Needs
pip install ".[train]" (PyTorch 2.9 or later).
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import pathlib
import shutil
import sys

from training import recipes

# Waiting threads that spin would take the cores of whoever else works on this machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("recipe", choices=sorted(recipes.RECIPES))
    add("stages", nargs="+", choices=[*recipes.STAGES, "all"])
    add("--work", type=pathlib.Path, required=True, help="working folder")
    add("--out", type=pathlib.Path, help="folder of the GGUF files and cards; default: WORK/models")
    add("--texts", type=pathlib.Path, help="take the documents from this folder")
    add("--minutes", type=float, help="longest time of one training; default: none")
    add("--steps", type=int, help="of one training; default: those of the shipped file")
    add("--written", type=int, help="tokens the target writes; default: as for the shipped file")
    add("--threads", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(given)
    for name, most in (("steps", 10**9), ("written", 10**9), ("threads", 1024)):
        value = getattr(args, name)
        if value is not None and not 1 <= value <= most:
            parser.error(f"--{name} must be 1 to {most}, got {value}")
    if args.minutes is None:
        args.minutes = math.inf
    elif not (math.isfinite(args.minutes) and args.minutes > 0):
        parser.error(f"--minutes must be a number above 0, got {args.minutes}")
    if "all" in args.stages:
        args.stages = list(recipes.STAGES)
    for option in ("work", "out"):
        folder = getattr(args, option)
        if folder is not None and folder.exists() and not folder.is_dir():
            parser.error(f"--{option} {folder}: is no folder")
    if args.texts is not None and not args.texts.is_dir():
        parser.error(f"--texts {args.texts}: there is no such folder")
    needs_debian = recipes.RECIPES[args.recipe].corpus == "manuals" and args.texts is None
    if "corpus" in args.stages and needs_debian:
        for program in ("apt-get", "dpkg-deb"):
            if shutil.which(program) is None:
                parser.error(f"no {program} here: give a folder of .html files with --texts")
    return args


def check_packages(stages: list[str]) -> None:
    """Before hours of work, not after them."""
    names = ["numpy", "torch", "transformers", "tokenizers", "gguf"]
    if "report" in stages:
        names.append("specdec_native")
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            wanted = "pip install ." if name == "specdec_native" else 'pip install ".[train]"'
            raise SystemExit(f"train_models.py: {error}: needs {wanted}") from None
    import torch

    if not hasattr(torch.optim, "Muon"):
        raise SystemExit(
            f"train_models.py: PyTorch {torch.__version__} has no Muon optimiser: version 2.9 or "
            'later is needed, pip install ".[train]"'
        )


def run(args: argparse.Namespace) -> None:
    import torch

    from training import workshop

    torch.set_num_threads(args.threads)
    shop = workshop.Workshop(args)
    for stage in args.stages:
        getattr(shop, stage)()


def main(given: list[str] | None = None) -> int:
    args = arguments(given)
    try:
        check_packages(args.stages)
        from training_safety import run_tool
    except KeyboardInterrupt:
        return 130
    return run_tool("train_models.py", lambda: run(args), "the same command goes on")


if __name__ == "__main__":
    sys.exit(main())
