"""Drafts from earlier requests: the same question takes a fraction of the passes."""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
args = parser.parse_args()

prompt = "class Stack:\n    def __init__(self):\n"


def ask(model: sd.Model, memory: sd.Memory) -> sd.GenerationResult:
    # Fixed lengths, so that the passes are the same everywhere; "auto" weighs what is worth it.
    with sd.Decoder(model, drafter=sd.NGram(gamma=7), memory=memory) as decoder:
        return decoder.generate(prompt, max_tokens=60)


with tempfile.TemporaryDirectory() as folder, sd.Model(args.model) as model:
    path = pathlib.Path(folder) / "project.memory"
    memory = sd.Memory(path)
    first = ask(model, memory)
    memory.save()
    again = ask(model, sd.Memory(path))  # as another process would
    print(f"the same tokens: {first.token_ids == again.token_ids}")
    for name, result in (("first", first), ("again", again)):
        passes = result.stats.rounds + result.stats.plain_steps
        print(f"{name}: {len(result.token_ids)} tokens in {passes} passes of the model")
