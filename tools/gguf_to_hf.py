#!/usr/bin/env python3
"""Writes a GGUF file as a Hugging Face checkpoint: gguf_to_hf.py IN.gguf OUT_DIR --dtype f32

The weights are dequantised, the tokenizer is rebuilt. See docs/convert.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from gguf_convert.atomic_file import Terminated, signals_as_exceptions
from gguf_convert.errors import ConvertError
from gguf_convert.to_hf import gguf_to_hf


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes a GGUF file as a Hugging Face checkpoint.")
    parser.add_argument("input", type=pathlib.Path, help="the GGUF file")
    parser.add_argument("output", type=pathlib.Path, help="the folder to write")
    parser.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="f32")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    try:
        with signals_as_exceptions():
            notes = gguf_to_hf(
                options.input,
                options.output,
                dtype=options.dtype.upper(),
                progress=not options.quiet,
            )
        if not options.quiet:
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
    except (ConvertError, OSError, MemoryError) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    except Terminated as signal:
        return 128 + signal.number
    return 0


if __name__ == "__main__":
    sys.exit(main())
