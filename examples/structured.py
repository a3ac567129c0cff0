"""JSON that follows a schema, speculating all the same.

Needs pip install "specdec-native[grammar]".
"""

from __future__ import annotations

import argparse
import json

import specdec_native as sd

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--prompt", default="A film as JSON: ")
args = parser.parse_args()

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "year": {"type": "integer", "minimum": 1895, "maximum": 2100},
        "genre": {"enum": ["comedy", "drama", "documentary"]},
        "seen": {"type": "boolean"},
    },
    "required": ["title", "year", "genre", "seen"],
    "additionalProperties": False,
}

with sd.Model(args.model) as model:
    decoder = sd.Decoder(model, draft=model.open_draft())
    result = decoder.generate(args.prompt, schema=SCHEMA, max_tokens=200)

# Whatever the model is: the text is JSON of this schema, unless max_tokens cut it off.
film = json.loads(result.text)
print(json.dumps(film, indent=2))
print(f"{result.stats.drafted} tokens were guessed, fixed parts of the text among them")
