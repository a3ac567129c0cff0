"""Engines under asyncio, their threads at the interpreter's end, and `AsyncDecoder`."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat " * 4
MESSAGES = [{"role": "user", "content": "the cat in the hat"}]
N_CTX = 1 << 15
# Would run for minutes: a test that passes has ended it.
ENDLESS = {"max_tokens": N_CTX - 1000, "ignore_eos": True}


def run(task):
    return asyncio.run(asyncio.wait_for(task, 120))


@pytest.fixture(scope="module")
def engine(tiny):
    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=4) as engine:
        yield engine


def alone(tiny, prompt, **options):
    with sd.Decoder(tiny, drafter=None, n_ctx=N_CTX) as decoder:
        return decoder.generate(prompt, **options).token_ids


async def idle(engine):
    end = time.monotonic() + 60
    while (stats := engine.stats()).running + stats.queued:
        assert time.monotonic() < end, "it does not come to an end"
        await asyncio.sleep(0.005)


def test_tasks_share_an_engine_and_get_their_own_tokens(tiny, engine):
    prompts = [PROMPT + text for text in ("", "a", "ab", "in the ", "q", "winner")]

    async def stream(prompt, seed):
        chunks = [c async for c in engine.stream(prompt, temperature=1.0, seed=seed, max_tokens=16)]
        return tuple(t for chunk in chunks for t in chunk.token_ids)

    async def main():
        tasks = [stream(prompt, seed) for seed, prompt in enumerate(prompts)]
        tasks += [engine.generate(prompt, max_tokens=16) for prompt in prompts]
        return await asyncio.gather(*tasks)

    found = run(main())
    for seed, (prompt, tokens) in enumerate(zip(prompts, found[:6], strict=True)):
        assert tokens == alone(tiny, prompt, temperature=1.0, seed=seed, max_tokens=16)
    for prompt, result in zip(prompts, found[6:], strict=True):
        assert result.token_ids == alone(tiny, prompt, max_tokens=16)


def test_cancelling_a_task_ends_its_request(engine):
    async def main():
        before = engine.stats().cancelled
        waits = asyncio.create_task(engine.generate(PROMPT, **ENDLESS))
        first = asyncio.Event()

        async def read():
            async for _ in engine.stream(PROMPT, **ENDLESS):
                first.set()

        reads = asyncio.create_task(read())
        await first.wait()
        for task in (waits, reads):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await idle(engine)
        assert engine.stats().cancelled == before + 2

    run(main())


def test_leaving_or_dropping_a_stream_ends_its_request(engine):
    async def main():
        before = engine.stats().cancelled
        async with engine.stream(PROMPT, **ENDLESS) as stream:
            await anext(stream)
            with pytest.raises(RuntimeError, match="still running"):
                stream.result  # noqa: B018
        assert stream.result.finish_reason == "cancelled"
        assert len(stream.result.token_ids) > 0
        stream = engine.stream(PROMPT, **ENDLESS)
        await anext(stream)
        del stream
        async for _ in engine.stream(PROMPT, **ENDLESS):
            break
        await idle(engine)
        assert engine.stats().cancelled == before + 3

    run(main())


def test_the_loop_goes_on_while_a_request_is_at_work(engine):
    async def main():
        stream = engine.stream(PROMPT, **ENDLESS)
        await anext(stream)
        turns = [await asyncio.sleep(0, i) for i in range(50)]  # or it would be at its end first
        stream.cancel()
        return turns, [chunk async for chunk in stream], stream.result

    turns, _, result = run(main())
    assert len(turns) == 50
    assert result.finish_reason == "cancelled"


def test_tasks_wait_for_a_place(tiny):
    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        waiting = [asyncio.create_task(engine.generate(PROMPT, max_tokens=2)) for _ in range(5)]
        given_up = asyncio.create_task(engine.generate(PROMPT, max_tokens=2))
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        given_up.cancel()
        first.cancel()
        results = await asyncio.gather(*waiting)
        assert {result.finish_reason for result in results} == {"length"}
        with pytest.raises(asyncio.CancelledError):
            await given_up

    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=1, max_queue=0, when_full="wait") as engine:
        run(main(engine))
    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=1, max_queue=0) as engine:

        async def refused():
            first = engine.stream(PROMPT, **ENDLESS)
            await anext(first)
            with pytest.raises(sd.QueueFullError):
                await engine.generate(PROMPT)

        run(refused())


async def _waits(engine, n, known):
    """A task whose request is the n-th that waits for a place."""
    end = time.monotonic() + 60

    async def wait():
        result = await engine.generate(PROMPT, max_tokens=2)
        known.append(n)
        return result

    task = asyncio.create_task(wait())
    while len(engine._gate._line) < n:
        assert time.monotonic() < end, "it does not wait"
        await asyncio.sleep(0.001)
    return task


def _free(engine, stream):
    """Ends a request while the loop stands still: who is woken does not know it yet."""
    gate = engine._gate
    place_is_free, called = gate.place_is_free, threading.Event()

    def free():
        place_is_free()
        called.set()

    gate.place_is_free = free
    stream.cancel()
    assert called.wait(60), "nobody is woken"
    del gate.place_is_free


def _full(tiny):
    return sd.Engine(tiny, n_ctx=N_CTX, max_requests=1, max_queue=0, when_full="wait")


def test_who_is_cancelled_when_it_is_their_turn_leaves_it_to_the_next(tiny):
    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        ended = []
        one, two = [await _waits(engine, n, ended) for n in (1, 2)]
        one.cancel()  # which it learns before that it is its turn
        _free(engine, first)
        assert (await asyncio.wait_for(two, 60)).finish_reason == "length"
        assert ended == [2]

    with _full(tiny) as engine:
        run(main(engine))


def test_waiting_for_a_place_is_a_part_of_the_time_limit(tiny):
    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        limited = asyncio.create_task(engine.generate(PROMPT, max_tokens=2, time_limit=0.05))
        patient = asyncio.create_task(engine.generate(PROMPT, max_tokens=2, time_limit=100))
        await asyncio.sleep(0.1)
        first.cancel()
        assert (await asyncio.wait_for(limited, 60)).finish_reason == "timeout"
        assert (await asyncio.wait_for(patient, 60)).finish_reason == "length"

    with _full(tiny) as engine:
        run(main(engine))


def test_a_time_limit_ends_waiting_for_a_place(tiny):
    """Also where it is not its turn, or over before it begins to wait; the others keep theirs."""

    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        options = {"max_tokens": 2, "time_limit": 0.05, "seed": 7, "logprobs": 1}
        results = await asyncio.gather(*(engine.generate(PROMPT, **options) for _ in range(2)))
        ended = []
        patient = [await _waits(engine, n, ended) for n in (1, 2, 3)]
        results += await asyncio.gather(*(engine.generate(PROMPT, **options) for _ in range(2)))
        stream = engine.stream(PROMPT, **options)
        assert [chunk async for chunk in stream] == []
        results += [stream.result, await engine.generate(PROMPT, time_limit=0, seed=7)]
        assert not first.done
        for result in results:
            assert (result.finish_reason, result.token_ids, result.text) == ("timeout", (), "")
            assert (result.prompt_tokens, result.seed) == (n_prompt, 7)
        assert (engine.stats().timed_out, engine.stats().queued) == (6, 0)
        with pytest.raises(sd.ContextFullError):
            await engine.generate("a" * N_CTX, time_limit=0.01)
        first.cancel()
        await asyncio.gather(*patient)
        assert ended == [1, 2, 3]

    with sd.Decoder(tiny, drafter=None, n_ctx=N_CTX) as decoder:
        n_prompt = decoder.generate(PROMPT, max_tokens=1).prompt_tokens
    with _full(tiny) as engine:
        run(main(engine))


@pytest.mark.parametrize("n", [1, 3])
def test_newcomers_do_not_overtake_those_who_wait(tiny, n):
    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        ended = []
        waiting = [await _waits(engine, i, ended) for i in range(1, n + 1)]
        _free(engine, first)
        # And would find the place, as a task or where it is handed over at once.
        newcomer = engine.stream(PROMPT, **ENDLESS)
        assert engine.stats().submitted == 1
        waiting.append(await _waits(engine, 0, ended))
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        assert ended == [*range(1, n + 1), 0]
        await newcomer.aclose()

    with _full(tiny) as engine:
        run(main(engine))


def test_who_was_too_late_is_the_next(tiny):
    async def main(engine):
        first = engine.stream(PROMPT, **ENDLESS)
        await anext(first)
        ended = []
        one, two = [await _waits(engine, n, ended) for n in (1, 2)]
        gate = engine._gate
        waits, asked = gate.wait_for_place, []
        gate.wait_for_place = lambda wake: asked.append(wake) or waits(wake)
        gate.place_is_free()  # a place that somebody else has taken meanwhile
        while not asked:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(asyncio.gather(one, two), 60)
        assert ended == [1, 2]

    with _full(tiny) as engine:
        run(main(engine))


@pytest.mark.parametrize("when", ["told", "returned"])
@pytest.mark.parametrize("kind", ["submit", "stream"])
def test_an_interrupted_call_ends_what_it_has_submitted(tiny, monkeypatch, kind, when):
    """Its traceback, kept as in a notebook, holds what would be dropped."""

    async def called(engine):
        with pytest.raises(KeyboardInterrupt) as kept:
            getattr(engine, kind)(PROMPT, **ENDLESS)
        return kept

    def interrupted(self, *_):
        raise KeyboardInterrupt

    class Native:
        def __init__(self, native):
            self.native = native

        def submit(self, *args, **more):
            self.native.submit(*args, **more)
            raise KeyboardInterrupt

    with sd.Engine(tiny, n_ctx=N_CTX, max_requests=1, max_queue=0) as engine:
        with monkeypatch.context() as patch:
            if when == "told":
                patch.setattr("specdec_native.requests.State._submitted", interrupted)
            else:
                patch.setattr(engine, "_native_engine", Native(engine._native))
            kept = run(called(engine))
        end = time.monotonic() + 60
        while engine.stats().cancelled == 0:
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.001)
        assert kept.value is not None
        assert engine.submit(PROMPT, max_tokens=1).result(60).finish_reason == "length"


def test_an_interrupted_call_leaves_its_turn_to_the_next(tiny, monkeypatch):
    with _full(tiny) as engine:
        first = engine.submit(PROMPT, **ENDLESS)
        next(first)
        gate = engine._gate
        woken = []

        waits = gate.wait_for_place

        def interrupted(wake, **more):
            waits(wake, **more)
            waits(lambda: woken.append(True))
            gate.place_is_free()
            raise KeyboardInterrupt

        monkeypatch.setattr(gate, "wait_for_place", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.submit(PROMPT)
        assert woken == [True]


def test_calls_come_from_one_thread_with_one_state_of_the_interpreter(tiny):
    """What a thread keeps for itself stays, until the engine's thread is over."""
    own = threading.local()
    seen = []

    class Goes:
        def __del__(self):
            seen.append("gone")

    def on_progress(*_):
        own.goes = getattr(own, "goes", None) or Goes()
        own.n_calls = getattr(own, "n_calls", 0) + 1
        seen.append(own.n_calls)

    with sd.Engine(tiny, n_ctx=N_CTX) as engine:
        for _ in range(3):
            engine.submit(PROMPT, max_tokens=2, on_progress=on_progress).result(60)
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) >= 3
    assert seen[-1] == "gone"


def test_closing_ends_those_who_wait(tiny):
    async def main():
        engine = sd.Engine(tiny, n_ctx=N_CTX, max_requests=1, max_queue=0, when_full="wait")
        first = asyncio.create_task(engine.generate(PROMPT, **ENDLESS))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(engine.generate(PROMPT))
        await asyncio.sleep(0.05)
        engine.close()
        assert (await first).finish_reason == "cancelled"
        with pytest.raises(sd.ClosedError):
            await waiting

    run(main())


def test_errors_are_raised_by_the_call(engine):
    async def main():
        with pytest.raises(sd.InvalidArgumentError, match="top_p"):
            await engine.generate(PROMPT, top_p=2.0)
        with pytest.raises(sd.ContextFullError):
            engine.stream([97] * N_CTX)

    run(main())


def test_an_async_decoder_holds_one_conversation(tiny):
    async def main():
        async with sd.AsyncDecoder(tiny, n_ctx=N_CTX) as decoder:
            result = await decoder.generate(PROMPT, max_tokens=8, ignore_eos=True)
            assert result.token_ids == alone(tiny, PROMPT, max_tokens=8, ignore_eos=True)
            ids = [*tiny.tokenize(PROMPT), *result.token_ids]
            more = await decoder.generate(ids, max_tokens=8)
            assert more.stats.reused_prompt_tokens >= len(ids) - 2
            chunks = [chunk async for chunk in decoder.stream_chat(MESSAGES, max_tokens=8)]
            answer = await decoder.chat(MESSAGES, max_tokens=8)
            assert "".join(chunk.text for chunk in chunks) == answer.text
            assert not decoder.busy
            stream = decoder.stream(PROMPT, **ENDLESS)
            await anext(stream)
            assert decoder.busy
            with pytest.raises(sd.SessionBusyError):
                await decoder.generate(PROMPT)
            decoder.cancel()
            assert (await decoder.generate(PROMPT, max_tokens=2)).finish_reason == "length"
            for _ in range(5):  # within one pass, and still as many as there is room for
                decoder.stream(PROMPT, **ENDLESS)
                decoder.cancel()
            assert (await decoder.generate(PROMPT, max_tokens=2)).finish_reason == "length"
        assert decoder.closed
        with pytest.raises(sd.ClosedError):
            await decoder.generate(PROMPT)

    run(main())


def test_a_dropped_stream_of_an_async_decoder_ends_and_the_decoder_goes_on(tiny):
    async def main():
        async with sd.AsyncDecoder(tiny, n_ctx=N_CTX) as decoder:
            for n_taken in range(3):
                stream = decoder.stream(PROMPT, **ENDLESS)
                for _ in range(n_taken):
                    await anext(stream)
                assert decoder.busy
                alive = weakref.ref(stream)
                del stream
                gc.collect()
                assert alive() is None
                assert not decoder.busy
                decoder.cancel()
                assert (await decoder.generate(PROMPT, max_tokens=2)).finish_reason == "length"
            async for _ in decoder.stream(PROMPT, **ENDLESS):
                break
            assert (await decoder.generate(PROMPT, max_tokens=2)).finish_reason == "length"
            call = asyncio.create_task(decoder.generate(PROMPT, **ENDLESS))
            await asyncio.sleep(0)
            gc.collect()
            assert decoder.busy  # a call that is awaited has its stream itself
            decoder.cancel()
            assert (await call).finish_reason == "cancelled"

    run(main())


# ---------------------------------------------------------------- the end of the interpreter


def run_child(code, *args):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


ENDS = {
    "running": "request = engine.submit('abc', **ENDLESS); next(request)",
    "dropped": "engine.submit('abc', **ENDLESS); del engine",
    "in a thread": """
        import threading
        started = threading.Event()
        def read():
            for _ in engine.submit('abc', **ENDLESS):
                started.set()
        threading.Thread(target=read, daemon=True).start()
        started.wait()
        """,
    "in a loop that is over": """
        import asyncio
        kept = []
        async def main():
            kept.append(engine.stream('abc', **ENDLESS))
            await anext(kept[0])
        asyncio.run(main())
        """,
    "by an exception": "request = engine.submit('abc', **ENDLESS); next(request); 1 / 0",
    "closed by a callback": """
        request = engine.submit('abc', on_progress=lambda *n: engine.close(), **ENDLESS)
        assert request.result(60).finish_reason == 'cancelled'
        """,
    "in a forked child": """
        import os
        request = engine.submit('abc', **ENDLESS)
        next(request)
        child = os.fork()
        if child == 0:
            try:
                engine.submit('abc')
            except sd.ForkError:
                request.cancel()
                del request
                sys.exit(0)
            os._exit(3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        next(request)
        """,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_the_interpreter_ends_with_a_running_engine(tiny_path, end):
    head = """
import sys
import specdec_native as sd
ENDLESS = {"max_tokens": 1 << 15, "ignore_eos": True}
engine = sd.Engine(sd.Model(sys.argv[1]), n_ctx=1 << 18, drafter=None)
"""
    done = run_child(head + textwrap.dedent(end) + "\nprint('end')\n", tiny_path)
    failed = "1 / 0" in end
    assert done.returncode == (1 if failed else 0), done.stderr
    assert ("ZeroDivisionError" in done.stderr) == failed
    if not failed:
        assert done.stdout == "end\n"
        assert not done.stderr
