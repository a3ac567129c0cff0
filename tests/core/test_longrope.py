"""Longrope: the divisors of a sequence are those of the context that it may grow to."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import tiny_models
from helpers import native
from tiny_models import TinyConfig

testing = native("model")
TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 270, 80)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> testing.Model:
    path = tmp_path_factory.mktemp("longrope") / "phi3.gguf"
    config = TinyConfig(arch="phi3", n_rot=12)  # original context: 64
    return testing.Model(str(tiny_models.write_tiny(path, config)), backend="cpu", n_threads=2)


def rows(model: testing.Model, n_ctx: int, *parts: list[int]) -> bytes:
    session = model.session(n_ctx=n_ctx, kv_type="f32")
    return np.concatenate([session.forward(part) for part in parts]).tobytes()


def test_the_context_chooses_the_divisors_not_the_length(model: testing.Model) -> None:
    found = {n_ctx: rows(model, n_ctx, TOKENS[:40]) for n_ctx in (40, 64, 65, 500)}
    assert found[40] == found[64]
    assert found[65] == found[500]
    assert found[64] != found[65]


@pytest.mark.parametrize("cut", [1, 30, 63, 64, 65, 79])
def test_rows_have_the_same_bits_however_the_original_context_is_crossed(
    model: testing.Model, cut: int
) -> None:
    whole = rows(model, 100, TOKENS)
    assert rows(model, 100, TOKENS[:cut], TOKENS[cut:]) == whole
    assert rows(model, 100, *([token] for token in TOKENS)) == whole


def test_what_is_rolled_back_across_it_is_as_never_fed(
    model: testing.Model, tmp_path: pathlib.Path
) -> None:
    session = model.session(n_ctx=100, kv_type="f32")
    session.forward(TOKENS[:60], output="none")
    session.forward(TOKENS[60:], output="none")
    session.truncate(50)
    found = session.forward(TOKENS[50:70])
    whole = model.session(n_ctx=100, kv_type="f32").forward(TOKENS[:70])
    assert found.tobytes() == whole[50:].tobytes()
