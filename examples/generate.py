"""A text, its statistics, and the proof that speculation changed nothing."""

from __future__ import annotations

import argparse

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--draft", help="a smaller model of the same vocabulary (default: what suits)")
parser.add_argument("--prompt", default="def read_lines(path):\n")
parser.add_argument("--max-tokens", type=int, default=64)
args = parser.parse_args()

with sd.Model(args.model) as model:
    draft = sd.Model(args.draft) if args.draft else model.open_draft()
    decoder = sd.Decoder(model, draft=draft)
    # verify_output decodes once more without drafts and compares; a difference would raise.
    result = decoder.generate(args.prompt, max_tokens=args.max_tokens, verify_output=True)

print(args.prompt + result.text)
print("---")
print(result.summary)
stats = result.stats
print(f"{stats.emitted} tokens in {stats.rounds + stats.plain_steps} passes of the model")
print(f"guessed {stats.drafted}, right {stats.accepted}")
print("plain decoding gave the same tokens:", result.check.identical)
