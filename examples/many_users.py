"""asyncio: several requests share the passes of one model."""

from __future__ import annotations

import argparse
import asyncio

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--max-tokens", type=int, default=40)
args = parser.parse_args()

PROMPTS = ["def add(a, b):", "class Stack:", "import os\n\n", "for i in range("]


async def ask(engine: sd.Engine, name: int, prompt: str) -> str:
    text = ""
    # Leaving the loop early, or cancelling the task, would end the request within one pass.
    async for chunk in engine.stream(prompt, max_tokens=args.max_tokens):
        text += chunk.text
    print(f"--- user {name}\n{prompt}{text}")
    return text


async def main() -> None:
    with sd.Model(args.model) as model, sd.Engine(model, draft=model.open_draft()) as engine:
        texts = await asyncio.gather(*(ask(engine, i, p) for i, p in enumerate(PROMPTS)))
        stats = engine.stats()
        print(f"--- {stats.rows} rows in {stats.passes} passes of the model")
        # Each got what it would have got alone.
        alone = sd.Decoder(model, drafter=None)
        for prompt, text in zip(PROMPTS, texts, strict=True):
            assert alone.generate(prompt, max_tokens=args.max_tokens).text == text


asyncio.run(main())
