"""Prints what every verifier does exactly, by enumerating the compiled code.

Two tables in Markdown. First the total variation between what rounds in a row emit and what the
target alone would: 0 up to rounding for a lossless verifier. Then the expected tokens per round.
Draft and target laws are random over a few tokens; draws of the draft and of the verifier are
enumerated, so every number is exact. Needs a build with the test modules:

    SPECDEC_TEST_MODULES=build/tests/native python tools/verifier_table.py
"""

from __future__ import annotations

import argparse
import importlib
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))

Row = list[str]


def table(header: Row, rows: list[Row]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def distance_table(m: Any, laws: Any, total_variation: Any) -> str:
    """Verifier x drafts x case -> total variation of the first tokens, over rounds in a row."""
    shapes = [(3, 1, 4), (3, 2, 4), (3, 3, 4), (4, 2, 3), (5, 2, 3)]  # vocabulary, gamma, tokens
    rows = []
    for name, traits in m.verifiers().items():
        for drafts in laws.drafts_for(traits):
            row = [f"`{name}`", str(drafts)]
            for kind in laws.KINDS:
                if kind not in laws.kinds_for(traits):
                    row.append("")
                    continue
                worst = 0.0
                for vocab, gamma, total in shapes:
                    toy = laws.Toy(vocab, 7 * gamma + total, kind)
                    law = laws.rounds_law(m, toy, name, gamma, total, drafts)
                    worst = max(worst, total_variation(law, laws.target_law(toy, total)))
                row.append(f"{worst:.0e}" if worst < 1e-3 else f"**{worst:.2f}**")
            rows.append(row)
    return table(["verifier", "drafts", *laws.KINDS], rows)


def length_table(m: Any, laws: Any, n_seeds: int) -> str:
    """Expected tokens per round, mean over random laws of five tokens."""
    columns = [
        ("standard", laws.Drafts("sampled")),
        ("block", laws.Drafts("sampled")),
        *[("topk_importance", laws.Drafts("sampled", b)) for b in (1, 2, 3, 4)],
        *[("topk_importance", laws.Drafts("best", b)) for b in (1, 2, 3, 4)],
    ]
    rows = []
    for kind in laws.KINDS:
        for gamma in (1, 2, 3):
            row = [kind, str(gamma)]
            for verifier, drafts in columns:
                vocab = 4 if gamma == 3 else 5
                lengths = [
                    laws.tokens_per_round(
                        laws.round_law(m, laws.Toy(vocab, seed, kind), verifier, gamma, drafts)
                    )
                    for seed in range(n_seeds)
                ]
                row.append(f"{sum(lengths) / len(lengths):.3f}")
            rows.append(row)
    names = ["case", "gamma", "`standard`", "`block`"]
    names += [f"sampled B={b}" for b in (1, 2, 3, 4)] + [f"chosen B={b}" for b in (1, 2, 3, 4)]
    return table(names, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=8, help="random laws per length (default 8)")
    parser.add_argument("--only", choices=("distance", "length"), help="one table")
    options = parser.parse_args()
    laws = importlib.import_module("verifier_laws")
    total_variation = importlib.import_module("decode_reference").total_variation
    m = importlib.import_module("helpers").native("decode")
    if options.only != "length":
        print(distance_table(m, laws, total_variation))
    if options.only is None:
        print()
    if options.only != "distance":
        print(length_table(m, laws, options.seeds))


if __name__ == "__main__":
    main()
