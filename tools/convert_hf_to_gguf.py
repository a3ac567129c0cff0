#!/usr/bin/env python3
"""Converts a Hugging Face checkpoint to GGUF: convert_hf_to_gguf.py FOLDER OUT.gguf --outtype q8_0

See docs/convert.md. From Python: `from gguf_convert import convert` with tools/ on the path.
"""

import sys

from gguf_convert.cli import main

if __name__ == "__main__":
    sys.exit(main())
