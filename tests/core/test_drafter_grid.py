"""Options of drafters x verifiers x sampling: no crash, no internal error, and the plain text.

`SPECDEC_HYPOTHESIS=thorough pytest tests/core/test_drafter_grid.py` walks many others.
"""

from __future__ import annotations

import math
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_models
from helpers import examples

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPTS = ("the cat in the hat ", "aab" * 9, "x")
KINDS = ("model", "layerskip", "ngram", "suffix", "recycling", "list")
EXAMPLES = {"model": 250, "layerskip": 100, "list": 150}
OTHERS = 60
VERIFIERS = (
    "auto",
    "greedy",
    "match",
    "standard",
    "block",
    "topk_importance",
    "topk_importance_published",
)
# Combinations that cannot be exact, or make no sense; all of them are said before anything runs.
REFUSALS = ("takes trees", "coupled drafts need a verifier", "needs temperature 0")


def tokenizer(n_tokens: int) -> dict[str, Any]:
    """The first 262 tokens are the same for all sizes."""
    keys = tiny_models.byte_tokenizer(262)
    extra = n_tokens - 262
    return keys | {
        "tokenizer.ggml.tokens": keys["tokenizer.ggml.tokens"] + [f"[{i}]" for i in range(extra)],
        "tokenizer.ggml.token_type": keys["tokenizer.ggml.token_type"] + [1] * extra,
    }


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("grid")

    def write(name: str, n_layers: int, n_tokens: int, seed: int, n_ctx: int = 256) -> pathlib.Path:
        config = tiny_models.TinyConfig(
            n_layers=n_layers,
            hidden_size=32,
            n_heads=1,
            n_kv_heads=1,
            head_dim=32,
            intermediate_size=32,
            vocab_size=n_tokens + 16,  # padded rows of the embedding
            context_length=n_ctx,
        )
        return tiny_models.write_gguf(
            folder / f"{name}.gguf",
            tiny_models.metadata(config) | tokenizer(n_tokens),
            tiny_models.random_tensors(config, seed),
        )

    paths = {
        "target": write("target", 3, 272, 1),
        "smaller": write("smaller", 1, 262, 2),
        "larger": write("larger", 1, 300, 3, n_ctx=48),
    }
    opened = {name: sd.Model(path, n_threads=1) for name, path in paths.items()}
    yield opened
    for model in opened.values():
        model.close()


TEMPERATURES = st.sampled_from([0.0, 0.0, 1e-300, 1e-3, 0.5, 1.0, 3.0, 1e6])
BIASES = st.dictionaries(
    st.integers(0, 271), st.sampled_from([-math.inf, -3.0, 5.0, 40.0]), max_size=3
)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


@st.composite
def lengths(draw: st.DrawFn, in_list: bool) -> dict[str, Any]:
    fixed = None if in_list else draw(maybe(st.sampled_from([0, 1, 3, 9])))
    if fixed is not None:
        return {"gamma": fixed}
    longest = draw(maybe(st.sampled_from([1, 2, 5, 20])))
    options: dict[str, Any] = {} if longest is None else {"draft_max": longest}
    return options | {"draft_min": draw(st.sampled_from([0, 0, 1]))}


@st.composite
def drafters(draw: st.DrawFn, models: dict[str, Any], kind: str, in_list: bool = False) -> Any:
    if kind == "list":
        kinds = draw(st.lists(st.sampled_from(KINDS[:-1]), min_size=1, max_size=3, unique=True))
        return [draw(drafters(models, k, in_list=True)) for k in kinds]
    options = draw(lengths(in_list))
    keep = draw(st.booleans())
    if kind == "ngram":
        return sd.NGram(
            draw(st.sampled_from([2, 3, 5])),
            min_count=draw(st.sampled_from([1, 2])),
            filler_top_k=draw(st.sampled_from([1, 4, 64])),
            keep=keep,
            **options,
        )
    if kind == "suffix":
        return sd.SuffixAutomaton(
            draw(st.sampled_from([1, 3])),
            corpus=draw(st.sampled_from([None, "the cat in", ""])),
            keep=keep,
            max_store=1024,
            **options,
        )
    if kind == "recycling":
        return sd.TokenRecycling(
            draw(st.sampled_from([1, 3, 32])), tree=draw(st.booleans()), keep=keep, **options
        )
    options["sampling"] = draw(st.sampled_from(["auto", "greedy", "sampled", "sampled", "coupled"]))
    # Any other is refused for greedy drafts.
    warm = st.just(0.0) if options["sampling"] == "greedy" else TEMPERATURES
    options["temperature"] = draw(maybe(warm))
    if kind == "layerskip":
        # In a list, the layers that make_drafts_look_free() knows.
        n_layers = draw(st.sampled_from([None, 1] if in_list else [None, 1, 2]))
        return sd.LayerSkip(n_layers, **options)
    branch = draw(st.sampled_from([1, 1, 2, 4, 16]))
    return sd.DraftModel(
        models[draw(st.sampled_from(["target", "smaller", "larger"]))],
        branch=branch,
        head_tokens=draw(st.sampled_from([None, 0, 16, 64])),
        draft_top_k=draw(st.sampled_from([None, branch, 50, 300])),
        **options,
    )


@st.composite
def samplings(draw: st.DrawFn) -> dict[str, Any]:
    options = {
        "temperature": draw(TEMPERATURES),
        "seed": draw(st.integers(0, 3)),
        "max_tokens": draw(st.sampled_from([1, 2, 6, 24])),
        "ignore_eos": draw(st.booleans()),
    }
    warps = {
        "top_k": st.sampled_from([1, 2, 40, 300]),
        "top_p": st.sampled_from([1e-9, 0.5, 0.99]),
        "min_p": st.sampled_from([1e-300, 0.05, 0.999]),
        "noise_scale": st.sampled_from([0.5, 100.0]),
        "repetition_penalty": st.sampled_from([0.01, 1.5]),
        "frequency_penalty": st.just(2.0),
        "logit_bias": BIASES,
    }
    for name in draw(st.sets(st.sampled_from(sorted(warps)), max_size=3)):
        options[name] = draw(warps[name])
    return options


def reconciles(result: Any, rounds: list[Any]) -> None:
    stats = result.stats
    assert stats.emitted == len(result.token_ids) == len(result.from_draft)
    assert stats.emitted == stats.accepted + stats.rounds + stats.plain_steps - stats.cut
    assert stats.accepted == sum(result.from_draft) == sum(stats.accepted_per_position)
    assert stats.drafted == sum(stats.drafted_per_position)
    assert stats.drafted == sum(len(r.drafted) for r in rounds)
    assert stats.rounds == sum(stats.accepted_histogram) == sum(bool(r.drafted) for r in rounds)
    assert stats.rounds + stats.plain_steps == len(rounds)
    assert stats.accepted + stats.accepted_cut == sum(len(r.accepted) for r in rounds)


def make_drafts_look_free(folder: pathlib.Path) -> None:
    """Of measured costs; else the controller would not draft for models as small as these."""
    for file in folder.iterdir():
        header, _, draft, layers, _ = file.read_text().splitlines()
        draft = draft if draft == "0" else "2 1 0.01 64 0.02"
        layers = f"{layers.split()[0]} 2 1 0.01 2 0.02"
        file.write_text(f"{header}\n2 1 50 64 50.5\n{draft}\n{layers}\n0 1e6\n")


def walk(
    models: dict[str, Any], kind: str, n_examples: int, folder: pathlib.Path
) -> dict[str, int]:
    counts = {"ran": 0, "refused": 0, "drafted": 0}
    plain: dict[str, list[int]] = {}

    def plain_tokens(prompt: str, n_ctx: int, request: dict[str, Any]) -> list[int]:
        key = repr((prompt, n_ctx, request))
        if key not in plain:
            decoder = sd.Decoder(models["target"], drafter=None, n_ctx=n_ctx)
            plain[key] = decoder.generate(prompt, **request).token_ids
        return plain[key]

    @settings(max_examples=examples(n_examples), suppress_health_check=list(HealthCheck))
    @given(
        drafter=drafters(models, kind),
        verifier=st.sampled_from(VERIFIERS),
        n_ctx=st.sampled_from([32, 40, 200]),
        use_cache=st.sampled_from([True, True, True, False]),
        calls=st.lists(st.tuples(st.sampled_from(PROMPTS), samplings()), min_size=1, max_size=2),
    )
    def case(drafter: Any, verifier: str, n_ctx: int, use_cache: bool, calls: list[Any]) -> None:
        make_drafts_look_free(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the verifier that is not lossless
            decoder = sd.Decoder(
                models["target"], drafter=drafter, verifier=verifier, n_ctx=n_ctx,
                use_cache=use_cache,
            )  # fmt: skip
        for prompt, request in calls:
            rounds: list[Any] = []
            try:
                result = decoder.generate(prompt, **request, on_round=rounds.append)
            except sd.InvalidArgumentError as error:
                if rounds or not any(reason in str(error) for reason in REFUSALS):
                    raise
                counts["refused"] += 1
                continue
            reconciles(result, rounds)
            said = result.stats.speculation + result.stats.note
            assert "failed" not in said or "the draft model has no token" in said
            if request["temperature"] == 0 or verifier in ("auto", "match"):
                assert result.token_ids == plain_tokens(prompt, n_ctx, request)
            counts["ran"] += 1
            counts["drafted"] += result.stats.drafted

    for draft in models.values() if kind == "list" else ():
        for drafter in ([sd.LayerSkip(1)], [sd.LayerSkip(1), sd.DraftModel(draft)]):
            sd.Decoder(models["target"], drafter=drafter, n_ctx=32).generate("x", max_tokens=1)
    case()
    return counts


@pytest.mark.hypothesis
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_runs_or_is_refused(
    models: dict[str, Any], kind: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path))
    n = EXAMPLES.get(kind, OTHERS)
    counts = walk(models, kind, n, tmp_path)
    assert counts["ran"] > 0.4 * n
    assert counts["drafted"] > n / 4  # by chance of the examples 0.7 to 4 of each


@pytest.mark.parametrize("verifier", VERIFIERS[1:])
@pytest.mark.parametrize("branch", [1, 3])
@pytest.mark.parametrize("target_t", [0.0, 0.8])
@pytest.mark.parametrize("draft_t", [None, 0.0, 1e-300, 0.8])
def test_drafts_that_are_to_be_sampled_at_any_temperature(
    models: dict[str, Any], verifier: str, branch: int, target_t: float, draft_t: float | None
) -> None:
    """Temperature 0 is a point mass: there is no law to draw from, and none to carry."""
    if verifier == "greedy" and target_t > 0:
        pytest.skip("greedy is for temperature 0")
    if branch > 1 and verifier in ("standard", "block"):
        pytest.skip("takes chains only")
    drafters = [
        sd.DraftModel(models["smaller"], sampling="sampled", temperature=draft_t, branch=branch)
    ]
    if branch == 1:
        drafters.append(sd.LayerSkip(sampling="sampled", temperature=draft_t))
    request = {"max_tokens": 30, "temperature": target_t, "seed": 1, "ignore_eos": True}
    for drafter in drafters:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoder = sd.Decoder(models["target"], drafter=drafter, verifier=verifier, n_ctx=128)
        result = decoder.generate(PROMPTS[0], **request)
        assert result.stats.emitted == 30
        assert result.stats.drafted >= result.stats.rounds > 5
        if target_t == 0 or verifier == "match":
            plain = sd.Decoder(models["target"], drafter=None, n_ctx=128)
            assert result.token_ids == plain.generate(PROMPTS[0], **request).token_ids
