"""What the API hands to the native code and makes of its answers, to the letter."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import pathlib
import threading
import types

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import decoder as decoder_module  # noqa: E402
from specdec_native import many as many_module  # noqa: E402
from specdec_native import model as model_module  # noqa: E402


class Native:
    """Keeps how its methods are called, and answers as told."""

    def __init__(self, **answers):
        self.calls = []
        self._answers = answers

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments, **named):
            self.calls.append((name, arguments, named))
            answer = self._answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call

    def take_log(self):
        self.calls.append(("take_log", (), {}))
        return self._answers.get("take_log", [])

    def only(self, name):
        [(arguments, named)] = [call[1:] for call in self.calls if call[0] == name]
        return arguments, named


INFO = {
    "tensor_types": [["Q8_0", 3.0]], "placement": ["a"], "warnings": ["odd", "strange"],
    "name": "", "path": "m.gguf", "architecture": "llama", "quantisation": "Q8_0",
    "vocab_size": 10, "n_layers": 2,
}  # fmt: skip


def info(**more):
    fields = {field.name: 0 for field in dataclasses.fields(sd.ModelInfo)}
    return {**fields, **INFO, **more}


@pytest.fixture
def core(monkeypatch):
    """Replaces the native module where models and many prompts use it."""

    def make(handle, **answers):
        fake = Native(Model=handle, **answers)
        monkeypatch.setattr(model_module, "_core", fake)
        monkeypatch.setattr(many_module, "_core", fake)
        return fake

    return make


def opened(core, **answers):
    handle = Native(info=info(), **answers)
    core(handle)
    model = sd.Model("m.gguf")
    handle.calls.clear()
    return model, handle


# ---------------------------------------------------------------- models

MESSAGES = [{"role": "user", "content": "a"}]
DEFAULTS = {
    "device": "auto", "n_threads": 0, "kv_type": "f16", "repack": "auto", "check_tensors": False,
    "requantize": "", "n_gpu_layers": -1, "vram_budget": "", "n_ctx": 0, "on_progress": None,
    "poll_signals": True,
}  # fmt: skip


def ignore(share):
    return None


@pytest.mark.parametrize(
    ("given", "handed"),
    [
        ({}, {}),
        ({"device": "cpu", "n_threads": 1, "kv_type": "q8_0", "repack": "off"},
         {"device": "cpu", "n_threads": 1, "kv_type": "q8_0", "repack": "off"}),
        ({"check_tensors": True, "requantize": "q4_0", "n_ctx": 2, "on_progress": ignore},
         {"check_tensors": True, "requantize": "q4_0", "n_ctx": 2, "on_progress": ignore}),
        ({"n_gpu_layers": 0, "vram_budget": 7}, {"n_gpu_layers": 0, "vram_budget": "7"}),
        ({"n_gpu_layers": 5, "vram_budget": "4GiB"}, {"n_gpu_layers": 5, "vram_budget": "4GiB"}),
    ],
)  # fmt: skip
def test_a_model_is_opened_as_it_was_said(core, given, handed):
    fake = core(Native(info=info()))
    sd.Model("ä.gguf", **given)
    assert fake.only("Model") == ((os.fsencode("ä.gguf"),), {**DEFAULTS, **handed})


def test_signals_are_looked_at_on_the_main_thread_alone(core):
    fake = core(Native(info=info()))
    thread = threading.Thread(target=sd.Model, args=("m.gguf",))
    thread.start()
    thread.join()
    assert fake.only("Model")[1]["poll_signals"] is False


def test_what_a_model_says_is_logged_and_told(core, caplog):
    core(Native(info=info()), take_log=[(30, "100 % odd"), (20, "read")])
    with caplog.at_level(logging.INFO, logger="specdec_native"):
        model = sd.Model("ä.gguf")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (30, "100 % odd"), (20, "read"), (30, "ä.gguf: odd"), (30, "ä.gguf: strange"),
    ]  # fmt: skip
    assert model.info.tensor_types == (("Q8_0", 3),)
    assert (model.info.placement, model.info.warnings) == (("a",), ("odd", "strange"))
    assert repr(model) == "<specdec_native.Model 'm.gguf': llama, Q8_0>"
    model.close()
    assert repr(model) == "<specdec_native.Model, closed>"
    core(Native(info=info(name="A model")))
    assert repr(sd.Model("m.gguf")) == "<specdec_native.Model 'A model': llama, Q8_0>"


def test_names_are_looked_up_and_files_are_not(core, monkeypatch):
    from specdec_native import _names

    fake = core(Native(info=info()))
    asked = []

    def find_file(name, *, notify):
        asked.append((name, notify))
        return pathlib.Path("found.gguf")

    monkeypatch.setattr(_names, "find_file", find_file)
    monkeypatch.setattr(_names, "find_draft", {"known": pathlib.Path("draft.gguf")}.get)
    for path in ("a.gguf", pathlib.Path("b"), "known", "hf:o/r/c.gguf"):
        model = sd.Model(path, device="cpu", n_threads=3)
        drafts = model.open_draft()
        assert (drafts is not None) == (path == "known")
    files = [call[1][0] for call in fake.calls if call[0] == "Model"]
    assert files == [b"a.gguf", b"b", b"found.gguf", b"draft.gguf", b"found.gguf"]
    draft = [call[2] for call in fake.calls if call[0] == "Model"][3]
    assert draft == {**DEFAULTS, "device": "cpu", "n_threads": 3}
    assert asked == [(name, model_module.logger.info) for name in ("known", "hf:o/r/c.gguf")]


def test_texts_and_tokens_are_handed_on(core):
    model, handle = opened(core, tokenize=[1, 2], detokenize="x", token_text="y")
    assert model.tokenize("ä\ud800") == [1, 2]
    model.tokenize("a", add_special=False, parse_special=False)
    assert model.detokenize((1, 9)) == "x"
    model.detokenize([], render_special=True, strip_space_prefix=False)
    assert model.token_text(9) == "y"
    polls = {"poll_signals": True}
    assert handle.calls == [
        ("tokenize", ("ä".encode() + b"\xed\xa0\x80",),
         {"add_special": True, "parse_special": True, **polls}),
        ("tokenize", (b"a",), {"add_special": False, "parse_special": False, **polls}),
        ("detokenize", ([1, 9],), {"render_special": False, "strip_space_prefix": True}),
        ("detokenize", ([],), {"render_special": True, "strip_space_prefix": False}),
        ("token_text", (9,), {}),
    ]  # fmt: skip
    with pytest.raises(sd.InvalidArgumentError, match=r"token_ids\[1\] is 10: .* from 0 to 9$"):
        model.detokenize([0, 10])
    with pytest.raises(sd.InvalidArgumentError, match=r"token_id must be .* from 0 to 9"):
        model.token_text(10)


def test_what_a_file_says_is_handed_back(core):
    model, handle = opened(
        core, metadata={"k": 1}, chat_template="", chat_templates={"": "t"}, bos_id=1
    )
    assert model.metadata == {"k": 1}
    assert handle.only("metadata") == ((), {"max_array": 1024})
    assert model.chat_template is None
    assert model.chat_templates == {"": "t"}
    model, handle = opened(core, chat_template="t")
    assert model.chat_template == "t"


def test_hidden_states_are_asked_for_layer_by_layer(core):
    model, handle = opened(core, hidden_states=b"1234")
    assert bytes(model.hidden_states([3, 4], range(3))) == b"1234"
    assert handle.only("hidden_states") == (
        ([3, 4], [0, 1, 2]),
        {"n_ctx": 0, "poll_signals": True},
    )
    model, handle = opened(core, hidden_states=b"1234")
    model.hidden_states([3, 4], [0], n_ctx=9)
    assert handle.only("hidden_states")[1]["n_ctx"] == 9
    for layers, says in (
        (3, "layers must be a sequence of layers, not int"),
        ("ab", "layers must be a sequence of layers, not str"),
        (b"ab", "layers must be a sequence of layers, not bytes"),
        ([0, 3], r"layers\[1\] must be a whole number from 0 to 2"),
        ([-1], r"layers\[0\] must be a whole number from 0 to 2"),
    ):
        with pytest.raises(sd.InvalidArgumentError, match=says):
            model.hidden_states([1], layers)
    with pytest.raises(sd.InvalidArgumentError, match=r"^token_ids\[0\] is 10"):
        model.hidden_states([10], [0])


def test_conversations_are_handed_on(core):
    model, handle = opened(core, chat_prompt=("text", [1]))
    messages = MESSAGES
    assert model.apply_chat_template(messages) == "text"
    model.apply_chat_template(messages, add_generation_prompt=0, template="ä", tools=[{"x": 1}],
                              template_args={"b": 2})  # fmt: skip
    first, second = handle.calls
    assert first[0] == "chat_prompt"
    assert b'"content": "a"' in first[1][0].replace(b'":"', b'": "')
    assert {**first[2], "tools": None, "arguments": None} == {
        "tools": None, "chat_template": b"", "arguments": None, "add_generation_prompt": True,
        "poll_signals": True,
    }  # fmt: skip
    assert second[2]["chat_template"] == "ä".encode()
    assert second[2]["add_generation_prompt"] is False
    assert b'"x"' in second[2]["tools"]
    assert b'"b"' in second[2]["arguments"]


def test_messages_of_the_native_code_are_logged_when_a_call_fails(core, caplog):
    handle = Native(info=info(), tokenize=ValueError("t"), chat_prompt=ValueError("c"))
    log = []
    core(handle, take_log=log)
    model = sd.Model("m.gguf")
    log.append((30, "odd"))
    calls = (lambda: model.tokenize("a"), lambda: model.apply_chat_template(MESSAGES))
    for i, call in enumerate(calls):
        with pytest.raises(ValueError, match=r"^[tc]$"):
            call()
        assert [r.getMessage() for r in caplog.records].count("odd") == i + 1


@pytest.mark.parametrize(
    ("problem", "metadata", "architecture"),
    [("", {"general.architecture": "llama"}, "llama"), ("too new", {}, "")],
)
def test_an_inspected_file_is_told_in_full(core, problem, metadata, architecture):
    found = {"metadata": metadata, "version": 3, "size_bytes": 99, "warnings": ["w"], "n_parts": 2,
             "tensors": [["t", "F32", (1, 2), 8, 64]], "problem": problem}  # fmt: skip
    fake = core(None, inspect=found)
    assert sd.inspect(pathlib.Path("a")) == sd.FileInfo(
        path="a", version=3, size_bytes=99, architecture=architecture, metadata=metadata,
        tensors=(model_module.TensorEntry("t", "F32", (1, 2), 8, 64),), warnings=("w",),
        supported=not problem, problem=problem, n_parts=2,
    )  # fmt: skip
    sd.inspect("b", max_array=0)
    sd.inspect("b", max_array=2**40)
    assert [call[1:] for call in fake.calls] == [
        ((b"a",), {"max_array": 1024}), ((b"b",), {"max_array": 0}),
        ((b"b",), {"max_array": 2**40}),
    ]  # fmt: skip
    with pytest.raises(sd.InvalidArgumentError, match="max_array must be"):
        sd.inspect("b", max_array=2**40 + 1)


@pytest.mark.parametrize(("first", "told"), [(-1, None), (0, 0), (1, 1)])
def test_a_pair_s_first_difference_is_told(core, first, told):
    values = {field.name: 0 for field in dataclasses.fields(sd.PairReport)}
    values |= {"first_difference": first, "warnings": ["w"]}
    one, two = Native(info=info()), Native(info=info())
    core(one)
    target = sd.Model("a.gguf")
    core(two)
    draft = sd.Model("b.gguf")
    fake = core(None, check_pair=values)
    report = sd.check_pair(target, draft)
    assert (report.first_difference, report.warnings) == (told, ("w",))
    assert fake.only("check_pair") == ((one, two), {})


def test_what_is_kept_open_goes_on_when_the_model_is_closed(core):
    model, _ = opened(core, tokenize=[1])
    kept = model._keep()
    model.close()
    assert kept.tokenize("a") == [1]
    assert not kept.closed
    kept.close()
    assert kept.closed


# ---------------------------------------------------------------- many prompts


def many(core, prompts=("a", [1, 2]), found=None, **options):
    model, handle = opened(core, tokenize=[7], detokenize="text")
    found = found or [
        ([5], "length", [(-1.0, [(5, -1.0)])], b"1234"),
        ([6], "stop", [], None),
    ]
    fake = core(None, generate_many=found)
    results = sd.generate_many(model, prompts, **options)
    arguments, named = fake.only("generate_many")
    assert arguments == (handle,)
    return results, named, handle


def test_many_prompts_are_handed_on_at_once(core):
    results, named, handle = many(core, seeds=[3, 4])
    sampling = named.pop("sampling")
    assert sampling.temperature == 0.0
    assert named == {
        "prompts": [[7], [1, 2]], "seeds": [3, 4], "max_tokens": [128, 128], "ignore_eos": False,
        "keep_eos": False, "n_logprobs": -1, "n_parallel": 16, "n_ctx": 0, "layers": [],
        "on_progress": None, "poll_signals": True,
    }  # fmt: skip
    assert results == [
        sd.ManyResult("text", (5,), "length", None, 3),
        sd.ManyResult("text", (6,), "stop", None, 4),
    ]
    detokenized = [call for call in handle.calls if call[0] == "detokenize"]
    options = {"render_special": False, "strip_space_prefix": False}
    assert detokenized == [("detokenize", ([n],), options) for n in (5, 6)]


def test_options_of_many_prompts_are_handed_on(core):
    results, named, _ = many(
        core, max_tokens=[1, 2], keep_eos=True, ignore_eos=True, n_parallel=3, n_ctx=2,
        layers=(0, 2), on_done=ignore, logprobs=0, top_k=4,
        params=sd.SamplingParams(seed=9, temperature=0.5),
    )  # fmt: skip
    sampling = named.pop("sampling")
    assert (sampling.temperature, sampling.top_k) == (0.5, 4)
    assert named == {
        "prompts": [[7], [1, 2]], "seeds": [9, 9], "max_tokens": [1, 2], "ignore_eos": True,
        "keep_eos": True, "n_logprobs": 0, "n_parallel": 3, "n_ctx": 2, "layers": [0, 2],
        "on_progress": ignore, "poll_signals": True,
    }  # fmt: skip
    assert [r.logprobs for r in results] == [(sd.PositionLogprobs(-1.0, ()),), ()]
    assert [r.seed for r in results] == [9, 9]
    assert [r.hidden_states for r in results] == [memoryview(b"1234"), None]


def test_without_a_limit_or_a_seed_each_prompt_has_its_own(core, monkeypatch):
    drawn = iter(range(1, 9))
    monkeypatch.setattr(many_module, "random_seed", lambda: next(drawn))
    results, named, _ = many(core, max_tokens=None, params=sd.SamplingParams())
    assert named["max_tokens"] == [-1, -1]
    assert named["seeds"] == [r.seed for r in results] == sorted(named["seeds"])
    assert len(set(named["seeds"])) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": [1]}, "max_tokens has 1 numbers for 2 prompts: give one per prompt"),
        ({"seeds": [1, 2, 3]}, "seeds has 3 numbers for 2 prompts: give one per prompt"),
        ({"seeds": "12"}, "seeds must be a sequence of numbers, not '12'"),
        ({"prompts": ["a", [1, 10]]}, r"prompts\[1\]\[1\] is 10: .* from 0 to 9$"),
        ({"logprobs": 101}, "logprobs must be"),
        ({"n_parallel": 65}, "n_parallel must be"),
    ],
)
def test_many_prompts_are_checked_first(core, options, says):
    with pytest.raises(sd.InvalidArgumentError, match=says):
        many(core, **options)


# ---------------------------------------------------------------- decoders


class Slot:
    """Stands in for the flag of a running call."""

    def __init__(self):
        self.busy = False
        self.events = []

    def __enter__(self):
        self.events.append("enters")
        return types.SimpleNamespace(set=lambda: self.events.append("set"))

    def __exit__(self, *error):
        self.events.append("leaves")

    def cancel(self):
        self.events.append("cancelled")

    def close(self):
        self.events.append("closed")


@pytest.fixture
def session(monkeypatch, tiny):
    """Replaces the native session of decoders of `tiny`; what its constructor got is in `made`."""
    made = Native(kept_options=(33, "q8_0"))
    session = Native(fork="fork")
    session.n_ctx, session.memory_bytes = 5, 6
    made._answers["Session"] = session
    fake = types.SimpleNamespace(
        CallSlot=Slot, Session=made.Session, kept_options=made.kept_options
    )
    monkeypatch.setattr(decoder_module, "_core", fake)
    session.made = made
    return session


def test_a_decoder_is_made_as_it_was_said(session, tiny, tiny_draft):
    decoder = sd.Decoder(tiny)
    sd.Decoder(tiny, draft=tiny_draft, n_ctx=2, kv_type="q8_0", verifier="match", use_cache=False)
    (target, draft, options), named = session.made.calls[0][1:]
    assert (target, draft) == (tiny._native, None)
    assert (options.verifier, options.n_ctx, options.kv_type) == ("auto", 0, "")
    assert (options.use_cache, options.adaptive) == (True, True)
    assert named == {"poll_signals": True}
    (target, draft, options), _ = session.made.calls[1][1:]
    assert (target, draft) == (tiny._native, tiny_draft._native)
    assert (options.verifier, options.n_ctx, options.kv_type) == ("match", 2, "q8_0")
    assert options.use_cache is False
    assert (decoder.n_ctx, decoder.memory_bytes, decoder.target) == (5, 6, tiny)


def test_a_kept_decoder_is_as_it_was_saved_unless_it_is_said(session, tiny):
    decoder = sd.Decoder.load("ä", tiny, drafter=None)
    assert isinstance(decoder, sd.Decoder)
    sd.Decoder.load(pathlib.Path("b"), tiny, drafter="ngram", n_ctx=44, kv_type="f16",
                    verifier="match")  # fmt: skip
    asked, first, asked_again, second = session.made.calls
    polls = {"poll_signals": True}
    assert asked == ("kept_options", ("ä".encode(), tiny._native), polls)
    assert asked_again == ("kept_options", (b"b", tiny._native), polls)
    assert (first[1][2].n_ctx, first[1][2].kv_type, first[1][2].drafters) == (33, "q8_0", [])
    assert (second[1][2].n_ctx, second[1][2].kv_type) == (44, "f16")
    assert len(second[1][2].drafters) == 1
    assert second[1][2].verifier == "match"
    assert session.calls == [("load", ("ä".encode(),), polls), ("load", (b"b",), polls)]


def test_a_kept_decoder_that_cannot_be_loaded_is_closed(session, tiny, monkeypatch):
    closed = []
    monkeypatch.setattr(sd.Decoder, "close", lambda decoder: closed.append(decoder))
    session._answers["load"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        sd.Decoder.load("a", tiny, drafter=None)
    assert len(closed) == 1


def test_what_a_decoder_holds_is_saved_and_forgotten(session, tiny, monkeypatch):
    logged = []
    monkeypatch.setattr(decoder_module, "flush_log", lambda: logged.append(True))
    decoder = sd.Decoder(tiny, drafter=None)
    decoder.save("ä")
    decoder.reset()
    assert session.calls == [("save", ("ä".encode(),), {"poll_signals": True}), ("reset", (), {})]
    assert len(logged) == 2  # of making it, and of saving
    assert decoder._slot.events == ["enters", "leaves"] * 2
    session._answers["save"] = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        decoder.save("ä")
    assert len(logged) == 3


def test_a_fork_shares_what_its_decoder_holds(session, tiny):
    decoder = sd.Decoder(tiny, drafter=None)
    other = decoder.fork()
    assert (other._session, other.target, other._model) == ("fork", tiny, decoder._model)
    assert other._slot is not decoder._slot
    assert other._worker is None
    assert decoder._slot.events == ["enters", "leaves"]


def worker(*, is_open=False, finished=True):
    events = []
    cancel = types.SimpleNamespace(set=lambda: events.append("cancelled"))
    return types.SimpleNamespace(
        open=is_open, finished=finished, cancel=cancel, wait=lambda: events.append("waited for"),
        events=events,
    )  # fmt: skip


def test_a_decoder_is_busy_while_a_call_or_a_stream_runs(session, tiny):
    decoder = sd.Decoder(tiny, drafter=None)
    assert decoder.busy is False
    decoder._slot.busy = True
    assert decoder.busy is True
    decoder._slot.busy = False
    decoder._worker = worker(finished=False)
    assert decoder.busy is True
    decoder._worker = worker()
    assert decoder.busy is False


def test_a_stream_that_is_open_is_in_the_way_and_another_is_waited_for(session, tiny):
    decoder = sd.Decoder(tiny, drafter=None)
    for use in (decoder.reset, decoder.fork, lambda: decoder.save("a"),
                lambda: decoder.generate("a"), lambda: decoder.stream("a")):  # fmt: skip
        decoder._worker = worker(is_open=True)
        with pytest.raises(
            sd.SessionBusyError, match=r"^the decoder is streaming: read the stream"
        ):
            use()
    ended = decoder._worker = worker()
    decoder.reset()
    assert ended.events == ["waited for"]
    assert decoder._worker is None


def test_cancelling_and_closing_reach_the_call_and_the_stream(session, tiny):
    decoder = sd.Decoder(tiny, drafter=None)
    decoder.cancel()
    assert decoder._slot.events == ["cancelled"]
    running = decoder._worker = worker(is_open=True)
    decoder.cancel()
    assert running.events == ["cancelled"]
    decoder.close()
    assert running.events == ["cancelled", "cancelled", "waited for"]
    assert decoder._slot.events == ["cancelled", "cancelled", "closed"]
    assert decoder.closed
    decoder.close()


def result(**more):
    values = {"text": "t", "token_ids": [1], "from_draft": [False], "finish_reason": "stop",
              "stop_reason": None, "logprobs": [], "n_prompt_tokens": 1, "seed": 2,
              "stats": sd.DecodeStats}  # fmt: skip
    return types.SimpleNamespace(**{**values, **more})


@pytest.fixture
def converted(monkeypatch):
    """Conversions of results are others' affair."""
    made = dataclasses.make_dataclass("Made", [("result", object), ("check", object, None)])
    monkeypatch.setattr(decoder_module, "to_result", lambda session, result, call: made(result))
    monkeypatch.setattr(decoder_module, "to_check", lambda check: ("check", check))
    monkeypatch.setattr(
        decoder_module, "to_chunk", lambda chunk, call: ("chunk", chunk, call.n_top)
    )


def test_a_call_is_handed_on(session, tiny, converted):
    session._answers["generate"] = found = result()
    decoder = sd.Decoder(tiny, drafter=None)
    made = decoder.generate("the cat")
    assert (made.result, made.check) == (found, None)
    (request,), named = session.only("generate")
    cancel = named.pop("cancel")
    cancel.set()
    assert decoder._slot.events == ["enters", "leaves", "set"]
    assert named == {
        "on_chunk": None, "on_progress": None, "on_round": None, "poll_signals": True,
    }  # fmt: skip
    assert (request.max_tokens, request.speculate, request.ignore_eos) == (128, True, False)


def test_callbacks_of_a_call_are_handed_on(session, tiny, converted):
    session._answers["generate"] = result()
    decoder, seen, rounds = sd.Decoder(tiny, drafter=None), [], []
    decoder.generate("a", on_progress=ignore, on_round=rounds.append, logprobs=3,
                     on_token=lambda chunk: seen.append(chunk) or "answer")  # fmt: skip
    named = session.only("generate")[1]
    assert named["on_progress"] is ignore
    assert named["on_chunk"]("native") == "answer"
    assert seen == [("chunk", "native", 3)]
    assert callable(named["on_round"])


@pytest.mark.parametrize("identical", [True, False])
def test_output_is_checked_when_asked_for(session, tiny, converted, identical):
    check = types.SimpleNamespace(identical=identical, difference="at 3")
    session._answers |= {"generate": result(), "check_output": check}
    decoder = sd.Decoder(tiny, drafter=None)
    if identical:
        assert decoder.generate("a", verify_output=True).check == ("check", check)
    else:
        with pytest.raises(sd.OutputMismatchError, match=r"plain decoding gives: at 3$") as raised:
            decoder.generate("a", verify_output=True)
        assert raised.value.result.check == ("check", check)
    assert [call[0] for call in session.calls] == ["require_checkable", "generate", "check_output"]
    (request, found), named = session.only("check_output")
    assert session.only("require_checkable") == ((request,), {})
    assert found is session._answers["generate"]
    assert named == {"cancel": session.only("generate")[1]["cancel"], "poll_signals": True}


def test_output_that_was_cancelled_is_not_checked(session, tiny, converted):
    session._answers["generate"] = result(finish_reason="cancelled")
    made = sd.Decoder(tiny, drafter=None).generate("a", verify_output=True)
    assert made.check is None
    assert [call[0] for call in session.calls] == ["require_checkable", "generate"]


def test_messages_are_logged_when_a_call_fails(session, tiny, monkeypatch):
    decoder, logged = sd.Decoder(tiny, drafter=None), []
    monkeypatch.setattr(decoder_module, "flush_log", lambda: logged.append(True))
    session._answers["generate"] = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        decoder.generate("a")
    assert logged == [True]


def test_a_conversation_is_handed_on_as_its_prompt(session, tiny, converted):
    session._answers["generate"] = result()
    messages = [{"role": "user", "content": "hi"}]
    sd.Decoder(tiny, drafter=None).chat(messages, template="chatml", max_tokens=3)
    (request,), _ = session.only("generate")
    text = tiny.apply_chat_template(messages, template="chatml")
    assert list(request.prompt_ids) == tiny._chat_prompt(messages, True, None, "chatml", None)[1]
    assert text.endswith("assistant\n")
    assert request.max_tokens == 3


def test_a_stream_that_cannot_begin_is_cancelled(session, tiny, monkeypatch):
    class Worker:
        def __init__(self, call):
            self.thread = types.SimpleNamespace(start=self.start)
            self.open = True
            self.finished = True
            self.cancel = types.SimpleNamespace(set=lambda: None)

        def start(self):
            raise RuntimeError("no more threads")

        def wait(self):
            pass

    monkeypatch.setattr(decoder_module, "StreamWorker", Worker)
    monkeypatch.setattr(decoder_module, "Stream", lambda worker: "stream")
    decoder = sd.Decoder(tiny, drafter=None)
    with pytest.raises(RuntimeError, match="no more threads"):
        decoder.stream("a")
    assert decoder._slot.events == ["enters", "set", "leaves"]
    monkeypatch.setattr(Worker, "start", lambda self: None)
    decoder._worker = None
    assert decoder.stream("a") == "stream"
    assert isinstance(decoder._worker, Worker)


def test_calls_have_the_defaults_that_are_documented():
    """128 tokens of a text and 512 of an answer."""
    methods = {sd.Decoder.generate: 128, sd.Decoder.stream: 128, sd.Decoder.chat: 512,
               sd.Decoder.stream_chat: 512}  # fmt: skip
    for method, n in methods.items():
        assert inspect.signature(method).parameters["max_tokens"].default == n
