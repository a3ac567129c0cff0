"""Every drafter on one prompt, side by side: which is worth having here?"""

from __future__ import annotations

import argparse

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--draft", help="a smaller model of the same vocabulary (default: what suits)")
parser.add_argument("--prompt", default="class Point:\n    def __init__(self, x, y):\n")
parser.add_argument("--max-tokens", type=int, default=96)
args = parser.parse_args()

with sd.Model(args.model) as model:
    draft = sd.Model(args.draft) if args.draft else model.open_draft()
    # Plain decoding and each drafter take turns, and all must write the same tokens.
    print(sd.compare(model, [args.prompt], draft=draft, max_tokens=args.max_tokens, rounds=2))
