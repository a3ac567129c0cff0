"""What outlives what: closed models, callbacks that raise or call back, forks and exits."""

from __future__ import annotations

import asyncio
import copy
import pathlib
import pickle
import subprocess
import sys
import textwrap
import threading

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat the cat in the hat the cat in the "
MESSAGES = [{"role": "user", "content": "the cat in the hat"}]
N_CTX = 1 << 18
# Would run for minutes: a test that passes has ended it.
ENDLESS = {"max_tokens": N_CTX - 1000, "ignore_eos": True}
SHORT = {"max_tokens": 12, "ignore_eos": True}


@pytest.fixture
def decoder(tiny):
    with sd.Decoder(tiny, drafter=sd.NGram(), n_ctx=N_CTX) as decoder:
        yield decoder


def run_child(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


# ---------------------------------------------------------------- closed models

USES = {
    "generate": lambda d: d.generate(PROMPT, **SHORT).token_ids,
    "ids": lambda d: d.generate([1, 2, 3], **SHORT).token_ids,
    "bias": lambda d: d.generate(PROMPT, logit_bias={7: -9.0}, **SHORT).token_ids,
    "logprobs": lambda d: d.generate(PROMPT, logprobs=2, **SHORT).logprobs,
    "verified": lambda d: d.generate(PROMPT, verify_output=True, **SHORT).check,
    "chat": lambda d: d.chat(MESSAGES, **SHORT).token_ids,
    "stream": lambda d: "".join(c.text for c in d.stream(PROMPT, **SHORT)),
    "stream_chat": lambda d: "".join(c.text for c in d.stream_chat(MESSAGES, **SHORT)),
    "fork": lambda d: d.fork().generate(PROMPT, **SHORT).token_ids,
    "sizes": lambda d: (d.n_ctx, d.memory_bytes > 0, d.busy),
}
DECODERS = {
    "plain": lambda m, draft: sd.Decoder(m, drafter=None),
    "ngram": lambda m, draft: sd.Decoder(m, drafter=sd.NGram()),
    "model": lambda m, draft: sd.Decoder(m, drafter=sd.DraftModel(draft)),
    "layers": lambda m, draft: sd.Decoder(m, drafter=sd.LayerSkip()),
    "auto": lambda m, draft: sd.Decoder(m, draft=draft),
}


def result_of(use, decoder):
    found = use(decoder)
    return found.identical if isinstance(found, sd.OutputCheck) else found


@pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS)
def test_decoders_go_on_when_their_models_are_closed(tiny, tiny_draft, tiny_path, tiny_draft_path,
                                                     make):  # fmt: skip
    expected = {name: result_of(use, make(tiny, tiny_draft)) for name, use in USES.items()}
    for name, use in USES.items():
        with sd.Model(tiny_path) as model, sd.Model(tiny_draft_path) as draft:
            decoder = make(model, draft)
        assert decoder.target is model
        assert model.closed
        assert draft.closed
        assert result_of(use, decoder) == expected[name], name
        with pytest.raises(sd.ClosedError):
            model.tokenize("x")


def test_an_exception_in_the_block_of_a_model_leaves_the_decoder(tiny, tiny_path):
    with pytest.raises(KeyError), sd.Model(tiny_path) as model:
        decoder = sd.Decoder(model)
        raise KeyError("mine")
    expected = sd.Decoder(tiny).generate(PROMPT, **SHORT)
    assert decoder.generate(PROMPT, **SHORT).token_ids == expected.token_ids


def test_a_model_closed_while_many_prompts_run_is_still_used(tiny, tiny_path):
    prompts = [PROMPT, "a", "b c"]
    options = {"n_parallel": 1, "ignore_eos": True, "max_tokens": 4}
    expected = sd.generate_many(tiny, prompts, **options)
    model = sd.Model(tiny_path)
    results = sd.generate_many(model, prompts, on_done=lambda *_: model.close(), **options)
    assert model.closed
    assert [r.text for r in results] == [r.text for r in expected]
    with pytest.raises(sd.ClosedError):
        sd.generate_many(model, prompts)


def test_a_decoder_in_its_own_callback(decoder):
    seen = []

    def inside(chunk):
        for use in (
            lambda: decoder.generate("x"),
            lambda: decoder.stream("x"),
            lambda: decoder.chat(MESSAGES),
            decoder.fork,
            decoder.reset,
        ):
            with pytest.raises(sd.SessionBusyError):
                use()
        seen.append(decoder.busy)
        decoder.cancel()

    assert decoder.generate(PROMPT, on_token=inside, **ENDLESS).finish_reason == "cancelled"
    assert set(seen) == {True}
    assert not decoder.busy
    result = decoder.generate(PROMPT, on_token=lambda _: decoder.close(), **ENDLESS)
    assert result.finish_reason == "cancelled"
    assert decoder.closed
    with pytest.raises(sd.ClosedError):
        decoder.generate("x")


@pytest.mark.parametrize("name", ["on_token", "on_progress", "on_round"])
@pytest.mark.parametrize("call", ["generate", "chat", "stream", "stream_chat"])
def test_an_exception_of_a_callback_passes_through_every_call(tiny, decoder, call, name):
    if name == "on_token" and call.startswith("stream"):
        pytest.skip("a stream has no on_token")
    expected = sd.Decoder(tiny).generate(PROMPT, **SHORT).token_ids

    def fail(*args):
        raise ZeroDivisionError("mine")

    prompt = MESSAGES if call.endswith("chat") else PROMPT
    with pytest.raises(ZeroDivisionError, match="mine"):
        list(getattr(decoder, call)(prompt, **{name: fail}, **ENDLESS))
    assert not decoder.busy
    assert decoder.generate(PROMPT, **SHORT).token_ids == expected


def test_streams_cannot_be_copied_and_errors_can(decoder):
    with decoder.stream(PROMPT, **ENDLESS) as stream:
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="pickled or copied"):
                copier(stream)
        next(stream)
    for kind in (sd.ModelFormatError, sd.ModelFileNotFoundError, sd.OutputMismatchError):
        error = kind("what", reason="r", path="p", offset=3)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert (str(again), again.reason, again.path, again.offset) == ("what", "r", "p", 3)


# ---------------------------------------------------------------- threads and asyncio


def test_one_stream_read_by_two_threads_gives_each_chunk_once(tiny, decoder):
    expected = sd.Decoder(tiny).generate(PROMPT, max_tokens=300, ignore_eos=True).token_ids
    stream = decoder.stream(PROMPT, max_tokens=300, ignore_eos=True)
    found: list[tuple[int, ...]] = []
    threads = [
        threading.Thread(target=lambda: found.extend(c.token_ids for c in stream)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(t for c in found for t in c) == sorted(expected)
    assert stream.result.token_ids == expected


def test_a_stream_closed_by_another_thread_ends_its_reader(decoder):
    stream = decoder.stream(PROMPT, **ENDLESS)
    started = threading.Event()

    def read():
        for _ in stream:
            started.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(60)
    stream.close()
    reader.join(60)
    assert not reader.is_alive()
    assert stream.result.finish_reason == "cancelled"
    assert decoder.generate(PROMPT, **SHORT).token_ids


def test_asyncio_awaits_calls_in_threads_and_cancels_them(tiny, decoder):
    expected = sd.Decoder(tiny).generate(PROMPT, **SHORT).token_ids

    async def main():
        assert (await asyncio.to_thread(decoder.generate, PROMPT, **SHORT)).token_ids == expected
        tokens = []
        stream = decoder.stream(PROMPT, **SHORT)
        while (chunk := await asyncio.to_thread(next, stream, None)) is not None:
            tokens += chunk.token_ids
        assert tuple(tokens) == expected
        # The task is cancelled, the thread under it is not: that is what cancel() is for.
        started = asyncio.Event()
        loop = asyncio.get_running_loop()
        call = asyncio.to_thread(
            decoder.generate,
            PROMPT,
            on_token=lambda _: loop.call_soon_threadsafe(started.set),
            **ENDLESS,
        )
        task = asyncio.create_task(call)
        await started.wait()
        decoder.cancel()
        assert (await task).finish_reason == "cancelled"
        assert decoder.generate(PROMPT, **SHORT).token_ids == expected

    asyncio.run(main())


# ---------------------------------------------------------------- processes


@pytest.mark.parametrize("state", ["idle", "reading", "unread", "generating"])
def test_a_forked_child_can_drop_everything_and_exit(tiny_path: pathlib.Path, state):
    code = """
        import gc, os, sys, threading, time
        import specdec_native as sd

        model = sd.Model(sys.argv[1], n_threads=2)
        decoder = sd.Decoder(model, drafter=sd.NGram(), n_ctx=60000)
        endless = {"max_tokens": 59000, "ignore_eos": True}
        stream, thread, started = None, None, threading.Event()
        if sys.argv[2] in ("reading", "unread"):
            stream = decoder.stream("the cat", **endless)
            if sys.argv[2] == "reading":
                next(stream)
        if sys.argv[2] == "generating":
            thread = threading.Thread(
                target=lambda: decoder.generate("a", on_token=lambda _: started.set(), **endless))
            thread.start()
            started.wait(60)
        pid = os.fork()
        if pid == 0:
            try:
                decoder.generate("x")
            except sd.ForkError:
                pass
            if stream is not None:
                stream.close()
                list(stream)
            decoder.close()
            del stream, decoder, model
            gc.collect()
            sys.exit(7)
        _, status = os.waitpid(pid, 0)
        decoder.cancel()
        if thread is not None:
            thread.join()
        again = decoder.generate("the cat", max_tokens=8, ignore_eos=True)
        print(os.waitstatus_to_exitcode(status), len(again.token_ids))
    """
    done = run_child(code, tiny_path, state)
    assert (done.returncode, done.stdout.split()) == (0, ["7", "8"]), done.stderr


@pytest.mark.parametrize(
    "what", ["generate", "callback", "stream", "unread", "prompt", "many", "tokenize"]
)
@pytest.mark.parametrize("daemon", [True, False])
def test_the_interpreter_can_exit_in_the_middle_of_anything(tiny_path, what, daemon):
    if not daemon and what not in ("stream", "unread", "prompt"):
        pytest.skip("Python waits for threads that are no daemons")
    code = """
        import sys, threading, time
        import specdec_native as sd

        what, daemon = sys.argv[2], sys.argv[3] == "True"
        model = sd.Model(sys.argv[1], n_threads=2)
        decoder = sd.Decoder(model, drafter=sd.NGram(), n_ctx=200000)
        endless = {"max_tokens": 100000, "ignore_eos": True}
        started = threading.Event()

        def work():
            if what == "generate":
                started.set()
                decoder.generate("the cat", **endless)
            if what == "callback":
                decoder.generate("the cat", on_token=lambda _: started.set(), **endless)
            if what == "many":
                started.set()
                sd.generate_many(model, ["the cat"] * 3, n_ctx=60000, ignore_eos=True,
                                 max_tokens=None)
            if what == "tokenize":
                started.set()
                while True:
                    model.tokenize("the cat " * 1000)
            if what in ("stream", "unread"):
                stream = decoder.stream("the cat", **endless)
                next(stream)
                started.set()
                for _ in stream if what == "stream" else ():
                    pass
                time.sleep(1000)
            if what == "prompt":
                for _ in decoder.stream("abc" * 60000, on_progress=lambda *_: started.set(),
                                        **endless):
                    pass

        if daemon:
            threading.Thread(target=work, daemon=True).start()
        elif what == "prompt":
            stream = decoder.stream("abc" * 60000, on_progress=lambda *_: started.set(), **endless)
        else:
            stream = decoder.stream("the cat", **endless)
            next(stream)
            started.set()
        started.wait(60)
        time.sleep(0.1)
        print("leaving", flush=True)
    """
    done = run_child(code, tiny_path, what, daemon)
    assert (done.returncode, done.stdout, done.stderr) == (0, "leaving\n", "")
