"""The program `specdec` with a real model, SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from helpers import model_path, specdec_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = specdec_binary()
PROMPTS = [
    "def fibonacci(n):\n",
    "The capital of France is",
    "<|im_start|>user\nList the planets twice.<|im_end|>\n<|im_start|>assistant\n",
]
TEXT = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be
in want of a wife. However little known the feelings or views of such a man may be on his first
entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families, that
he is considered as the rightful property of some one or other of their daughters.
"""


@pytest.fixture(scope="module")
def smollm2():
    return model_path("SmolLM2-135M-Instruct.Q4_1.gguf")


def run_json(command, *arguments):
    done = subprocess.run(
        [BINARY, command, "--json", *map(str, arguments)],
        capture_output=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_drafter_gives_the_plain_tokens(smollm2, prompt):
    def tokens(*arguments):
        return run_json("generate", "-m", smollm2, "-p", prompt, "-n", "40", *arguments)

    for sampling in ([], ["--temp", "0.8", "--seed", "7", "--verify", "match"]):
        plain = tokens("--drafter", "none", *sampling)
        assert tokens("--drafter", "ngram", *sampling)["token_ids"] == plain["token_ids"]
        model = tokens("-md", smollm2, "--drafter", "model", *sampling)
        assert model["token_ids"] == plain["token_ids"]
        assert model["text"] == plain["text"]
        stats = model["stats"]
        # A model that drafts for itself is always right.
        assert stats["accepted"] + stats["accepted_cut"] == stats["drafted"]
        assert stats["rounds"] < len(model["token_ids"]) / 2


def test_it_answers_a_question(smollm2):
    # A system message of its own: the one of its template makes this small model ramble.
    chat = ["--chat", "-sys", "You answer questions."]
    result = run_json("generate", "-m", smollm2, *chat, "-p", "What is the capital of France?")
    assert "Paris" in result["text"]
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", "eos")


def test_it_finds_plain_english_likely(smollm2, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    result = run_json("perplexity", "-m", smollm2, "-f", path, "-c", "64")
    assert result["chunks"] == 1
    assert result["perplexity"] < 60  # thousands when anything is wrong


def perplexity_texts():
    """Texts with what llama.cpp finds on them: windows of 512, the second half of each scored."""
    texts = [pytest.param(ROOT / "LICENSE", 4, 15.9546, id="licence")]
    wikitext = os.environ.get("SPECDEC_WIKITEXT")  # the test set of WikiText-2, where there is one
    if wikitext:
        texts.append(pytest.param(pathlib.Path(wikitext), 8, 21.632, id="wikitext"))
    return texts


@pytest.mark.parametrize(("text", "chunks", "expected"), perplexity_texts())
def test_perplexity_agrees_with_llama_cpp(smollm2, text, chunks, expected):
    result = run_json("perplexity", "-m", smollm2, "-f", text, "-c", "512", "--chunks", str(chunks))
    assert result["n_tokens_scored"] == chunks * 255
    assert result["perplexity"] == pytest.approx(expected, rel=0.005)
