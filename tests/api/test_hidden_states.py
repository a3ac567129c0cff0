"""Hidden states of a text, for tools that train on them."""

from __future__ import annotations

import array

import numpy as np
import pytest

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
