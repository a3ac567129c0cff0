"""Public data sets from their own files: Alpaca, WikiText, CNN/DailyMail, questions, answers."""

from __future__ import annotations

import csv
import io
import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidArgumentError
from .data import lines_of, read_json_lines, read_text

Record = tuple[str, dict[str, Any]]  # where it stands, for errors; its fields


@dataclass(frozen=True)
class Sample:
    """What a model reads, and what a person wrote in its place or the text's own continuation."""

    prompt: str
    reference: str


def records(path: pathlib.Path) -> list[Record]:
    """The objects of a JSON list or of JSON lines, or the rows of a CSV file with a header."""
    start = read_text(path).lstrip()[:1]
    if start == "[":
        return _json_list(path)
    if start == "{":
        return [(f"{path}, line {number}", entry) for number, entry in read_json_lines(path)]
    if path.suffix in (".json", ".jsonl", ".ndjson"):
        found = "nothing" if not start else repr(start)
        raise InvalidArgumentError(
            f"{path}, line 1: expected a JSON list or JSON lines, found {found}"
        )
    return _csv(path)


def _json_list(path: pathlib.Path) -> list[Record]:
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"{path}: not JSON: {error}") from None
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise InvalidArgumentError(
                f"{path}, record {number}: expected a JSON object, found {type(entry).__name__}"
            )
    if not entries:
        raise InvalidArgumentError(f"{path} holds no records")
    return [(f"{path}, record {number}", entry) for number, entry in enumerate(entries, 1)]


def _csv(path: pathlib.Path) -> list[Record]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    found: list[Record] = []
    try:
        for row in reader:
            if None in row:
                raise InvalidArgumentError(
                    f"{path}, line {reader.line_num}: more fields than the header's "
                    f"{len(reader.fieldnames or ())}"
                )
            found.append((f"{path}, line {reader.line_num}", row))
    except csv.Error as error:
        raise InvalidArgumentError(f"{path}, line {reader.reader.line_num}: {error}") from None
    if not found:
        raise InvalidArgumentError(f"{path} holds no records")
    return found


def _text(record: Record, name: str, *, empty: bool = False) -> str:
    where, entry = record
    value = entry.get(name)
    if not isinstance(value, str):
        there = ", ".join(map(repr, entry)) or "nothing"
        found = f"only {there}" if name not in entry else _kind(value)
        raise InvalidArgumentError(f"{where}: {name} must be text, found {found}")
    if not empty and not value.strip():
        raise InvalidArgumentError(f"{where}: {name} is empty")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def alpaca(path: pathlib.Path) -> list[Sample]:
    """ "instruction", a line break and "input" where there is one; "output" is the reference.

    No template around it: the study it is for used none. Entries without an output are left out.
    """
    samples = []
    for record in records(path):
        instruction = _text(record, "instruction")
        more = _text(record, "input", empty=True) if "input" in record[1] else ""
        output = _text(record, "output", empty=True)
        if output.strip():
            samples.append(Sample(f"{instruction}\n{more}" if more else instruction, output))
    return _some(samples, path, "an output")


def wikitext(path: pathlib.Path) -> list[str]:
    """The paragraphs of a raw text file; headings, ` = Title = `, are left out."""
    lines = [line.strip() for line in lines_of(path)]
    paragraphs = [
        line for line in lines if line and not (line.startswith("= ") and line.endswith(" ="))
    ]
    if not paragraphs:
        raise InvalidArgumentError(f"{path} holds no paragraphs")
    return paragraphs


def cnn_dailymail(path: pathlib.Path) -> list[Sample]:
    """Articles to be summarized: JSON or CSV with "article" and "highlights", or the questions of
    Spec-Bench, of which those of the category "summarization" count."""
    found = records(path)
    if "turns" in found[0][1]:
        return _spec_bench_articles(found, path)
    return [
        Sample(_summarize(_text(record, "article")), _text(record, "highlights"))
        for record in found
    ]


def _spec_bench_articles(found: Sequence[Record], path: pathlib.Path) -> list[Sample]:
    samples = []
    for where, entry in found:
        if entry.get("category") != "summarization":
            continue
        article = _first(where, entry.get("turns"), "turns").removeprefix("Summarize: ")
        answer = _first(where, entry.get("reference", [""]), "reference")
        samples.append(Sample(_summarize(article), answer))
    return _some(samples, path, "the category summarization")


def _first(where: str, value: object, name: str) -> str:
    if not isinstance(value, list) or not value or not isinstance(value[0], str):
        raise InvalidArgumentError(f"{where}: {name} must be a list of texts")
    return value[0]


def _summarize(article: str) -> str:
    return f"Summarize the article: {article.strip()}"


def questions(path: pathlib.Path) -> list[Sample]:
    """ "question" and "answer" of JSON or CSV; other columns do not matter."""
    return [
        Sample(_text(record, "question"), _text(record, "answer", empty=True))
        for record in records(path)
    ]


def _some(samples: list[Sample], path: pathlib.Path, what: str) -> list[Sample]:
    if not samples:
        raise InvalidArgumentError(f"{path} holds no record with {what}")
    return samples
