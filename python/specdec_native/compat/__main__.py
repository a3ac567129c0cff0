"""``python -m specdec_native.compat``: the command line of one of the forerunners."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ..cli import run_guarded
from ._decoder import SpeculativeDecoder
from ._functions import benchmark, log_message

PROGRAM = "specdec_native.compat"
_TARGET, _DRAFT = "smollm2", "smollm2-draft"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}",
        description="Continues a text by speculative sampling. `specdec generate` does the same "
        "with more options.",
    )
    models = "a GGUF file, or a name that `specdec-native pull` knows"
    parser.add_argument(
        "--input",
        metavar="TEXT",
        default="Any recommendations for my holidays in Abu Dhabi?",
        help="the text (default: %(default)r)",
    )
    parser.add_argument(
        "--approx_model_name",
        metavar="NAME",
        default=_DRAFT,
        help=f"the draft model: {models} (default %(default)s)",
    )
    parser.add_argument(
        "--target_model_name",
        metavar="NAME",
        default=_TARGET,
        help=f"the target: {models} (default %(default)s)",
    )
    parser.add_argument(
        "-g",
        "--gamma",
        type=int,
        default=4,
        metavar="N",
        help="tokens drafted per pass of the target (default %(default)s)",
    )
    parser.add_argument(
        "-M",
        "--max_tokens",
        type=int,
        default=20,
        metavar="N",
        help="new tokens, fewer when the model ends (default %(default)s)",
    )
    parser.add_argument(
        "--device", default="cuda", help="cuda, which falls back to cpu, or cpu (default cuda)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="0 takes the best token (default %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="the same one gives the same text (default: a new one)",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="tell what is done on standard error"
    )
    parser.add_argument("-b", "--benchmark", action="store_true", help="print the execution time")
    return parser


def _run(args: argparse.Namespace) -> int:
    def log(text: str) -> None:
        if args.verbose:
            log_message(text)

    log(f"loading {args.approx_model_name} and {args.target_model_name}")
    with SpeculativeDecoder(
        args.approx_model_name,
        args.target_model_name,
        gamma=args.gamma,
        max_tokens=args.max_tokens,
        device=args.device,
        temperature=args.temperature,
        seed=args.seed,
        notify=lambda text: print(text, file=sys.stderr, flush=True),
    ) as decoder:
        if decoder.note:
            print(f"{PROGRAM}: {decoder.note}", file=sys.stderr)
        log(f"target: {decoder.target_model.info.device}")
        log(f"drafting {decoder.gamma} tokens per pass, {decoder.max_tokens} new tokens at most")
        sample = decoder.speculative_sample
        text = benchmark(sample, args.input) if args.benchmark else sample(args.input)
        result = decoder.last_result
        if result is not None:
            log(f"seed {result.seed}; {result.summary}")
            log(f"accepted {result.stats.accepted} of {result.stats.drafted} drafted tokens")
        print(f"Generated Text: {text}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    last = arguments is None
    return run_guarded(PROGRAM, lambda: _run(_parser().parse_args(arguments)), last=last)


if __name__ == "__main__":
    sys.exit(main())
