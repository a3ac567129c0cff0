"""Streams, threads, interrupts and processes."""

from __future__ import annotations

import gc
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat the cat in the hat the cat in the "
N_CTX = 1 << 18
# Would run for minutes: a test that passes has ended it.
ENDLESS = {"max_tokens": N_CTX - 1000, "ignore_eos": True}


@pytest.fixture
def decoder(tiny):
    with sd.Decoder(tiny, drafter=sd.NGram(), n_ctx=N_CTX) as decoder:
        yield decoder


# ---------------------------------------------------------------- streams


def test_a_stream_adds_up_to_the_result(tiny, decoder):
    expected = sd.Decoder(tiny).generate(PROMPT, max_tokens=200, ignore_eos=True, logprobs=2)
    with decoder.stream(PROMPT, max_tokens=200, ignore_eos=True, logprobs=2) as stream:
        chunks = list(stream)
    assert "".join(c.text for c in chunks) == expected.text == stream.result.text
    assert sum((c.token_ids for c in chunks), ()) == expected.token_ids
    assert sum((c.logprobs for c in chunks), ()) == expected.logprobs
    flags = sum((c.from_draft for c in chunks), ())
    assert flags == stream.result.from_draft
    assert any(flags)
    assert list(stream) == []


def test_every_chunk_is_whole_text(decoder):
    # A model with random weights emits bytes that are no UTF-8: they must not break a chunk.
    for chunk in decoder.stream(PROMPT, max_tokens=300, temperature=1.5, seed=1):
        chunk.text.encode("utf-8")
        assert len(chunk.token_ids) == len(chunk.from_draft)


def test_leaving_the_loop_ends_the_generation(decoder):
    with decoder.stream(PROMPT, **ENDLESS) as stream:
        for i, _ in enumerate(stream):
            if i == 3:
                break
    assert not decoder.busy
    assert stream.result.finish_reason == "cancelled"
    assert 3 < len(stream.result.token_ids) < N_CTX // 2
    assert decoder.generate(PROMPT, max_tokens=4, ignore_eos=True).token_ids


def test_a_dropped_stream_ends_and_the_decoder_goes_on(tiny, decoder):
    expected = sd.Decoder(tiny).generate(PROMPT, max_tokens=20, ignore_eos=True).token_ids
    for n_taken in range(4):
        stream = decoder.stream(PROMPT, **ENDLESS)
        for _ in range(n_taken):
            next(stream)
        alive = weakref.ref(stream)
        del stream
        gc.collect()
        assert alive() is None
        assert decoder.generate(PROMPT, max_tokens=20, ignore_eos=True).token_ids == expected


def test_breaking_out_of_a_loop_over_a_temporary_stream_frees_the_decoder(decoder):
    for _ in decoder.stream(PROMPT, **ENDLESS):
        break
    assert decoder.generate(PROMPT, max_tokens=4, ignore_eos=True).token_ids


def test_a_stream_nobody_reads_waits_instead_of_filling_memory(decoder):
    stream = decoder.stream(PROMPT, **ENDLESS)
    next(stream)
    time.sleep(0.3)
    stream.close()
    assert len(stream.result.token_ids) < 64 * 17 + 200


def test_a_decoder_that_streams_is_busy(decoder):
    with decoder.stream(PROMPT, **ENDLESS) as stream:
        next(stream)
        for use in (
            lambda: decoder.generate(PROMPT),
            lambda: decoder.stream(PROMPT),
            decoder.reset,
            decoder.fork,
        ):
            with pytest.raises(sd.SessionBusyError):
                use()
        next(stream)


def test_result_of_a_running_stream_is_an_error(decoder):
    with decoder.stream(PROMPT, **ENDLESS) as stream:
        with pytest.raises(RuntimeError, match="running"):
            _ = stream.result


def test_errors_of_a_stream_reach_the_reader(tiny):
    with sd.Decoder(tiny, n_ctx=16) as decoder, pytest.raises(sd.ContextFullError):
        list(decoder.stream(PROMPT))

    def fail(*args):
        raise KeyError("mine")

    with sd.Decoder(tiny) as decoder:
        with pytest.raises(KeyError, match="mine"):
            list(decoder.stream(PROMPT, on_progress=fail))
        assert list(decoder.stream(PROMPT, max_tokens=3, ignore_eos=True))


def test_closing_a_decoder_ends_its_stream(tiny):
    decoder = sd.Decoder(tiny, n_ctx=N_CTX)
    stream = decoder.stream(PROMPT, **ENDLESS)
    next(stream)
    decoder.close()
    assert sum(1 for _ in stream) <= 65
    assert stream.result.finish_reason == "cancelled"


# ---------------------------------------------------------------- threads


def test_cancel_works_from_another_thread(decoder):
    started = threading.Event()

    def cancel():
        started.wait(60)
        decoder.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    result = decoder.generate(PROMPT, on_token=lambda chunk: started.set(), **ENDLESS)
    thread.join()
    assert result.finish_reason == "cancelled"
    assert result.token_ids


def test_a_second_call_on_a_busy_decoder_is_refused_without_waiting(decoder):
    started, refused = threading.Event(), []

    def second():
        started.wait(60)
        for _ in range(50):
            try:
                decoder.generate("x", max_tokens=1)
            except sd.SessionBusyError as error:
                refused.append(error)
        decoder.cancel()

    thread = threading.Thread(target=second)
    thread.start()
    decoder.generate(PROMPT, on_token=lambda chunk: started.set(), **ENDLESS)
    thread.join()
    assert len(refused) == 50
    assert isinstance(refused[0], RuntimeError)


def test_decoders_share_a_model_between_threads(tiny):
    prompts = [PROMPT + word for word in ("a", "b", "c", "d", "e", "f", "g", "h")]
    expected = [sd.Decoder(tiny).generate(p, max_tokens=64).token_ids for p in prompts]
    results: dict[int, tuple[int, ...]] = {}

    def work(i: int) -> None:
        drafter = sd.NGram() if i % 2 else None
        with sd.Decoder(tiny, drafter=drafter) as decoder:
            results[i] = decoder.generate(prompts[i], max_tokens=64).token_ids

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(len(prompts))] == expected


def test_other_python_threads_run_during_a_generation(decoder):
    beats, stop = [0], threading.Event()

    def beat():
        while not stop.is_set():
            beats[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=beat)
    thread.start()
    # No callback: nothing but a released lock lets the other thread run before this returns.
    before = beats[0]
    decoder.generate(PROMPT * 40, max_tokens=3000, ignore_eos=True)
    during = beats[0] - before
    stop.set()
    thread.join()
    assert during > 20


# ---------------------------------------------------------------- processes


def run_child(code: str, *args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **kwargs,
    )


INTERRUPTED = """
    import sys
    import specdec_native as sd

    model = sd.Model(sys.argv[1], n_threads=2)
    decoder = sd.Decoder(model, drafter=sd.NGram(), n_ctx=60000)
    options = {"max_tokens": 59000, "ignore_eos": True}
    where = sys.argv[2]

    def ready(*args):
        if not ready.done:
            ready.done = True
            print("ready", flush=True)

    ready.done = False
    try:
        if where == "prompt":
            decoder.generate("abc" * 15000, on_progress=ready, **options)
        elif where == "generate":
            decoder.generate("the cat", on_token=ready, **options)
        else:
            for chunk in decoder.stream("the cat", **options):
                ready()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    again = decoder.generate("the cat", max_tokens=16, ignore_eos=True)
    fresh = sd.Decoder(model).generate("the cat", max_tokens=16, ignore_eos=True)
    print("same" if again.token_ids == fresh.token_ids else "other", flush=True)
"""


@pytest.mark.parametrize("where", ["prompt", "generate", "stream"])
def test_ctrl_c_ends_a_call_and_the_decoder_can_be_used_again(tiny_path, where):
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tiny_path), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=240)
    finally:
        child.kill()
    assert (child.returncode, out.split()) == (0, ["interrupted", "same"]), err


def test_the_interpreter_can_exit_in_the_middle_of_a_stream(tiny_path):
    code = """
        import sys
        import specdec_native as sd

        model = sd.Model(sys.argv[1])
        decoder = sd.Decoder(model, n_ctx=60000)
        stream = decoder.stream("the cat", max_tokens=59000, ignore_eos=True)
        next(stream)
        print("leaving", flush=True)
    """
    done = run_child(code, tiny_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")


def test_a_forked_child_gets_an_error_and_the_parent_goes_on(tiny_path):
    code = """
        import os, sys
        import specdec_native as sd

        model = sd.Model(sys.argv[1], n_threads=2)
        decoder = sd.Decoder(model)
        expected = decoder.generate("the cat", max_tokens=8, ignore_eos=True)
        pid = os.fork()
        if pid == 0:
            code = 0
            for use in (
                lambda: decoder.generate("the cat"),
                lambda: sd.Decoder(model),
                lambda: sd.Model(sys.argv[1]),
                lambda: list(decoder.stream("the cat")),
            ):
                try:
                    use()
                    code = 1
                except sd.ForkError as error:
                    code = code if "spawn" in str(error) else 2
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        again = decoder.generate("the cat", max_tokens=8, ignore_eos=True)
        print(os.waitstatus_to_exitcode(status), again.token_ids == expected.token_ids)
    """
    done = run_child(code, tiny_path)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "True"]), done.stderr


def test_a_fork_before_any_model_is_loaded_is_harmless(tiny_path: pathlib.Path):
    code = """
        import multiprocessing, sys
        import specdec_native as sd

        def work(path):
            with sd.Model(path) as model:
                return sd.Decoder(model).generate("the cat", max_tokens=8).token_ids

        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            results = pool.map(work, [sys.argv[1]] * 2)
        print(len(set(results)))
    """
    done = run_child(code, tiny_path)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
