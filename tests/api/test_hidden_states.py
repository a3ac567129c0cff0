"""Hidden states of a text, for tools that train on them."""

from __future__ import annotations

import array

import numpy as np
import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

TEXT = "the cat in the hat sat on the mat, " * 30


def test_hidden_states_are_float32_numbers_of_every_token_and_layer(tiny):
    ids = tiny.tokenize(TEXT)
    n = tiny.info.n_layers
    layers = list(range(n + 1))
    states = tiny.hidden_states(ids, layers)
    assert isinstance(states, memoryview)
    assert states.format == "f"
    assert states.shape == (len(ids), n + 1, tiny.info.hidden_size)
    found = np.asarray(states)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    for layer in layers:
        alone = np.asarray(tiny.hidden_states(ids, [layer]))
        assert np.array_equal(alone[:, 0], found[:, layer]), layer


def test_hidden_states_do_not_depend_on_what_follows(tiny):
    """Texts longer than a pass are read in pieces; positions count on."""
    ids = tiny.tokenize(TEXT)
    assert len(ids) > 512
    layers = [0, tiny.info.n_layers]
    whole = np.asarray(tiny.hidden_states(ids, layers))
    for n in (1, 7, 300):
        part = np.asarray(tiny.hidden_states(np.array(ids[:n]), tuple(layers)))
        assert np.array_equal(part, whole[:n]), n
    same = [i for i in range(1, 300) if ids[i] == ids[0]]
    assert np.array_equal(whole[same[0], 0], whole[0, 0]), "the embedded token"
    assert not np.array_equal(whole[same[0], 1], whole[0, 1])


def test_hidden_states_outlive_the_model(tiny_path):
    with sd.Model(tiny_path) as model:
        states = model.hidden_states([1, 2, 3], [1])
    assert len(array.array("f", states.tobytes())) == 3 * states.shape[2]
    with pytest.raises(sd.ClosedError):
        model.hidden_states([1, 2, 3], [1])


@pytest.mark.parametrize(
    ("ids", "layers", "text"),
    [
        ([], [1], "the text has 0 tokens"),
        ([1, -1], [1], r"token_ids\[1\] is -1"),
        ([1, 1 << 30], [1], r"token_ids\[1\]"),
        ("abc", [1], "token_ids must be a sequence"),
        ([1], [], "layers is empty"),
        ([1], [1, 1], "ascending and distinct"),
        ([1], [2, 1], "found 1 after 2"),
        ([1], [1000], r"layers\[0\] must be a whole number from 0 to"),
        ([1], [-1], r"layers\[0\]"),
        ([1], [True], r"layers\[0\]"),
        ([1], ["a"], r"layers\[0\]"),
        ([1], "1", "layers must be a sequence"),
        ([1], 1, "layers must be a sequence"),
    ],
)
def test_what_cannot_be_read_is_refused(tiny, ids, layers, text):
    with pytest.raises(sd.InvalidArgumentError, match=text):
        tiny.hidden_states(ids, layers)


@pytest.fixture(scope="module")
def longrope(tmp_path_factory):
    """Of which the context is 1024, and was 64 at first."""
    config = tiny_models.TinyConfig(arch="phi3", n_rot=12)
    path = tiny_models.write_tiny(tmp_path_factory.mktemp("longrope") / "phi3.gguf", config)
    with sd.Model(path) as model:
        yield model


@pytest.mark.parametrize("n_ctx", [None, 64, 65, 500])
def test_hidden_states_of_longrope_are_those_of_the_context(longrope, n_ctx):
    """Which does not show in the text: it is shorter than the original context."""
    layers = [1, longrope.info.n_layers]
    (written,) = sd.generate_many(
        longrope, ["the cat in"], max_tokens=20, n_ctx=n_ctx, layers=layers, ignore_eos=True
    )
    text = longrope.tokenize("the cat in") + list(written.token_ids)
    expected = np.asarray(written.hidden_states)
    found = np.asarray(longrope.hidden_states(text[: len(expected)], layers, n_ctx=n_ctx))
    assert np.array_equal(found, expected)
    other = 500 if n_ctx == 64 else 64
    read = np.asarray(longrope.hidden_states(text[: len(expected)], layers, n_ctx=other))
    assert not np.array_equal(read, expected)


def test_hidden_states_of_a_model_with_a_context_of_its_own(longrope):
    with sd.Model(longrope.info.path, n_ctx=64) as model:
        ids = model.tokenize("the cat in")
        found = model.hidden_states(ids, [2])
        assert found.tobytes() == longrope.hidden_states(ids, [2], n_ctx=64).tobytes()
        # Beyond it a text has a context of its own.
        ids = model.tokenize(TEXT)[:100]
        found = model.hidden_states(ids, [2])
        assert found.tobytes() == longrope.hidden_states(ids, [2]).tobytes()


@pytest.mark.parametrize(
    ("n_ctx", "text"),
    [
        (0, "n_ctx must be a whole number from 1"),
        (True, "n_ctx must be"),
        ("a", "n_ctx must be"),
        (2**31 - 1, "n_ctx must be 1 to"),
        (2, "the text has 3 tokens, and n_ctx is 2; give a shorter text or a larger n_ctx"),
    ],
)
def test_contexts_that_cannot_be_are_refused(tiny, n_ctx, text):
    with pytest.raises(sd.InvalidArgumentError, match=text):
        tiny.hidden_states([1, 2, 3], [0], n_ctx=n_ctx)
