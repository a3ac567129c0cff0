"""`specdec-native demo`: one prompt, answered plainly and speculatively."""

from __future__ import annotations

import json
import pathlib
import sys

from ._convert import measure_bandwidth
from .decoder import Decoder
from .model import Model
from .results import GenerationResult

MODEL = "smollm2"
MAX_TOKENS = 192

# An answer that repeats much of its prompt is what speculation by lookup is for.
PROMPT = """\
Rewrite this shopping list as a numbered list. Keep every line as it is.

- apples: 3 kg, from the market in Lyon
- bread: 2 loaves, from the bakery next door
- cheese: 400 g, from the farm in the valley
- tomatoes: 1 kg, from the market in Lyon
- olive oil: 1 bottle, from the shop at the corner
"""


def run(path: pathlib.Path, *, max_tokens: int, n_threads: int | None, as_json: bool) -> int:
    """Prints the comparison; returns 1 if the two texts differ."""
    with Model(path, n_threads=n_threads) as model:
        messages = [{"role": "user", "content": PROMPT}]
        decoders = {"plain": Decoder(model, drafter=None), "speculative": Decoder(model)}
        measure_bandwidth(model.info.n_threads)
        # The first pass pays for reading the file from disk; each of the two then runs twice.
        decoders["plain"].chat(messages, max_tokens=4)
        best: dict[str, GenerationResult] = {}
        texts = set()
        for _ in range(2):
            for name, decoder in decoders.items():
                decoder.reset()
                result = decoder.chat(messages, max_tokens=max_tokens)
                texts.add(result.token_ids)
                if name not in best or result.stats.decode_ms < best[name].stats.decode_ms:
                    best[name] = result
        identical = len(texts) == 1
        if as_json:
            _print_json(model, best, identical)
        else:
            _print_text(model, best, identical)
    return 0 if identical else 1


def _gain(best: dict[str, GenerationResult]) -> float | None:
    plain = best["plain"].stats.tokens_per_second
    speculative = best["speculative"].stats.tokens_per_second
    return speculative / plain if plain and speculative else None


def _print_json(model: Model, best: dict[str, GenerationResult], identical: bool) -> None:
    runs = {
        name: {"token_ids": result.token_ids, "stats": result.stats.to_dict()}
        for name, result in best.items()
    }
    record = {
        "model": model.info.name,
        "device": model.info.device,
        "text": best["plain"].text,
        "identical": identical,
        "speed_up": _gain(best),
        **runs,
    }
    print(json.dumps(record, indent=2))


def _print_text(model: Model, best: dict[str, GenerationResult], identical: bool) -> None:
    info = model.info
    speculative = best["speculative"]
    print(f"{info.name or info.architecture}, {info.quantisation}, {info.device}\n")
    print("> " + PROMPT.strip().replace("\n", "\n> ") + "\n")
    print(speculative.text + "\n")
    for name, result in best.items():
        print(f"{name + ':':<13}{result.summary}")
    print()
    if not identical:
        print("the texts DIFFER: this is a bug, please report it", file=sys.stderr)
        for name, result in best.items():
            print(f"--- {name} ---\n{result.text}", file=sys.stderr)
        return
    n_tokens = len(speculative.token_ids)
    print(f"identical: both runs gave the same {n_tokens} tokens.")
    gain, stats = _gain(best), speculative.stats
    if gain is not None and stats.mean_acceptance_length is not None:
        print(
            f"speculation: {gain:.2f} times the plain speed, because {stats.accepted} of the "
            f"{n_tokens} tokens were looked up in earlier text and only verified: "
            f"{stats.mean_acceptance_length:.1f} tokens per verification instead of 1.\n"
            f"Text that repeats less gains less; what is emitted never changes."
        )
