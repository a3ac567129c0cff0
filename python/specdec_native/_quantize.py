"""Models written again in a smaller type."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from . import _core
from ._checks import Text, check_all
from ._option_table import CHECKS
from .model import StrPath, on_main_thread, path_bytes
from .results import QuantizedTensor, QuantizeResult


def quantize(
    source: StrPath,
    target: StrPath,
    type: str,
    *,
    n_threads: int | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    pure: bool = False,
    allow_requantize: bool = False,
    leave_output_tensor: bool = False,
    output_tensor_type: str | None = None,
    token_embedding_type: str | None = None,
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
    on_progress: Callable[[float], object] | None = None,
) -> QuantizeResult:
    """Writes the GGUF model `source` to `target` with its matrices in a smaller type.

    The target appears only when it is complete and on disk. Its bytes do not depend on the number
    of threads or the machine. Norms, biases and other vectors stay F32; all metadata is kept but
    for ``general.file_type`` and ``general.quantization_version``. `docs/quantize.md` tells which
    tensor gets which type, and what it costs in quality.

    Args:
        source: a GGUF file of any architecture, best in F16, BF16 or F32.
        target: the file to write.
        type: "Q4_K_M", "q8_0", ... in any case; an unknown one raises an error that lists them.
        n_threads: 1 to 256; threads; the bytes do not depend on them; None: one per core this
            process may use.
        dry_run: only plan: nothing is written, and errors of tensors are 0.
        overwrite: replace `target` if it exists.
        pure: no mix: every matrix gets the type itself, where its rows fit.
        allow_requantize: quantise what is quantised already.
        leave_output_tensor: keep ``output.weight`` as it is.
        output_tensor_type: weight format of ``output.weight``, or of the embedding that stands in
            for it; None: as `type` says.
        token_embedding_type: weight format of ``token_embd.weight``; None: as `type` says.
        split_max_size: write parts ``NAME-00001-of-0000N.gguf`` with tensors of at most so many
            bytes each: "2G", "500M" (powers of 1000); what is larger has a part of its own; None:
            no limit.
        split_max_tensors: 1 or more; likewise, of at most so many tensors; None: no limit.
        on_progress: called with 0..1; an exception it raises ends the run.

    Raises:
        InvalidArgumentError: an unknown type, a target that exists or is the source, a quantised
            source without allow_requantize.
        ModelFormatError: the source is damaged, or has weights that are not finite or too large.
        ModelFileNotFoundError, ModelFileError: a file cannot be read or written; the disk is full.
        UnsupportedModelError: the source has weight formats that this version does not know.
    """
    given = {
        "n_threads": n_threads,
        "dry_run": dry_run,
        "overwrite": overwrite,
        "pure": pure,
        "allow_requantize": allow_requantize,
        "leave_output_tensor": leave_output_tensor,
        "output_tensor_type": output_tensor_type,
        "token_embedding_type": token_embedding_type,
        "split_max_size": split_max_size,
        "split_max_tensors": split_max_tensors,
        "on_progress": on_progress,
    }
    checked = check_all(CHECKS["quantize"], given)
    for name in ("n_threads", "split_max_tensors"):
        checked[name] = checked[name] or 0
    for name in ("output_tensor_type", "token_embedding_type", "split_max_size"):
        checked[name] = checked[name] or ""
    found: dict[str, Any] = _core.quantize(
        path_bytes("source", source),
        path_bytes("target", target),
        Text()("type", type),
        **checked,
        poll_signals=on_main_thread(),
    )
    found["files"] = tuple(os.fsdecode(path) for path in found["files"])
    found["tensors"] = tuple(QuantizedTensor(**tensor) for tensor in found["tensors"])
    return QuantizeResult(**found)
