"""Fill in the middle through the server, as an editor would ask.

The model must have tokens for it, as Qwen2.5-Coder has; with others the text before the cursor
goes on.
"""

from __future__ import annotations

import argparse
import json
import urllib.error
import urllib.request

from local_server import serving

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--url", help="a server that runs already (default: start one)")
args = parser.parse_args()

BEFORE = "def mean(values):\n    total = "
AFTER = "\n    return total / len(values)\n"


def post(url: str, **body: object) -> dict:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


with serving(args.model, args.url) as url:
    try:
        answer = post(f"{url}/infill", input_prefix=BEFORE, input_suffix=AFTER, n_predict=24)
        middle = answer["content"]
    except urllib.error.HTTPError as error:
        print("no infill:", json.load(error)["error"]["message"])
        answer = post(
            f"{url}/v1/completions", model="any", prompt=BEFORE, max_tokens=24, stop=["\n"]
        )
        middle = answer["choices"][0]["text"]
print(f"{BEFORE}>>>{middle}<<<{AFTER}")
