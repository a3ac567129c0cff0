"""Entry points of earlier speculative decoders, over this package's own API: docs/compat.md.

    from specdec_native.compat import SpeculativeDecoder

    decoder = SpeculativeDecoder("draft.gguf", "model.gguf", gamma=4, max_tokens=20, seed=1)
    print(decoder.speculative_sample("Once upon a time"))

Programs that were written for them run on GGUF files with this import. What they did wrong is not
repeated: the text is that of the target, `max_tokens` counts tokens, seeds decide. New programs
are better off with `specdec_native` itself.
"""

from ._decoder import BenchmarkResult, SpeculativeDecoder, Timings
from ._functions import (
    benchmark,
    generate_speculative_tokens,
    log_message,
    normal_generate,
    speculative_generate,
    validate_tokens,
)
from ._models import Tokenizer, load_model, load_tokenizer

__all__ = [
    "BenchmarkResult",
    "SpeculativeDecoder",
    "Timings",
    "Tokenizer",
    "benchmark",
    "generate_speculative_tokens",
    "load_model",
    "load_tokenizer",
    "log_message",
    "normal_generate",
    "speculative_generate",
    "validate_tokens",
]
