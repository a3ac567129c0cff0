"""The table of options, and what is made of it: keywords, checks, flags, tables of the docs."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import functools
import inspect
import json
import pathlib
import re
import subprocess
import sys
import types
import typing

import numpy as np
import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import gen_options  # noqa: E402
import helpers  # noqa: E402
from options_schema import OPTIONS  # noqa: E402
from options_schema.python import CALLABLES, options_of  # noqa: E402
from options_schema.schema import REQUIRED, Callback, Choice, Real, Text, Truth, Whole  # noqa: E402

PROMPT = "the cat in the hat the cat in the hat the cat in the "
NAMES = [name for names in CALLABLES.values() for name in names]


def public(name: str):
    found = sd
    for part in name.removesuffix(".__init__").split("."):
        found = getattr(found, part)
    return found


# ---------------------------------------------------------------- what is generated


def test_what_is_made_of_the_table_is_fresh():
    assert not gen_options.stale(ROOT), "run: python tools/gen_options.py --write"


def test_a_stale_file_is_noticed(tmp_path):
    for name in gen_options.outputs(ROOT):
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((ROOT / name).read_text("utf-8"), "utf-8")
    assert not gen_options.stale(tmp_path)
    edited = tmp_path / "python/specdec_native/decoder.py"
    edited.write_text(edited.read_text("utf-8").replace("min_p: float", "min_p: int"), "utf-8")
    assert list(gen_options.stale(tmp_path)) == ["python/specdec_native/decoder.py"]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_show_every_option_with_its_default(name):
    parameters = inspect.signature(public(name)).parameters
    wanted = options_of(name, OPTIONS)
    assert wanted
    assert not [p for p in parameters.values() if p.kind == p.VAR_KEYWORD]
    for option in wanted:
        parameter = parameters[option.name]
        default = option.defaults.get(name, option.default)
        if default is REQUIRED:
            assert parameter.default is parameter.empty
        elif option.factory:
            if name != "SamplingParams":
                assert str(parameter).endswith(f"= {default!r}")
        else:
            assert parameter.default == default
            assert str(parameter).endswith(f"= {default!r}")
        if not option.positional:
            assert parameter.kind == parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", NAMES)
def test_docstrings_describe_every_option(name):
    documented = public(name).__doc__
    for option in options_of(name, OPTIONS):
        assert documented.count(f"\n    {option.name}: ") == 1 or (
            documented.count(f"\n            {option.name}: ") == 1
            or documented.count(f"\n        {option.name}: ") == 1
        ), option.id


def test_type_hints_of_everything_public_can_be_had():
    seen = 0
    for name in sd.__all__:
        item = getattr(sd, name)
        if isinstance(item, types.FunctionType):
            typing.get_type_hints(item)
            seen += 1
        if not isinstance(item, type):
            continue
        typing.get_type_hints(item)
        for member in vars(item).values():
            function = member.fget if isinstance(member, property) else member
            if isinstance(function, types.FunctionType):
                typing.get_type_hints(function)
                seen += 1
    assert seen > 100


# ---------------------------------------------------------------- "not given" is not the default


def test_a_default_that_is_given_overrides_params(tiny):
    params = sd.SamplingParams(
        temperature=1.5, top_k=3, seed=3, repetition_penalty=1.7, logit_bias={97: -5.0}
    )
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:

        def ids(**options):
            return decoder.generate(PROMPT, max_tokens=24, ignore_eos=True, **options).token_ids

        assert ids(params=params) == ids(
            temperature=1.5, top_k=3, seed=3, repetition_penalty=1.7, logit_bias={97: -5.0}
        )
        # Each default, given.
        assert ids(params=params, top_k=0) == ids(
            temperature=1.5, seed=3, repetition_penalty=1.7, logit_bias={97: -5.0}
        )
        assert ids(params=params, logit_bias={}) == ids(
            temperature=1.5, top_k=3, seed=3, repetition_penalty=1.7
        )
        seeds = {
            decoder.generate("a", max_tokens=1, params=params, seed=None).seed for _ in range(4)
        }
        assert len(seeds) > 1
        assert decoder.generate("a", max_tokens=1, params=params).seed == 3


def test_seeds_that_are_not_given_are_drawn(tiny):
    with sd.Decoder(tiny, drafter=None, n_ctx=64) as decoder:
        for call in (decoder.generate, lambda *a, **o: decoder.chat([CHAT], **o)):
            assert len({call("a", max_tokens=1).seed for _ in range(4)}) > 1
    many = sd.generate_many(tiny, ["a"] * 4, max_tokens=1)
    assert len({result.seed for result in many}) > 1


CHAT = {"role": "user", "content": "a"}


# ---------------------------------------------------------------- values


def test_numpy_numbers_are_numbers(tiny, tiny_path):
    def ids(number, real):
        with sd.Decoder(tiny, drafter=sd.NGram(number(3), gamma=number(2)), n_ctx=number(512)) as d:
            return d.generate(
                PROMPT,
                max_tokens=number(12),
                temperature=real(1.25),
                top_k=number(20),
                seed=number(5),
                logprobs=number(2),
                logit_bias={number(97): real(0.5)},
            ).token_ids

    expected = ids(int, float)
    for number in (np.int64, np.int32, np.uint16):
        assert ids(number, np.float32) == expected
    assert ids(int, fractions.Fraction) == expected
    assert ids(int, lambda x: np.float64(x)) == expected
    with sd.Model(tiny_path, n_threads=np.int8(1), check_tensors=np.bool_(True)) as model:
        assert model.info.n_threads == 1
    many = sd.generate_many(
        tiny,
        ["a", "b"],
        max_tokens=np.array([3, 4]),
        seeds=np.array([1, 2], dtype=np.uint64),
        n_parallel=np.int64(2),
    )
    assert [len(result.token_ids) for result in many] == [3, 4]
    kept = sd.TokenRecycling(np.int64(4), draft_max=np.int32(3))
    assert type(kept.top_k) is int
    assert type(kept.draft_max) is int


def wrong_values(option):
    kind = option.kind
    if isinstance(kind, Whole):
        wrong = [1.5, True, "x", [1], float("nan")]
        if "str" not in kind.annotation and "Literal" not in kind.annotation:
            wrong += [kind.high + 1, kind.low - 1, "1"]
    elif isinstance(kind, Real):
        wrong = ["1", True, float("nan"), float("inf"), 10**400, kind.high + 1, kind.low - 1, []]
        wrong += [kind.low] if kind.open_low else []
        wrong += [kind.high] if kind.open_high else []
    elif isinstance(kind, Choice):
        wrong = ["", "nonsense", 1, kind.values]
    elif isinstance(kind, Truth):
        wrong = ["no", 2, [], 0.5]
    elif isinstance(kind, Text):
        wrong = [1, b"x", ["x"]]
    else:
        wrong = [object()] if option.name != "drafter" else [object(), 3, "nonsense", [], [3]]
    return [*wrong, object()] if option.may_be_none else [*wrong, object(), None]


async def finished(call):
    out = call()
    return await (out.finished() if isinstance(out, sd.AsyncStream) else out)


class Given:
    """Calls what takes an option, with one option."""

    def __init__(self, name, tiny, tiny_path):
        self.name, self.tiny, self.path = name, tiny, tiny_path

    def kept(self):
        path = self.path.with_name("given.kept")
        if not path.exists():
            with sd.Decoder(self.tiny, n_ctx=64) as decoder:
                decoder.generate("aa", max_tokens=0)
                decoder.save(path)
        return path

    def __call__(self, **options):
        name, messages = self.name, [{"role": "user", "content": "a"}]
        if name == "Model.__init__":
            sd.Model(self.path, **options).close()
        elif name.endswith(".__init__"):
            getattr(sd, name.partition(".")[0])(self.tiny, **options).close()
        elif name == "generate_many":
            sd.generate_many(self.tiny, ["a"], **{"max_tokens": 1, **options})
        elif name == "quantize":
            sd.quantize(self.path, "-", "q8_0", **options)
        elif name == "Decoder.load":
            sd.Decoder.load(self.kept(), self.tiny, **options).close()
        elif name.startswith("Decoder."):
            with sd.Decoder(self.tiny, drafter=None, n_ctx=64) as decoder:
                prompt = messages if "chat" in name else "a"
                out = getattr(decoder, name.partition(".")[2])(
                    prompt, **{"max_tokens": 1, **options}
                )
                if "stream" in name:
                    list(out)
        elif name.startswith(("Engine.", "AsyncDecoder.")):
            kind, _, method = name.partition(".")
            with contextlib.closing(getattr(sd, kind)(self.tiny, drafter=None, n_ctx=64)) as engine:
                call = functools.partial(
                    getattr(engine, method),
                    messages if "chat" in name else "a",
                    **{"max_tokens": 1, **options},
                )
                if "submit" in name:
                    call().result(60)
                else:
                    asyncio.run(finished(call))
        elif name == "DraftModel":
            sd.Decoder(self.tiny, drafter=sd.DraftModel(**{"model": self.tiny, **options})).close()
        elif name == "Eagle":
            sd.Decoder(self.tiny, drafter=sd.Eagle(**{"head": self.tiny, **options})).close()
        elif name == "Mtp":
            sd.Decoder(self.tiny, drafter=sd.Mtp(**options)).close()
        else:
            getattr(sd, name)(**options)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_values_are_refused_by_the_name_of_the_option(name, tiny, tiny_path):
    give = Given(name, tiny, tiny_path)
    for option in options_of(name, OPTIONS):
        for value in wrong_values(option):
            with pytest.raises(sd.InvalidArgumentError) as caught:
                give(**{option.name: value})
            text = str(caught.value)
            assert option.name in text or (
                option.name in ("model", "head") and "Model" in text
            ), (
                option.id, value, text,
            )  # fmt: skip
            assert "e+" not in text.partition("not ")[0], text


# ---------------------------------------------------------------- the command line


COMMANDS = sorted({c for o in OPTIONS if o.flag for c in o.flag.commands.split()})


def helped(command):
    done = subprocess.run(
        [helpers.specdec_binary(), command, "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_the_flags_of_the_table_and_no_others(command):
    text = helped(command)
    shown = re.findall(r"^  ((?:-{1,2}[\w-]+, )*-{1,2}[\w-]+)(?: |$)", text, re.MULTILINE)
    names = {name for line in shown for name in line.split(", ")}
    wanted = {
        name
        for option in OPTIONS
        if option.flag and command in option.flag.commands.split()
        for name in option.flag.names.split()
    }
    assert names - {"-h", "--help"} == wanted, "put flags into tools/options_schema"
    flat = " ".join(text.split())
    for option in OPTIONS:
        if option.flag and command in option.flag.commands.split():
            assert " ".join(option.flag_help().split()) in flat, option.id


def test_every_option_of_python_that_a_shell_can_say_has_a_flag():
    """What has none is listed, with the reason."""
    without = {o.id for o in OPTIONS if o.flag is None and not isinstance(o.kind, Callback)}
    assert without == {
        "Model.n_ctx",  # -c
        "Decoder.draft", "DraftModel.model", "Eagle.head", "Mtp.head",  # -md
        "Decoder.kv_type",  # --kv-type is of both models
        "kept.n_ctx", "kept.kv_type",  # the same, with --prompt-cache
        # A command line has one request at a time.
        "Engine.max_requests", "Engine.max_queue", "Engine.when_full", "Engine.kv_bytes",
        "Engine.share_prefixes", "call.time_limit",
        "quantize.n_threads",  # -t
        # --draft-sampling, --draft-temp, --draft-top-k
        "LayerSkip.sampling", "LayerSkip.temperature",
        "Eagle.sampling", "Eagle.temperature", "Eagle.draft_top_k",
        "Mtp.sampling", "Mtp.temperature", "Mtp.draft_top_k", "Mtp.head_tokens",
        "call.schema", "call.grammar",  # by a Python package
        "call.speculate",  # --drafter none
        "call.params",  # a bundle
        "call.remember", "call.memory_key",  # a command has one user
        "call.tools", "call.template", "call.template_args",
        "many.max_tokens", "many.seeds", "many.keep_eos", "many.n_parallel", "many.n_ctx",
        "many.layers",
        # A process has one session: nothing to keep.
        "NGram.keep", "SuffixAutomaton.keep", "TokenRecycling.keep",
        # --draft-max, --draft-min, --gamma are for all drafters.
        *(f"{d}.{n}"
          for d in ("NGram", "SuffixAutomaton", "TokenRecycling", "LayerSkip", "Eagle", "Mtp")
          for n in ("draft_max", "draft_min", "gamma")),
    }  # fmt: skip


# ---------------------------------------------------------------- contradictions


def test_what_contradicts_itself_is_refused(tiny, tiny_draft, tiny_path):
    for make, words in [
        (lambda: sd.NGram(draft_max=2, draft_min=3), "draft_min must be at most draft_max, 2"),
        (lambda: sd.NGram(draft_min=8), "draft_min must be at most draft_max, 7, not 8"),
        (lambda: sd.LayerSkip(draft_min=4), "draft_min must be at most draft_max, 3, not 4"),
        (lambda: sd.TokenRecycling(gamma=3, draft_max=3), "either gamma, or draft_max"),
        (lambda: sd.SuffixAutomaton(gamma=3, draft_min=1), "either gamma, or draft_max"),
        (lambda: sd.DraftModel(tiny_draft, branch=3, draft_top_k=2), "draft_top_k .* branch, 3"),
        (lambda: sd.Decoder(tiny, drafter="ngram", draft=tiny_draft), "draft is not used"),
        (lambda: sd.Decoder(tiny, drafter="none", draft=tiny_draft), "draft is not used"),
        (lambda: sd.Decoder(tiny, drafter=None, draft=tiny_draft), "draft is not used"),
        (lambda: sd.Decoder(tiny, drafter=[sd.NGram(gamma=2)]), "gamma does not"),
        (
            lambda: sd.quantize(
                tiny_path, "-", "q4_0", leave_output_tensor=True, output_tensor_type="q8_0"
            ),
            "either it or output_tensor_type",
        ),
    ]:
        with pytest.raises(sd.InvalidArgumentError, match=words):
            make()


@pytest.mark.parametrize(
    ("drafter", "made"),
    [
        ("none", None),
        ("ngram", sd.NGram()),
        ("suffix", sd.SuffixAutomaton()),
        ("recycling", sd.TokenRecycling()),
        ("layerskip", sd.LayerSkip()),
        ("model", "draft"),
        ("model,ngram", "draft and ngram"),
        (["suffix", sd.NGram()], [sd.SuffixAutomaton(), sd.NGram()]),
    ],
)
def test_drafters_have_the_names_of_the_command_line(tiny, tiny_draft, drafter, made):
    draft = tiny_draft if "model" in drafter else None
    if made == "draft":
        made = sd.DraftModel(tiny_draft)
    if made == "draft and ngram":
        made = [sd.DraftModel(tiny_draft), sd.NGram()]
    natives = []
    for options in ({"drafter": drafter, "draft": draft}, {"drafter": made}):
        with sd.Decoder(tiny, n_ctx=256, **options) as decoder:
            natives.append(decoder._native.drafter)
            rounds = []
            decoder.generate(PROMPT, max_tokens=24, ignore_eos=True, on_round=rounds.append)
            if not isinstance(drafter, list) and "," not in drafter:
                assert {r.source for r in rounds} - {""} == {drafter} - {"none"}
    assert natives[0] == natives[1]


def test_defaults_of_the_native_side_are_those_of_the_table():
    native = sd._core.SamplingParams()
    for option in OPTIONS:
        if option.place == "SamplingParams" and option.name not in ("seed", "logit_bias"):
            assert getattr(native, option.name) == option.default, option.id
    assert native.logit_bias == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_seed_means_the_same_tokens_in_python_and_in_the_shell(tiny, tiny_path, temperature):
    """With the defaults of both."""
    flags = ["-p", PROMPT, "-n", "24", "-s", "5", "--json"]
    if temperature:
        flags += ["--temp", str(temperature)]
    options = {"temperature": temperature} if temperature else {}
    for chat in (False, True):
        done = subprocess.run(
            [helpers.specdec_binary(), "generate", "-m", tiny_path, *flags, *["--chat"][:chat]],
            capture_output=True, text=True, check=True, errors="replace",
        )  # fmt: skip
        with sd.Decoder(tiny) as decoder:
            prompt = [{"role": "user", "content": PROMPT}] if chat else PROMPT
            call = decoder.chat if chat else decoder.generate
            found = call(prompt, max_tokens=24, seed=5, **options)
        assert json.loads(done.stdout)["token_ids"] == list(found.token_ids)
