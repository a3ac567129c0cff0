"""How a tokenizer.json splits text into words -> the name GGUF files have for it.

The steps are compared as they stand: the same regular expressions in the same order, or a refusal
that says what was found. Names are those of llama.cpp that this project's tokenizer knows.
"""

from __future__ import annotations

import json
from typing import Any

from .errors import ConvertError, short

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _TAIL
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _TAIL
_QWEN35 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED_1 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CASED_2 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_GPT4O = rf"{_CASED_1}{_CONTRACTIONS}?|{_CASED_2}{_CONTRACTIONS}?|\p{{N}}{{1,3}}|" + _CASED_TAIL
_TEKKEN = rf"{_CASED_1}|{_CASED_2}|\p{{N}}|" + _CASED_TAIL
_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
_CJK = "[一-龥ࠀ-一가-퟿]+"

# One step: ("split", regex), ("digits", one by one?) or ("bytes", with GPT-2's regex?).
Step = tuple[str, "str | bool"]
_BYTES: Step = ("bytes", False)

# Steps -> names without and with ignore_merges, by which a word that is a token is not merged.
KNOWN: dict[tuple[Step, ...], tuple[str | None, str | None]] = {
    (("bytes", True),): ("gpt-2", None),
    (("split", _GPT2), _BYTES): ("gpt-2", None),
    (("digits", True), ("bytes", True)): ("smollm", None),
    (("split", r"\p{N}"), ("bytes", True)): ("smollm", None),
    (("split", _LLAMA3), _BYTES): ("dbrx", "llama-bpe"),
    (("split", _QWEN2), _BYTES): ("qwen2", None),
    (("split", _QWEN35), _BYTES): ("qwen35", None),
    (("split", _GPT4O), _BYTES): ("gpt-4o", None),
    (("split", _TEKKEN), _BYTES): (None, "tekken"),
    (
        ("split", r"\p{N}{1,3}"),
        ("split", "[一-龥぀-ゟ゠-ヿ]+"),
        ("split", _DEEPSEEK3),
        _BYTES,
    ): ("deepseek-v3", None),
    (
        ("split", r"[\r\n]"),
        ("split", r"\s?\p{L}+"),
        ("split", r"\s?\p{P}+"),
        ("split", _CJK),
        ("digits", True),
        _BYTES,
    ): ("deepseek-coder", None),
}


def _steps(node: Any, where: str) -> list[Step] | None:
    """The steps in order; None for anything that has no counterpart."""
    if not isinstance(node, dict):
        return None
    kind = node.get("type")
    if kind == "Sequence":
        found: list[Step] = []
        for child in node.get("pretokenizers") or []:
            steps = _steps(child, where)
            if steps is None:
                return None
            found += steps
        return found
    if kind == "ByteLevel":
        if node.get("add_prefix_space") is not False:
            return None
        return [("bytes", node.get("use_regex", True) is True)]
    if kind == "Digits":
        return [("digits", node.get("individual_digits") is True)]
    if kind == "Split":
        pattern = node.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        # Keeping the matches and dropping the rest is the same where the expression matches all.
        usual = (node.get("behavior"), node.get("invert")) in (
            ("Isolated", False),
            ("Removed", True),
        )
        return [("split", regex)] if isinstance(regex, str) and usual else None
    return None


def identify(node: Any, ignore_merges: bool, where: str) -> str:
    """The GGUF name of tokenizer.json's `pre_tokenizer`."""
    steps = _steps(node, where)
    names = KNOWN.get(tuple(steps)) if steps is not None else None
    name = names[1 if ignore_merges else 0] if names else None
    if name is not None:
        return name
    if isinstance(node, dict) and node.get("add_prefix_space") is True:
        reason = "a byte-level tokenizer that puts a space before the text is not supported"
    elif names is not None:
        reason = f"with ignore_merges = {str(ignore_merges).lower()} it is not supported"
    else:
        reason = "it is not one of the supported ones"
    supported = ", ".join(sorted({n for pair in KNOWN.values() for n in pair if n}))
    raise ConvertError(
        f"{where}: unknown pre_tokenizer, {reason}. Found "
        f"{short(json.dumps(node, ensure_ascii=False), 500)}. Supported are {supported}; if one "
        "of them splits text the same way, pass --pre-tokenizer NAME"
    )


# Names for the same way of splitting, by the name above.
ALIASES = {
    "gpt-2": "phi-2 olmo mpt jais trillion granite-docling exaone4 gigachat mellum a.x-4.0",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
    "dbrx": "smaug-bpe glm4 chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "gpt-4o": "llama4 kanana2 minimax-m2",
    "deepseek-v3": "hunyuan-dense joyai-llm",
}


# The tokenizer knows these too; no tokenizer.json is recognised as one of them.
BY_NAME_ONLY = "bloom deepseek-llm default falcon gpt3-finnish poro-chat viking"


def check_name(name: str, where: str) -> str:
    """Of --pre-tokenizer: a name that no tokenizer knows would make a file that nobody loads."""
    names = sorted({*known_names(), *BY_NAME_ONLY.split()})
    if name not in names:
        raise ConvertError(
            f"{where}: --pre-tokenizer '{short(name)}' is not known; known are {', '.join(names)}"
        )
    return name


def known_names() -> list[str]:
    names = {n for pair in KNOWN.values() for n in pair if n}
    return sorted(names.union(*(aliases.split() for aliases in ALIASES.values())))


def describe(name: str) -> tuple[list[dict[str, Any]], bool] | None:
    """The steps of a tokenizer.json for a GGUF name, and its ignore_merges."""
    for usual, aliases in ALIASES.items():
        if name in aliases.split():
            name = usual
    for steps, names in KNOWN.items():
        if name not in names:
            continue
        found: list[dict[str, Any]] = []
        for kind, value in steps:
            if kind == "bytes":
                step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
                found.append(step | {"use_regex": value})
            elif kind == "digits":
                found.append({"type": "Digits", "individual_digits": value})
            else:
                split = {"type": "Split", "pattern": {"Regex": value}}
                found.append(split | {"behavior": "Isolated", "invert": False})
        return found, name == names[1]
    return None
