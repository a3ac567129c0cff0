"""A server, and OpenAI's client talking to it.

Needs pip install "specdec-native[server]" openai.
"""

from __future__ import annotations

import argparse

from local_server import serving
from openai import OpenAI

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--model", default="pycode", help="a GGUF file or a name (default: %(default)s)"
)
parser.add_argument("--url", help="a server that runs already (default: start one)")
args = parser.parse_args()

with serving(args.model, args.url) as url:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    print("models:", [model.id for model in client.models.list()])
    stream = client.completions.create(
        model="any",
        prompt="def fibonacci(n):\n",
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    for event in stream:
        for choice in event.choices:
            print(choice.text, end="", flush=True)
        if event.usage:
            print("\nusage:", event.usage.completion_tokens, "tokens written")
