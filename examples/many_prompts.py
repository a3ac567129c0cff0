"""A list of prompts at once, with log-probabilities: for making data, not for waiting users."""

from __future__ import annotations

import argparse

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
args = parser.parse_args()

prompts = [f"def {verb}_{noun}(" for verb in ("get", "set") for noun in ("name", "size", "path")]

with sd.Model(args.model) as model:
    results = sd.generate_many(
        model, prompts, max_tokens=16, temperature=0.8, seeds=range(len(prompts)), logprobs=0
    )
for prompt, result in zip(prompts, results, strict=True):
    total = sum(position.logprob for position in result.logprobs)
    print(f"{total:8.2f}  {prompt}{result.text!r}")
