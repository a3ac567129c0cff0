"""JSON of a schema, on 50 prompts: whether all of it is valid, whether drafts change anything, and
what it costs.

    python tools/benchmark_schema.py MODEL.gguf [--draft DRAFT.gguf] [--max-tokens N] [--prompts N]
        [--command specdec]

For each prompt, in turns: free text, constrained plain decoding, constrained with drafts, and with
`--command` the same schema followed by the native program. Speeds are of generation, prompts apart.
Needs llguidance and jsonschema.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import jsonschema

import specdec_native as sd

TEXT = {"type": "string"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "a person who": {
        "name": TEXT,
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "hobbies": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 4},
    },
    "a small program that": {
        "language": {"enum": ["python", "c", "rust", "javascript"]},
        "code": TEXT,
        "lines": {"type": "integer", "minimum": 1},
    },
    "a recipe for a meal that": {
        "title": TEXT,
        "minutes": {"type": "integer", "minimum": 1, "maximum": 600},
        "ingredients": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"item": TEXT, "grams": {"type": "number", "minimum": 0}},
                "required": ["item", "grams"],
                "additionalProperties": False,
            },
            "minItems": 2,
            "maxItems": 5,
        },
    },
    "a calendar entry for somebody who": {
        "title": TEXT,
        "date": {"type": "string", "format": "date"},
        "attendees": {"type": "array", "items": TEXT, "maxItems": 3},
        "priority": {"enum": ["low", "medium", "high"]},
    },
    "a review of a book that": {
        "title": TEXT,
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "summary": TEXT,
        "recommended": {"type": "boolean"},
    },
    "a call of a search function by somebody who": {
        "function": {"const": "search"},
        "arguments": {
            "type": "object",
            "properties": {
                "query": TEXT,
                "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            },
            "required": ["query", "limit"],
            "additionalProperties": False,
        },
    },
    "a city that": {
        "name": TEXT,
        "country": TEXT,
        "population": {"type": "integer", "minimum": 0},
        "location": {
            "type": "object",
            "properties": {
                "latitude": {"type": "number", "minimum": -90, "maximum": 90},
                "longitude": {"type": "number", "minimum": -180, "maximum": 180},
            },
            "required": ["latitude", "longitude"],
            "additionalProperties": False,
        },
    },
    "a support ticket of a customer who": {
        "id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        "subject": TEXT,
        "category": {"enum": ["billing", "technical", "account", "other"]},
        "contact": {"anyOf": [{"type": "null"}, TEXT]},
    },
    "a database table for a company that": {
        "table": TEXT,
        "columns": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "type": {"enum": ["integer", "text", "real", "blob"]},
                    "nullable": {"type": "boolean"},
                },
                "required": ["name", "type", "nullable"],
                "additionalProperties": False,
            },
            "minItems": 1,
            "maxItems": 4,
        },
    },
    "a quiz question about something that": {
        "question": TEXT,
        "answers": {"type": "array", "items": TEXT, "minItems": 3, "maxItems": 3},
        "right": {"type": "integer", "minimum": 0, "maximum": 2},
    },
}
SUBJECTS = [
    "lives near the sea", "has to do with numbers", "is very old", "needs no electricity",
    "starts early in the morning",
]  # fmt: skip


def cases(n: int) -> list[tuple[str, dict[str, Any]]]:
    """Prompts and schemas, every kind of schema before any comes again."""
    found = []
    for subject in SUBJECTS:
        for what, properties in SCHEMAS.items():
            schema = {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
            found.append((f"Describe {what} {subject}, as JSON.", schema))
    return found[:n]


def from_command(
    command: str, args: argparse.Namespace, prompt: str, schema: dict[str, Any]
) -> dict[str, Any]:
    """What the native program writes."""
    draft = ["-md", str(args.draft)] if args.draft else []
    done = subprocess.run(
        [
            *(command, "generate", "-m", str(args.model), *draft, "--chat", "-p", prompt, "--json"),
            *("-n", str(args.max_tokens), "-q", "-j", json.dumps(schema)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--draft", type=pathlib.Path)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--command", help="the native program, to be compared")
    args = parser.parse_args()

    model = sd.Model(args.model)
    draft = sd.Model(args.draft) if args.draft else None
    speeds: dict[str, list[float]] = {"free": [], "plain": [], "drafted": [], "command": []}
    valid = cut = different = n_native_valid = 0
    with sd.Decoder(model, draft=draft) as decoder:
        for prompt, schema in cases(args.prompts):
            messages = [{"role": "user", "content": prompt}]
            options = {"max_tokens": args.max_tokens}
            runs = {
                "free": decoder.chat(messages, **options),
                "plain": decoder.chat(messages, schema=schema, speculate=False, **options),
                "drafted": decoder.chat(messages, schema=schema, **options),
            }
            for name, run in runs.items():
                stats = run.stats
                speeds[name].append(stats.tokens_per_second or 0.0)
            found = runs["drafted"]
            different += found.token_ids != runs["plain"].token_ids
            if found.finish_reason == "length":
                cut += 1
            else:
                valid += jsonschema.Draft202012Validator(schema).is_valid(json.loads(found.text))
            if args.command:
                native = from_command(args.command, args, prompt, schema)
                if native["finish_reason"] == "stop":
                    jsonschema.validate(json.loads(native["text"]), schema)
                    n_native_valid += 1
                stats = native["stats"]
                speeds["command"].append(stats["tokens_per_second"])
    n = len(speeds["free"])
    print(f"{n} prompts of at most {args.max_tokens} tokens: {valid} valid, {cut} cut off by the "
          f"length, {different} differ from constrained plain decoding")  # fmt: skip
    if args.command:
        print(f"native: {n_native_valid} valid, {n - n_native_valid} cut off by the length")
    print("\n| | tokens/s, median | ratio to free text, median |\n|---|---|---|")
    for name, found_speeds in speeds.items():
        if found_speeds:
            ratios = [a / b for a, b in zip(found_speeds, speeds["free"], strict=True)]
            print(f"| {name} | {statistics.median(found_speeds):.1f} "
                  f"| {statistics.median(ratios):.2f} |")  # fmt: skip
    if different or valid + cut < n:
        sys.exit(1)


if __name__ == "__main__":
    main()
