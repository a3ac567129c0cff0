"""Every option of Python reaches the native side and changes something.

A case is an option, in one of the functions that take it, with two values: the same value twice
gives the same, the two give something else. `test_options_arrive_cli.py` does so for flags.
"""

from __future__ import annotations

import asyncio
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import eagle_reference
import mtp_reference
import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from options_schema import OPTIONS  # noqa: E402
from options_schema.python import CALLABLES, options_of  # noqa: E402

PROMPT = "the cat in the hat the cat in the hat the cat in the "
CODE = (
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n\n\ndef mul(a, b):\n"
)
INF = math.inf


@pytest.fixture(scope="module")
def kit(tmp_path_factory, tiny, tiny_path, tiny_draft):
    return Kit(tmp_path_factory.mktemp("arrive"), tiny, tiny_path, tiny_draft)


class Kit:
    """The models of all cases."""

    def __init__(self, folder, tiny, tiny_path, tiny_draft):
        self.folder, self.tiny, self.tiny_path, self.tiny_draft = (
            folder,
            tiny,
            tiny_path,
            tiny_draft,
        )
        config = tiny_models.TinyConfig(n_layers=4)
        self.deep = sd.Model(tiny_models.write_tiny(folder / "deep.gguf", config, seed=3))
        head = eagle_reference.head_for(config)
        for name, seed in (("head", 4), ("other_head", 5)):
            path = folder / f"{name}.gguf"
            setattr(
                self, name, sd.Model(eagle_reference.write_eagle3(path, head, config, seed=seed))
            )
        further = mtp_reference.MtpConfig(tiny_models.FAMILIES["qwen35"])
        write = mtp_reference.write_mtp
        self.further = sd.Model(write(folder / "further.gguf", further))
        block = mtp_reference.block_tensors(further, 9)
        path = write(folder / "block.gguf", further, alone=True, block=block)
        self.block = sd.Model(path)
        tensors = tiny_models.random_tensors(config, seed=4)
        tensors["output_norm.weight"][3] = np.nan
        self.nan_path = tiny_models.write_gguf(
            folder / "nan.gguf", {**tiny_models.metadata(config), **tiny_models.byte_tokenizer()},
            tensors,
        )  # fmt: skip
        # [PAD0] is a control token here, which texts leave out.
        tokenizer = tiny_models.byte_tokenizer()
        kinds = list(tokenizer["tokenizer.ggml.token_type"])
        self.mark = kinds.index(5)
        kinds[self.mark] = 3
        self.marked = sd.Model(
            tiny_models.write_tiny(
                folder / "marked.gguf",
                seed=5,
                extra={
                    "tokenizer.ggml.token_type": kinds,
                    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
                },
            )
        )
        pair = sd.embedded("pycode")
        self.code, self.code_draft = sd.Model(pair.target), sd.Model(pair.draft)
        self.f32_path = tiny_models.write_tiny(folder / "f32.gguf", seed=6)


# ---------------------------------------------------------------- loading


def loaded(see: Callable[[Any], Any], path: str = "tiny_path") -> Callable[..., Any]:
    def observe(kit: Kit, **options: Any) -> Any:
        try:
            with sd.Model(getattr(kit, path), **options) as model:
                return see(model)
        except sd.SpecdecError as error:
            return str(error)

    return observe


def counted(run: Callable[..., Any]) -> Callable[..., Any]:
    """How often a callback is called; 1 stands for one that is given."""

    def observe(kit: Kit, **options: Any) -> Any:
        calls: list[Any] = []
        given = {k: (lambda *a: calls.append(1)) if v else None for k, v in options.items()}
        run(kit, **given)
        return bool(calls)

    return observe


MODEL: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "device": (loaded(lambda m: m.info.cpu_reason), "cpu", "auto"),
    "n_threads": (loaded(lambda m: m.info.n_threads), 1, 2),
    "n_gpu_layers": (loaded(lambda m: m.info.n_gpu_layers), "auto", 1),
    "vram_budget": (loaded(lambda m: m.info.vram_budget), None, "4GiB"),
    "n_ctx": (loaded(lambda m: sd.Decoder(m).n_ctx), None, 8192),
    "kv_type": (loaded(lambda m: m.info.kv_type), "f16", "q8_0"),
    "repack": (loaded(lambda m: m.info.repack), "auto", "off"),
    "check_tensors": (loaded(lambda m: "loads", "nan_path"), False, True),
    "requantize": (loaded(lambda m: m.info.bytes_per_step, "f32_path"), None, "q4_0"),
    "on_progress": (counted(loaded(lambda m: None)), 0, 1),
}


def quantized(see: Callable[[Any, pathlib.Path], Any], **fixed: Any) -> Callable[..., Any]:
    def observe(kit: Kit, **options: Any) -> Any:
        target = kit.folder / "out.gguf"
        target.unlink(missing_ok=True)
        if "overwrite" in options:
            target.write_bytes(b"old")
        source = kit.tiny_path if "allow_requantize" in options else kit.f32_path
        try:
            done = sd.quantize(source, target, "q4_k_m", **fixed, **options)
        except sd.SpecdecError as error:
            return str(error)
        return see(done, target)

    return observe


def types(done: Any, target: pathlib.Path) -> Any:
    return [(t.name, t.type) for t in done.tensors]


QUANTIZE = {
    "n_threads": (quantized(lambda done, target: done.n_threads), 1, 2),
    "dry_run": (quantized(lambda done, target: target.exists()), False, True),
    "overwrite": (quantized(types), False, True),
    "pure": (quantized(types), False, True),
    "allow_requantize": (quantized(types), False, True),
    "leave_output_tensor": (quantized(types), False, True),
    "output_tensor_type": (quantized(types), None, "q5_1"),
    "token_embedding_type": (quantized(types), None, "q5_1"),
    "split_max_size": (quantized(lambda done, target: len(done.files)), None, "20K"),
    "split_max_tensors": (quantized(lambda done, target: len(done.files)), None, 5),
    "on_progress": (counted(quantized(types)), 0, 1),
}


# ---------------------------------------------------------------- decoders and drafters


def rounds_of(kit: Kit, model: str = "code", prompt: Any = CODE, **options: Any) -> Any:
    """What every pass drafted, from whom, and what became of it."""
    call = {"max_tokens": 40, "temperature": 0.0, "seed": 5, **options.pop("call", {})}
    prompts = prompt if isinstance(prompt, tuple) else (prompt,)
    seen: list[Any] = []
    with sd.Decoder(getattr(kit, model), **options) as decoder:
        for text in prompts:
            seen.clear()
            out = decoder.generate(text, on_round=seen.append, ignore_eos=True, **call)
    return out.token_ids, [(r.source, r.drafted, r.parents, r.accepted) for r in seen]


def fixed_choice(kit: Kit, **options: Any) -> Any:
    """Of decoders whose drafters adapt, only who may draft is the same every time."""
    if options.get("draft") == "given":
        options["draft"] = kit.code_draft
    with sd.Decoder(kit.code, **options) as decoder:
        return decoder._native.drafter


def verified(kit: Kit, **options: Any) -> Any:
    drafter = sd.DraftModel(kit.code_draft, gamma=3)
    return rounds_of(kit, drafter=drafter, call={"temperature": 1.0}, **options)


def remembered(kit: Kit, **options: Any) -> Any:
    with sd.Decoder(kit.code, drafter=None, **options) as decoder:
        out = decoder.generate(PROMPT, max_tokens=4, logprobs=0)
        return decoder.n_ctx, decoder.memory_bytes, out.logprobs


def reread(kit: Kit, **options: Any) -> Any:
    with sd.Decoder(kit.code, drafter=sd.DraftModel(kit.code_draft), **options) as decoder:
        stats = decoder.generate(CODE, max_tokens=8).stats
        return stats.reread_tokens, stats.draft_reread_tokens


def engine_of(**fixed: Any) -> Callable[..., Any]:
    """What an engine, or its kin, makes of two requests, and what it tells of itself."""

    def observe(kit: Kit, name: str = "Engine.__init__", **options: Any) -> Any:
        call = {"max_tokens": 40, "ignore_eos": True, "seed": 5, **fixed.get("call", {})}
        given = {k: v for k, v in fixed.items() if k != "call"} | options
        if given.get("draft") == "given":
            given["draft"] = kit.code_draft
        kind = getattr(sd, name.partition(".")[0])
        try:
            engine = kind(kit.code, **given)
        except sd.SpecdecError as error:
            return type(error)
        results = []
        for text in (CODE, CODE + "x"):
            try:
                if kind is sd.Engine:
                    results.append(engine.submit(text, **call).result(60))
                else:
                    results.append(asyncio.run(engine.generate(text, **call)))
            except sd.SpecdecError as error:
                results.append(error)
        seen = [
            str(r) if isinstance(r, Exception)
            else (r.token_ids, r.stats.reused_prompt_tokens, r.logprobs, r.stats.note,
                  r.stats.speculation == "off: no drafter",
                  r.stats.drafted if "gamma" in repr(given) else None)
            for r in results
        ]  # fmt: skip
        n_ctx = engine.n_ctx if "n_ctx" in options else None
        engine.close()
        return n_ctx, seen

    return observe


def in_a_queue(kit: Kit, **options: Any) -> Any:
    """What three requests get that come while the first is at work; it ends by its time limit."""
    given = {"max_requests": 1, "max_queue": 1, "n_ctx": 1 << 18, "drafter": None, **options}
    if given["max_requests"] == 1 and "max_requests" in options:
        given["max_queue"] = 0
    seen = []
    with sd.Engine(kit.tiny, **given) as engine:
        endless = {"max_tokens": 200_000, "ignore_eos": True, "time_limit": 0.2}
        first = engine.submit("ab", **endless)
        kept = []
        for _ in range(2):
            try:
                kept.append(engine.submit("ab", **endless))
                seen.append("taken")
            except sd.QueueFullError:
                seen.append("full")
        assert first.result(60).finish_reason == "timeout"
    return seen


def with_memory(kit: Kit, *, memory: Any) -> Any:
    """Who drafts what in a request that came before, where that was to be remembered."""
    given = None if memory is None else sd.Memory(**memory)
    seen = [rounds_of(kit, drafter=sd.NGram(gamma=3), memory=given) for _ in range(2)]
    return seen[1]


def remembering(kit: Kit, name: str, **options: Any) -> Any:
    """What is in a memory after a call, and how many tokens of the next one it drafts."""
    memory = sd.Memory()
    drafted = []
    for call in ({}, options, options):
        out = result_of(kit, name, decoder={"memory": memory, "drafter": sd.NGram(gamma=5)}, **call)
        drafted.append(out.stats.accepted)
    return memory.n_texts, drafted


def kin_with_memory(kit: Kit, name: str, *, memory: Any) -> Any:
    made = sd.Memory() if memory else None
    given = {"memory": made, "drafter": sd.NGram(gamma=5)}
    for _ in range(2):
        out = result_of(kit, f"{name.partition('.')[0]}.generate", decoder=given)
    return out.stats.accepted


ENGINE = {
    "max_requests": (in_a_queue, 1, 3),
    "max_queue": (in_a_queue, 1, 2),
    "when_full": (in_a_queue, "error", "wait"),
    "kv_bytes": (engine_of(drafter=None), None, 1000),
    "share_prefixes": (engine_of(drafter=None), True, False),
}

DECODER = {
    "drafter": (fixed_choice, "ngram", "suffix"),
    "draft": (fixed_choice, None, "given"),
    "verifier": (verified, "standard", "match"),
    "n_ctx": (remembered, 256, 300),
    "kv_type": (remembered, None, "q8_0"),
    "memory": (with_memory, None, {}),
    "use_cache": (reread, True, False),
}


MEMORY = {
    # As the native side has it.
    "max_tokens": (
        lambda kit, max_tokens: sd.Memory(max_tokens=max_tokens).max_tokens, 1 << 18, 1024,
    ),
}  # fmt: skip


def drafts(make: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
    """Rounds with a drafter; `of` are its own options, the rest are `rounds_of`'s."""
    own = settings.pop("of", {})

    def observe(kit: Kit, **options: Any) -> Any:
        return rounds_of(kit, drafter=make(kit, **own, **options), **settings)

    return observe


def draft_model(kit: Kit, **options: Any) -> Any:
    which = options.pop("model", "code_draft")
    return sd.DraftModel(getattr(kit, which), **options)


def eagle(kit: Kit, **options: Any) -> Any:
    return sd.Eagle(getattr(kit, options.pop("head", "head")), **options)


def mtp(kit: Kit, **options: Any) -> Any:
    head = options.pop("head", None)
    return sd.Mtp(None if head is None else getattr(kit, head), **options)


def made(kind: type) -> Callable[..., Any]:
    return lambda kit, **options: kind(**options)


HOT = {"temperature": 1.5, "top_k": 40}
SAMPLED = {"sampling": "sampled", "gamma": 4}


def lengths(make: Callable[..., Any], **settings: Any) -> dict[str, Any]:
    return {
        "draft_max": (drafts(make, **settings), 2, 3),
        # Drafts near the end are short.
        "draft_min": (
            drafts(make, of={"draft_max": 3}, **{**settings, "call": {"max_tokens": 6}}),
            0,
            3,
        ),
        "gamma": (drafts(make, **settings), 1, 2),
    }


# Tokens that follow one another now like this, now like that.
MIXED = [97, 98, 99, 100, 97, 98, 101, 102, 97, 98, 99, 103, 104, 98, 99, 100, 97, 98]
# What is drafted is found in the older half of what is remembered.
LONG = [(7 * i + i * i // 11) % 251 for i in range(700)]
LONG = [5, 6, 7, 8, 9, 10, 11, *LONG, *LONG[::-1], 5, 6, 7]
KEPT = ([*MIXED, 111, 112, 113, 114], [111, 112])  # the second alone does not say what follows

DRAFTERS: dict[str, dict[str, tuple[Callable[..., Any], Any, Any]]] = {
    "DraftModel": {
        "model": (drafts(draft_model, model="tiny"), "tiny_draft", "tiny"),
        **lengths(draft_model),
        "sampling": (
            drafts(draft_model, of={"gamma": 4}, call=HOT, verifier="standard"),
            "greedy", "sampled",
        ),
        "temperature": (
            drafts(draft_model, of=SAMPLED, call=HOT, verifier="standard"), 0.1, 5.0,
        ),
        "head_tokens": (drafts(draft_model), 0, 30),
        "draft_top_k": (
            drafts(draft_model, of=SAMPLED, call=HOT, verifier="standard"), 1, 50,
        ),
        "branch": (drafts(draft_model), 1, 3),
    },
    "NGram": {
        "n": (drafts(made(sd.NGram), model="tiny", prompt=MIXED), 2, 5),
        "min_count": (drafts(made(sd.NGram), model="tiny", prompt=MIXED), 1, 3),
        "filler_top_k": (drafts(made(sd.NGram)), 1, 8),
        "keep": (drafts(made(sd.NGram), model="tiny", prompt=KEPT), False, True),
        **lengths(made(sd.NGram)),
    },
    "SuffixAutomaton": {
        "min_match": (drafts(made(sd.SuffixAutomaton)), 1, 6),
        "corpus": (drafts(made(sd.SuffixAutomaton)), None, CODE + "    return a * b\n\n\n"),
        "keep": (drafts(made(sd.SuffixAutomaton), model="tiny", prompt=KEPT), False, True),
        "max_store": (
            drafts(made(sd.SuffixAutomaton), model="tiny", prompt=LONG, call={"max_tokens": 3}),
            1 << 18, 1024,
        ),
        **lengths(made(sd.SuffixAutomaton)),
    },
    "TokenRecycling": {
        "top_k": (drafts(made(sd.TokenRecycling)), 1, 8),
        "tree": (drafts(made(sd.TokenRecycling)), True, False),
        "keep": (drafts(made(sd.TokenRecycling), prompt=(CODE, "def f(x):\n")), False, True),
        **lengths(made(sd.TokenRecycling)),
    },
    "LayerSkip": {
        "n_layers": (drafts(made(sd.LayerSkip), model="deep", prompt=PROMPT), 1, 3),
        "sampling": (
            drafts(made(sd.LayerSkip), of={"gamma": 4}, model="deep", prompt=PROMPT, call=HOT,
                   verifier="standard"),
            "greedy", "sampled",
        ),
        "temperature": (
            drafts(made(sd.LayerSkip), of=SAMPLED, model="deep", prompt=PROMPT, call=HOT,
                   verifier="standard"),
            0.1, 5.0,
        ),
        **lengths(made(sd.LayerSkip), model="deep", prompt=PROMPT),
    },
    "Eagle": {
        "head": (drafts(eagle, model="deep", prompt=PROMPT), "head", "other_head"),
        "sampling": (
            drafts(eagle, of={"gamma": 4}, model="deep", prompt=PROMPT, call=HOT,
                   verifier="standard"),
            "greedy", "sampled",
        ),
        "temperature": (
            drafts(eagle, of=SAMPLED, model="deep", prompt=PROMPT, call=HOT, verifier="standard"),
            0.1, 5.0,
        ),
        "draft_top_k": (
            drafts(eagle, of=SAMPLED, model="deep", prompt=PROMPT, call=HOT, verifier="standard"),
            1, 50,
        ),
        **lengths(eagle, model="deep", prompt=PROMPT),
    },
    "Mtp": {
        "head": (drafts(mtp, model="further", prompt=PROMPT), None, "block"),
        "sampling": (
            drafts(mtp, of={"gamma": 4}, model="further", prompt=PROMPT, call=HOT,
                   verifier="standard"),
            "greedy", "sampled",
        ),
        "temperature": (
            drafts(mtp, of=SAMPLED, model="further", prompt=PROMPT, call=HOT, verifier="standard"),
            0.1, 5.0,
        ),
        "head_tokens": (drafts(mtp, model="further", prompt=PROMPT), 0, 16),
        "draft_top_k": (
            drafts(mtp, of=SAMPLED, model="further", prompt=PROMPT, call=HOT, verifier="standard"),
            1, 50,
        ),
        **lengths(mtp, model="further", prompt=PROMPT),
    },
}  # fmt: skip


# ---------------------------------------------------------------- calls


def result_of(
    kit: Kit, name: str, model: str = "tiny", prompt: str = PROMPT, decoder: Any = None,
    **options: Any,
) -> Any:  # fmt: skip
    """What one call of a function that generates returns."""
    options = {"max_tokens": 12, **options}
    if name == "generate_many":
        if "seed" in options:
            options["seeds"] = [options.pop("seed")]
        return sd.generate_many(getattr(kit, model), [prompt], **options)[0]
    kind, _, method = name.partition(".")
    made = {"drafter": sd.NGram(), "n_ctx": 512, **(decoder or {})}
    decoder = getattr(sd, kind)(getattr(kit, model), **made)
    given = [{"role": "user", "content": prompt}] if "chat" in method else prompt
    call = getattr(decoder, method)
    if "submit" in method:
        return call(given, **options).result(60)
    if kind != "Decoder":
        return asyncio.run(awaited(call, given, options))
    out = call(given, **options)
    if "stream" in method:
        list(out)
        out = out.result
    return out


async def awaited(call: Callable[..., Any], given: Any, options: dict[str, Any]) -> Any:
    out = call(given, **options)
    return await (out.finished() if isinstance(out, sd.AsyncStream) else out)


def tokens(**fixed: Any) -> Callable[..., Any]:
    return field("token_ids", **fixed)


def field(which: str, **fixed: Any) -> Callable[..., Any]:
    def observe(kit: Kit, name: str, **options: Any) -> Any:
        return getattr(result_of(kit, name, **fixed, **options), which)

    return observe


def speculation(kit: Kit, name: str, **options: Any) -> str:
    return str(result_of(kit, name, **options).stats.speculation)


class Letters(sd.Grammar):
    """Any text of the letter q, compiled when it is used."""

    def __init__(self) -> None:
        self.kind = self.source = "q"

    def _matcher(self, model: sd.Model) -> Any:
        return sd.Grammar.regex("q+")._matcher(model)


def called(**fixed: Any) -> Callable[..., Any]:
    def observe(kit: Kit, name: str, **options: Any) -> Any:
        return counted(lambda kit, **given: result_of(kit, name, **fixed, **given))(kit, **options)

    return observe


WARM = {"temperature": 1.5, "seed": 1}
EOS = {271: 100.0}
TWO = {"logit_bias": {97: 60.0, 98: 50.0}}  # the best and the second
SHOW = "{{ messages[0].content }}{{ tools }}{{ extra }}"

CALLS: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "SamplingParams.logit_bias": (tokens(), {}, {97: 1000.0}),
    "SamplingParams.repetition_penalty": (tokens(**TWO), 1.0, 90.0),
    "SamplingParams.presence_penalty": (tokens(**TWO), 0.0, 90.0),
    "SamplingParams.frequency_penalty": (tokens(**TWO), 0.0, 90.0),
    "SamplingParams.penalty_last_n": (tokens(presence_penalty=90.0, **TWO), 64, 0),
    "SamplingParams.temperature": (tokens(seed=1), 0.0, 1.5),
    "SamplingParams.top_k": (tokens(**WARM), 0, 1),
    "SamplingParams.top_p": (tokens(**WARM), 1.0, 0.01),
    "SamplingParams.min_p": (tokens(**WARM), 0.0, 0.99),
    "SamplingParams.noise_scale": (tokens(**WARM), 0.0, 20.0),
    "SamplingParams.seed": (tokens(temperature=1.5), 1, 2),
    "call.max_tokens": (tokens(), 3, 5),
    "call.params": (tokens(), None, sd.SamplingParams(temperature=1.5, seed=1)),
    "call.stop": (field("finish_reason", logit_bias={97: 1000.0}), None, "aaa"),
    "call.schema": (tokens(), None, {"type": "integer"}),
    "call.grammar": (tokens(), None, Letters()),
    "call.speculate": (speculation, True, False),
    "call.remember": (remembering, True, False),
    "call.memory_key": (remembering, "", "ann"),
    "call.ignore_eos": (field("finish_reason", logit_bias=EOS), False, True),
    "call.logprobs": (field("logprobs"), None, 2),
    "call.render_special": (field("text", model="marked", logit_bias={261: 1000.0}), False, True),
    "call.parse_special": (field("prompt_tokens", prompt="a<|endoftext|>b"), True, False),
    "call.tools": (field("prompt_tokens", template=SHOW), None, [{"name": "f"}]),
    "call.template": (field("prompt_tokens"), None, SHOW),
    "call.template_args": (field("prompt_tokens", template=SHOW), None, {"extra": "more"}),
    "call.on_progress": (called(), 0, 1),
    "call.on_round": (called(), 0, 1),
    "call.on_token": (called(), 0, 1),
    "call.verify_output": (
        lambda kit, name, **options: result_of(kit, name, **options).check is not None, False, True,
    ),
}  # fmt: skip


def read(results: list[Any]) -> list[bytes]:
    return [result.hidden_states.tobytes() for result in results]


def many(see: Callable[[list[Any]], Any], **fixed: Any) -> Callable[..., Any]:
    def observe(kit: Kit, name: str, **options: Any) -> Any:
        given = {"max_tokens": 4, **fixed, **options}
        return see(sd.generate_many(kit.tiny, ["ab", "abc", "abcd"], **given))

    return observe


def progress(kit: Kit, name: str, **options: Any) -> Any:
    calls: list[Any] = []
    if options.pop("on_done", 1):
        options["on_done"] = lambda *numbers: calls.append(numbers)
    many(lambda found: None)(kit, name, **options)
    return calls


def ids(found: list[Any]) -> Any:
    return [result.token_ids for result in found]


def of_decoder(which: str, a: Any, b: Any, **fixed: Any) -> tuple[Callable[..., Any], Any, Any]:
    observe = engine_of(**fixed)
    return (lambda kit, name, **options: observe(kit, name=name, **options)), a, b


def drafted_at_all(kit: Kit, name: str, **options: Any) -> Any:
    """Of a choice that adapts, what it says when it cannot be."""
    try:
        with_model = getattr(sd, name.partition(".")[0])
        with_model(kit.code, drafter="model", **{
            k: kit.code_draft if v == "given" else v for k, v in options.items()
        }).close()  # fmt: skip
    except sd.InvalidArgumentError as error:
        return str(error)
    return "there is one"


def from_disk(see: Callable[[Any], Any], **fixed: Any) -> Callable[..., Any]:
    """What a decoder is that goes on from a file, or why there is none."""

    def observe(kit: Kit, **options: Any) -> Any:
        path = kit.folder / "a.kept"
        if not path.exists():
            with sd.Decoder(kit.code, drafter=None, n_ctx=300) as decoder:
                decoder.generate(CODE, max_tokens=0)
                decoder.save(path)
        given = {**fixed, **options}
        for name, value in given.items():
            if name in ("draft", "drafter") and value == "given":
                given[name] = kit.code_draft
                if name == "drafter":
                    given[name] = sd.DraftModel(kit.code_draft, gamma=3)
        try:
            with sd.Decoder.load(path, kit.code, **given) as decoder:
                return see(decoder)
        except sd.InvalidArgumentError as error:
            return str(error)

    return observe


def passes(decoder: sd.Decoder) -> Any:
    seen: list[Any] = []
    options = {"max_tokens": 40, "temperature": 1.0, "seed": 5, "ignore_eos": True}
    out = decoder.generate(CODE, on_round=seen.append, **options)
    return out.token_ids, [(r.source, r.drafted, r.accepted) for r in seen]


LOAD = {
    "drafter": (from_disk(lambda decoder: decoder._native.drafter), None, "ngram"),
    "draft": (from_disk(lambda decoder: "there is one", drafter="model"), None, "given"),
    "verifier": (from_disk(passes, drafter="given"), "standard", "match"),
    "n_ctx": (from_disk(lambda decoder: decoder.n_ctx), None, 400),
    "kv_type": (from_disk(lambda decoder: "it fits"), None, "q8_0"),
    "memory": (from_disk(lambda decoder: decoder._native.remembers), None, sd.Memory()),
}
HOT_CALL = {"temperature": 1.0}
CALLS |= {
    "Decoder.drafter": of_decoder("drafter", None, "ngram"),
    "Decoder.draft": (drafted_at_all, None, "given"),
    "Decoder.verifier": (
        lambda kit, name, **options: engine_of(
            drafter=sd.DraftModel(kit.code_draft, gamma=3), call=HOT_CALL
        )(kit, name=name, **options),
        "standard",
        "match",
    ),
    "Decoder.n_ctx": of_decoder("n_ctx", 256, 300, drafter=None),
    "Decoder.memory": (kin_with_memory, False, True),
    "Decoder.kv_type": of_decoder("kv_type", "f32", "q8_0", drafter=None, call={"logprobs": 0}),
    "call.time_limit": (
        field("finish_reason", logit_bias={97: 1000.0}),
        None,
        0.0,
    ),
    "many.max_tokens": (many(ids), 3, [3, 4, 5]),
    "many.seeds": (many(ids, temperature=1.5), [1, 2, 3], [1, 5, 3]),
    "many.keep_eos": (many(ids, logit_bias=EOS), False, True),
    "many.n_parallel": (progress, 1, 3),
    "many.n_ctx": (many(ids, max_tokens=None, ignore_eos=True), 8, 9),
    "many.layers": (many(read), [1], [0, 2]),
    "many.on_done": (progress, 0, 1),
}


# ---------------------------------------------------------------- all of them


def cases() -> dict[tuple[str, str], tuple[Callable[..., Any], Any, Any]]:
    found: dict[tuple[str, str], tuple[Callable[..., Any], Any, Any]] = {}
    for place, table in [
        ("Model.__init__", MODEL), ("Decoder.__init__", DECODER), ("Engine.__init__", ENGINE),
        ("Decoder.load", LOAD), ("quantize", QUANTIZE), ("Memory.__init__", MEMORY),
        *DRAFTERS.items(),
    ]:  # fmt: skip
        for name, case in table.items():
            found[place, name] = case
    for option in OPTIONS:
        for call in option.calls:
            if call == "Decoder.load":  # LOAD
                continue
            observe, a, b = CALLS[option.id]

            def bound(kit: Kit, observe: Any = observe, call: str = call, **options: Any) -> Any:
                return observe(kit, call, **options)

            found[call, option.name] = (bound, a, b)
        if option.place == "SamplingParams":
            observe, a, b = CALLS[option.id]

            def bundled(kit: Kit, observe: Any = observe, **options: Any) -> Any:
                return observe(kit, "Decoder.generate", params=sd.SamplingParams(**options))

            found["SamplingParams", option.name] = (bundled, a, b)
    return found


CASES = cases()


@pytest.mark.parametrize(("place", "name"), list(CASES))
def test_another_value_changes_something(kit, place, name):
    observe, a, b = CASES[place, name]
    seen = observe(kit, **{name: a})
    assert observe(kit, **{name: a}) == seen, "the observation itself varies"
    assert observe(kit, **{name: b}) != seen, f"{place}: {name} {a!r} or {b!r}: all the same"


def test_every_option_has_a_case():
    places = [name for names in CALLABLES.values() for name in names]
    wanted = {(place, option.name) for place in places for option in options_of(place, OPTIONS)}
    assert set(CASES) == wanted
