"""The forerunners' functions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from .._checks import check_whole
from ..decoder import Decoder
from ..many import generate_many
from ..model import Model
from ..options import DraftModel
from ._models import ModelOrName, opened

P = ParamSpec("P")
R = TypeVar("R")


def speculative_generate(
    big: ModelOrName, small: ModelOrName, prefix: str, max_num_tokens: int, n: int
) -> tuple[str, int, int]:
    """Continues a text greedily with drafts of n tokens.

    Args:
        big: the target: a `specdec_native.Model`, or a name as for `load_model`.
        small: the draft model.
        prefix: the prompt, raw text.
        max_num_tokens: new tokens; fewer when the model ends.
        n: 0 to 64; tokens drafted per pass of the target.

    Returns:
        The text without the prompt; how many of its tokens had been drafted; how many tokens were
        drafted in all.
    """
    with opened(small) as draft, opened(big) as target:
        with Decoder(target, drafter=DraftModel(draft, gamma=n)) as decoder:
            result = decoder.generate(prefix, max_tokens=max_num_tokens, temperature=0)
    return result.text, result.stats.accepted, result.stats.drafted


def normal_generate(model: ModelOrName, prefix: str, max_num_tokens: int) -> str:
    """What `speculative_generate` is compared with: the model alone, greedily, without drafts."""
    with opened(model) as target, Decoder(target, drafter=None) as decoder:
        return decoder.generate(prefix, max_tokens=max_num_tokens, temperature=0).text


def generate_speculative_tokens(
    approx_model: Model, input_ids: Sequence[int], gamma: int
) -> list[int]:
    """A model's best gamma tokens after these; fewer when it ends, its last token included."""
    gamma = check_whole("gamma", gamma, 0, 2**31 - 1)
    (result,) = generate_many(approx_model, [list(input_ids)], max_tokens=gamma, keep_eos=True)
    return list(result.token_ids)


def validate_tokens(
    target_model: Model, input_ids: Sequence[int], speculative_tokens: Sequence[int]
) -> list[int]:
    """The drafted tokens that are the target's own best choice, up to the first that is not."""
    drafted = [int(token) for token in speculative_tokens]
    own = generate_speculative_tokens(target_model, input_ids, len(drafted))
    n = 0
    while n < min(len(own), len(drafted)) and own[n] == drafted[n]:
        n += 1
    return drafted[:n]


def log_message(message: str) -> None:
    """Prints ``[LOG] message`` on standard error."""
    print(f"[LOG] {message}", file=sys.stderr, flush=True)


def benchmark(func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function, prints how long it took, and returns what it returned."""
    begin = time.perf_counter()
    result = func(*args, **kwargs)
    print(f"Execution time: {time.perf_counter() - begin:.4f} seconds")
    return result
