"""The options of the whole program, each written once: `python tools/gen_options.py --write`.

From these tables come the explicit keywords and docstrings of the Python API, the checks of their
values, the flags of `specdec` with help, ranges and defaults, and the tables of the docs. A test
walks them and asks of every option that another value changes something one can see.
"""

from __future__ import annotations

from .commands import COMMANDS
from .drafting import (
    DECODER,
    DRAFT_MODEL,
    EAGLE,
    ENGINE,
    KEPT,
    LAYER_SKIP,
    MTP,
    NGRAM,
    RECYCLING,
    SUFFIX,
)
from .generation import LENGTH, MANY_ONLY, REPORT, SAMPLING
from .model import FILES, MODEL, QUANTIZE
from .schema import Option

OPTIONS: tuple[Option, ...] = (
    MODEL + DECODER + KEPT + ENGINE + DRAFT_MODEL + NGRAM + SUFFIX + RECYCLING + LAYER_SKIP + EAGLE
    + MTP + MANY_ONLY + LENGTH + SAMPLING + REPORT + QUANTIZE + FILES + COMMANDS
)  # fmt: skip

__all__ = ["OPTIONS", "Option"]
