"""What each pass guessed and what was accepted."""

from __future__ import annotations

import argparse

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--prompt", default="def area(width, height):\n    return ")
parser.add_argument("--max-tokens", type=int, default=48)
args = parser.parse_args()

with sd.Model(args.model) as model:

    def show(r: sd.Round) -> None:
        """Called after each pass of the model."""
        right = [r.drafted[i] for i in r.accepted]
        wrong = [t for i, t in enumerate(r.drafted) if i not in r.accepted]
        accepted, rejected = model.detokenize(right), model.detokenize(wrong)
        print(
            f"{r.index:3d} {r.source or 'plain':9s} {accepted!r} right, {rejected!r} wrong; "
            f"then {model.detokenize([r.next_token])!r} ({r.outcome})"
        )

    draft = model.open_draft()
    # Four tokens a round, by the draft model if there is one; "auto" would choose by itself.
    drafter = sd.DraftModel(draft, gamma=4) if draft else sd.NGram(gamma=4)
    result = sd.Decoder(model, drafter=drafter).generate(
        args.prompt, max_tokens=args.max_tokens, on_round=show
    )
print(args.prompt + result.text)
