"""Options of one generation: how tokens are chosen, where it ends, what is reported."""

from __future__ import annotations

from .schema import Callback, Flag, Items, Option, Other, Real, Table, Text, Truth, Whole

TEXT = "generate chat"  # commands that generate text
ENGINE_CHAT = ("Engine.submit_chat", "Engine.chat", "Engine.stream_chat")
ENGINE = ("Engine.submit", "Engine.generate", "Engine.stream", *ENGINE_CHAT)
GENERATE = (
    "Decoder.generate", "Decoder.stream", "Engine.submit", "Engine.generate", "Engine.stream",
    "AsyncDecoder.generate", "AsyncDecoder.stream",
)  # fmt: skip
CHAT = (
    "Decoder.chat", "Decoder.stream_chat", *ENGINE_CHAT,
    "AsyncDecoder.chat", "AsyncDecoder.stream_chat",
)  # fmt: skip
CALLS = GENERATE + CHAT
WAIT = ("Decoder.generate", "Decoder.chat")  # calls that return when all is done
MANY = ("generate_many",)

# In the order in which they apply.
SAMPLING = (
    Option("SamplingParams", "logit_bias", Other("Mapping[int, float]"), {},
        "token id -> what is added to its logit, -inf bans the token",
        factory="dict", calls=CALLS + MANY, overrides=True,
        flag=Flag("--logit-bias", TEXT, "ID(+|-)VALUE",
            "Add VALUE to a token's logit, e.g. 15043+1; 15043-inf bans it. Repeatable.",
            default="none")),
    Option("SamplingParams", "repetition_penalty", Real(0, 100, open_low=True), 1.0,
        "divides positive logits of seen tokens, multiplies negative ones",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--repeat-penalty", TEXT, "R",
            "Penalty on tokens seen before (default {default}: off).")),
    Option("SamplingParams", "presence_penalty", Real(-100, 100), 0.0,
        "subtracted once from the logits of seen tokens",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--presence-penalty", TEXT, "A",
            "Subtracted from the logit of tokens seen before (default {default}).")),
    Option("SamplingParams", "frequency_penalty", Real(-100, 100), 0.0,
        "subtracted once per occurrence",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--frequency-penalty", TEXT, "A",
            "The same, once per occurrence (default {default}).")),
    Option("SamplingParams", "penalty_last_n", Whole(-1), 64,
        "how many of the last tokens count as seen; -1: all, 0: none",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--repeat-last-n", TEXT, "N",
            "How many tokens back penalties look (default {default}; 0: off, -1: all).")),
    Option("SamplingParams", "temperature", Real(0, 1_000_000), 0.0,
        "0 takes the best token, ties to the lowest id",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--temp --temperature", TEXT, "T",
            "Temperature (default {default}: always the most probable token).")),
    Option("SamplingParams", "top_k", Whole(), 0, "keep the best so many tokens; 0: all",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--top-k", TEXT, "K", "Keep the K best tokens (default {default}: all).")),
    Option("SamplingParams", "top_p", Real(0, 1, open_low=True), 1.0,
        "keep the best tokens that make up this probability; 1: all",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--top-p", TEXT, "P",
            "Keep the best tokens that make up P of the probability (default {default}: all).")),
    Option("SamplingParams", "min_p", Real(0, 1, open_high=True), 0.0,
        "drop tokens below this share of the best one's probability; 0: none",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--min-p", TEXT, "P",
            "Drop tokens below P times the best one's probability (default {default}: none).")),
    Option("SamplingParams", "noise_scale", Real(0, 100), 0.0,
        "two-stage sampling: standard deviation of Gaussian noise on the survivors' logits",
        calls=CALLS + MANY, overrides=True,
        flag=Flag("--noise-scale", TEXT, "S",
            "Two-stage sampling: Gaussian noise on the logits that are left (default {default}: "
            "off).")),
    Option("SamplingParams", "seed", Whole(0, 2**64 - 1), None,
        "the same one gives the same tokens, unless `stats.reproducible` says no",
        none="a new one, which the result reports",
        calls=CALLS, overrides=True,
        flag=Flag("-s --seed", TEXT, "N",
            "Random seed, up to 2^64 - 1 (default {default}: a new one each time, printed).",
            none=-1)),
)  # fmt: skip

LENGTH = (
    Option("call", "max_tokens", Whole(), 128, "at most so many",
        none="until the context is full",
        calls=CALLS, defaults=dict.fromkeys(CHAT, 512),
        flag=Flag("-n --n-predict --max-tokens", TEXT, "N",
            "Tokens to generate at most, in a chat per answer (default {default}: until the model "
            "ends or the context is full).", none=-1, default=-1)),
    Option("call", "params", Other("SamplingParams"), None,
        "a `SamplingParams`; single options override its fields",
        none="its defaults", calls=CALLS + MANY),
)  # fmt: skip

REPORT = (
    Option("call", "stop", Other("str | Sequence[str]"), None,
        "a string or up to 64; the text ends before the first that appears",
        none="no string", calls=CALLS,
        flag=Flag("-r --reverse-prompt --stop", "generate", "TEXT",
            "End before this text. Repeatable.", default="none")),
    Option("call", "schema", Other("Mapping[str, Any] | str"), None,
        "the text is JSON of this JSON schema, a dict or JSON text; needs llguidance, as `grammar` "
        "does", none="any text", calls=CALLS),
    Option("call", "grammar", Other("Grammar"), None,
        "a `Grammar`, which the text follows", none="any text", calls=CALLS),
    Option("call", "speculate", Truth(), True,
        "False: decode this request plainly, whatever drafters there are", calls=CALLS),
    Option("call", "remember", Truth(), True,
        "False: of a decoder with a `memory`, neither draft from it nor add this request to it",
        calls=CALLS),
    Option("call", "memory_key", Text(), "",
        "whose texts these are: within a `memory`, requests draft from texts of the same key only",
        calls=CALLS),
    Option("call", "ignore_eos", Truth(), False,
        "forbid the tokens that end a generation, as llama.cpp's --ignore-eos does: they are never "
        "drawn, and the model goes on until `max_tokens`, a stop string or a full context",
        calls=CALLS + MANY,
        flag=Flag("--ignore-eos", "generate",
            text="Forbid the tokens that end a generation: it goes on until -n, --stop or the "
            "context ends it.")),
    Option("call", "logprobs", Whole(0, 100), None,
        "log-probabilities, and so many alternatives per token", none="none",
        calls=CALLS + MANY,
        flag=Flag("--logprobs", "generate", "N",
            "With --json: log-probability of each token and of the N best ones.", none=-1)),
    Option("call", "render_special", Truth(), False, "spell control tokens out in the text",
        calls=CALLS,
        flag=Flag("--special", "generate", text="Show special tokens in the text.")),
    Option("call", "parse_special", Truth(), True,
        "recognise control tokens that a text prompt spells out",
        calls=GENERATE,
        flag=Flag("--no-special", "generate tokenize",
            text="Take special tokens in the text as plain text.", sets=False)),
    Option("call", "tools", Items("Sequence[Mapping[str, Any]]"), None,
        "function descriptions, for templates that know them", none="none", calls=CHAT),
    Option("call", "template", Text(), None,
        "a jinja2 template, or the name of a format (chatml, llama2, llama3, zephyr, gemma, "
        "phi3, phi4, raw) or of one of the file's templates, instead of the file's own",
        none="the file's", calls=CHAT),
    Option("call", "template_args", Table("Mapping[str, Any]"), None,
        "further variables for the template", none="none", calls=CHAT),
    Option("call", "time_limit", Real(0, 1e9), None,
        'seconds from now, waiting for its turn included, after which the request ends with '
        'finish_reason "timeout" and what there is by then', none="none", calls=ENGINE),
    Option("call", "on_progress", Callback("OnProgress"), None,
        "called with (tokens read, tokens of the prompt) while the prompt is read",
        none="not called", calls=CALLS),
    Option("call", "on_round", Callback("OnRound"), None,
        "called with a `Round` after each pass of the target model", none="not called",
        calls=CALLS,
        flag=Flag("--trace", "generate",
            text="Tell each target pass on standard error: what was drafted, by whom and why so "
            "much, what was accepted, and the target's own token. The text comes at the end.",
            default=False)),
    Option("call", "on_token", Callback("OnToken"), None,
        "called with each `Chunk`; returning False ends the generation, and an exception ends it "
        "and passes through", none="not called", calls=WAIT),
    Option("call", "verify_output", Truth(), False,
        "decode once more without a drafter, from the start of the prompt, and compare; "
        "`result.check` tells. Above temperature 0 only the verifier `match` can be checked so: "
        "the others keep the distribution, not the tokens",
        calls=WAIT,
        flag=Flag("--check", "generate",
            text="Decode again without a drafter, from the start of the prompt, and compare: exit "
            "code 1 and the first difference unless every token is the same. Above temperature 0 "
            "this needs --verify match (the default).")),
)  # fmt: skip

MANY_ONLY = (
    Option("many", "max_tokens", Other("int | Sequence[int]"), 128,
        "of each result, or one number per prompt", none="until its context is full",
        calls=MANY),
    Option("many", "seeds", Other("Sequence[int]"), None, "one per prompt",
        none="that of `params` for all, or new ones, which the results report", calls=MANY),
    Option("many", "keep_eos", Truth(), False,
        "results that end with an end-of-sequence token contain it", calls=MANY),
    Option("many", "n_parallel", Whole(1, 64), 16,
        "sequences in one pass of the model; each has a cache of its own", calls=MANY),
    Option("many", "n_ctx", Whole(2), None, "positions of each sequence",
        none="the model's", calls=MANY),
    Option("many", "layers", Other("Sequence[int]"), None,
        "ascending, from 0 to the model's number of layers; what enters these layers is reported "
        "for every token that was read, as `Model.hidden_states` does, with the same bits and no "
        "second reading",
        none="none", calls=MANY),
    Option("many", "on_done", Callback("Callable[[int, int], object]"), None,
        "called with (sequences that have ended, prompts)", none="not called", calls=MANY),
)  # fmt: skip
