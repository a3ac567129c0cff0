"""A conversation that streams, with drafted tokens in another colour."""

from __future__ import annotations

import argparse
import sys

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="smollm2", help="a chat model (default: %(default)s)")
parser.add_argument("--template", help="a format, such as chatml, instead of the model's own")
parser.add_argument("--max-tokens", type=int, default=200)
parser.add_argument("question", nargs="*", help="questions; none: read from standard input")
args = parser.parse_args()

COLOUR, NORMAL = ("\033[36m", "\033[0m") if sys.stdout.isatty() else ("", "")

with sd.Model(args.model) as model:
    decoder = sd.Decoder(model, draft=model.open_draft())
    messages = []
    for question in args.question or (line.rstrip("\n") for line in sys.stdin):
        messages.append({"role": "user", "content": question})
        print("you:", question)
        stream = decoder.stream_chat(
            messages, max_tokens=args.max_tokens, template=args.template, temperature=0.7, seed=1
        )
        with stream:
            for chunk in stream:
                drafted = any(chunk.from_draft)
                text = f"{COLOUR}{chunk.text}{NORMAL}" if drafted and COLOUR else chunk.text
                print(text, end="", flush=True)
        result = stream.result
        messages.append({"role": "assistant", "content": result.text})
        # What was said before is still in the cache: only the new question is read.
        print(f"\n[{result.summary}; {result.stats.reused_prompt_tokens} tokens not read again]")
