"""Constrained text: what may follow, under every drafter and verifier, equals plain decoding."""

from __future__ import annotations

import gc
import json
import re
import weakref

import pytest

from rule_grammar import PROMPT, N, Rule, RuleGrammar, constrained

sd = pytest.importorskip("specdec_native", reason="the package is not installed")


@pytest.mark.parametrize("options", [{}, {"repetition_penalty": 1.3}, {"logit_bias": {271: 2.0}}])
def test_the_text_is_the_best_that_is_allowed(tiny, options):
    """One token at a time, the others banned by hand."""
    result = constrained(tiny, 24, **options)
    rule = Rule(tiny.info.vocab_size, tiny._native.eog_ids())
    prompt = tiny.tokenize(PROMPT)
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        for i, token in enumerate(result.token_ids):
            banned = {t: float("-inf") for t in range(rule.vocab_size) if not rule.allows(t)}
            bias = {**banned, **{t: b for t, b in options.get("logit_bias", {}).items()
                                 if t not in banned}}  # fmt: skip
            rest = {k: v for k, v in options.items() if k != "logit_bias"}
            one = decoder.generate(
                [*prompt, *result.token_ids[:i]], max_tokens=1, logit_bias=bias, logprobs=1, **rest
            )
            assert one.token_ids == (token,)
            assert one.logprobs[0].logprob == pytest.approx(result.logprobs[i].logprob, abs=1e-6)
            assert rule.try_consume_tokens([token]) == 1


DRAFTERS = ["ngram", "suffix", "recycling", "layerskip", "model", "auto", "ngram,model"]


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_drafter_gives_the_text_of_plain_decoding(tiny, tiny_draft, drafter, temperature):
    draft = tiny_draft if drafter in ("model", "auto", "ngram,model") else None
    options = {"temperature": temperature, "seed": 11}
    plain = constrained(tiny, **options)
    fast = constrained(tiny, drafter=drafter, draft=draft, **options)
    assert fast.token_ids == plain.token_ids
    assert len(plain.token_ids) == N
    assert sum(plain.from_draft) == 0
    assert fast.stats.drafted > 0


def test_fixed_parts_are_drafts_that_always_hit(tiny):
    result = constrained(tiny, N + 2, drafter=sd.NGram(3, gamma=4))
    forced = [i for i in range(N) if i % 10 in (7, 8, 9)]
    # The first of three may be the pass's own token behind an accepted draft.
    assert all(result.from_draft[i] for i in forced if i % 10 != 7)


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance", "match"])
@pytest.mark.parametrize("drafter", ["ngram", "model"])
def test_every_verifier_keeps_to_the_rule(tiny, tiny_draft, verifier, drafter):
    draft = tiny_draft if drafter == "model" else None
    for seed in range(8):
        result = constrained(
            tiny, drafter=drafter, draft=draft, verifier=verifier, temperature=1.2, seed=seed
        )
        rule = Rule(tiny.info.vocab_size, tiny._native.eog_ids())
        assert rule.try_consume_tokens(list(result.token_ids)) == N


@pytest.mark.parametrize("verifier", ["standard", "block"])
def test_cutting_drafts_does_not_bias_what_is_drawn(tiny, tiny_draft, verifier):
    """Frequencies of the first two tokens, drafted against plain, over many seeds."""
    counts = []
    for drafter in (None, sd.DraftModel(tiny_draft, gamma=3, sampling="sampled", temperature=1.0)):
        with sd.Decoder(tiny, drafter=drafter, verifier=verifier, n_ctx=128) as decoder:
            seen = {}
            for seed in range(1500):
                result = decoder.generate(
                    PROMPT, max_tokens=2, grammar=RuleGrammar(), temperature=0.3, seed=seed
                )
                seen[result.token_ids] = seen.get(result.token_ids, 0) + 1
            counts.append(seen)
    plain, fast = counts
    keys = {k for k in {**plain, **fast} if plain.get(k, 0) + fast.get(k, 0) >= 40}
    assert len(keys) > 3
    chi2 = sum(
        (plain.get(k, 0) - fast.get(k, 0)) ** 2 / (plain.get(k, 0) + fast.get(k, 0)) for k in keys
    )
    assert chi2 < len(keys) + 5 * (2 * len(keys)) ** 0.5


def test_the_check_and_forks_have_the_rule_too(tiny):
    with sd.Decoder(tiny, drafter="ngram", n_ctx=512) as decoder:
        result = decoder.generate(PROMPT, max_tokens=20, grammar=RuleGrammar(), verify_output=True)
        assert result.check.identical


def test_a_crowd_of_constrained_requests_gets_what_each_gets_alone(tiny, tiny_draft):
    """The rule is asked on the engine's thread, while others hold the interpreter."""
    kinds = [{"grammar": RuleGrammar()}, {}, {"grammar": RuleGrammar(), "speculate": False}]
    calls = [
        {"seed": i, "temperature": i % 2, "max_tokens": 20 + i, **kinds[i % 3]} for i in range(9)
    ]
    with sd.Engine(tiny, draft=tiny_draft, n_ctx=256, max_requests=4) as engine:
        requests = [engine.submit(PROMPT, **call) for call in calls]
        while not all(request.done for request in requests):
            engine.stats()
        results = [request.result() for request in requests]
    with sd.Decoder(tiny, drafter=None, n_ctx=256) as decoder:
        for call, result in zip(calls, results, strict=True):
            assert decoder.generate(PROMPT, **call).token_ids == result.token_ids


def test_an_error_of_a_rule_ends_its_request_only(tiny):
    class Broken(RuleGrammar):
        def _matcher(self, model):
            rule = super()._matcher(model)
            rule.is_error = lambda: len(rule.text) > 5
            rule.get_error = lambda: "too complex"
            return rule

    with sd.Engine(tiny, drafter="ngram", n_ctx=256) as engine:
        good = engine.submit(PROMPT, max_tokens=30, grammar=RuleGrammar())
        bad = engine.submit(PROMPT, max_tokens=30, grammar=Broken())
        with pytest.raises(sd.InvalidArgumentError, match="cannot be followed: too complex"):
            bad.result(60)
        assert len(good.result(60).token_ids) == 30
    with sd.Decoder(tiny, drafter=None, n_ctx=256) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="too complex"):
            decoder.generate(PROMPT, max_tokens=30, grammar=Broken())
        assert len(decoder.generate(PROMPT, max_tokens=9, grammar=RuleGrammar()).token_ids) == 9


@pytest.fixture(scope="module")
def guided():
    return pytest.importorskip("llguidance", reason="llguidance is not installed")


@pytest.mark.parametrize("drafter", [None, "ngram"])
def test_a_space_before_a_text_is_none_of_the_grammars(guided, sentencepiece, drafter, capfd):
    model = sentencepiece
    first = model.tokenize("ab", add_special=False)
    assert model._native.token_bytes()[first[0]].startswith(b" ")  # the trap is there
    for text in ("ab", " ab", "xyz", "ä", "", "\n", '{"a": "b"}', "{", "  x", "😀"):
        for other in ("ab", " ab", text):
            rule = sd.Grammar.lark("start: " + json.dumps(other, ensure_ascii=False))
            assert rule.matches(model, text) == (text == other), (text, other)
    schema = {
        "type": "object",
        "properties": {"ab": {"const": "ä"}, "x": {"type": "boolean"}},
        "required": ["ab", "x"],
        "additionalProperties": False,
    }
    with sd.Decoder(model, drafter=drafter, n_ctx=128) as decoder:
        for seed in range(3):
            result = decoder.generate("a", max_tokens=90, schema=schema, temperature=0.3, seed=seed)
            told = json.loads(result.text)
            assert list(told) == ["ab", "x"]
            assert told["ab"] == "ä"
    assert capfd.readouterr() == ("", "")


def test_a_grammar_does_not_keep_its_model(guided, tiny_path):
    model = sd.Model(tiny_path, n_threads=1)
    assert sd.Grammar.regex("a+").matches(model, "aa")
    handle = weakref.ref(model._native)
    del model
    gc.collect()
    assert handle() is None


def test_errors_of_a_grammar_are_one_line(guided, tiny):
    endless = sd.Grammar.json_schema({"$ref": "#"})
    with sd.Decoder(tiny, drafter=None, n_ctx=128) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="cannot be followed") as raised:
            decoder.generate(PROMPT, grammar=endless)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("drafter", [None, "ngram"])
def test_a_rule_that_leaves_only_what_is_banned_says_so(guided, tiny, drafter):
    only = sd.Grammar.regex("a{1,3}")
    with sd.Decoder(tiny, drafter=drafter, n_ctx=128) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="are banned, by ignore_eos or logit_b"):
            decoder.generate(PROMPT, max_tokens=20, grammar=only, ignore_eos=True)
        free = sd.Grammar.regex("[a-z ]*")
        result = decoder.generate(PROMPT, max_tokens=20, grammar=free, ignore_eos=True)
        assert len(result.token_ids) == 20


def test_what_is_no_grammar_is_refused(tiny):
    with sd.Decoder(tiny, drafter=None, n_ctx=128) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="grammar must be a Grammar, not str"):
            decoder.generate(PROMPT, grammar="root ::= x")
        with pytest.raises(sd.InvalidArgumentError, match="schema and grammar"):
            decoder.generate(PROMPT, grammar=RuleGrammar(), schema={})


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("drafter", [None, "ngram", "auto"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_json_follows_its_schema(guided, tiny, drafter, temperature):
    results = []
    for given in (SCHEMA, json.dumps(SCHEMA)):
        with sd.Decoder(tiny, drafter=drafter, n_ctx=512) as decoder:
            results.append(
                decoder.generate(
                    PROMPT, max_tokens=300, schema=given, temperature=temperature, seed=4
                )
            )
    assert results[0].token_ids == results[1].token_ids
    assert results[0].finish_reason == "stop"
    value = json.loads(results[0].text)
    assert list(value) == ["name", "age", "kind"]
    assert len(value["name"]) <= 8
    assert 0 <= value["age"] <= 120
    assert value["kind"] in ("cat", "dog")
    assert sd.Grammar.json_schema(SCHEMA).matches(tiny, results[0].text)


def test_regular_expressions_and_grammars(guided, tiny):
    digits = sd.Grammar.regex(r"[0-9]{4}-[0-9]{2}")
    lark = sd.Grammar.lark('start: ("ab" | "cd")+ "."')
    gbnf = sd.Grammar.gbnf('root ::= ("x" | "yz") root2\nroot2 ::= [a-c] "!"')
    with sd.Decoder(tiny, drafter="ngram", n_ctx=512) as decoder:
        for seed in range(5):
            options = {"temperature": 1.0, "seed": seed, "max_tokens": 200}
            assert re.fullmatch(
                r"[0-9]{4}-[0-9]{2}", decoder.generate(PROMPT, grammar=digits, **options).text
            )
            text = decoder.generate(PROMPT, grammar=gbnf, **options).text
            assert re.fullmatch("(x|yz)[a-c]!", text)
            result = decoder.generate(PROMPT, grammar=lark, **options)
            if result.finish_reason == "stop":
                assert re.fullmatch(r"(ab|cd)+\.", result.text)
    assert digits.matches(tiny, "2024-12")
    assert not digits.matches(tiny, "2024-1")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (sd.Grammar.json_schema, "{"),
        (sd.Grammar.json_schema, {"type": "nothing"}),
        (sd.Grammar.json_schema, {"type": {1, 2}}),
        (sd.Grammar.json_schema, 3),
        (sd.Grammar.json_schema, False),
        (sd.Grammar.regex, "(("),
        (sd.Grammar.regex, ""),
        (sd.Grammar.lark, "start: nothing_there"),
        (sd.Grammar.gbnf, "root ::= ("),
        (sd.Grammar.gbnf, None),
    ],
)
def test_wrong_grammars_say_what_is_wrong(guided, make, text):
    with pytest.raises(sd.InvalidArgumentError) as caught:
        make(text)
    assert make.__name__ in str(caught.value)


def test_without_the_package_the_message_says_what_to_install(tiny, monkeypatch):
    import builtins

    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.startswith("llguidance"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(sd.MissingExtraError, match=r"specdec-native\[grammar\]"):
        sd.Grammar.regex("a")
