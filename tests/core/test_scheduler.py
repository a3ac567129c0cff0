"""Many requests at once: each has the tokens that it has alone, whatever shares its passes."""

from __future__ import annotations

import gc
import random
import re
import threading
import time
import weakref

import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

TEXTS = ["the cat in the hat ", "in the inner winner ", "abcabcabc", "def f(x):\n    return x\n"]
N_CTX = 2048
ENDLESS = {"max_tokens": 1 << 16, "ignore_eos": True}


def drafters(tiny_draft):
    return {
        "none": {"drafter": None},
        "ngram": {"drafter": sd.NGram()},
        "suffix": {"drafter": sd.SuffixAutomaton()},
        "recycling": {"drafter": sd.TokenRecycling()},
        "layerskip": {"drafter": sd.LayerSkip(1)},
        "model": {"drafter": sd.DraftModel(tiny_draft)},
        "comb": {"drafter": sd.DraftModel(tiny_draft, branch=3)},
        "auto": {"draft": tiny_draft},
        "list": {"drafter": [sd.LayerSkip(1), sd.NGram(), sd.DraftModel(tiny_draft)]},
    }


NAMES = ("none", "ngram", "suffix", "recycling", "layerskip", "model", "comb", "auto", "list")


def random_request(rng):
    """A prompt and the options of a call."""
    prompt = rng.choice(TEXTS) * rng.randint(1, 20) + rng.choice(TEXTS)[: rng.randint(0, 9)]
    options = {"max_tokens": rng.randint(1, 40), "seed": rng.randrange(1000)}
    kind = rng.randrange(6)
    if kind == 1:
        options |= {"temperature": 1.0}
    elif kind == 2:
        options |= {"temperature": 0.8, "top_k": 20, "top_p": 0.95}
    elif kind == 3:
        options |= {"temperature": 0.9, "repetition_penalty": 1.2}
    elif kind == 4:
        options |= {"logprobs": 2}
    elif kind == 5:
        options |= {"stop": ["t"], "ignore_eos": True}
    return prompt, options


def told(result):
    return (
        result.token_ids, result.text, result.finish_reason, result.stop_reason, result.seed,
        result.prompt_tokens, result.logprobs,
    )  # fmt: skip


def alone(model, requests, n_ctx=N_CTX):
    with sd.Decoder(model, drafter=None, n_ctx=n_ctx) as decoder:
        found = []
        for prompt, options in requests:
            decoder.reset()
            found.append(told(decoder.generate(prompt, **options)))
        return found


@pytest.fixture(scope="module")
def requests():
    rng = random.Random(5)
    return [random_request(rng) for _ in range(24)]


@pytest.fixture(scope="module")
def expected(tiny, requests):
    return alone(tiny, requests)


@pytest.mark.parametrize("name", NAMES)
def test_every_request_gets_the_tokens_that_it_gets_alone(tiny, tiny_draft, requests, expected,
                                                          name):  # fmt: skip
    """They arrive in the middle of one another, more of them than run at once."""
    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=7, **drafters(tiny_draft)[name]) as engine:
        running = []
        for i, (prompt, options) in enumerate(requests):
            running.append(engine.submit(prompt, **options))
            if i % 5 == 4:
                next(running[i - 3], None)
        results = [request.result(120) for request in running]
        stats = engine.stats()
    assert [told(result) for result in results] == expected
    assert stats.finished == len(requests)
    assert stats.emitted == sum(len(result.token_ids) for result in results)
    assert stats.drafted == sum(result.stats.drafted for result in results)
    assert (stats.running, stats.queued, stats.failed) == (0, 0, 0)
    for result in results:
        s = result.stats
        assert s.emitted == s.accepted + s.rounds + s.plain_steps - s.cut


def test_requests_share_passes(tiny):
    with sd.Engine(tiny, n_ctx=N_CTX, drafter=None) as engine:
        long = [engine.submit(text * 3, max_tokens=60, ignore_eos=True) for text in TEXTS]
        for request in long:
            request.result(120)
        stats = engine.stats()
    assert stats.passes < 3 * 60, "a pass per request and token is 240"


def test_chunks_make_up_the_result_and_say_who_guessed(tiny, requests):
    prompt, options = "the cat in the hat " * 6, {"max_tokens": 40, "ignore_eos": True}
    with sd.Engine(tiny, n_ctx=N_CTX, drafter=sd.NGram()) as engine:
        others = [engine.submit(*[p], **o) for p, o in requests[:4]]
        request = engine.submit(prompt, **options)
        chunks = list(request)
        result = request.result(0)
        assert request.done
        assert request.stats == result.stats
        for other in others:
            other.result(120)
    assert "".join(chunk.text for chunk in chunks) == result.text
    assert tuple(t for chunk in chunks for t in chunk.token_ids) == result.token_ids
    assert tuple(d for chunk in chunks for d in chunk.from_draft) == result.from_draft
    assert any(result.from_draft)


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
def test_verifiers_that_draw_of_fixed_lengths(tiny, tiny_draft, verifier):
    """Their tokens depend on the drafts, and these not on the company."""
    rng = random.Random(6)
    requests = []
    for _ in range(8):
        prompt, options = random_request(rng)
        requests.append((prompt, {**options, "temperature": 0.9, "top_k": 0}))
    kind = {"drafter": sd.DraftModel(tiny_draft, gamma=3), "verifier": verifier, "n_ctx": N_CTX}
    with sd.Decoder(tiny, **kind) as decoder:
        expected = []
        for prompt, options in requests:
            decoder.reset()
            expected.append(told(decoder.generate(prompt, **options)))
    with sd.Engine(tiny, **kind) as engine:
        running = [engine.submit(prompt, **options) for prompt, options in requests]
        assert [told(request.result(120)) for request in running] == expected


# A family of each kind of state and of layer; all of them when asked to, and in test_families.py.
KINDS = ("llama", "gemma3", "qwen3moe", "qwen35", "qwen3next")


@pytest.mark.parametrize(
    "family",
    [pytest.param(f, marks=() if f in KINDS else pytest.mark.slow) for f in tiny_models.FAMILIES],
)
def test_every_family_shares_passes_and_what_can_be_gone_back_to(tmp_path, family):
    """Texts longer than windows and than what is remembered of states."""
    config = tiny_models.FAMILIES[family]
    model = sd.Model(tiny_models.write_tiny(tmp_path / "family.gguf", config, seed=1))
    shared = "the cat in the hat " * 30
    requests = [
        (shared[: 570 - 40 * i] + text * 3, {"max_tokens": 24, "seed": i, "ignore_eos": True})
        for i, text in enumerate(TEXTS)
    ]
    requests[1][1]["temperature"] = 1.0
    requests.append((TEXTS[0], {"max_tokens": 300, "ignore_eos": True, "seed": 9}))
    expected = alone(model, requests, 1024)
    drafter = [sd.NGram(), sd.TokenRecycling(), sd.LayerSkip(1)]
    with sd.Engine(model, n_ctx=1024, max_requests=3, drafter=drafter) as engine:
        for _ in range(2):  # the second time from kept caches
            running = [engine.submit(prompt, **options) for prompt, options in requests]
            results = [request.result(120) for request in running]
            assert [told(result) for result in results] == expected
        assert results[0].stats.reused_prompt_tokens > 0
        stats = engine.stats()
    assert stats.passes < stats.rows


# ---------------------------------------------------------------- prefixes


def test_what_prompts_share_is_read_once_and_changes_nothing(tiny):
    system = "you are a cat in a hat and answer like one. " * 20
    prompts = [system + text for text in TEXTS] + [system + TEXTS[0] + "and more"]
    options = {"max_tokens": 12, "temperature": 1.0, "seed": 3}
    fresh = alone(tiny, [(prompt, options) for prompt in prompts])
    with sd.Engine(tiny, n_ctx=N_CTX, drafter=None) as engine:
        first = engine.submit(prompts[0], **options).result(120)
        assert first.stats.reused_prompt_tokens == 0
        rest = [engine.submit(prompt, **options) for prompt in prompts[1:]]
        results = [first, *(request.result(120) for request in rest)]
        stats = engine.stats()
    assert [told(result) for result in results] == fresh
    n_system = len(tiny.tokenize(system)) - 1
    for result in results[1:]:
        assert n_system - 2 <= result.stats.reused_prompt_tokens < result.prompt_tokens
    assert stats.cached_tokens == sum(r.stats.reused_prompt_tokens for r in results)
    assert stats.prefix_hits == len(rest)
    assert stats.kept_prefixes >= 1
    with sd.Engine(tiny, n_ctx=N_CTX, drafter=None, share_prefixes=False) as engine:
        for prompt in prompts[:2]:
            result = engine.submit(prompt, **options).result(120)
            assert result.stats.reused_prompt_tokens == 0
        assert engine.stats().kv_used_bytes == 0


def test_who_begins_like_a_prompt_that_is_being_read_waits_for_it(tiny):
    shared = "you are a cat in a hat and answer like one. " * 200
    with sd.Engine(tiny, n_ctx=1 << 14, drafter=None) as engine:
        running = [engine.submit(shared + text, max_tokens=4, seed=1) for text in TEXTS]
        results = [request.result(120) for request in running]
    n_shared = len(tiny.tokenize(shared))
    assert results[0].stats.reused_prompt_tokens == 0
    for result in results[1:]:
        assert result.stats.reused_prompt_tokens > n_shared - 20


def test_a_short_prompt_does_not_wait_for_a_long_one(tiny):
    """It comes when the first piece of the long one is read."""
    read, short = [], []
    with sd.Engine(tiny, n_ctx=1 << 14, drafter=None) as engine:

        def told(*numbers):
            read.append(numbers)
            if len(read) == 1:
                short.append(
                    engine.submit(
                        "in the winner", max_tokens=4, on_progress=lambda *n: read.append("short")
                    )
                )

        long = engine.submit("the cat in the hat " * 700, max_tokens=4, on_progress=told)
        result = long.result(120)
        assert short[0].result(60).finish_reason == "length"
    assert read[-1] == (result.prompt_tokens, result.prompt_tokens)
    assert read.index("short") < len(read) - 5, "it was read between the pieces of the long one"


def test_a_conversation_goes_on_where_it_was(tiny):
    with sd.Engine(tiny, n_ctx=N_CTX) as engine:
        prompt = list(tiny.tokenize("the cat in the hat " * 8))
        for _ in range(3):
            result = engine.submit(prompt, max_tokens=10, ignore_eos=True).result(120)
            prompt += [*result.token_ids, 97, 98]
            grown = engine.submit(prompt, max_tokens=1).result(120)
            assert grown.stats.reused_prompt_tokens >= len(prompt) - 4
        assert engine.stats().kept_prefixes == 1, "the shorter ones are part of the longest"


# ---------------------------------------------------------------- ends


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to an end"
        time.sleep(0.002)


def test_random_requests_with_cancels_leave_nothing(tiny, tiny_draft):
    """200 of them: cancelled, dropped or late at any moment, with slow readers."""
    rng = random.Random(7)
    with sd.Engine(
        tiny, n_ctx=N_CTX, draft=tiny_draft, max_requests=6, max_queue=200, kv_bytes=8 << 20
    ) as engine:
        running = []
        for _ in range(200):
            prompt, options = random_request(rng)
            if rng.random() < 0.2:
                options["time_limit"] = rng.random() * 0.05
            running.append(engine.submit(prompt, **options))
            if rng.random() < 0.4:
                rng.choice(running).cancel()
            if rng.random() < 0.1:
                del running[rng.randrange(len(running))]
            if rng.random() < 0.3:
                next(rng.choice(running), None)
        reasons = {request.result(120).finish_reason for request in running}
        assert reasons <= {"stop", "length", "cancelled", "timeout"}
        wait_until(lambda: engine.stats().running + engine.stats().queued == 0)
        stats = engine.stats()
        assert stats.failed == 0
        assert stats.finished + stats.cancelled + stats.timed_out == 200
        assert stats.kv_used_bytes <= stats.kv_bytes
        prompt, options = requests_of_one()
        assert (
            told(engine.submit(prompt, **options).result(60)) == alone(tiny, [(prompt, options)])[0]
        )
    with sd.Engine(tiny, n_ctx=1 << 15, share_prefixes=False) as engine:
        running = [engine.submit(TEXTS[i % 4] * 9, **ENDLESS) for i in range(20)]
        for request in running[:10:2]:
            next(request)
        for request in running:
            request.cancel()
        assert {request.result(60).finish_reason for request in running} == {"cancelled"}
        wait_until(lambda: engine.stats().kv_pages == 0)


def requests_of_one():
    return TEXTS[0] * 9, {"max_tokens": 9, "seed": 1}


def test_a_cancelled_request_keeps_what_it_had_and_the_others_go_on(tiny):
    with sd.Engine(tiny, n_ctx=1 << 15, drafter=None) as engine:
        endless = engine.submit(TEXTS[0], **ENDLESS)
        other = engine.submit(TEXTS[1], max_tokens=30, seed=2)
        chunks = [next(endless) for _ in range(3)]
        endless.cancel()
        chunks += list(endless)
        result = endless.result(60)
        assert result.finish_reason == "cancelled"
        assert result.token_ids == tuple(t for chunk in chunks for t in chunk.token_ids)
        assert told(other.result(60)) == alone(tiny, [(TEXTS[1], {"max_tokens": 30, "seed": 2})])[0]


def test_time_limits_end_running_and_waiting_requests(tiny):
    with sd.Engine(tiny, n_ctx=1 << 15, max_requests=1) as engine:
        running = engine.submit(TEXTS[0], **ENDLESS)
        waiting = engine.submit(TEXTS[0], time_limit=0.05, **ENDLESS)
        result = waiting.result(60)
        assert (result.finish_reason, result.token_ids) == ("timeout", ())
        running.cancel()
        limited = engine.submit(TEXTS[0], time_limit=0.3, **ENDLESS)
        result = limited.result(60)
        assert result.finish_reason == "timeout"
        assert len(result.token_ids) > 0
        assert engine.stats().timed_out == 2


def test_a_full_queue_is_an_error_or_waits(tiny):
    with sd.Engine(tiny, n_ctx=1 << 15, max_requests=1, max_queue=1) as engine:
        first, second = (engine.submit(TEXTS[0], **ENDLESS) for _ in range(2))
        with pytest.raises(sd.QueueFullError, match="max_queue"):
            engine.submit(TEXTS[0], max_tokens=1)
        assert engine.stats().refused == 1
        first.cancel()
        second.cancel()
        second.result(60)
        wait_until(lambda: engine.stats().running == 0)
        assert engine.submit(TEXTS[0], max_tokens=1).result(60).finish_reason == "length"
    with sd.Engine(tiny, n_ctx=1 << 15, max_requests=1, max_queue=0, when_full="wait") as engine:
        first = engine.submit(TEXTS[0], **ENDLESS)
        threading.Timer(0.1, first.cancel).start()
        assert engine.submit(TEXTS[0], max_tokens=1).result(60).finish_reason == "length"
        assert first.result(0).finish_reason == "cancelled"


def test_a_time_limit_ends_waiting_for_a_place(tiny):
    """Whoever it is in the line, whose order stays."""
    with sd.Engine(tiny, n_ctx=1 << 15, max_requests=1, max_queue=0, when_full="wait") as engine:
        line = engine._gate._line
        n_prompt = engine.submit(TEXTS[0], max_tokens=1).result(60).prompt_tokens
        first = engine.submit(TEXTS[0], **ENDLESS)
        patient = []
        threads = []
        for n in range(4):
            if n > 0:
                one = {"target": lambda: patient.append(engine.submit(TEXTS[0], max_tokens=1))}
                threads.append(threading.Thread(**one))
                threads[-1].start()
                wait_until(lambda n=n: len(line) == n)
            before = list(line)
            late = engine.submit(TEXTS[0], seed=7, time_limit=0.05 * (n % 2))
            assert late.done
            assert list(late) == []
            result = late.result(0)
            assert (result.finish_reason, result.token_ids, result.seed) == ("timeout", (), 7)
            assert result.prompt_tokens == n_prompt
            assert list(line) == before
        assert not first.done
        stats = engine.stats()
        assert (stats.timed_out, stats.running, stats.queued) == (4, 1, 0)
        with pytest.raises(sd.ContextFullError):
            engine.submit("a" * (1 << 15), time_limit=0.01)
        first.cancel()
        for thread in threads:
            thread.join(60)
        assert [one.result(60).finish_reason for one in patient] == ["length"] * 3


def test_memory_that_can_never_do_is_an_error_and_a_full_cache_waits(tiny):
    with sd.Engine(tiny, n_ctx=4096, drafter=None) as engine:
        one = engine.submit(TEXTS[0], max_tokens=1).result(60)
        assert one.finish_reason == "length"
        page = engine.stats().kv_used_bytes
    options = {"max_tokens": 300, "ignore_eos": True, "seed": 1}
    prompts = [text * 4 for text in TEXTS]
    expected = alone(tiny, [(prompt, options) for prompt in prompts])
    with sd.Engine(tiny, n_ctx=4096, drafter=None, kv_bytes=5 * page) as engine:
        with pytest.raises(sd.ResourceLimitError, match="kv_bytes"):
            engine.submit(TEXTS[0], max_tokens=2000)
        running = [engine.submit(prompt, **options) for prompt in prompts]
        seen = set()
        for request in running:
            for _ in request:
                seen.add(engine.stats().running)
        assert [told(request.result(0)) for request in running] == expected
        assert max(seen) == 1, "three pages each"
        assert engine.stats().evicted > 0
        assert engine.stats().kv_used_bytes <= 5 * page


def test_memory_that_no_request_fits_into_is_refused_at_the_start(tiny, caplog):
    for size in (1, 1000):
        with pytest.raises(sd.InvalidArgumentError) as caught:
            sd.Engine(tiny, n_ctx=4096, kv_bytes=size)
        needed = re.search(r"caches need ([0-9.]+) KiB for the shortest request", str(caught.value))
        assert needed is not None, caught.value
    assert not caplog.records
    with sd.Engine(tiny, n_ctx=4096, kv_bytes=int(float(needed[1]) * 1024)) as engine:
        assert engine.submit("a", max_tokens=1).result(60).finish_reason == "length"
    assert "requests that give no max_tokens are refused" in caplog.text


@pytest.mark.parametrize("end", ["result", "cancel", "dropped", "error"])
def test_requests_that_are_over_hold_no_memory(tiny, end):
    class Stop(Exception):
        pass

    def fail(told):
        raise Stop

    states = []
    with sd.Engine(tiny, n_ctx=512, max_requests=2) as engine:
        for _ in range(20):
            more = {"on_round": fail} if end == "error" else {}
            request = engine.submit("the cat", max_tokens=12, ignore_eos=True, **more)
            states.append(weakref.ref(request._state))
            if end == "result":
                request.result(60)
            elif end == "cancel":
                request.cancel()
            elif end == "error":
                with pytest.raises(Stop):
                    request.result(60)
            del request
        deadline = time.monotonic() + 60
        while any(state() is not None for state in states):
            assert time.monotonic() < deadline, "the native request and Python's hold each other"
            gc.collect()
            time.sleep(0.01)


def test_bad_requests_are_refused_before_they_wait(tiny):
    with sd.Engine(tiny, n_ctx=256) as engine:
        with pytest.raises(sd.ContextFullError, match="256"):
            engine.submit("a" * 300)
        with pytest.raises(sd.InvalidArgumentError, match="temperature"):
            engine.submit("a", temperature=-1)
        with pytest.raises(sd.InvalidArgumentError, match="empty"):
            engine.submit([])
        with pytest.raises(sd.InvalidArgumentError, match="time_limit"):
            engine.submit("a", time_limit=-1.0)
        assert engine.stats().submitted == 0
    with pytest.raises(sd.ClosedError):
        engine.submit("a")
    with pytest.raises(sd.InvalidArgumentError, match="max_requests"):
        sd.Engine(tiny, max_requests=0)


def test_an_error_of_one_request_is_not_that_of_others(tmp_path, tiny):
    config = tiny_models.TinyConfig()
    tensors = tiny_models.random_tensors(config, seed=0)
    tensors["token_embd.weight"][65] = float("inf")
    path = tiny_models.write_gguf(
        tmp_path / "bad.gguf", {**tiny_models.metadata(config), **tiny_models.byte_tokenizer()},
        tensors,
    )  # fmt: skip
    model = sd.Model(path)
    bans = {"logit_bias": {65: -float("inf")}, "max_tokens": 20, "seed": 1}
    with sd.Engine(model, n_ctx=256, drafter=None) as engine:
        bad = engine.submit([97, 98, 65], **bans)
        good = [engine.submit([97, 98, n], **bans) for n in (99, 100, 101)]
        results = [request.result(60) for request in good]
        with pytest.raises(sd.NumericalError):
            bad.result(60)
        assert engine.stats().failed == 1
    with sd.Decoder(model, n_ctx=256, drafter=None) as decoder:
        for n, result in zip((99, 100, 101), results, strict=True):
            assert result.token_ids == decoder.generate([97, 98, n], **bans).token_ids


def test_callbacks_are_told_and_their_exceptions_end_the_request(tiny):
    rounds, progress = [], []

    def refuse(*_):
        raise ZeroDivisionError("the callback's own")

    with sd.Engine(tiny, n_ctx=N_CTX, drafter=sd.NGram()) as engine:
        result = engine.submit(
            TEXTS[0] * 8, max_tokens=20, on_round=rounds.append,
            on_progress=lambda *numbers: progress.append(numbers),
        ).result(60)  # fmt: skip
        with pytest.raises(ZeroDivisionError, match="own"):
            engine.submit(TEXTS[0], on_round=refuse, **ENDLESS | {"max_tokens": 1000}).result(60)
        wait_until(lambda: engine.stats().running == 0)
    assert (
        tuple(t for r in rounds for t in r.token_ids)[: len(result.token_ids)] == result.token_ids
    )
    assert progress[-1] == (result.prompt_tokens, result.prompt_tokens)


def test_threads_share_an_engine(tiny, requests, expected):
    found = [None] * len(requests)
    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=8) as engine:

        def work(first):
            for i in range(first, len(requests), 4):
                prompt, options = requests[i]
                found[i] = told(engine.submit(prompt, **options).result(120))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == expected


def test_closing_ends_everything(tiny):
    engine = sd.Engine(tiny, n_ctx=1 << 15, max_requests=1)
    running, waiting = (engine.submit(TEXTS[0], **ENDLESS) for _ in range(2))
    next(running)
    engine.close()
    engine.close()
    assert engine.closed
    assert running.result(0).finish_reason == "cancelled"
    assert waiting.result(0).finish_reason == "cancelled"
    with pytest.raises(sd.ClosedError):
        engine.stats()


def test_chat_is_what_a_decoder_answers(tiny):
    messages = [{"role": "user", "content": "the cat in the hat"}]
    with sd.Decoder(tiny, drafter=None, n_ctx=N_CTX) as decoder:
        answer = decoder.chat(messages, max_tokens=16, seed=1)
    with sd.Engine(tiny, n_ctx=N_CTX) as engine:
        assert told(engine.submit_chat(messages, max_tokens=16, seed=1).result(60)) == told(answer)
