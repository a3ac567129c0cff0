"""`compare`: the short question from Python, without files or plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._checks import check_whole
from .._native_options import DrafterChoice, drafter_name
from ..decoder import Decoder
from ..errors import InvalidArgumentError
from ..model import Message, Model, check_model
from ..options import Cascade, Drafter
from .engines import OwnEngine, Workbench
from .figures import by, equal_cell, number, percent, ranged, tidy
from .plan import PLAIN, Block, Method, Pair, Task
from .runner import run_block

CompareChoice = DrafterChoice | None


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        best: name of the fastest method; "plain" when none reaches 1.02 times its speed.
        speedup: its speed-up; 1.0 for plain.
        methods: figures of each method over all prompts, by name: "tokens_per_second", "speedup"
            (geometric mean over prompts of each one's median over rounds), "speedup_min",
            "speedup_max", "total_speedup" (the prompt included), "acceptance", "tokens_per_pass",
            "identical" ((runs with the tokens of plain decoding, runs compared)).
        rows: one dict per run.
    """

    best: str
    speedup: float
    methods: Mapping[str, Mapping[str, Any]]
    rows: tuple[Mapping[str, Any], ...]

    def to_markdown(self) -> str:
        header = ["method", "tokens/s", "speed-up (slowest-fastest)", "acceptance", "tokens/pass",
                  "same tokens"]  # fmt: skip
        lines = [header, ["---"] * len(header)]
        for name, f in self.methods.items():
            lines.append(
                [
                    name,
                    number(f["tokens_per_second"], 1),
                    "1" if name == PLAIN else ranged(f),
                    percent(f["acceptance"]),
                    number(f["tokens_per_pass"]),
                    equal_cell(f),
                ]
            )
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def __str__(self) -> str:
        return self.to_markdown()

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame; needs pandas."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def compare(
    model: Model,
    prompts: Sequence[str | Sequence[Message]],
    drafters: Sequence[CompareChoice] | Mapping[str, CompareChoice] | None = None,
    *,
    draft: Model | None = None,
    max_tokens: int = 128,
    temperature: float = 0.0,
    rounds: int = 3,
    seed: int = 0,
    n_ctx: int | None = None,
) -> Comparison:
    """Which drafter is fastest on these prompts: each in turn, plain decoding in alternation.

    Args:
        model: the target.
        prompts: raw texts, or chats as lists of messages, to which the file's template is applied.
        drafters: what `Decoder` takes as `drafter`, in a list or by names of your own; None: all
            that need nothing else, and with `draft` also the draft model and "auto" with it.
        draft: a smaller model of the same vocabulary, or a head, for the names that `Decoder` takes
            one with; "mtp" beside others is the model's own where this is none for it.
        max_tokens: 1 or more; of each answer.
        temperature: as of `Decoder.generate`; above 0 the verifier `match` keeps the tokens equal.
        rounds: 1 or more; how often each method answers each prompt.
        seed: 0 or more; of the first round; each further round takes the next one.
        n_ctx: positions of the context; None: the model's.

    Raises:
        InvalidArgumentError: names the option and its range.
    """
    check_model("model", model)
    if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
        raise InvalidArgumentError("prompts must be a list with at least one prompt")
    max_tokens = check_whole("max_tokens", max_tokens, 1, 2**31 - 1)
    rounds = check_whole("rounds", rounds, 1, 10_000)
    seed = check_whole("seed", seed, 0, 2**63)
    choices = _choices(drafters, draft)
    pair = Pair("compared", model.info.path)
    with Workbench([pair], n_ctx=n_ctx or 4096) as bench:
        bench.adopt(pair, model)
        methods = []
        for name, choice in {PLAIN: None, **choices}.items():
            method = Method(name, drafter="none" if choice is None else "given")
            others = [other for key, other in choices.items() if key != name]
            decoder = _decoder(model, choice, draft, n_ctx, others)
            bench.add(pair, method, OwnEngine(decoder))
            methods.append(method)
        rows: list[dict[str, Any]] = []
        for number_, prompt in enumerate(prompts):
            block = Block(
                pair, Task(str(number_), ("",)), tuple(methods), max_tokens, rounds,
                sampling={"temperature": temperature},
            )  # fmt: skip
            ids = _prompt_ids(model, prompt)
            for run in run_block(bench, block, seed=seed, common={}, prompt=ids):
                rows += run
    for row in rows:
        if row["error"]:
            raise InvalidArgumentError(f"prompt {row['task']}, {row['method']}: {row['error']}")
    whole = tidy(rows)
    figures = {str(key[0]): f for key, f in by(whole, "method")}
    timed = {name: f for name, f in figures.items() if f["speedup"] is not None}
    best = max(timed, key=lambda name: timed[name]["speedup"], default=PLAIN)
    gain = timed[best]["speedup"] if timed else 1.0
    if gain < 1.02:
        best, gain = PLAIN, 1.0
    return Comparison(best, gain, figures, tuple(whole))


def _decoder(
    model: Model,
    choice: CompareChoice,
    draft: Model | None,
    n_ctx: int | None,
    others: Sequence[CompareChoice],
) -> Decoder:
    wanted = _with_draft(choice)
    if draft is None or not wanted:
        return Decoder(model, drafter=choice, n_ctx=n_ctx)
    try:
        return Decoder(model, drafter=choice, draft=draft, n_ctx=n_ctx)
    except InvalidArgumentError:
        # "mtp" has what the model's own file holds, where the draft is for the others.
        if wanted != {"mtp"} or not any(_with_draft(other) - {"mtp"} for other in others):
            raise
        return Decoder(model, drafter=choice, n_ctx=n_ctx)


def _with_draft(choice: CompareChoice) -> set[str]:
    """The names in it that `draft` goes with."""
    if choice is None or isinstance(choice, Drafter | Cascade):
        return set()
    names = choice.split(",") if isinstance(choice, str) else choice
    return {n for n in names if isinstance(n, str)} & {"auto", "model", "eagle", "mtp"}


def _prompt_ids(model: Model, prompt: str | Sequence[Message]) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return tuple(model.tokenize(prompt))
    return tuple(model._chat_prompt(prompt, True, None, None, None)[1])


def _choices(
    drafters: Sequence[CompareChoice] | Mapping[str, CompareChoice] | None, draft: Model | None
) -> dict[str, CompareChoice]:
    if drafters is None:
        names = ["auto", "ngram", "suffix", "recycling", *(["model"] if draft else [])]
        return {name: name for name in names}
    if isinstance(drafters, Mapping):
        found = dict(drafters)
    else:
        found = {}
        for choice in drafters:
            name = _name(choice)
            while name in found:
                name += "'"
            found[name] = choice
    found.pop(PLAIN, None)
    return {name: choice for name, choice in found.items() if choice not in (None, "none")}


def _name(choice: CompareChoice) -> str:
    if choice is None or choice == "none":
        return PLAIN
    if isinstance(choice, str):
        return choice
    if isinstance(choice, Drafter):
        changed = [
            f"{name}={value!r}"
            for name, value in vars(choice).items()
            if name != "model" and value != type(choice).__dataclass_fields__[name].default
        ]
        return drafter_name(choice) + (f"({', '.join(changed)})" if changed else "")
    items = choice.drafters if isinstance(choice, Cascade) else choice
    return "+".join(_name(item) for item in items)
