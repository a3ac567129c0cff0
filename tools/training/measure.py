"""Speed and acceptance of an exported pair, through the installed engine, on held-out texts."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from training.corpus import Document

N_PROMPTS, MAX_TOKENS, REPEATS = 5, 128, 3


def prompts(held_out: list[Document]) -> list[str]:
    """The beginnings of documents, cut at an end of line after 300 characters."""
    fit = [d.text for d in held_out if len(d.text) > 3000]
    chosen = [fit[i * len(fit) // N_PROMPTS] for i in range(N_PROMPTS)]
    return [text[: text.index("\n", 300) + 1] for text in chosen]


def measure(
    target_file: pathlib.Path, draft_file: pathlib.Path, texts: list[str], *, n_threads: int
) -> dict[str, Any]:
    """Greedy decoding: plainly, with the draft alone, and as `auto` with the draft chooses."""
    import specdec_native as sd

    threads = {"n_threads": n_threads}
    with sd.Model(target_file, **threads) as target, sd.Model(draft_file, **threads) as draft:
        decoders = {
            "plain": sd.Decoder(target, drafter=None),
            "draft": sd.Decoder(target, drafter=sd.DraftModel(draft)),
            "auto": sd.Decoder(target, draft=draft),
        }
        rows = []
        for text in texts:
            best: dict[str, Any] = {}
            for _ in range(REPEATS):
                for name, decoder in decoders.items():
                    decoder.reset()
                    result = decoder.generate(text, max_tokens=MAX_TOKENS, ignore_eos=True)
                    known = best.get(name)
                    if known is None or result.stats.decode_ms < known.stats.decode_ms:
                        best[name] = result
            if len({result.token_ids for result in best.values()}) != 1:
                raise AssertionError(f"speculation changed the text after {text!r}")
            rows.append((text, best))
    return {
        "prompts": len(rows),
        "tokens": MAX_TOKENS,
        "methods": {name: _summary(rows, name) for name in ("plain", "draft", "auto")},
        "sample": {"prompt": rows[0][0], "text": rows[0][1]["plain"].text},
    }


def _summary(rows: list[tuple[str, dict[str, Any]]], name: str) -> dict[str, Any]:
    stats = [best[name].stats for _, best in rows]
    gains = [s.tokens_per_second / best["plain"].stats.tokens_per_second
             for s, (_, best) in zip(stats, rows, strict=True)]  # fmt: skip
    drafted, rounds = sum(s.drafted for s in stats), sum(s.rounds for s in stats)
    accepted = sum(s.accepted for s in stats)
    return {
        "tokens_per_second": math.exp(
            sum(math.log(s.tokens_per_second) for s in stats) / len(stats)
        ),
        "speed_up": math.exp(sum(map(math.log, gains)) / len(gains)),
        "speed_ups": gains,
        "acceptance": accepted / drafted if drafted else None,
        "tokens_per_round": 1 + accepted / rounds if rounds else None,
    }
