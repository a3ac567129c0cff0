"""Options of Python as the native side takes them: sessions, drafters, requests."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from . import _core
from ._checks import Unset, check_all, check_choice, check_whole
from ._option_table import CHECKS
from .errors import InvalidArgumentError
from .grammar import Grammar
from .memory import native_memory
from .model import Model, check_model, check_token_ids, path_bytes, to_bytes
from .options import (
    MAX_STOP_STRINGS,
    Cascade,
    Drafter,
    DraftModel,
    Eagle,
    LayerSkip,
    Mtp,
    NGram,
    SamplingParams,
    SuffixAutomaton,
    TokenRecycling,
)
from .results import Chunk, Round

Prompt = str | Sequence[int]
OnToken = Callable[[Chunk], object]
OnProgress = Callable[[int, int], object]
OnRound = Callable[[Round], object]


_SAMPLING = tuple(field.name for field in dataclasses.fields(SamplingParams))
_DRAFTERS: dict[str, Callable[..., Drafter]] = {
    "model": DraftModel,
    "ngram": NGram,
    "suffix": SuffixAutomaton,
    "recycling": TokenRecycling,
    "layerskip": LayerSkip,
    "eagle": Eagle,
    "mtp": Mtp,
}
DrafterChoice = Drafter | Cascade | Sequence[Drafter | str] | str


def session_options(given: Mapping[str, Any]) -> tuple[_core.SessionOptions, Model | None]:
    """What was given by name, checked; and the draft model if there is one."""
    checked = check_all(CHECKS["Decoder"], given)
    options = _core.SessionOptions()
    verifier = given["verifier"]
    check_choice("verifier", verifier, tuple(_core.verifier_names()))
    options.verifier = verifier
    if verifier == "topk_importance_published":
        warnings.warn(
            f"verifier {verifier!r} is not lossless: sampled text does not follow the model",
            UserWarning,
            stacklevel=3,
        )
    options.n_ctx = checked["n_ctx"] or 0
    options.kv_type = checked["kv_type"] or ""
    options.use_cache = checked.get("use_cache", True)
    memory = native_memory(given["memory"])
    if memory is not None:
        options.memory = memory
    return options, _set_drafters(options, given["drafter"], given["draft"])


def native_request(
    options: Mapping[str, Any], model: Model
) -> tuple[dict[str, Any], _core.GenerateRequest]:
    """Checks the options of a call, given by name, and makes a request without a prompt."""
    checked = check_all(CHECKS["call"], options)
    request = _core.GenerateRequest()
    if checked["max_tokens"] is not None:
        request.max_tokens = checked["max_tokens"]
    request.sampling = native_sampling(options, model.info.vocab_size)
    request.stop = _stop_strings(checked["stop"])
    request.ignore_eos = checked["ignore_eos"]
    request.speculate = checked["speculate"]
    request.remember = checked["remember"]
    request.memory_key = to_bytes(checked["memory_key"])
    grammar = _grammar(options["schema"], options["grammar"])
    if grammar is not None:
        request.set_matcher(grammar._matcher(model))
    request.render_special = checked["render_special"]
    request.parse_special = checked.get("parse_special", True)
    if checked["logprobs"] is not None:
        request.n_logprobs = checked["logprobs"]
    return checked, request


def _grammar(schema: object, grammar: object) -> Grammar | None:
    if schema is not None and grammar is not None:
        raise InvalidArgumentError("schema and grammar do not go together: give one of them")
    if schema is not None:
        return Grammar.json_schema(schema)
    if grammar is not None and not isinstance(grammar, Grammar):
        raise InvalidArgumentError(f"grammar must be a Grammar, not {type(grammar).__name__}")
    return grammar


def set_prompt(request: _core.GenerateRequest, prompt: Prompt, model: Model) -> None:
    if isinstance(prompt, str):
        request.set_prompt(to_bytes(prompt))
        return
    request.prompt_ids = check_token_ids("prompt", prompt, model.info.vocab_size)
    if not request.prompt_ids:
        raise InvalidArgumentError("prompt is empty: give at least one token id")


def set_messages(request: _core.GenerateRequest, options: Mapping[str, Any], model: Model) -> None:
    _, request.prompt_ids = model._chat_prompt(
        options["messages"],
        True,
        options["tools"],
        options["template"],
        options["template_args"],
    )


def _set_drafters(
    options: _core.SessionOptions, drafter: DrafterChoice | None, draft: Model | None
) -> Model | None:
    """Fills the drafters' options; returns the draft model if there is one."""
    if draft is not None:
        check_model("draft", draft)
    if drafter is None or (isinstance(drafter, str) and drafter == "none"):
        _refuse_draft(draft, "None")
        options.drafters = []
        return None
    if isinstance(drafter, str) and drafter == "auto":
        options.drafters = _core.parse_drafters("auto", draft is not None)
        options.adaptive = options.prefer_next_tokens = True
        return draft
    items = [_drafter(item, draft) for item in _items(drafter)]
    drafts = [model for item in items if (model := _draft_of(item)) is not None]
    if not any(model is draft for model in drafts):
        _refuse_draft(draft, repr(drafter) if isinstance(drafter, str) else "drafters of your own")
    in_list = not isinstance(drafter, Drafter | str) or (
        isinstance(drafter, str) and "," in drafter
    )
    names: list[str] = []
    for item in items:
        if isinstance(item, DraftModel):
            check_model("DraftModel's model", item.model)
        if isinstance(item, Eagle | Mtp) and (isinstance(item, Eagle) or item.head is not None):
            check_model(f"{type(item).__name__}'s head", item.head)
        if in_list and item.gamma is not None:
            raise InvalidArgumentError(
                f"{type(item).__name__} is in a list: its length is chosen while running, "
                "so gamma does not apply"
            )
        name = drafter_name(item)
        if name in names:
            raise InvalidArgumentError(f"{type(item).__name__} is in the list twice")
        names.append(name)
    options.adaptive = in_list
    options.drafters = [_native_drafter(item) for item in items]
    if len(drafts) > 1:
        raise InvalidArgumentError("a decoder drafts with one model or one head, not with both")
    return drafts[0] if drafts else None


def _draft_of(drafter: Drafter) -> Model | None:
    if isinstance(drafter, DraftModel):
        return drafter.model
    return drafter.head if isinstance(drafter, Eagle | Mtp) else None


def _items(drafter: object) -> list[object]:
    """The drafters of a choice, each as an object or a name."""
    if isinstance(drafter, Drafter):
        return [drafter]
    if isinstance(drafter, Cascade):
        return list(drafter.drafters)
    if isinstance(drafter, str):
        return list(drafter.split(","))
    if isinstance(drafter, Sequence) and drafter:
        return list(drafter)
    kinds = ", ".join(kind.__name__ for kind in get_args(Drafter))
    raise InvalidArgumentError(
        f"drafter must be None, one of {kinds}, a Cascade or list of them, or a name: "
        f"{', '.join(_core.drafter_names())}; not {drafter!r}"
    )


def _drafter(item: object, draft: Model | None) -> Drafter:
    if isinstance(item, Drafter):
        return item
    if isinstance(item, str):
        if item not in _DRAFTERS:
            raise InvalidArgumentError(
                f"drafter contains {item!r}, expected one of {', '.join(_core.drafter_names())}, "
                "or several of them with commas, without none and auto"
            )
        if item in ("model", "eagle"):
            if draft is None:
                what = "a draft model" if item == "model" else "a head"
                raise InvalidArgumentError(f"drafter {item!r} needs {what}: draft=Model(...)")
            return _DRAFTERS[item](draft)
        if item == "mtp":
            return Mtp(draft)
        return _DRAFTERS[item]()
    raise InvalidArgumentError(f"drafter: a list of drafters contains {type(item).__name__}")


def _refuse_draft(draft: Model | None, drafter: str) -> None:
    if draft is not None:
        raise InvalidArgumentError(
            f"draft is not used with drafter={drafter}: it goes with 'auto', 'model', "
            "'eagle' and 'mtp', or give drafter=DraftModel(draft), Eagle(draft) or Mtp(draft)"
        )


def drafter_name(drafter: Drafter) -> str:
    return next(name for name, kind in _DRAFTERS.items() if type(drafter) is kind)


_NativeDrafter = (
    _core.DraftModelOptions
    | _core.NGramOptions
    | _core.SuffixOptions
    | _core.RecyclingOptions
    | _core.LayerSkipOptions
    | _core.EagleOptions
    | _core.MtpOptions
)
_NATIVE_DRAFTERS: dict[type[Drafter], Callable[[], _NativeDrafter]] = {
    DraftModel: _core.DraftModelOptions,
    NGram: _core.NGramOptions,
    SuffixAutomaton: _core.SuffixOptions,
    TokenRecycling: _core.RecyclingOptions,
    LayerSkip: _core.LayerSkipOptions,
    Eagle: _core.EagleOptions,
    Mtp: _core.MtpOptions,
}


def _native_drafter(drafter: Drafter) -> _NativeDrafter:
    """Every option of a drafter, under its own name; a model goes with the session."""
    native = _NATIVE_DRAFTERS[type(drafter)]()
    for field in dataclasses.fields(drafter):
        value = getattr(drafter, field.name)
        if field.name in ("model", "head"):
            continue
        if field.name == "corpus":
            is_path = isinstance(value, os.PathLike)
            setattr(native, "corpus_path" if is_path else "corpus", _corpus_bytes(value))
            continue
        setattr(native, field.name, value)
    return native


def _corpus_bytes(corpus: str | os.PathLike[str] | None) -> bytes:
    return (
        path_bytes("corpus", corpus) if isinstance(corpus, os.PathLike) else to_bytes(corpus or "")
    )


def random_seed() -> int:
    return int.from_bytes(os.urandom(4), "little")


def native_sampling(options: Mapping[str, Any], vocab_size: int) -> _core.SamplingParams:
    """Of `params` and what overrides it."""
    params = options["params"]
    if params is None:
        params = SamplingParams()
    if not isinstance(params, SamplingParams):
        raise InvalidArgumentError(f"params must be SamplingParams, not {type(params).__name__}")
    given = {
        name: options[name]
        for name in _SAMPLING
        if name in options and not isinstance(options[name], Unset)
    }
    params = dataclasses.replace(params, **given)
    native = _core.SamplingParams()
    for name in _SAMPLING:
        if name not in ("seed", "logit_bias"):
            setattr(native, name, getattr(params, name))
    native.seed = random_seed() if params.seed is None else params.seed
    for token in params.logit_bias:
        check_whole("a token id in logit_bias", token, 0, vocab_size - 1)
    native.logit_bias = list(params.logit_bias.items())
    return native


def _stop_strings(stop: object) -> list[str]:
    strings = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if (
        not isinstance(strings, Sequence)
        or len(strings) > MAX_STOP_STRINGS
        or not all(isinstance(s, str) and s for s in strings)
    ):
        raise InvalidArgumentError(
            f"stop must be a str or at most {MAX_STOP_STRINGS} of them, none empty, not {stop!r}"
        )
    return [s.encode("utf-8", "replace").decode() for s in strings]
