"""Options of decoders and drafters."""

from __future__ import annotations

from .model import KV_TYPES
from .schema import REQUIRED, Choice, Flag, Option, Other, Real, TextOrPath, Truth, Whole

TEXT = "generate chat"
MANY_AT_ONCE = ("Engine.__init__", "AsyncDecoder.__init__")
LOAD = ("Decoder.load",)
DRAFT_SAMPLING = ("auto", "greedy", "sampled", "coupled")

DECODER = (
    Option("Decoder", "drafter", Other("DrafterChoice"), "auto",
        '"auto": each pass uses what is expected to be fastest of n-gram and suffix lookup and '
        "the `draft` model, or else what the model's file has for predicting further tokens, or "
        "decodes plainly, from measured costs and acceptance; a `Cascade` or "
        "list of drafters: the same among them; one of `DraftModel`, `NGram`, `SuffixAutomaton`, "
        "`TokenRecycling`, `LayerSkip`, `Eagle`, `Mtp`: drafts of its own fixed length. The names "
        'of the command line mean those with their defaults: "model" and "eagle" (which is '
        '`draft`), "mtp", "ngram", "suffix", "recycling", "layerskip", several with commas, "none"',
        none="plain decoding", calls=MANY_AT_ONCE + LOAD,
        flag=Flag("--drafter", TEXT, "NAME[,NAME...]",
            "none: plain decoding; model: the -md model; eagle: the -md head; mtp: what the "
            "model's file, or the -md file, has for predicting further tokens; ngram, suffix: "
            "repetitions in prompt and output; recycling: the model's second choices; layerskip: "
            "its own first layers; auto (default): ngram, suffix and, with -md, model, eagle or "
            "mtp, which needs no -md where the model's file has it. Of auto and of a list each "
            "pass uses who is expected to be fastest, or none; a single one drafts at a fixed "
            "length.")),
    Option("Decoder", "draft", Other("Model"), None,
        'a smaller model of the same vocabulary, for "auto" and "model", or an EAGLE-3 head '
        'that was trained for the model, for "auto" and "eagle", or the file of a block that '
        'predicts further tokens, for "auto" and "mtp"', none="none",
        calls=MANY_AT_ONCE + LOAD),
    Option("Decoder", "verifier", Other("str"), "auto",
        '"auto" (greedy at temperature 0, match above), "greedy", "match", "standard", "block" or '
        '"topk_importance"; docs/verifiers.md compares them. "topk_importance_published" is for '
        "comparison only: it is not lossless, and warns",
        calls=MANY_AT_ONCE + LOAD,
        flag=Flag("--verify", TEXT, "NAME",
            "How drafts are checked (default {default}: greedy at temperature 0, match above). "
            "topk_importance_published is not lossless.")),
    Option("Decoder", "n_ctx", Whole(2), None, "positions of the context",
        none="the model's", calls=MANY_AT_ONCE,
        flag=Flag("-c --ctx-size", TEXT, "N",
            "Context length in tokens (default {default}: the model's own, at most 4096).",
            none=0)),
    Option("Decoder", "kv_type", Choice(KV_TYPES, "KvType"), None, "elements of the caches",
        none="the model's", calls=MANY_AT_ONCE),
    Option("Decoder", "memory", Other("Memory | StrPath"), None,
        "texts of earlier requests, in which drafters look up as well, and to which each request "
        "is added: a `Memory`, which several may share, or a file that one is kept in; never "
        "changes a text, only how fast it comes",
        none="nothing outlives a request", calls=MANY_AT_ONCE + LOAD,
        flag=Flag("--memory", TEXT, "FILE",
            "Keep prompts and answers in this file (readable for you only) and draft from those "
            "of earlier runs. Never changes a text, only how fast it comes.")),
    Option("Decoder", "use_cache", Truth(), True,
        "False, for experiments: every pass of the target and of the draft model reads its whole "
        "context again, and nothing is kept between calls; the same tokens, slower",
        flag=Flag("--no-cache", TEXT,
            text="For experiments: every pass of the model and of the draft reads its whole "
            "context again. The same tokens, slower.", sets=False)),
)  # fmt: skip

MEMORY = (
    Option("Memory", "max_tokens", Whole(1024, 1 << 24), 1 << 18,
        "tokens that it holds, about 90 bytes each; beyond that the texts that were of use least "
        "recently are forgotten; a file that holds more keeps as much",
        flag=Flag("--memory-tokens", TEXT, "N",
            "Tokens that --memory holds, about 90 bytes each; the texts that were of use least "
            "recently are forgotten; a file that holds more keeps as much (default {default}).")),
)  # fmt: skip

KEPT = (
    Option("kept", "n_ctx", Whole(2), None, "positions of the context",
        none="as many as when it was saved", calls=LOAD),
    Option("kept", "kv_type", Choice(KV_TYPES, "KvType"), None,
        "elements of the caches, which must be those that were saved",
        none="those", calls=LOAD),
)  # fmt: skip

ENGINE = (
    Option("Engine", "max_requests", Whole(1, 64), 16,
        "requests at work at once; the others wait for their turn"),
    Option("Engine", "max_queue", Whole(0, 1 << 20), 256, "requests that wait at most"),
    Option("Engine", "when_full", Choice(("error", "wait"), 'Literal["error", "wait"]'), "error",
        'what a request gets that finds the queue full: "error": `QueueFullError`; "wait": it '
        "waits for a place, asynchronous ones without blocking the loop"),
    Option("Engine", "kv_bytes", Whole(1, 2**60), None,
        "memory of all caches together, of the draft model's and of those that are kept, too; a "
        "request starts when its longest course fits",
        none="what `max_requests` of `n_ctx` can need, at most half of the memory that is free"),
    Option("Engine", "share_prefixes", Truth(), True,
        "read what prompts have in common only once; caches of requests that have ended are kept "
        "for it as long as there is room, those used last the longest"),
)  # fmt: skip


def lengths(place: str, longest: str) -> tuple[Option, ...]:
    first = place == "DraftModel"
    return (
        Option(place, "draft_max", Whole(1, 64), None, "the longest draft", none=longest,
            flag=Flag("--draft --draft-n --spec-draft-n-max --draft-max", TEXT, "N",
                "Longest draft of each drafter, 1 to 64 (default: 4 for model, eagle and mtp, 3 "
                "for layerskip, 15 for these where lengths are chosen while running; 7 for ngram, "
                "15 for the others, 63 for suffix where lengths are chosen while running).",
                none=-1) if first else None),
        Option(place, "draft_min", Whole(0, 64), 0,
            "shorter drafts are not verified; at most the longest",
            flag=Flag("--spec-draft-n-min --draft-min", TEXT, "N",
                "Shorter drafts are not used (default {default}).") if first else None),
        Option(place, "gamma", Whole(0, 64), None,
            "a fixed draft length, for experiments; not with draft_max or draft_min", none="off",
            flag=Flag("--gamma", TEXT, "N", "Fix the draft length; 0 decodes plainly.", none=-1)
            if first else None),
    )  # fmt: skip


DRAFT_MODEL = (
    Option("DraftModel", "model", Other("Model"), REQUIRED, "the draft model", positional=True),
    *lengths("DraftModel", "4"),
    Option("DraftModel", "sampling", Choice(DRAFT_SAMPLING, "DraftSampling"), "auto",
        'how it picks tokens: "greedy", "sampled", "coupled" (with the target\'s own noise, under '
        '`match`), or "auto": greedy at temperature 0, coupled for `match`, else sampled',
        flag=Flag("--draft-sampling", TEXT, "NAME",
            "How the draft model, eagle, mtp and layerskip pick tokens: auto, greedy, sampled, "
            "coupled (default {default}).")),
    Option("DraftModel", "temperature", Real(0, 1_000_000), None, "of its sampling",
        none="the target's",
        flag=Flag("--draft-temp", TEXT, "T",
            "Temperature of sampled and coupled drafts (default: the target's).", none=-1)),
    Option("DraftModel", "head_tokens", Whole(0, 2**30), None,
        "only token ids below this are drafted, and those of the text so far, which makes the "
        "output head cheap; 0: all",
        none="what the file says, else 32768 when the vocabulary is at least twice that",
        flag=Flag("--draft-head", TEXT, "N",
            "Draft only token ids below N and those of the text: a shorter output head (default "
            "{default}: as the file says, else 32768 for large vocabularies; 0: all).", none=-1)),
    Option("DraftModel", "draft_top_k", Whole(1), None, "drafts come from its best so many tokens",
        none="the target's top_k, or 50 for the `topk_importance` verifiers",
        flag=Flag("--draft-top-k", TEXT, "K",
            "Draft from the draft model's K best tokens (default {default}: as --top-k; 50 for "
            "topk_importance).", none=0)),
    Option("DraftModel", "branch", Whole(1, 16), 1,
        "candidates per position; above 1 a comb, for verifiers that take trees",
        flag=Flag("--draft-branch", TEXT, "B",
            "Candidates per position; above 1 with greedy, match or topk_importance (default "
            "{default}).")),
)  # fmt: skip

NGRAM = (
    Option("NGram", "n", Whole(1, 16), 4,
        "the longest context looked up, in tokens; the longest one that matches decides",
        positional=True,
        flag=Flag("--ngram-n", TEXT, "N",
            "Most tokens of a context that ngram looks up (default {default}).")),
    Option("NGram", "min_count", Whole(1, 1_000_000), 1,
        "continuations seen less often are not drafted",
        flag=Flag("--ngram-min-count", TEXT, "N",
            "Use continuations seen at least N times (default {default}).")),
    Option("NGram", "filler_top_k", Whole(1, 64), 1,
        "above 1 also count the best so many tokens of each position",
        flag=Flag("--filler-top-k", TEXT, "K",
            "Above 1, ngram also learns from the target's K best tokens of each position (default "
            "{default}).")),
    Option("NGram", "keep", Truth(), False, "keep what was learnt between calls"),
    *lengths("NGram", "7"),
)  # fmt: skip

SUFFIX = (
    Option("SuffixAutomaton", "min_match", Whole(1, 64), 1,
        "shorter matches are not drafted from", positional=True,
        flag=Flag("--suffix-min-match", TEXT, "N",
            "Shortest match that suffix drafts from (default {default}).")),
    Option("SuffixAutomaton", "corpus", TextOrPath(), None,
        "where to find matches as well, for example in the files being worked on: a text, or a "
        "`pathlib.Path` of a file or of a folder, whose text files are read, those changed last "
        "first, as many as `max_store` tokens hold",
        none="none",
        flag=Flag("--suffix-corpus", TEXT, "PATH",
            "A text in which suffix looks for matches as well: a file, or a folder whose text "
            "files are read, those changed last first.")),
    Option("SuffixAutomaton", "keep", Truth(), False, "keep prompts and outputs between calls"),
    Option("SuffixAutomaton", "max_store", Whole(1024, 1 << 26), 1 << 18,
        "tokens remembered, about 100 bytes each; beyond that the older half is forgotten",
        flag=Flag("--suffix-max-store", TEXT, "N",
            "Tokens that suffix remembers, about 100 bytes each (default {default}).")),
    *lengths("SuffixAutomaton", "15, or 63 where lengths are chosen while running"),
)  # fmt: skip

RECYCLING = (
    Option("TokenRecycling", "top_k", Whole(1, 32), 8, "successors remembered per token",
        positional=True,
        flag=Flag("--recycling-top-k", TEXT, "K",
            "Successors that recycling remembers per token (default {default}).")),
    Option("TokenRecycling", "tree", Truth(), True,
        "draft a tree of alternatives where the verifier takes one, instead of a chain",
        flag=Flag("--recycling-chain", TEXT,
            text="Let recycling draft chains where it could draft trees.", sets=False)),
    Option("TokenRecycling", "keep", Truth(), False, "keep the successors between calls"),
    *lengths("TokenRecycling", "15 tokens of the whole tree"),
)  # fmt: skip

EAGLE = (
    Option("Eagle", "head", Other("Model"), REQUIRED, "the head", positional=True),
    *lengths("Eagle", "4"),
    Option("Eagle", "sampling", Choice(DRAFT_SAMPLING, "DraftSampling"), "auto",
        "as of `DraftModel`"),
    Option("Eagle", "temperature", Real(0, 1_000_000), None, "as of `DraftModel`",
        none="the target's"),
    Option("Eagle", "draft_top_k", Whole(1), None, "as of `DraftModel`",
        none="the target's top_k, or 50 for the `topk_importance` verifiers"),
)  # fmt: skip

MTP = (
    Option("Mtp", "head", Other("Model"), None,
        "the file of such a block alone, as it was split off the model", none="the model's own",
        positional=True),
    *lengths("Mtp", "4"),
    Option("Mtp", "sampling", Choice(DRAFT_SAMPLING, "DraftSampling"), "auto",
        "as of `DraftModel`"),
    Option("Mtp", "temperature", Real(0, 1_000_000), None, "as of `DraftModel`",
        none="the target's"),
    Option("Mtp", "head_tokens", Whole(0, 2**30), None, "as of `DraftModel`",
        none="what the file says, else 32768 when the vocabulary is at least twice that"),
    Option("Mtp", "draft_top_k", Whole(1), None, "as of `DraftModel`",
        none="the target's top_k, or 50 for the `topk_importance` verifiers"),
)  # fmt: skip

LAYER_SKIP = (
    Option("LayerSkip", "n_layers", Whole(1, 1000), None,
        "layers that draft, fewer than the model has", none="a quarter of them", positional=True,
        flag=Flag("--draft-layers", TEXT, "N",
            "Layers that layerskip drafts with (default {default}: a quarter of the model's).",
            none=0)),
    Option("LayerSkip", "sampling", Choice(DRAFT_SAMPLING, "DraftSampling"), "auto",
        "as of `DraftModel`"),
    Option("LayerSkip", "temperature", Real(0, 1_000_000), None, "as of `DraftModel`",
        none="the target's"),
    *lengths("LayerSkip", "3"),
)  # fmt: skip
