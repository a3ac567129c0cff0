"""Compares two builds of `specdec`: whether they compute the same bits on this machine.

    python tools/compare_programs.py build/dev/cpp/cli/specdec build/clang/cpp/cli/specdec

Both continue texts with the models of the checkout, plainly and with their drafts, greedy and drawn
by chance, and measure perplexities, which depend on every logit; each with every instruction set
that this processor has and with both ways to keep weights. All that they write but times must be
the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAIRS = {
    "pycode": ("pycode-llama-5m.q8_0.gguf", "pycode-llama-draft.q8_0.gguf", "def add(a, b):\n"),
    "manuals": ("manuals-neox-7m.q8_0.gguf", "manuals-neox-draft.q8_0.gguf", "The option"),
}


def outputs(program: str, isa: str, *, n_tokens: int = 64) -> dict[str, Any]:
    """What a program makes of everything with one instruction set, by what was asked."""
    found: dict[str, Any] = {}
    environment = {**os.environ, "SPECDEC_CPU_ISA": isa, "SPECDEC_CALIBRATION": "off"}

    def run(name: str, *arguments: str) -> str:
        command = [program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{name}: {program} failed: {done.stderr.strip()}")
        return done.stdout

    for name, (target, draft, prompt) in PAIRS.items():
        model = ["-m", str(ROOT / "models" / target), "-t", "2"]
        ways = itertools.product(
            ([], ["-md", str(ROOT / "models" / draft)]), ("0", "1"), ("off", "auto")
        )
        for drafts, temperature, repack in ways:
            what = (
                f"{name}{' with draft' * bool(drafts)}, temperature {temperature}, repack {repack}"
            )
            options = [
                "-n",
                str(n_tokens),
                "--temp",
                temperature,
                "--seed",
                "1",
                "--repack",
                repack,
            ]
            found[what] = run(what, "generate", *model, *drafts, "-p", prompt, *options)
        text = str(ROOT / "tests" / "data" / f"{name}_held_out.txt")
        record = json.loads(run(name, "perplexity", *model, "-f", text, "-c", "128", "--json"))
        found[f"{name}, perplexity"] = record["perplexity"]
    return found


def isas(program: str) -> list[str]:
    """What the program can run on this processor."""
    wrong = {**os.environ, "SPECDEC_CPU_ISA": "?"}
    done = subprocess.run(
        [program, "--version"], capture_output=True, text=True, env=wrong, check=False
    )
    names = re.search(r"can run: ([\w, ]+)", done.stdout + done.stderr)
    if names is None:
        raise SystemExit(f"{program} does not tell its instruction sets: {done.stderr.strip()}")
    return names[1].split(", ")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("programs", nargs=2, metavar="PROGRAM")
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args(arguments)
    first, second = args.programs
    n_same, different = 0, []
    common = [isa for isa in isas(first) if isa in isas(second)]
    for isa in common:
        one = outputs(first, isa, n_tokens=args.tokens)
        other = outputs(second, isa, n_tokens=args.tokens)
        different += [f"{isa}: {what}" for what in one if one[what] != other[what]]
        n_same += sum(one[what] == other[what] for what in one)
    for what in different:
        print(f"DIFFERENT: {what}")
    print(f"{n_same} outputs are the same, {len(different)} differ ({', '.join(common)})")
    return 1 if different or n_same == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
