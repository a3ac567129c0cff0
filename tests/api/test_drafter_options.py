"""Every drafter is told its own options, alone and in lists, from Python and the command line."""

from __future__ import annotations

import json
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

LETTERS = "abcdefghijklmnopqrstuvwxyz"
KINDS = {
    "ngram": sd.NGram,
    "suffix": sd.SuffixAutomaton,
    "recycling": sd.TokenRecycling,
    "layerskip": sd.LayerSkip,
}
N_TOKENS = 500


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A model that says the alphabet, round and round: what it says next depends on one token."""
    config = tiny_models.TinyConfig(n_layers=4, context_length=2048)
    tensors = tiny_models.random_tensors(config, 1)
    for name in tensors:
        if name.endswith(("attn_output.weight", "ffn_down.weight")):
            tensors[name] = np.zeros_like(tensors[name])
        if name.endswith("norm.weight"):
            tensors[name] = np.ones_like(tensors[name])
    embedding = np.asarray(tensors["token_embd.weight"])
    output = np.zeros_like(embedding)
    for at, letter in enumerate(LETTERS):
        output[ord(letter)] = 0.2 * embedding[ord(LETTERS[at - 1])]
    tensors["output.weight"] = output
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    return tiny_models.write_gguf(
        tmp_path_factory.mktemp("drafter_options") / "alphabet.gguf", keys, tensors
    )


@pytest.fixture(scope="module")
def model(path: pathlib.Path) -> Iterator[Any]:
    with sd.Model(path, n_threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A draft model that knows nothing of the alphabet."""
    config = tiny_models.TinyConfig(n_layers=1, context_length=2048)
    folder = tmp_path_factory.mktemp("drafter_options")
    with sd.Model(tiny_models.write_tiny(folder / "other.gguf", config, seed=3)) as opened:
        yield opened


@pytest.fixture
def free_drafts(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says that the drafts of these drafters cost next to nothing, or so much as a target step."""
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path))

    def say(target: Any, drafter: Any, *, row_ms: float = 0.5, draft_ms: float = 0.01) -> None:
        sd.Decoder(target, drafter=drafter, n_ctx=64).generate("x", max_tokens=1)
        for file in tmp_path.iterdir():
            header, _, draft, layers, _ = file.read_text().splitlines()
            costs = f"2 1 {draft_ms} 64 {draft_ms + 0.01}"
            draft = draft if draft == "0" else costs
            layers = "0 0" if layers.startswith("0 ") else f"{layers.split()[0]} {costs}"
            file.write_text(f"{header}\n2 1 50 64 {50 + 64 * row_ms}\n{draft}\n{layers}\n0 1e6\n")

    return say


def run(
    model: Any, drafter: Any, n_tokens: int = N_TOKENS, **options: Any
) -> tuple[Any, list[Any]]:
    rounds: list[Any] = []
    call = {"max_tokens": n_tokens, "ignore_eos": True, "on_round": rounds.append}
    verifier = options.pop("verifier", "auto")
    with sd.Decoder(model, drafter=drafter, verifier=verifier, n_ctx=1024) as decoder:
        result = decoder.generate(LETTERS * 2, **call, **options)
    return result, rounds


def longest(rounds: list[Any], source: str | None = None) -> int:
    return max((len(r.drafted) for r in rounds if source in (None, r.source)), default=0)


def test_the_model_says_the_alphabet(model: Any) -> None:
    assert run(model, None, 52)[0].text == LETTERS * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({}, {"ngram": 7, "suffix": 15, "recycling": 15, "layerskip": 3}),
        ({"draft_max": 2}, 2),
        ({"draft_max": 30}, 30),
        ({"draft_max": 64}, 64),
        ({"gamma": 20}, 20),
        ({"gamma": 64}, 64),
    ],
    ids=str,
)
def test_drafts_are_as_long_as_they_may_be(
    model: Any, kind: str, options: dict[str, int], want: Any
) -> None:
    result, rounds = run(model, KINDS[kind](**options))
    want = want[kind] if isinstance(want, dict) else want
    assert longest(rounds) == want == len(result.stats.drafted_per_position)
    assert result.text == (LETTERS * 20)[:N_TOKENS]
    if "gamma" in options and kind != "recycling":  # that one has to see the tokens first
        lengths = [len(r.drafted) for r in rounds[:-1]]
        assert set(lengths) == {want}


@pytest.mark.parametrize("length", [1, 4, 25, 64])
def test_a_draft_models_lengths_arrive(model: Any, length: int) -> None:
    for options in ({"draft_max": length}, {"gamma": length}):
        _, rounds = run(model, sd.DraftModel(model, **options))
        assert longest(rounds) == length


def test_short_drafts_are_not_verified(model: Any, other: Any) -> None:
    """Text in which lookups find short matches at first."""
    for kind in ("ngram", "suffix", "recycling"):
        _, rounds = run(model, KINDS[kind](draft_min=5, draft_max=9))
        lengths = {len(r.drafted) for r in rounds}
        assert 9 in lengths
        assert not lengths & {1, 2, 3, 4}
    _, rounds = run(model, sd.DraftModel(other, draft_min=3, draft_max=3), 40)
    assert {len(r.drafted) for r in rounds} <= {0, 3}


def test_a_list_keeps_each_to_its_own_longest_draft(model: Any, free_drafts: Any) -> None:
    for drafters, want in (
        ([sd.SuffixAutomaton(draft_max=3), sd.NGram(draft_max=12)], {"suffix": 3, "ngram": 12}),
        ([sd.SuffixAutomaton(draft_max=12), sd.NGram(draft_max=3)], {"suffix": 12, "ngram": 3}),
        ([sd.SuffixAutomaton(draft_max=30), sd.NGram()], {"suffix": 30, "ngram": 7}),
        ([sd.NGram(draft_max=2), sd.SuffixAutomaton(draft_max=15)], {"ngram": 2, "suffix": 15}),
        ([sd.NGram(draft_max=3), sd.DraftModel(model, draft_max=20)], {"ngram": 3, "model": 20}),
        ([sd.NGram(draft_max=20), sd.DraftModel(model, draft_max=2)], {"ngram": 20, "model": 2}),
        ([sd.LayerSkip(draft_max=9), sd.NGram(draft_max=2)], {"layerskip": 9, "ngram": 2}),
        ([sd.LayerSkip(), sd.NGram(draft_max=2)], {"layerskip": 15, "ngram": 2}),
    ):
        free_drafts(model, drafters)
        result, rounds = run(model, drafters)
        assert result.text == (LETTERS * 20)[:N_TOKENS]
        seen = {source: longest(rounds, source) for source in want}
        assert all(seen[source] <= most for source, most in want.items()), (seen, want)
        assert max(seen.values()) == max(want.values()), (seen, want)


def test_a_list_keeps_each_to_its_own_shortest_draft(
    model: Any, other: Any, free_drafts: Any
) -> None:
    for drafters, source, least in (
        ([sd.NGram(draft_min=6, draft_max=8), sd.SuffixAutomaton(draft_max=2)], "ngram", 6),
        ([sd.SuffixAutomaton(draft_min=6), sd.NGram(draft_max=2)], "suffix", 6),
        ([sd.DraftModel(other, draft_min=4), sd.NGram(draft_max=1)], "model", 4),
        ([sd.LayerSkip(1, draft_min=3), sd.NGram(draft_max=1)], "layerskip", 3),
    ):
        free_drafts(model, drafters)
        result, rounds = run(model, drafters, temperature=1.0, seed=1)
        assert result.token_ids == run(model, None, temperature=1.0, seed=1)[0].token_ids
        lengths = [len(r.drafted) for r in rounds[:-8] if r.source == source]
        assert lengths
        assert min(lengths) >= least


def test_models_in_a_list_sample_each_in_their_own_way(model: Any, free_drafts: Any) -> None:
    """Of the target's own model coupled drafts are always right, greedy ones are not."""
    request = {"temperature": 2.0, "seed": 5}

    def wrong(drafters: list[Any], source: str) -> int:
        free_drafts(model, drafters)
        rounds = run(model, drafters, 200, **request)[1]
        drafted = [r for r in rounds if r.source == source and r.drafted]
        assert drafted
        return sum(r.outcome == "correction" for r in drafted)

    layers = {"n_layers": 3, "draft_max": 1}  # whose layers do nothing: as good as the whole
    for in_order in (1, -1):
        pair = [
            sd.DraftModel(model, sampling="coupled", draft_max=2, draft_min=2),
            sd.LayerSkip(sampling="greedy", **layers),
        ]
        assert wrong(pair[::in_order], "model") == 0
        pair = [
            sd.DraftModel(model, sampling="greedy", draft_max=1),
            sd.LayerSkip(sampling="coupled", n_layers=3, draft_max=2, draft_min=2),
        ]
        assert wrong(pair[::in_order], "layerskip") == 0
        pair = [
            sd.DraftModel(model, temperature=0.0, draft_max=2, draft_min=2),
            sd.LayerSkip(temperature=2.0, **layers),
        ]
        assert wrong(pair[::in_order], "model") > 0


def test_combs_are_drafted_in_lists(model: Any, other: Any, free_drafts: Any) -> None:
    for verifier, temperature in (("topk_importance", 0.8), ("match", 0.8), ("auto", 0.0)):
        for draft in (model, other):
            drafters = [sd.DraftModel(draft, branch=3, draft_min=2), sd.NGram(draft_max=1)]
            free_drafts(model, drafters, row_ms=0.01)
            request = {"temperature": temperature, "seed": 3, "verifier": verifier}
            result, rounds = run(model, drafters, 200, **request)
            combs = [r for r in rounds if r.source == "model" and r.parents]
            assert combs
            assert all(len(r.drafted) == 3 * len(set(r.parents)) for r in combs)
            assert result.stats.drafted == sum(len(r.drafted) for r in rounds)
            if verifier != "topk_importance":
                plain = run(model, None, 200, temperature=temperature, seed=3)[0]
                assert result.token_ids == plain.token_ids


def test_a_list_of_fixed_lengths_is_all_or_none(model: Any) -> None:
    with pytest.raises(sd.InvalidArgumentError, match="gamma does not apply"):
        sd.Decoder(model, drafter=[sd.NGram(gamma=2), sd.SuffixAutomaton()])
    with pytest.raises(sd.InvalidArgumentError, match="DraftModel's model must be a Model"):
        sd.Decoder(model, drafter=sd.DraftModel("draft.gguf"))


def test_what_is_kept_goes_along_with_a_fork(model: Any) -> None:
    text = "the quick brown fox "
    bias = dict.fromkeys(map(ord, LETTERS), -5.0)
    for drafter in (
        sd.NGram(3, keep=True),
        sd.SuffixAutomaton(2, keep=True),
        sd.TokenRecycling(keep=True),
    ):
        new = type(drafter)(**{**vars(drafter), "keep": False})
        drafted = {}
        for name, choice in (("kept", drafter), ("new", new)):
            with sd.Decoder(model, drafter=choice, n_ctx=512) as decoder:
                decoder.generate(text * 3, max_tokens=5, logit_bias=bias)
                with decoder.fork() as fork:
                    for each in (decoder, fork):
                        rounds: list[Any] = []
                        each.generate(text[:-4], max_tokens=9, on_round=rounds.append)
                        drafted.setdefault(name, []).append(rounds[0].drafted)
        assert drafted["kept"][0] == drafted["kept"][1] != ()
        assert drafted["new"][0] == drafted["new"][1] != drafted["kept"][0]


# ---------------------------------------------------------------- seeds


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
def test_it_is_said_when_a_seed_alone_gives_no_text_again(
    model: Any, free_drafts: Any, verifier: str
) -> None:
    request = {"temperature": 2.0, "seed": 7}
    drafters = [sd.DraftModel(model, sampling="greedy"), sd.NGram()]

    def once(drafter: Any, verifier: str = verifier, temperature: float = 2.0) -> Any:
        return run(model, drafter, 150, verifier=verifier, seed=7, temperature=temperature)[0]

    # The same call where drafts cost nothing and where they cost much: lengths follow the clock.
    free_drafts(model, drafters)
    quick = once(drafters)
    free_drafts(model, drafters, row_ms=60, draft_ms=60)
    slow = once(drafters)
    assert quick.token_ids != slow.token_ids
    for result in (quick, slow):
        assert not result.stats.reproducible
        assert "the seed alone does not give this text again" in result.stats.note
    for exact in (once(drafters, "match"), once(drafters, temperature=0.0)):
        assert exact.stats.reproducible
        assert "seed" not in exact.stats.note
    assert run(model, None, 150, **request)[0].token_ids == once(drafters, "match").token_ids

    # Drafts of a fixed length, alone, depend on nothing else.
    for drafter in (
        sd.DraftModel(model, sampling="greedy"),
        sd.NGram(),
        sd.SuffixAutomaton(gamma=9),
        sd.TokenRecycling(),
        sd.LayerSkip(),
    ):
        results = [once(drafter), once(drafter)]
        assert all(r.stats.reproducible for r in results)
        assert results[0].token_ids == results[1].token_ids
        assert results[0].stats.note == ""
        with sd.Decoder(model, drafter=drafter, verifier=verifier, n_ctx=1024) as decoder:
            decoder.generate("zyx" * 20, max_tokens=40, temperature=1.0, seed=1)
            again = decoder.generate(LETTERS * 2, max_tokens=150, ignore_eos=True, **request)
        assert again.token_ids == results[0].token_ids  # nor on earlier calls
    kept = once(sd.NGram(keep=True))
    assert not kept.stats.reproducible


# ---------------------------------------------------------------- command line


def stats_of(path: pathlib.Path, *arguments: str) -> tuple[dict[str, Any], str]:
    model = ("-m", str(path), "-p", LETTERS * 2, "-n", str(N_TOKENS), "-c", "1024", "-t", "1")
    done = subprocess.run(
        [specdec_binary(), "generate", *model, "--temp", "0", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)["stats"], done.stderr


@pytest.mark.parametrize("kind", [*KINDS, "model"])
def test_flags_of_lengths_go_to_every_drafter(path: pathlib.Path, kind: str) -> None:
    model = ("-md", str(path)) if kind == "model" else ()
    for flag, n in (("--draft-max", 2), ("--draft-max", 30), ("--gamma", 20)):
        stats, _ = stats_of(path, *model, "--drafter", kind, flag, str(n))
        assert len(stats["drafted_per_position"]) == n
    stats, _ = stats_of(path, *model, "--drafter", kind, "--draft-min", "3", "--draft-max", "3")
    first, *_, last = stats["drafted_per_position"]
    assert first == last == stats["rounds"] > 0


def test_flags_of_lengths_go_to_every_drafter_of_a_list(path: pathlib.Path) -> None:
    for drafters in ("ngram,suffix", "auto", "layerskip,ngram", "recycling,suffix"):
        stats, _ = stats_of(path, "--drafter", drafters, "--draft-max", "2")
        assert len(stats["drafted_per_position"]) <= 2
        stats, _ = stats_of(path, "--drafter", drafters, "--gamma", "20")
        assert len(stats["drafted_per_position"]) == 20


def test_the_seed_that_is_printed_says_when_it_is_not_enough(path: pathlib.Path) -> None:
    for verifier, enough in (("match", True), ("standard", False)):
        stats, said = stats_of(path, "--temp", "1", "-n", "9", "--verify", verifier)
        assert stats["reproducible"] == enough
        assert ("which alone does not give this text again" in said) != enough
        assert "seed" in said
