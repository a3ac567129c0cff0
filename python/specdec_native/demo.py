"""`specdec-native demo`: one prompt, answered plainly and speculatively."""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
from dataclasses import dataclass

from ._convert import measure_bandwidth
from ._embedded import EmbeddedPair
from .decoder import Decoder
from .errors import ResourceLimitError
from .model import Model
from .results import GenerationResult

MODEL = "smollm2"
MAX_TOKENS = 192
NOISY = 1.25  # times the other run of the same: a machine that does something else, too

# An answer that repeats much of its prompt is what speculation by lookup is for.
PROMPT = """\
Rewrite this shopping list as a numbered list. Keep every line as it is.

- apples: 3 kg, from the market in Lyon
- bread: 2 loaves, from the bakery next door
- cheese: 400 g, from the farm in the valley
- tomatoes: 1 kg, from the market in Lyon
- olive oil: 1 bottle, from the shop at the corner
"""

# Beginnings that the embedded models did not see in training.
BEGINNINGS = {
    "pycode": '''\
class Inventory:
    """Keeps track of the parts in a store."""

    def __init__(self, name, parts=None):
        self.name = name
        self.parts = parts

    def add(self, part, count):
        """Add count parts to the store.
''',
    "manuals": """\
Opening a file

The function returns a new connection object. If the file does not exist, an error is raised.
""",
}


@dataclass(frozen=True)
class Scene:
    """What is shown: a target with its draft, and whether the prompt is a chat's."""

    target: pathlib.Path
    prompt: str
    draft: pathlib.Path | None = None
    is_chat: bool = False

    @classmethod
    def of_chat_model(cls, path: pathlib.Path, draft: pathlib.Path | None = None) -> Scene:
        return cls(path, PROMPT, draft, is_chat=True)

    @classmethod
    def of_pair(cls, pair: EmbeddedPair) -> Scene:
        return cls(pair.target, BEGINNINGS[pair.name], pair.draft)


def run(scene: Scene, *, max_tokens: int, n_threads: int | None, as_json: bool) -> int:
    """Prints the comparison; returns 1 if the two texts differ."""
    with Model(scene.target, n_threads=n_threads) as model:
        draft = Model(scene.draft, n_threads=n_threads) if scene.draft is not None else None
        decoders = {
            "plain": Decoder(model, drafter=None),
            "speculative": Decoder(model, draft=draft),
        }
        with contextlib.suppress(ResourceLimitError):  # no memory for it: figures do without
            measure_bandwidth(model.info.n_threads)
        # The first pass pays for reading the file from disk; each of the two then runs twice.
        _answer(decoders["plain"], scene, 4)
        best: dict[str, GenerationResult] = {}
        plain_ms: list[float] = []
        texts = set()
        for _ in range(2):
            for name, decoder in decoders.items():
                decoder.reset()
                result = _answer(decoder, scene, max_tokens)
                texts.add(result.token_ids)
                if name == "plain":  # the other one learns from run to run
                    plain_ms.append(result.stats.decode_ms)
                if name not in best or result.stats.decode_ms < best[name].stats.decode_ms:
                    best[name] = result
        identical = len(texts) == 1
        if as_json:
            _print_json(model, draft, best, identical, is_noisy(plain_ms))
        else:
            _print_text(model, draft, scene, best, identical)
            if is_noisy(plain_ms):
                print(
                    f"a busy machine: plain decoding took {min(plain_ms):.0f} and "
                    f"{max(plain_ms):.0f} ms; run it again when nothing else runs."
                )
    return 0 if identical else 1


def is_noisy(times_ms: list[float]) -> bool:
    """Whether runs of the same took so different times that a comparison says little."""
    return max(times_ms) > NOISY * min(times_ms)


def _answer(decoder: Decoder, scene: Scene, max_tokens: int) -> GenerationResult:
    if scene.is_chat:
        return decoder.chat([{"role": "user", "content": scene.prompt}], max_tokens=max_tokens)
    return decoder.generate(scene.prompt, max_tokens=max_tokens)


def _gain(best: dict[str, GenerationResult]) -> float | None:
    plain = best["plain"].stats.tokens_per_second
    speculative = best["speculative"].stats.tokens_per_second
    return speculative / plain if plain and speculative else None


def _print_json(
    model: Model,
    draft: Model | None,
    best: dict[str, GenerationResult],
    identical: bool,
    noisy: bool,
) -> None:
    runs = {
        name: {"token_ids": result.token_ids, "stats": result.stats.to_dict()}
        for name, result in best.items()
    }
    record = {
        "model": model.info.name,
        "draft": draft.info.name if draft is not None else None,
        "device": model.info.device,
        "text": best["plain"].text,
        "identical": identical,
        "speed_up": _gain(best),
        "noisy": noisy,
        **runs,
    }
    print(json.dumps(record, indent=2))


def _print_text(
    model: Model,
    draft: Model | None,
    scene: Scene,
    best: dict[str, GenerationResult],
    identical: bool,
) -> None:
    info = model.info
    speculative = best["speculative"]
    print(f"{info.name or info.architecture}, {info.quantisation}, {info.device}")
    if draft is not None:
        print(f"draft: {draft.info.name or draft.info.architecture}, {draft.info.quantisation}")
    print("\n> " + scene.prompt.strip().replace("\n", "\n> ") + "\n")
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
    if gain is None or stats.mean_acceptance_length is None:
        return
    origin = "looked up in earlier text" if draft is None else "guessed by the draft or looked up"
    reason = f"{stats.accepted} of the {n_tokens} tokens were {origin} and only verified"
    per_round = f"{stats.mean_acceptance_length:.1f} tokens per verification instead of 1"
    print(f"speculation: {gain:.2f} times the plain speed: {reason}: {per_round}.")
    if draft is not None and stats.acceptance_rate is not None:
        print(f"acceptance: {stats.acceptance_rate:.0%} of {stats.drafted} drafted tokens.")
    print("Other text gains more or less; what is emitted never changes.")
