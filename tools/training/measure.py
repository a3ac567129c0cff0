"""Speed and acceptance of an exported pair, through the installed engine, on held-out texts."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from training.corpus import Document
from training_safety import ToolError

N_PROMPTS, MAX_TOKENS, REPEATS = 5, 128, 3
# Greedy text of a small model soon repeats itself, which is easy to guess; sampled text is not.
TEMPERATURES = (0.0, 0.8)


def prompts(held_out: list[Document]) -> list[str]:
    """Some 300 characters out of the middle of documents, whole paragraphs at their beginning."""
    fit = [d.text for d in held_out if len(d.text) > 3000]
    if not fit:
        raise ToolError("no held-out document has 3000 characters to begin from: give more text")
    chosen = []
    for i in range(N_PROMPTS):
        text = fit[i * len(fit) // N_PROMPTS]
        start = text.find("\n\n", len(text) // 3) + 2
        end = text.find("\n", start + 300)
        chosen.append(text[start : end + 1 or None])
    return chosen


def measure(
    target_file: pathlib.Path, draft_file: pathlib.Path, texts: list[str], *, n_threads: int
) -> dict[str, Any]:
    """Decodes plainly, with the draft alone, and as `auto` with the draft chooses."""
    import specdec_native as sd

    with (
        sd.Model(target_file, n_threads=n_threads) as target,
        sd.Model(draft_file, n_threads=n_threads) as draft,
    ):
        decoders = {
            "plain": sd.Decoder(target, drafter=None),
            "draft": sd.Decoder(target, drafter=sd.DraftModel(draft)),
            "auto": sd.Decoder(target, draft=draft),
        }
        runs = [_run(decoders, texts, temperature) for temperature in TEMPERATURES]
    return {
        "prompts": len(texts),
        "tokens": MAX_TOKENS,
        "runs": [
            {
                "temperature": temperature,
                "methods": {name: _summary(run, name) for name in decoders},
                "sample": run[0]["plain"].text,
            }
            for temperature, run in zip(TEMPERATURES, runs, strict=True)
        ],
        "prompt": texts[0],
    }


def _run(decoders: dict[str, Any], texts: list[str], temperature: float) -> list[dict[str, Any]]:
    """The fastest result of every decoder for each text; all give the same tokens."""
    rows = []
    options = {"temperature": temperature, "seed": 1, "ignore_eos": True}
    for text in texts:
        best: dict[str, Any] = {}
        for _ in range(REPEATS):
            for name, decoder in decoders.items():
                decoder.reset()
                result = decoder.generate(text, max_tokens=MAX_TOKENS, **options)
                known = best.get(name)
                if known is None or result.stats.decode_ms < known.stats.decode_ms:
                    best[name] = result
        if len({result.token_ids for result in best.values()}) != 1:
            raise AssertionError(f"speculation changed the text after {text!r}")
        rows.append(best)
    return rows


def _summary(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    stats = [best[name].stats for best in rows]
    speeds = [s.tokens_per_second for s in stats]
    gains = [
        speed / best["plain"].stats.tokens_per_second
        for speed, best in zip(speeds, rows, strict=True)
    ]
    drafted, rounds = sum(s.drafted for s in stats), sum(s.rounds for s in stats)
    accepted = sum(s.accepted for s in stats)
    return {
        "tokens_per_second": _geometric_mean(speeds),
        "speed_up": _geometric_mean(gains),
        "speed_ups": gains,
        "acceptance": accepted / drafted if drafted else None,
        "tokens_per_round": 1 + accepted / rounds if rounds else None,
    }


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
