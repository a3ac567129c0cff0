"""Sessions: one text whatever the drafter, honest use of caches, stops, forks and errors."""

from __future__ import annotations

import itertools
import threading

import pytest

import tiny_models
from helpers import native

engine = native("engine")

CONFIG = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2)
PROMPT = "the cat in the hat the cat in the hat the cat in the "
# A random model repeats itself soon; a bias on a few bytes keeps its text in words of ASCII.
LETTERS = [(token, 6.0) for token in (32, 97, 98, 99, 100, 101, 116, 104)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    one_layer = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2, n_layers=1)
    return {
        "target": tiny_models.write_tiny(folder / "target.gguf", CONFIG, dtype="Q8_0", seed=1),
        "draft": tiny_models.write_tiny(folder / "draft.gguf", one_layer, seed=2),
    }


@pytest.fixture(scope="module")
def target(paths):
    return engine.load(str(paths["target"]), n_threads=2)


@pytest.fixture(scope="module")
def draft(paths):
    return engine.load(str(paths["draft"]), n_threads=2)


def session(target, draft=None, **options):
    return engine.Session(target, draft, **{"n_ctx": 512, **options})


class Refused:
    """Expects an engine.Error of one code."""

    def __init__(self, code):
        self.code = code
        self.context = pytest.raises(engine.Error)

    def __enter__(self):
        self.info = self.context.__enter__()
        return self.info

    def __exit__(self, *error):
        caught = self.context.__exit__(*error)
        assert self.info.value.code == self.code, str(self.info.value)
        return caught


# ---------------------------------------------------------------- one text


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_drafter_gives_the_plain_text(target, draft, temperature):
    request = {"prompt": PROMPT, "max_tokens": 60, "temperature": temperature, "seed": 7}
    plain = session(target, drafter="none").generate(**request)
    assert plain["speculation"].startswith("off")
    assert plain["emitted"] == len(plain["token_ids"]) > 20
    for options in (
        {"drafter": "ngram"},
        {"drafter": "ngram", "gamma": 3, "ngram_n": 3},
        {"drafter": "ngram", "ngram_filler_top_k": 4},
        {"drafter": "model"},
        {"drafter": "model", "gamma": 8},
        {"drafter": "auto", "draft_max": 1},
    ):
        given = draft if options["drafter"] != "ngram" else None
        result = session(target, given, **options).generate(**request)
        assert result["token_ids"] == plain["token_ids"], options
        assert result["text"] == plain["text"]
        # A controller may find that nothing pays.
        assert result["speculation"] == "on" or options["drafter"] == "auto"


def test_a_model_that_drafts_for_itself_is_always_right(target):
    for temperature in (0.0, 0.9):
        itself = session(target, target, drafter="model", gamma=4)
        result = itself.generate(prompt=PROMPT, max_tokens=40, temperature=temperature, seed=3)
        assert result["drafted"] > 20
        assert result["accepted"] + result["accepted_cut"] == result["drafted"]
        assert sum(result["from_draft"]) == result["accepted"]


def test_auto_takes_the_draft_model_when_there_is_one(target, draft):
    assert session(target, draft).drafters == ["model", "ngram", "suffix"]
    assert session(target).drafters == ["ngram", "suffix"]
    assert session(target, draft, drafter="none").drafters == []


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
def test_every_kv_type_gives_the_plain_text(target, draft, kv_type):
    request = {"prompt": PROMPT, "max_tokens": 40}
    plain = session(target, drafter="none", kv_type=kv_type).generate(**request)
    spec = session(target, draft, drafter="model", kv_type=kv_type).generate(**request)
    assert spec["token_ids"] == plain["token_ids"]


def test_a_smaller_kv_type_takes_less_memory(target):
    used = {}
    for kv_type in ("f32", "f16", "q8_0"):
        s = session(target, drafter="none", kv_type=kv_type)
        before = s.memory_bytes
        for n in range(30, 301, 30):  # passes of one size, however fast this machine is
            s.generate(prompt_ids=[65] * n, max_tokens=1)
        used[kv_type] = s.memory_bytes - before
    assert used["q8_0"] < used["f16"] < used["f32"]


# ---------------------------------------------------------------- text and chunks


def collect(s, **request):
    chunks = []
    result = s.generate(on_chunk=chunks.append, **request)
    return result, chunks


@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
def test_chunks_are_the_result_in_whole_characters(target, draft, drafter):
    s = session(target, draft, drafter=drafter)
    # Unbiased output of a random model is mostly broken UTF-8: the hard case.
    result, chunks = collect(s, prompt=PROMPT, max_tokens=80, temperature=1.5, seed=5)
    assert "".join(c["text"] for c in chunks) == result["text"]
    assert list(itertools.chain(*(c["token_ids"] for c in chunks))) == result["token_ids"]
    assert list(itertools.chain(*(c["from_draft"] for c in chunks))) == result["from_draft"]
    assert result["text"] == target.decode(result["token_ids"])
    for chunk in chunks:
        n_bytes = len(chunk["text"].encode())
        assert chunk["text_ends"] == sorted(chunk["text_ends"])
        if chunk["token_ids"]:
            assert chunk["text_ends"][-1] == n_bytes


def test_a_character_spread_over_tokens_comes_whole(target):
    snowman = [0xE2, 0x98, 0x83]  # ids of a byte vocabulary
    first = {"prompt": PROMPT, "max_tokens": 1, "logit_bias": [(snowman[0], 1000.0)]}
    s = session(target, drafter="none")
    assert s.generate(**first)["text"] == "\ufffd"  # unfinished at the end
    texts = []
    ids = target.encode([(PROMPT, True)])
    # The repetition penalty makes each come once.
    result = s.generate(
        prompt_ids=ids,
        max_tokens=3,
        logit_bias=[(0xE2, 1000.0), (0x98, 900.0), (0x83, 800.0)],
        repetition_penalty=10.0,
        on_chunk=lambda c: texts.append(c["text"]),
    )
    assert result["token_ids"] == snowman
    assert texts == ["", "", "\u2603"]
    assert result["text"] == "\u2603"


def test_logprobs_are_the_same_for_every_drafter(target, draft):
    request = {"prompt": PROMPT, "max_tokens": 24, "n_logprobs": 3}
    plain = session(target, drafter="none").generate(**request)
    spec = session(target, draft, drafter="model").generate(**request)
    assert plain["logprobs"] == spec["logprobs"]
    assert [token for token, _, _ in plain["logprobs"]] == plain["token_ids"]
    for token, logprob, top in plain["logprobs"]:
        assert logprob <= 0
        assert len(top) == 3
        assert top[0] == (token, logprob)  # greedy


def test_special_tokens_are_shown_only_on_demand(target):
    end = target.n_tokens - 1
    unused = end - 1
    request = {"prompt": PROMPT, "max_tokens": 2, "logit_bias": [(unused, 1000.0)]}
    s = session(target, drafter="none")
    assert s.generate(**request)["text"] == ""
    assert s.generate(**request, render_special=True)["text"].startswith("[PAD")


def test_typed_text_cannot_forge_special_tokens(target):
    end = target.n_tokens - 1
    assert target.encode([("a<|endoftext|>", True)])[-1] == end
    forged = target.encode([("a", True), ("<|endoftext|>", False)])
    assert end not in forged
    assert target.decode(forged) == "a<|endoftext|>"
    assert target.encode([("a", True)], 1) == [end, *target.encode([("a", True)], 0)]
    s = session(target, drafter="none")
    assert s.generate(pieces=[("a", True), ("b", False)], max_tokens=1)["n_prompt_tokens"] == 2


# ---------------------------------------------------------------- ends


def test_end_of_sequence_ends_and_is_not_part_of_the_result(target):
    end = target.n_tokens - 1
    s = session(target, drafter="none")
    request = {"prompt": PROMPT, "max_tokens": 10, "logit_bias": [(end, 1000.0)]}
    result = s.generate(**request)
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", "eos")
    assert result["token_ids"] == []
    ignored = s.generate(**request, ignore_eos=True)
    assert ignored["finish_reason"] == "length"
    assert len(ignored["token_ids"]) == 10
    assert end not in ignored["token_ids"]


@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
def test_stop_strings_cut_text_tokens_and_chunks_alike(target, draft, drafter):
    request = {"prompt": PROMPT, "max_tokens": 60, "temperature": 1.0, "seed": 11}
    request["logit_bias"] = LETTERS
    full = session(target, drafter="none").generate(**request)["text"]
    stop = full[20:23]
    expected = full[: full.index(stop)]
    s = session(target, draft, drafter=drafter)
    result, chunks = collect(s, **request, stop=["\0never", stop])
    assert result["text"] == expected == "".join(c["text"] for c in chunks)
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", stop)
    assert sum(len(c["token_ids"]) for c in chunks) == len(result["token_ids"])


def test_the_end_of_the_context_is_a_length_not_an_error(target):
    s = session(target, n_ctx=80)
    result = s.generate(prompt=PROMPT, ignore_eos=True)
    assert result["finish_reason"] == "length"
    assert result["n_prompt_tokens"] + len(result["token_ids"]) == 80
    assert "80" in result["note"]


# ---------------------------------------------------------------- caches


def test_the_cache_holds_the_committed_tokens_but_the_last(target, draft):
    for drafter in ("none", "ngram", "model"):
        s = session(target, draft, drafter=drafter)
        ids = target.encode([(PROMPT, True)])
        result = s.generate(prompt_ids=ids, max_tokens=17, ignore_eos=True)
        assert s.cached_tokens() == (ids + result["token_ids"])[:-1]


def test_a_prompt_that_goes_on_is_read_only_from_there(target, draft):
    for drafter in ("none", "model"):
        s = session(target, draft, drafter=drafter)
        first = s.generate(prompt=PROMPT, max_tokens=20, ignore_eos=True)
        longer = target.encode([(PROMPT, True)]) + first["token_ids"] + [97, 98, 99]
        again = s.generate(prompt_ids=longer, max_tokens=20, ignore_eos=True)
        assert again["n_reused_tokens"] == len(longer) - 4
        fresh = session(target, drafter="none").generate(
            prompt_ids=longer, max_tokens=20, ignore_eos=True
        )
        assert fresh["n_reused_tokens"] == 0
        assert again["token_ids"] == fresh["token_ids"]
        other = s.generate(prompt="quite another text", max_tokens=5)
        assert other["n_reused_tokens"] == 0


def test_reset_forgets(target):
    s = session(target)
    s.generate(prompt=PROMPT, max_tokens=5)
    s.reset()
    assert s.cached_tokens() == []
    assert s.generate(prompt=PROMPT, max_tokens=5)["n_reused_tokens"] == 0


def test_long_prompts_read_in_pieces_give_the_same_text(target, draft):
    ids = [(7 * i * i + i) % 200 for i in range(700)]
    progress = []
    s = session(target, draft, n_ctx=1024)
    whole = s.generate(
        prompt_ids=ids, max_tokens=20, on_progress=lambda n, total: progress.append((n, total))
    )
    assert progress == sorted(progress)
    assert {total for _, total in progress} == {700}
    assert progress[-1][0] <= 700
    assert len(progress) > 2
    parts = session(target, drafter="none", n_ctx=1024)
    for end in (3, 130, 401):
        parts.generate(prompt_ids=ids[:end], max_tokens=1)
    pieced = parts.generate(prompt_ids=ids, max_tokens=20)
    assert pieced["n_reused_tokens"] >= 400
    assert pieced["token_ids"] == whole["token_ids"]


def test_a_fork_goes_on_like_the_original(target, draft):
    for drafter in ("none", "ngram", "model"):
        s = session(target, draft, drafter=drafter)
        ids = [(5 * i) % 180 for i in range(300)]
        ids += s.generate(prompt_ids=ids, max_tokens=6, ignore_eos=True)["token_ids"]
        before = s.memory_bytes
        fork = s.fork()
        assert fork.cached_tokens() == s.cached_tokens()
        request = {"prompt_ids": [*ids, 65], "max_tokens": 20, "temperature": 0.7, "seed": 2}
        of_fork = fork.generate(**request)
        assert of_fork["n_reused_tokens"] == len(ids) - 1
        # The fork took another way first; the original has not noticed.
        fork.generate(prompt_ids=[*ids, 66, 67], max_tokens=9)
        of_original = s.generate(**request)
        assert of_original["token_ids"] == of_fork["token_ids"]
        assert of_original["n_reused_tokens"] == len(ids) - 1
        # One page of 256 positions is shared, only the second one exists twice.
        assert s.memory_bytes < 2 * before


def test_a_fork_outlives_the_original(target):
    s = session(target)
    s.generate(prompt=PROMPT, max_tokens=3)
    expected = s.fork().generate(prompt=PROMPT, max_tokens=10)["token_ids"]
    fork = s.fork()
    del s
    assert fork.generate(prompt=PROMPT, max_tokens=10)["token_ids"] == expected


# ---------------------------------------------------------------- threads


def test_a_second_call_while_one_runs_is_refused(target):
    s = session(target)
    inside, go_on = threading.Event(), threading.Event()
    results = []

    def wait(_):
        inside.set()
        assert go_on.wait(60)

    thread = threading.Thread(
        target=lambda: results.append(s.generate(prompt=PROMPT, max_tokens=4, on_chunk=wait))
    )
    thread.start()
    assert inside.wait(60)
    assert s.busy
    for call in (lambda: s.generate(prompt="a", max_tokens=1), s.fork, s.reset, s.cached_tokens):
        with Refused("busy"):
            call()
    go_on.set()
    thread.join(60)
    assert len(results[0]["token_ids"]) == 4
    assert not s.busy
    assert s.generate(prompt="a", max_tokens=1)["emitted"] == 1


def test_a_session_cannot_be_used_from_its_own_callback(target):
    s = session(target)
    with Refused("busy"):
        s.generate(prompt=PROMPT, max_tokens=4, on_chunk=lambda _: s.reset())
    assert s.generate(prompt=PROMPT, max_tokens=4)["emitted"] == 4


@pytest.mark.parametrize("drafter", ["none", "ngram", "model"])
def test_cancel_from_another_thread_ends_the_call(target, draft, drafter):
    s = session(target, draft, drafter=drafter, n_ctx=1024)
    seen = threading.Semaphore(0)
    results = []
    ids = target.encode([(PROMPT, True)])
    token = engine.Token()
    thread = threading.Thread(
        target=lambda: results.append(
            s.generate(
                prompt_ids=ids, ignore_eos=True, on_chunk=lambda _: seen.release(), cancel=token
            )
        )
    )
    thread.start()
    assert seen.acquire(timeout=60)
    token.set()
    thread.join(60)
    (result,) = results
    assert result["finish_reason"] == "cancelled"
    assert 0 < len(result["token_ids"]) < 1024 - len(ids)
    assert s.cached_tokens() == (ids + result["token_ids"])[:-1]
    plain = session(target, drafter="none", n_ctx=1024)
    n = len(result["token_ids"])
    assert (
        plain.generate(prompt_ids=ids, max_tokens=n, ignore_eos=True)["token_ids"]
        == (result["token_ids"])
    )
    again = s.generate(prompt_ids=ids, max_tokens=5, ignore_eos=True)
    assert again["finish_reason"] == "length"  # a token is its call's own


def test_cancel_while_reading_the_prompt(target):
    s = session(target, n_ctx=1024)
    ids = [(7 * i * i + i) % 200 for i in range(900)]
    token = engine.Token()
    result = s.generate(
        prompt_ids=ids, on_progress=lambda n, _: token.set() if n > 0 else None, cancel=token
    )
    assert (result["finish_reason"], result["token_ids"]) == ("cancelled", [])
    n = len(s.cached_tokens())
    assert s.cached_tokens() == ids[:n]
    result = s.generate(prompt_ids=ids, max_tokens=8)
    assert result["n_reused_tokens"] == n < len(ids)
    fresh = session(target, drafter="none", n_ctx=1024)
    assert result["token_ids"] == fresh.generate(prompt_ids=ids, max_tokens=8)["token_ids"]


def test_should_cancel_is_asked_and_obeyed(target):
    s = session(target)
    asked = itertools.count()
    result = s.generate(prompt=PROMPT, ignore_eos=True, should_cancel=lambda: next(asked) > 8)
    assert result["finish_reason"] == "cancelled"
    assert s.generate(prompt=PROMPT, should_cancel=lambda: True)["token_ids"] == []


def test_an_exception_of_a_callback_passes_through(target):
    s = session(target)

    class Boom(Exception):
        pass

    def fail(*_):
        raise Boom

    with pytest.raises(Boom):
        s.generate(prompt=PROMPT, max_tokens=9, on_chunk=fail)
    with pytest.raises(Boom):
        s.generate(prompt_ids=[5] * 200, max_tokens=9, on_progress=fail)
    expected = session(target).generate(prompt=PROMPT, max_tokens=9)["token_ids"]
    assert s.generate(prompt=PROMPT, max_tokens=9)["token_ids"] == expected


def test_many_sessions_share_one_model(target, draft):
    expected = session(target, drafter="none").generate(prompt=PROMPT, max_tokens=30)["token_ids"]
    results = {}

    def work(i):
        s = session(target, draft, drafter=("ngram", "model")[i % 2])
        results[i] = s.generate(prompt=PROMPT, max_tokens=30)["token_ids"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert list(results.values()) == [expected] * 4


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"drafter": "telepathy"}, ["drafter", "ngram", "telepathy"]),
        ({"drafter": "model"}, ["draft model"]),
        ({"verifier": "hope"}, ["verifier", "match", "hope"]),
        ({"kv_type": "f8"}, ["kv_type", "q8_0", "f8"]),
        ({"n_ctx": -1}, ["n_ctx", "-1"]),
        ({"n_ctx": 2**30 + 1}, ["n_ctx", str(2**30), str(2**30 + 1)]),
        ({"draft_max": 65}, ["draft_max", "64", "65"]),
        ({"draft_min": -1}, ["draft_min", "-1"]),
        ({"gamma": 1000}, ["gamma", "1000"]),
        ({"ngram_n": 0}, ["0"]),
        ({"draft_sampling": "wild"}, ["draft_sampling", "coupled", "wild"]),
    ],
    ids=lambda o: "-".join(o) if isinstance(o, dict) else "",
)
def test_a_bad_option_is_named_with_its_range(target, options, words):
    with Refused("invalid_argument") as caught:
        session(target, **options)
    for word in words:
        assert word in str(caught.value)


def test_bad_requests_are_refused(target):
    s = session(target, n_ctx=64)
    for request in (
        {"prompt": "a", "max_tokens": -2},
        {"prompt_ids": [0, 9999]},
        {"prompt_ids": [1], "prompt": "a"},
        {"prompt": ""},
        {"prompt": "a", "stop": [""]},
        {"prompt": "a", "temperature": -1.0},
        {"prompt": "a", "add_bos": 2},
        {"prompt": "a", "logit_bias": [(5000, 1.0)]},
    ):
        with Refused("invalid_argument"):
            s.generate(**request)
    with Refused("context_full") as caught:
        s.generate(prompt_ids=[65] * 64)
    assert "64" in str(caught.value)
    assert s.generate(prompt="a", max_tokens=1)["emitted"] == 1


def test_a_context_beyond_memory_is_refused_at_once(tmp_path):
    config = tiny_models.TinyConfig(context_length=1 << 30)
    model = engine.load(str(tiny_models.write_tiny(tmp_path / "long.gguf", config)))
    n_ctx = model.context_length
    if n_ctx * model.kv_bytes_per_token <= engine.available_memory_bytes():
        pytest.skip("this machine has more memory than the test can ask for")
    with Refused("resource") as caught:
        engine.Session(model, None, n_ctx=n_ctx)
    assert "n_ctx" in str(caught.value)
    assert engine.Session(model, None).n_ctx == 4096  # the default


# ---------------------------------------------------------------- loading


def test_loading_tells_its_progress(paths):
    seen = []
    engine.load(str(paths["target"]), on_progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] >= 0
    assert seen[-1] == 1


def test_an_exception_of_the_progress_callback_ends_the_load(paths):
    def fail(_):
        raise KeyError("enough")

    with pytest.raises(KeyError):
        engine.load(str(paths["target"]), on_progress=fail)


def test_what_cannot_be_loaded_says_why(paths, tmp_path):
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "noise.gguf").write_bytes(bytes(range(256)) * 8)
    for path, code in (
        (tmp_path / "missing.gguf", "io"),
        (tmp_path, "io"),
        (tmp_path / "empty.gguf", "model_format"),
        (tmp_path / "noise.gguf", "model_format"),
    ):
        with Refused(code) as caught:
            engine.load(str(path))
        assert path.name in str(caught.value)
    for options in ({"n_threads": -1}, {"n_threads": 257}, {"device": "tpu"}, {"kv_type": "x"}):
        with Refused("invalid_argument") as caught:
            engine.load(str(paths["target"]), **options)
        assert next(iter(options)) in str(caught.value)


# ---------------------------------------------------------------- pairs


def test_a_pair_of_one_vocabulary_is_compatible(target, draft):
    report = engine.check_pair(target, draft)
    assert report["compatible"]
    assert report["identical"]
    assert report["n_shared_tokens"] == target.n_tokens
    assert report["first_difference"] == -1
    assert report["cost_ratio"] == draft.bytes_per_step / target.bytes_per_step
    assert report["memory_bytes"] == target.weight_bytes + draft.weight_bytes
    assert report["kv_bytes_per_token"] == target.kv_bytes_per_token + draft.kv_bytes_per_token
    assert any("hardly pay" in w for w in engine.check_pair(target, target)["warnings"])


def test_a_pair_of_two_vocabularies_names_the_first_difference(target, tmp_path):
    tokens = tiny_models.byte_tokenizer()["tokenizer.ggml.tokens"].copy()
    tokens[70], tokens[71] = tokens[71], tokens[70]
    path = tiny_models.write_tiny(
        tmp_path / "other.gguf", CONFIG, extra={"tokenizer.ggml.tokens": tokens}
    )
    other = engine.load(str(path))
    report = engine.check_pair(target, other)
    assert not report["compatible"]
    assert report["first_difference"] == 70
    assert (report["target_text"], report["draft_text"]) == ("F", "G")
    assert "70" in report["reason"]
    with Refused("unsupported") as caught:
        session(target, other)
    assert "70" in str(caught.value)
    assert "other.gguf" in str(caught.value)


def test_a_draft_with_padded_rows_drafts_without_them(target, tmp_path):
    config = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2, vocab_size=300)
    keys = tiny_models.byte_tokenizer(272)
    path = tiny_models.write_tiny(tmp_path / "padded.gguf", config, tokenizer=False, extra=keys)
    padded = engine.load(str(path))
    assert engine.check_pair(target, padded)["compatible"]
    request = {"prompt": PROMPT, "max_tokens": 30, "temperature": 1.0, "seed": 4}
    plain = session(target, drafter="none").generate(**request)
    spec = session(target, padded).generate(**request)
    assert spec["token_ids"] == plain["token_ids"]
    # And as a target it never emits what has no text.
    emitted = session(padded, target, drafter="model").generate(**request)["token_ids"]
    assert max(emitted) < 272


# ---------------------------------------------------------------- speed, perplexity


def test_the_speed_line_explains_the_speed(target):
    plain = engine.speed_line(target, 0.0, 10, 0, [], [])
    assert "10 tokens" in plain
    assert "10.0 tokens/s" in plain
    assert "100.0 ms/token" in plain
    assert "off" in plain
    assert "GB/s" not in plain
    share = 13 * target.bytes_per_step / 0.5 / 1e9
    line = engine.speed_line(target, 1e9, 3, 10, [10, 10], [9, 4])
    assert f"{100 * share:.0f} % of 1.0 GB/s" in line
    assert "2.30 tokens/round" in line
    assert "accepted 90 40 %" in line
    assert "draft 25 %, verify 50 %, sample 10 %" in line
    assert "\n" not in line


def test_read_bandwidth_is_a_plausible_number():
    for n_threads in (1, 2):
        assert 1e8 < engine.measure_read_bandwidth(n_threads, 32 << 20) < 1e13


def test_perplexity_scores_the_second_half_of_each_window(target):
    text = PROMPT * 8
    perplexity, mean_nll, n_scored, n_chunks = engine.perplexity(target, text, 64, 2)
    assert (n_scored, n_chunks) == (2 * 31, 2)
    assert perplexity == pytest.approx(2.718281828459045**mean_nll)
    # A random model knows nothing of English.
    assert 50 < perplexity < 5000
    with Refused("invalid_argument"):
        engine.perplexity(target, "short", 64, 2)
