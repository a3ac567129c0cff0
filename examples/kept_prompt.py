"""A long prompt read once and kept on disk: the next process reads only what is new."""

from __future__ import annotations

import argparse
import pathlib
import tempfile

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
args = parser.parse_args()

manual = "\n".join(f"def option_{i}(value):\n    return value + {i}\n" for i in range(25))

with tempfile.TemporaryDirectory() as folder, sd.Model(args.model) as model:
    path = pathlib.Path(folder) / "manual.kept"
    decoder = sd.Decoder(model)
    read = decoder.generate(manual, max_tokens=0)  # reads, writes nothing
    decoder.save(path)
    print(f"read {read.stats.prompt_tokens} tokens, kept in {path.stat().st_size / 1e6:.1f} MB")

    # As another process would, another day.
    later = sd.Decoder.load(path, model)
    result = later.generate(manual + "\ndef option_25(", max_tokens=24)
    print(f"{result.stats.reused_prompt_tokens} tokens were not read again")
    print("def option_25(" + result.text)
