"""A rule in plain Python that texts have to keep, and decoding under it."""

from __future__ import annotations

import ctypes

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat"
N = 40


class Rule:
    """A matcher in plain Python: what may follow depends on the whole text before it."""

    def __init__(self, vocab_size, ends):
        self.vocab_size = vocab_size
        self.ends = ends
        self.text = []
        self.forces = True

    def allows(self, token):
        if len(self.text) % 10 == 7:  # here the text is fixed, three tokens long
            return token == 100 + len(self.text)
        if len(self.text) % 10 in (8, 9):
            return token == self.text[-1] + 1
        return (token * 7 + sum(self.text) + len(self.text)) % 5 != 0 and token not in self.ends

    def rollback(self, n):
        assert 0 < n <= len(self.text)
        del self.text[-n:]

    def try_consume_tokens(self, tokens):
        for i, token in enumerate(tokens):
            if not self.allows(token):
                return i
            self.text.append(token)
        return len(tokens)

    def validate_tokens(self, tokens):
        before = list(self.text)
        n = self.try_consume_tokens(tokens)
        self.text = before
        return n

    def compute_ff_tokens(self):
        before = list(self.text)
        while self.forces and len(self.text) % 10 in (7, 8, 9):
            self.text.append(next(t for t in range(self.vocab_size) if self.allows(t)))
        forced = self.text[len(before) :]
        self.text = before
        return forced

    def unsafe_compute_mask_ptr(self, address, n_bytes):
        words = (ctypes.c_uint32 * (n_bytes // 4)).from_address(address)
        for i in range(len(words)):
            words[i] = sum(
                1 << bit
                for bit in range(32)
                if 32 * i + bit < self.vocab_size and self.allows(32 * i + bit)
            )

    def is_error(self):
        return False


class RuleGrammar(sd.Grammar):
    def __init__(self):
        self.kind = self.source = "rule"

    def _matcher(self, model):
        return Rule(model.info.vocab_size, model._native.eog_ids())


def constrained(model, n=N, drafter=None, draft=None, verifier="auto", **options):
    with sd.Decoder(model, drafter=drafter, draft=draft, verifier=verifier, n_ctx=512) as decoder:
        return decoder.generate(PROMPT, max_tokens=n, grammar=RuleGrammar(), logprobs=1, **options)
