"""Ctrl-C at any moment: real signals, many timings, and a decoder that can be used afterwards."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("specdec_native", reason="the package is not installed")

# Interrupts `work` after a time that differs from round to round, as a user in a REPL or notebook
# does: the exception, and with it every frame of the interrupted call, is kept. Each round must end
# with KeyboardInterrupt or by itself, and the decoder answers as a new one.
ROUNDS = """
    import _thread, os, random, signal, sys, threading, time
    import specdec_native as sd

    model = sd.Model(sys.argv[1], n_threads=1)
    decoder = sd.Decoder(model, drafter=sd.NGram(), n_ctx=20000)
    expected = sd.Decoder(model).generate("a cat", max_tokens=4, ignore_eos=True).token_ids
    options = {"max_tokens": 60, "ignore_eos": True}
    messages = [{"role": "user", "content": "the cat"}]
    rng = random.Random(int(sys.argv[3]))

    def for_loop():
        for chunk in decoder.stream("the cat", **options):
            pass

    def next_calls():
        stream = decoder.stream("the cat", **options)
        while next(stream, None) is not None:
            pass

    def with_block():
        with decoder.stream("the cat", **options) as stream:
            for chunk in stream:
                pass

    def comprehension():
        return [chunk.text for chunk in decoder.stream_chat(messages, **options)]

    def generate():
        decoder.generate("the cat", **options)

    def callbacks():
        decoder.generate("the cat", on_token=lambda chunk: None, on_round=lambda round: None,
                         on_progress=lambda *n: None, **options)

    def chat():
        decoder.chat(messages, **options)

    def many():
        sd.generate_many(model, ["the cat", "a"], max_tokens=30, ignore_eos=True)

    def checked():
        decoder.generate("the cat", verify_output=True, **options)

    def engine_loop():
        for chunk in engine.submit("the cat", **options):
            pass

    def engine_results():  # the third and fourth wait for a place
        running = [engine.submit("the cat", **options) for _ in range(4)]
        for request in running:
            request.result()

    engine = sd.Engine(model, drafter=sd.NGram(), n_ctx=20000, max_requests=1, max_queue=1,
                       when_full="wait")
    work = globals()[sys.argv[2]]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    usual = min(times)

    kept, n_interrupted = [], 0
    for i in range(int(sys.argv[4])):
        armed = threading.Event()
        delay = usual * rng.random()

        def interrupt():
            armed.wait()
            time.sleep(delay)
            os.kill(os.getpid(), signal.SIGINT)

        killer = threading.Thread(target=interrupt)
        killer.start()
        try:
            try:
                armed.set()
                work()
                killer.join()
            except KeyboardInterrupt as error:
                kept.append(error)
                n_interrupted += 1
            killer.join()
        except KeyboardInterrupt:  # between the two, or while joining: no part of what is tested
            pass
        again = decoder.generate("a cat", max_tokens=4, ignore_eos=True)
        assert again.token_ids == expected, (i, again)
        assert not decoder.busy
        again = engine.submit("a cat", max_tokens=4, ignore_eos=True).result(60)
        assert again.token_ids == expected, (i, again)
    print(n_interrupted, flush=True)
"""
WORK = ["for_loop", "next_calls", "with_block", "comprehension", "generate", "callbacks", "chat"]
WORK += ["many", "checked", "engine_loop", "engine_results"]


def interrupt_rounds(path, work, seed, n_rounds):
    code = textwrap.dedent(ROUNDS)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), work, str(seed), str(n_rounds)],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > n_rounds // 5


@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_at_many_moments_frees_the_decoder(tiny_path, work):
    interrupt_rounds(tiny_path, work, seed=1, n_rounds=150)


@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
def test_ctrl_c_at_very_many_moments_frees_the_decoder(tiny_path, work):
    interrupt_rounds(tiny_path, work, seed=2, n_rounds=4000)


@pytest.mark.parametrize("what", ["many", "verified", "corpus"])
def test_ctrl_c_ends_what_would_take_very_long(tiny_path, what):
    # Each would run far longer than the time the child has: it ends because it is interrupted.
    code = """
        import os, signal, sys, threading, time
        import specdec_native as sd

        model = sd.Model(sys.argv[1], n_threads=1)
        long = [i * i % 200 for i in range(200_000)]
        done = []

        def interrupt():
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            if sys.argv[2] == "many":
                sd.generate_many(model, [long, long], n_ctx=250_000,
                                 on_done=lambda *n: done.append(n))
            if sys.argv[2] == "verified":
                sd.Decoder(model, n_ctx=250_000).generate(long, verify_output=True)
            if sys.argv[2] == "corpus":
                for _ in range(10_000):
                    sd.Decoder(model, drafter=sd.SuffixAutomaton(corpus="the cat " * 1_000_000))
        except KeyboardInterrupt:
            print("interrupted", len(done), flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tiny_path), what],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "interrupted 0\n"), done.stderr
