"""Drafters under the controller: the plain output, honest statistics, costs kept on disk."""

from __future__ import annotations

import pathlib

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
import pretended_costs  # noqa: E402

PROMPT = "the cat in the hat the cat in the hat the cat in the "
LONG_PROMPT = " ".join(f"item {i % 7} of {i % 5};" for i in range(60))
SAMPLINGS = [{}, {"temperature": 0.8, "seed": 3}, {"temperature": 1.2, "top_k": 20, "seed": 4}]


def choices(tiny_draft):
    return {
        "auto": {"drafter": "auto"},
        "auto with a draft": {"draft": tiny_draft},
        "list": {"drafter": [sd.NGram(), sd.DraftModel(tiny_draft, head_tokens=64)]},
        "one adaptive": {"drafter": [sd.DraftModel(tiny_draft, draft_max=5)]},
        "recycling": {"drafter": [sd.TokenRecycling(), sd.SuffixAutomaton()]},
    }


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=["greedy", "sampled", "top-k"])
@pytest.mark.parametrize("prompt", [PROMPT, LONG_PROMPT], ids=["short", "long"])
def test_adaptive_drafting_gives_the_plain_tokens(tiny, tiny_draft, prompt, sampling):
    with sd.Decoder(tiny, drafter=None, n_ctx=1024) as plain:
        expected = plain.generate(prompt, max_tokens=150, ignore_eos=True, **sampling)
    for name, options in choices(tiny_draft).items():
        with sd.Decoder(tiny, n_ctx=1024, **options) as decoder:
            for _ in range(2):
                result = decoder.generate(prompt, max_tokens=150, ignore_eos=True, **sampling)
                assert result.token_ids == expected.token_ids, name
                s = result.stats
                assert s.emitted == s.accepted + s.rounds + s.plain_steps - s.cut
                assert s.speculation == "on" or s.speculation.startswith("off: ")


def test_auto_is_the_default_and_finds_repetitions(tiny, tmp_path, monkeypatch):
    """A random model repeats itself soon: lookups must be used and right."""
    # On a busy machine measured costs may speak against any draft.
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path))
    with sd.Decoder(tiny, n_ctx=1024) as decoder:
        decoder.generate("abc", max_tokens=2)
    (file,) = tmp_path.iterdir()
    header, _, *rest = file.read_text().splitlines()
    file.write_text("\n".join([header, "2 1 50 64 50.5", *rest[:-1], "0 1e6\n"]))
    with sd.Decoder(tiny, n_ctx=1024) as decoder:
        result = decoder.generate(PROMPT, max_tokens=400, ignore_eos=True)
        assert result.stats.calibration_ms == 0
    assert result.stats.rounds > 0
    assert result.stats.accepted > 0
    assert result.stats.speculation == "on"


def test_each_round_tells_who_drafted_and_why(tiny, tiny_draft):
    rounds = []
    with sd.Decoder(tiny, draft=tiny_draft, n_ctx=1024) as decoder:
        result = decoder.generate(
            PROMPT, max_tokens=200, ignore_eos=True, on_round=rounds.append, temperature=0.0
        )
    assert {r.source for r in rounds} <= {"", "model", "ngram", "suffix"}
    assert all(r.reason for r in rounds)
    assert sum(len(r.drafted) for r in rounds) == result.stats.drafted
    assert sum(r.source != "" for r in rounds) == result.stats.rounds
    assert all(len(r.drafted) <= (63 if r.source == "suffix" else 15) for r in rounds)


def test_lengths_of_a_list_stay_below_the_cap(tiny):
    rounds = []
    with sd.Decoder(tiny, drafter=[sd.NGram(draft_max=3)], n_ctx=1024) as decoder:
        decoder.generate(PROMPT, max_tokens=200, ignore_eos=True, on_round=rounds.append)
    assert max(len(r.drafted) for r in rounds) <= 3


def test_costs_are_measured_once_and_kept(tiny, tiny_draft, tmp_path, monkeypatch):
    folder = tmp_path / "costs"
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(folder))

    def calibration_ms() -> float:
        with sd.Decoder(tiny, draft=tiny_draft, n_ctx=256) as decoder:
            first = decoder.generate("abc", max_tokens=4).stats.calibration_ms
            assert decoder.generate("abd", max_tokens=4).stats.calibration_ms == first
        return first

    assert calibration_ms() > 0
    (file,) = folder.iterdir()
    assert calibration_ms() == 0
    for damage in (b"", b"specdec calibration 2\n99", b"\xff" * 200, b"specdec calibration 9\n"):
        file.write_bytes(damage)
        assert calibration_ms() > 0, damage
        assert calibration_ms() == 0
    monkeypatch.setenv("SPECDEC_CALIBRATION", "off")
    assert calibration_ms() > 0
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(file / "not a folder"))
    assert calibration_ms() > 0


def test_forks_and_resets_keep_adapting(tiny, tiny_draft):
    with sd.Decoder(tiny, draft=tiny_draft, n_ctx=1024) as decoder:
        first = decoder.generate(PROMPT, max_tokens=40, ignore_eos=True)
        with decoder.fork() as other:
            again = other.generate(PROMPT, max_tokens=40, ignore_eos=True)
        decoder.reset()
        third = decoder.generate(PROMPT, max_tokens=40, ignore_eos=True)
    assert first.token_ids == again.token_ids == third.token_ids


def test_lists_are_checked_up_front(tiny, tiny_draft):
    bad = {
        "twice": [sd.NGram(), sd.NGram(n=3)],
        "gamma": [sd.NGram(gamma=2), sd.SuffixAutomaton()],
        "list of drafters contains": [sd.NGram(), 3],
        "drafter must be": [],
    }
    for message, drafter in bad.items():
        with pytest.raises(sd.InvalidArgumentError, match=message):
            sd.Decoder(tiny, drafter=drafter)
    with pytest.raises(sd.InvalidArgumentError, match="draft is not used with drafter=None"):
        sd.Decoder(tiny, drafter=None, draft=tiny_draft)
    with pytest.raises(sd.InvalidArgumentError, match="draft must be a Model"):
        sd.Decoder(tiny, draft=str(pathlib.Path("draft.gguf")))


@pytest.mark.parametrize("sampling", SAMPLINGS[::2], ids=["greedy", "top-k"])
def test_second_choices_change_no_token(tiny, tiny_draft, tmp_path, monkeypatch, sampling):
    """With costs that make rows and drafts look free, drafts become combs."""
    drafter = [sd.DraftModel(tiny_draft)]
    costs = "2 1 50 64 50.5\n2 1 0.01 64 0.02\n0 0\n0 1e6\n"
    pretended_costs.pretend(monkeypatch, tmp_path, tiny, drafter, 1024, costs)
    with sd.Decoder(tiny, drafter=None, n_ctx=1024) as plain:
        expected = plain.generate(PROMPT, max_tokens=60, **sampling)
    rounds = []
    with sd.Decoder(tiny, drafter=drafter, n_ctx=1024) as decoder:
        result = decoder.generate(PROMPT, max_tokens=60, on_round=rounds.append, **sampling)
    assert result.token_ids == expected.token_ids
    combs = [r for r in rounds if len(set(r.parents)) < len(r.parents)]
    assert combs
    assert all(len(r.drafted) <= 15 for r in rounds)
    s = result.stats
    assert s.drafted == sum(len(r.drafted) for r in rounds)
    assert s.emitted == s.accepted + s.rounds + s.plain_steps - s.cut


def test_the_first_layers_are_measured_before_they_draft(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path))

    def calibration_ms(n_layers: int) -> float:
        with sd.Decoder(tiny, drafter=[sd.LayerSkip(n_layers=n_layers)], n_ctx=256) as decoder:
            return decoder.generate("abc", max_tokens=4).stats.calibration_ms

    assert calibration_ms(1) > 0
    (file,) = tmp_path.iterdir()
    layers = file.read_text().splitlines()[3].split()
    assert layers[0] == "1"  # layers, then how many row counts, rows and times
    assert int(layers[1]) >= 2
    assert calibration_ms(1) == 0
    # What was earned and lost outlives another number of layers.
    assert tiny.info.n_layers == 2
    (*costs, _, _) = file.read_text().splitlines()
    file.write_text("\n".join([*costs, "2 2 1 1 2 1.5", "-12.5 1e6\n"]))
    assert calibration_ms(1) > 0
    credit, plain = map(float, file.read_text().splitlines()[-1].split())
    assert plain >= 1e6
    assert credit < 0
