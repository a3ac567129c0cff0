"""Lets allocations of a scheduler fail, one place after the other; for test_out_of_memory.py.

    LD_PRELOAD=alloc_failure.so python failing_scheduler.py TARGET DRAFT DRAFTERS HOW_MANY N_POINTS

Says each place before it goes there, and what became of the requests behind it, as JSON lines.
"""

from __future__ import annotations

import json
import sys

from helpers import native

BEGINNING = "the cat in the hat sat on the mat, and "
# Prompt, max_tokens, chunks after which it is cancelled, time limit in seconds.
QUESTIONS = [
    (BEGINNING + "then", 12, 0, 0.0),
    (BEGINNING + "there it sat", 12, 0, 0.0),
    ("another one", 400, 3, 0.0),
    ("one that waits, and its time is over", 400, 0, 1e-9),
    (BEGINNING + "so", 8, 0, 0.0),
    ("in the queue, and nobody waits for it", 400, 1, 0.0),
]


def main():
    target, draft, drafters, how_many, n_points = sys.argv[1:]
    engine = native("failures").Engine(target, draft)

    def run(at, questions=QUESTIONS):
        told, refused, n = engine.run(questions, drafters, at, int(how_many))
        return [(reason, text.decode("latin-1")) for reason, text in told], refused, n

    # Whole texts: how far one gets that is cancelled depends on how busy the machine is.
    patient = [(prompt, n_tokens, 0, 0.0) for prompt, n_tokens, _, _ in QUESTIONS]
    whole, refused, _ = run(0, patient)  # what passes cost is measured, and kept
    _, _, n = run(0)
    print(json.dumps({"whole": whole, "refused": refused, "n": n}), flush=True)
    # Threads take their turns: the same place is not the same allocation each time.
    step = max(1, n // int(n_points))
    for at in range(1, n + 1, step):
        print(json.dumps({"at": at}), flush=True)
        told, refused, _ = run(at)
        print(json.dumps({"told": told, "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
