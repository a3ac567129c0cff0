"""Drafters as the Python API offers them."""

from __future__ import annotations

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "one two three, one two three, one two"


@pytest.mark.parametrize(
    "drafter",
    [
        sd.SuffixAutomaton(),
        sd.SuffixAutomaton(1, corpus="one two three", keep=True, max_store=2048, gamma=4),
        sd.TokenRecycling(),
        sd.TokenRecycling(3, tree=False, keep=True, draft_max=5),
        sd.LayerSkip(),
        sd.LayerSkip(1, sampling="greedy", draft_max=2),
        [sd.SuffixAutomaton(), sd.TokenRecycling(), sd.LayerSkip(1)],
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_every_drafter_gives_the_plain_text(tiny, drafter, temperature):
    options = {"max_tokens": 40, "temperature": temperature, "seed": 5, "ignore_eos": True}
    plain = sd.Decoder(tiny, drafter=None).generate(PROMPT, **options)
    decoder = sd.Decoder(tiny, drafter=drafter)
    for _ in range(2):
        result = decoder.generate(PROMPT, **options)
        assert result.token_ids == plain.token_ids
        decoder.reset()


def test_a_corpus_is_drafted_from(tiny):
    options = {"max_tokens": 40, "ignore_eos": True}
    plain = sd.Decoder(tiny, drafter=None).generate(PROMPT, **options)
    drafted = {}
    for corpus in (None, PROMPT + plain.text):
        decoder = sd.Decoder(tiny, drafter=sd.SuffixAutomaton(corpus=corpus, gamma=8))
        drafted[corpus is None] = decoder.generate(PROMPT, **options).stats.accepted
    assert drafted[False] >= drafted[True]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sd.SuffixAutomaton(0), "min_match must be"),
        (
            lambda: sd.SuffixAutomaton(corpus=b"bytes"),
            "corpus must be a str or a path or None, not b'bytes'",
        ),
        (lambda: sd.SuffixAutomaton(max_store=10), "max_store must be"),
        (lambda: sd.TokenRecycling(33), "top_k must be"),
        (lambda: sd.LayerSkip(0), "n_layers must be"),
        (lambda: sd.LayerSkip(sampling="wild"), "sampling must be one of"),
        (lambda: sd.LayerSkip(draft_max=65), "draft_max must be"),
    ],
)
def test_options_are_checked_when_given(make, words):
    with pytest.raises(sd.InvalidArgumentError, match=words):
        make()


def test_layers_that_a_model_does_not_have_are_refused(tiny):
    n_layers = tiny.info.n_layers
    with pytest.raises(
        sd.InvalidArgumentError, match=f"draft_layers must be in .1, {n_layers - 1}"
    ):
        sd.Decoder(tiny, drafter=sd.LayerSkip(n_layers))


def test_a_requantised_model_says_so(tiny_path, tiny):
    with sd.Model(tiny_path, requantize="q4_0") as small:
        assert small.info.bytes_per_step < tiny.info.bytes_per_step
        assert small.info.quantisation.endswith("as Q4_0")
        options = {"max_tokens": 30, "ignore_eos": True}
        plain = sd.Decoder(tiny, drafter=None).generate(PROMPT, **options)
        result = sd.Decoder(tiny, drafter=sd.DraftModel(small, gamma=3)).generate(PROMPT, **options)
        assert result.token_ids == plain.token_ids
        assert result.stats.accepted > 0
    with pytest.raises(sd.InvalidArgumentError, match="requantize must be one of"):
        sd.Model(tiny_path, requantize="q3_k")


@pytest.mark.parametrize("dtype", ["q4_0", "q8_0"])
def test_weights_left_in_the_file_can_be_requantised_too(tiny_draft_path, dtype):
    texts = set()
    for repack in ("auto", "off"):
        with sd.Model(tiny_draft_path, requantize=dtype, repack=repack) as model:
            texts.add(sd.Decoder(model, drafter=None).generate(PROMPT, max_tokens=20).text)
    assert len(texts) == 1


def test_a_cascade_is_a_list_with_a_name(tiny, tiny_draft):
    expected = None
    for drafter in (
        None,
        [sd.DraftModel(tiny_draft), sd.SuffixAutomaton()],
        sd.Cascade(sd.DraftModel(tiny_draft), sd.SuffixAutomaton()),
    ):
        rounds = []
        with sd.Decoder(tiny, drafter=drafter, n_ctx=512) as decoder:
            out = decoder.generate("a b a b a b", max_tokens=80, on_round=rounds.append)
        expected = expected or out.token_ids
        assert out.token_ids == expected
        assert {r.source for r in rounds} <= {"", "model", "suffix"}
    assert "SuffixAutomaton" in repr(sd.Cascade(sd.SuffixAutomaton()))
    with pytest.raises(sd.InvalidArgumentError, match="at least one drafter"):
        sd.Cascade()
    with pytest.raises(sd.InvalidArgumentError, match="a Cascade contains str"):
        sd.Cascade("ngram")
    with pytest.raises(sd.InvalidArgumentError, match="NGram is in the list twice"):
        sd.Decoder(tiny, drafter=sd.Cascade(sd.NGram(), sd.NGram(n=3)))
