"""What the calls of the API refuse, by the name the caller knows, and where their ranges end."""

from __future__ import annotations

import copy
import logging
import math
import pickle

import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: sd.Decoder("tiny"), "target must be a Model, not str"),
        (lambda m: sd.Decoder(m, draft=3), "draft must be a Model"),
        (lambda m: sd.Decoder.load("kept", 5), "target must be a Model, not int"),
        (lambda m: sd.Decoder.load(5, m), "path must be a str or os.PathLike, not int"),
        (lambda m: sd.Decoder(m).save(5), "path must be a str or os.PathLike, not int"),
        (lambda m: sd.Model(5), "path must be a str or os.PathLike, not int"),
        (lambda m: sd.Model("x.gguf", n_gpu_layers=-2), "n_gpu_layers must be"),
        (lambda m: sd.Model("x.gguf", vram_budget=0), "vram_budget must be"),
        (lambda m: sd.Model("x.gguf", vram_budget=" "), "vram_budget is an empty text"),
        (lambda m: sd.inspect(5), "path must be a str or os.PathLike, not int"),
        (lambda m: sd.inspect("x", max_array=-1), "max_array must be a whole number from 0"),
        (lambda m: sd.check_pair("a", m), "target must be a Model, not str"),
        (lambda m: sd.check_pair(m, "a"), "draft must be a Model, not str"),
        (lambda m: sd.generate_many("a", []), "model must be a Model, not str"),
        (lambda m: sd.generate_many(m, "text"), "prompts must be a sequence of prompts, not one"),
        (lambda m: sd.generate_many(m, b"text"), "prompts must be a sequence of prompts, not one"),
        (lambda m: sd.generate_many(m, 5), "prompts must be a sequence of prompts, not int"),
        (lambda m: sd.generate_many(m, [[1], [-1]]), r"prompts\[1\]\[0\] is -1"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=-1), "max_tokens must be a whole number"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=2**31), "max_tokens must be .*2147483647"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=[2**31]), r"max_tokens\[0\] must be"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=[-1]), r"max_tokens\[0\] must be"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=[1, 2]), "max_tokens has 2 numbers"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens="5"), "max_tokens must be a sequence"),
        (lambda m: sd.generate_many(m, ["a"], max_tokens=b"5"), "max_tokens must be a sequence"),
        (lambda m: sd.generate_many(m, ["a"], seeds=[2**64]), r"seeds\[0\] must be .*709551615"),
        (lambda m: sd.generate_many(m, ["a"], seeds=[-1]), r"seeds\[0\] must be"),
        (lambda m: sd.generate_many(m, ["a"], seeds=7), "seeds must be a sequence of numbers"),
        (lambda m: m.tokenize(5), "text must be a str, not int"),
        (lambda m: m.detokenize("5"), "token_ids must be a sequence of token ids, not text"),
        (lambda m: m.detokenize(5), "token_ids must be a sequence of token ids, not int"),
        (lambda m: m.detokenize([0, True]), r"token_ids\[1\] is True"),
        (lambda m: m.detokenize([m.info.vocab_size]), r"token_ids\[0\] is .* from 0 to"),
        (lambda m: m.detokenize([None]), r"token_ids\[0\] is None"),
        (lambda m: m.token_text(-1), "token_id must be a whole number from 0"),
        (lambda m: m.token_text(m.info.vocab_size), "token_id must be a whole number from 0"),
        (lambda m: m.apply_chat_template([], template=""), "template must be a str that is not em"),
        (lambda m: m.apply_chat_template([], template=5), "template must be a str that is not em"),
        (lambda m: sd.SamplingParams(logit_bias=5), "logit_bias must be a dict of token id to num"),
        (lambda m: sd.SamplingParams(logit_bias={2**31: 0}), "a token id in logit_bias .*483647"),
        (lambda m: sd.SamplingParams(logit_bias={-1: 0}), "a token id in logit_bias must be"),
        (lambda m: sd.SamplingParams(logit_bias={5: 1e6 + 1}), r"logit_bias\[5\] must be"),
        (lambda m: sd.SamplingParams(logit_bias={5: -1e6 - 1}), r"logit_bias\[5\] must be"),
        (lambda m: sd.SamplingParams(logit_bias={5: float("inf")}), r"logit_bias\[5\] must be"),
        (lambda m: sd.Cascade(), "a Cascade needs at least one drafter"),
        (lambda m: sd.Cascade(5), "a Cascade contains int"),
    ],
)  # fmt: skip
def test_what_is_refused_is_named(tiny, call, says):
    with pytest.raises(sd.InvalidArgumentError, match=says):
        call(tiny)


def test_ranges_are_open_to_their_ends(tiny):
    last = tiny.info.vocab_size - 1
    assert isinstance(tiny.token_text(0), str)
    assert isinstance(tiny.token_text(last), str)
    tiny.detokenize([0, last])
    sd.SamplingParams(logit_bias={2**31 - 1: 1e6, 0: -1e6, 1: float("-inf")})
    results = sd.generate_many(
        tiny, ["a", "a"], max_tokens=[0, 1], seeds=[0, 2**64 - 1], n_ctx=16, ignore_eos=True
    )
    assert [(len(r.token_ids), r.seed) for r in results] == [(0, 0), (1, 2**64 - 1)]
    [result] = sd.generate_many(tiny, ["a"], max_tokens=0, n_ctx=16)
    assert result.token_ids == ()
    for most in (2**31 - 1, [2**31 - 1]):
        [result] = sd.generate_many(tiny, ["a"], max_tokens=most, n_ctx=16, ignore_eos=True)
        assert len(result.token_ids) > 1


LONGEST = {
    sd.DraftModel: 4,
    sd.NGram: 7,
    sd.SuffixAutomaton: 15,
    sd.TokenRecycling: 15,
    sd.LayerSkip: 3,
    sd.Eagle: 4,
    sd.Mtp: 4,
}


def needed_by(kind, tiny):
    return {sd.DraftModel: {"model": tiny}, sd.Eagle: {"head": tiny}}.get(kind, {})


def test_drafts_have_lengths_of_their_own(tiny):
    for kind, longest in LONGEST.items():
        needed = needed_by(kind, tiny)
        kind(**needed, draft_min=longest)
        with pytest.raises(sd.InvalidArgumentError, match=f"at most draft_max, {longest}, not"):
            kind(**needed, draft_min=longest + 1)


@pytest.mark.parametrize("kind", LONGEST)
def test_draft_min_ends_at_the_longest_draft(tiny, kind):
    needed = needed_by(kind, tiny)
    kind(**needed, draft_min=9, draft_max=9)
    with pytest.raises(sd.InvalidArgumentError, match="at most draft_max, 8, not 9"):
        kind(**needed, draft_min=9, draft_max=8)
    kind(**needed, gamma=0)
    for more in ({"draft_min": 1}, {"draft_max": 1}):
        with pytest.raises(sd.InvalidArgumentError, match="give either gamma, or"):
            kind(**needed, gamma=2, **more)


def test_a_cascade_shows_its_drafters():
    one, two = sd.NGram(2), sd.TokenRecycling()
    assert repr(sd.Cascade(one, two)) == f"Cascade({one!r}, {two!r})"
    assert sd.Cascade(one, two).drafters == (one, two)


def test_options_of_drafters_are_checked_where_they_are_made(tiny):
    for kind in LONGEST:
        with pytest.raises(sd.InvalidArgumentError, match="draft_max must be"):
            kind(**needed_by(kind, tiny), draft_max=0)


def test_biases_are_of_token_ids_and_real_numbers():
    biases = sd.SamplingParams(logit_bias={2**31 - 1: 1, 0: -math.inf}).logit_bias
    assert biases == {2**31 - 1: 1.0, 0: -math.inf}
    assert all(type(bias) is float for bias in biases.values())
    with pytest.raises(sd.InvalidArgumentError, match=f"0 to {2**31 - 1}"):
        sd.SamplingParams(logit_bias={2**31: 1})


@pytest.mark.parametrize("kind", [sd.DraftModel, sd.LayerSkip, sd.Eagle, sd.Mtp])
def test_greedy_drafts_have_no_temperature(tiny, kind):
    needed = needed_by(kind, tiny)
    for fine in ({"sampling": "greedy"}, {"sampling": "greedy", "temperature": 0.0},
                 {"sampling": "sampled", "temperature": 0.5}, {"temperature": 0.5}):  # fmt: skip
        kind(**needed, **fine)
    with pytest.raises(sd.InvalidArgumentError, match=r"temperature=0\.5 has no effect on greedy"):
        kind(**needed, sampling="greedy", temperature=0.5)


def test_so_many_candidates_are_drafted_as_there_are_branches(tiny):
    sd.DraftModel(tiny, branch=3, draft_top_k=3)
    with pytest.raises(sd.InvalidArgumentError, match="draft_top_k must be at least branch, 3"):
        sd.DraftModel(tiny, branch=3, draft_top_k=2)


def test_what_is_closed_says_so(tiny_path):
    model = sd.Model(tiny_path, n_threads=1)
    assert model.open_draft() is None
    decoder = sd.Decoder(model, drafter=None, n_ctx=16)
    assert not model.closed
    assert not decoder.closed
    model.close()
    decoder.close()
    assert model.closed
    assert decoder.closed
    for use in (model.open_draft, lambda: model.tokenize("a"), lambda: sd.Decoder(model),
                lambda: model._keep()):  # fmt: skip
        with pytest.raises(sd.ClosedError, match="the model is closed"):
            use()
    for use in (lambda: decoder.n_ctx, lambda: decoder.busy, lambda: decoder.generate("a"),
                decoder.fork, decoder.reset):  # fmt: skip
        with pytest.raises(sd.ClosedError, match="the decoder is closed"):
            use()


def test_the_end_of_a_block_closes(tiny_path):
    with sd.Model(tiny_path, n_threads=1) as model:
        with sd.Decoder(model, drafter=None, n_ctx=16) as decoder:
            assert not decoder.closed
        assert decoder.closed
        assert not model.closed
    assert model.closed


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_nothing_native_is_copied(tiny, way):
    with pytest.raises(TypeError, match="a Model cannot be pickled or copied"):
        way(tiny)
    with sd.Decoder(tiny, drafter=None, n_ctx=16) as decoder:
        with pytest.raises(TypeError, match="a Decoder cannot be pickled or copied"):
            way(decoder)


def test_what_is_told_has_its_types(tiny):
    assert isinstance(tiny.info.placement, tuple)
    assert isinstance(tiny.info.warnings, tuple)
    assert all(isinstance(name, str) and isinstance(n, int) for name, n in tiny.info.tensor_types)
    report = sd.check_pair(tiny, tiny)
    assert report.first_difference is None
    assert isinstance(report.warnings, tuple)
    assert sd.info()["version"] == sd.__version__


def test_an_application_without_logging_hears_nothing(tiny_path):
    with sd.Model(tiny_path):  # whose messages go to the logger
        kinds = [type(handler) for handler in logging.getLogger("specdec_native").handlers]
    assert logging.NullHandler in kinds


def test_a_file_of_the_hub_is_looked_for_by_its_name(monkeypatch, tmp_path):
    """It ends as a file's name does, and is none."""
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    monkeypatch.setenv("SPECDEC_OFFLINE", "1")
    with pytest.raises(sd.DownloadError, match="is not here"):
        sd.Model("hf:org/repo/file.gguf")
    with pytest.raises(sd.ModelFileNotFoundError):
        sd.Model("file.gguf")


def test_many_texts_keep_the_space_they_begin_with(sentencepiece):
    """What a SentencePiece vocabulary puts before a prompt is not before what continues it."""
    [token] = sentencepiece.tokenize("ab", add_special=False)
    options = {"logit_bias": {token: 1e6}, "max_tokens": 2}
    [result] = sd.generate_many(sentencepiece, ["x"], **options)
    assert result.text == " ab ab"
    assert sd.Decoder(sentencepiece, drafter=None).generate("x", **options).text == " ab ab"
    assert sentencepiece.detokenize([token, token]) == "ab ab"


def test_a_model_that_could_not_be_opened_is_a_closed_one(tmp_path):
    """A debugger that stops at the error shows it."""
    model = sd.Model.__new__(sd.Model)
    with pytest.raises(sd.SpecdecError):
        model.__init__(tmp_path / "none.gguf")
    assert model.closed
    assert repr(model) == "<specdec_native.Model, closed>"
    with pytest.raises(sd.ClosedError):
        model.tokenize("a")


def test_a_template_is_the_files_own_unless_one_is_named(tiny_draft):
    with pytest.raises(sd.TemplateError, match="no chat template"):
        tiny_draft.apply_chat_template([{"role": "user", "content": "a"}])


def test_many_texts_tell_what_is_to_be_warned_of_at_once(tmp_path, caplog):
    config = tiny_models.TinyConfig(context_length=16)
    with sd.Model(tiny_models.write_tiny(tmp_path / "short.gguf", config)) as short:
        with caplog.at_level(logging.WARNING, "specdec_native"):
            sd.generate_many(short, ["a"], max_tokens=1, n_ctx=32)
        assert "32 tokens is more than the 16" in caplog.text


def test_so_many_texts_may_end_an_answer(tiny):
    options = {"max_tokens": 1, "ignore_eos": True}
    with sd.Decoder(tiny, drafter=None, n_ctx=64) as decoder:
        decoder.generate("a", stop=[f"stop {i}" for i in range(64)], **options)
        with pytest.raises(sd.InvalidArgumentError, match="at most 64 of them"):
            decoder.generate("a", stop=[f"stop {i}" for i in range(65)], **options)


@pytest.mark.parametrize("end", ["\0", "\0zz", "\0.gguf"])
def test_a_path_does_not_end_at_a_nul(tiny, tiny_path, tmp_path, monkeypatch, end):
    """Which the system would take it to do: it is another file's name then."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus").write_text("some text")

    class Path:
        def __init__(self, name):
            self.name = name

        def __fspath__(self):
            return self.name

    path = f"{tiny_path}{end}"
    with sd.Decoder(tiny) as decoder:
        decoder.generate("the cat in the hat", max_tokens=1)
        decoder.save("kept")
        for call in (
            lambda: sd.Model(path),
            lambda: sd.Model(Path(path)),
            lambda: sd.inspect(path),
            lambda: sd.quantize(path, "out.gguf", "q8_0"),
            lambda: sd.quantize(tiny_path, f"out.gguf{end}", "q8_0"),
            lambda: decoder.save(f"kept{end}"),
            lambda: sd.Decoder.load(f"kept{end}", tiny),
            lambda: sd.Decoder(tiny, drafter=sd.SuffixAutomaton(corpus=Path(f"corpus{end}"))),
        ):
            with pytest.raises(sd.SpecdecError) as refused:
                call()
            assert isinstance(refused.value, (sd.InvalidArgumentError, FileNotFoundError))
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "corpus"}
