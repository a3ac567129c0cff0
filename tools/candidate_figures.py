"""Prints acceptance and `in_set` of the candidate-set verifiers on a pair of real models.

Runs `specdec generate` with `topk_importance` and `topk_importance_published` for every K, draft
length and temperature, and prints a Markdown table:

    python tools/candidate_figures.py target.gguf draft.gguf prompt.txt ... --specdec PROGRAM
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
from typing import Any


def run(options: argparse.Namespace, prompt: str, *flags: str) -> dict[str, Any]:
    command = [options.specdec, "generate", "-m", options.target, "-md", options.draft]
    command += ["-f", prompt, "-n", str(options.n_tokens), "--drafter", "model", "--json", "-q"]
    command += ["--ignore-eos", "--seed", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0"]
    command += ["--draft-head", "0"]  # a trimmed head keeps tokens out of every set
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=True)
    stats: dict[str, Any] = json.loads(done.stdout)["stats"]
    return stats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target")
    parser.add_argument("draft")
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--specdec", default="specdec", help="the native program")
    parser.add_argument("-n", "--n-tokens", type=int, default=64)
    parser.add_argument("-k", type=int, nargs="+", default=[10, 25, 50])
    parser.add_argument("--gamma", type=int, nargs="+", default=[5, 10, 15])
    parser.add_argument("--temperature", type=float, nargs="+", default=[0.0, 1.0])
    options = parser.parse_args()
    names = ("topk_importance", "topk_importance_published")
    header = ["T", "gamma", "K"]
    for name in names:
        header += [f"`{name}` in_set", "candidate acceptance", "accepted / drafted", "tokens/round"]
    print("| " + " | ".join(header) + " |\n" + "| --- " * len(header) + "|", flush=True)
    for t, gamma, k in itertools.product(options.temperature, options.gamma, options.k):
        row = [f"{t:g}", str(gamma), str(k)]
        for name in names:
            flags = ["--temp", str(t), "--gamma", str(gamma), "--draft-top-k", str(k)]
            all_stats = [run(options, p, *flags, "--verify", name) for p in options.prompts]
            positions = sum(s["candidate_positions"] for s in all_stats)
            for figure in ("in_set", "candidate_acceptance"):
                total = sum((s[figure] or 0) * s["candidate_positions"] for s in all_stats)
                row.append(f"{total / positions:.3f}" if positions else "-")
            accepted, drafted, rounds = (
                sum(s[key] for s in all_stats) for key in ("accepted", "drafted", "rounds")
            )
            row += [f"{accepted / drafted:.3f}", f"{1 + accepted / rounds:.2f}"]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
