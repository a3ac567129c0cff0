"""Speculative decoding of GGUF language models: exact, native, on hardware people own.

```python
import specdec_native as sd

model = sd.Model("model.gguf")
decoder = sd.Decoder(model, drafter=sd.NGram())
print(decoder.chat([{"role": "user", "content": "Hi"}]))
```
"""

from typing import TYPE_CHECKING, Any

from ._embedded import (
    EmbeddedPair,
    embedded,
    embedded_draft,
    embedded_drafts,
    embedded_head,
    embedded_heads,
    embedded_models,
)
from ._quantize import quantize
from ._version import __version__
from .async_decoder import AsyncDecoder
from .decoder import Decoder
from .engine import Engine
from .errors import (
    ClosedError,
    ContextFullError,
    DeviceError,
    DownloadError,
    ForkError,
    InternalError,
    InvalidArgumentError,
    MissingExtraError,
    ModelFileError,
    ModelFileNotFoundError,
    ModelFormatError,
    NumericalError,
    OutputMismatchError,
    QueueFullError,
    ResourceLimitError,
    SessionBusyError,
    SpecdecError,
    TemplateError,
    UnsupportedModelError,
)
from .grammar import Grammar
from .many import ManyResult, generate_many
from .model import Model, check_pair, info, inspect
from .options import (
    Cascade,
    DraftModel,
    Eagle,
    LayerSkip,
    Mtp,
    NGram,
    SamplingParams,
    SuffixAutomaton,
    TokenRecycling,
)
from .requests import AsyncStream, Request
from .results import (
    Chunk,
    DecodeStats,
    EngineStats,
    FileInfo,
    GenerationResult,
    ModelInfo,
    OutputCheck,
    PairReport,
    PositionLogprobs,
    QuantizedTensor,
    QuantizeResult,
    Round,
    TensorEntry,
    TokenLogprob,
)
from .stream import Stream

if TYPE_CHECKING:
    from .studies.compare import Comparison, compare

__all__ = [
    "AsyncDecoder",
    "AsyncStream",
    "Cascade",
    "Chunk",
    "ClosedError",
    "Comparison",
    "ContextFullError",
    "DecodeStats",
    "Decoder",
    "DeviceError",
    "DownloadError",
    "DraftModel",
    "Eagle",
    "EmbeddedPair",
    "Engine",
    "EngineStats",
    "FileInfo",
    "ForkError",
    "GenerationResult",
    "Grammar",
    "InternalError",
    "InvalidArgumentError",
    "LayerSkip",
    "ManyResult",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "ModelFileNotFoundError",
    "ModelFormatError",
    "ModelInfo",
    "Mtp",
    "NGram",
    "NumericalError",
    "OutputCheck",
    "OutputMismatchError",
    "PairReport",
    "PositionLogprobs",
    "QuantizeResult",
    "QuantizedTensor",
    "QueueFullError",
    "Request",
    "ResourceLimitError",
    "Round",
    "SamplingParams",
    "SessionBusyError",
    "SpecdecError",
    "Stream",
    "SuffixAutomaton",
    "TemplateError",
    "TensorEntry",
    "TokenLogprob",
    "TokenRecycling",
    "UnsupportedModelError",
    "__version__",
    "check_pair",
    "compare",
    "embedded",
    "embedded_draft",
    "embedded_drafts",
    "embedded_head",
    "embedded_heads",
    "embedded_models",
    "generate_many",
    "info",
    "inspect",
    "quantize",
]


def __getattr__(name: str) -> Any:
    """`compare` and `Comparison`, whose studies most programs never import."""
    if name not in ("Comparison", "compare"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import studies

    globals().update(Comparison=studies.Comparison, compare=studies.compare)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
