"""What generation returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

FinishReason = Literal["stop", "length", "cancelled", "timeout"]


@dataclass(frozen=True)
class TokenLogprob:
    """A token id and the natural logarithm of its probability."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class PositionLogprobs:
    """Log-probabilities at one position, of the target's distribution before temperature.

    Attributes:
        logprob: of the emitted token.
        top: the most probable tokens, best first; as many as were asked for.
    """

    logprob: float
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True)
class Chunk:
    """A piece of output. Text comes in whole characters, so it may hold that of earlier tokens.

    Attributes:
        text: new text; may be empty.
        token_ids: new tokens; may be empty.
        from_draft: per token, whether a drafter had proposed it.
        logprobs: per token; None unless asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    from_draft: tuple[bool, ...]
    logprobs: tuple[PositionLogprobs, ...] | None = None


@dataclass(frozen=True)
class DecodeStats:
    """How fast one request was, and why. Every figure is defined in docs/statistics.md.

    Always: ``emitted == accepted + rounds + plain_steps - cut``. A rate over nothing is None.
    """

    emitted: int
    rounds: int
    plain_steps: int
    drafted: int
    accepted: int
    accepted_cut: int
    cut: int
    drafted_per_position: tuple[int, ...]
    accepted_per_position: tuple[int, ...]
    accepted_histogram: tuple[int, ...]
    acceptance_rate: float | None
    mean_acceptance_length: float | None
    candidate_positions: int
    candidate_acceptance: float | None
    in_set: float | None
    tokens_per_second: float | None
    prompt_tokens: int
    reused_prompt_tokens: int
    reread_tokens: int
    draft_reread_tokens: int
    total_ms: float
    calibration_ms: float
    prompt_ms: float
    decode_ms: float
    draft_ms: float
    verify_ms: float
    sample_ms: float
    time_to_first_token_ms: float
    device_ms: float
    reproducible: bool
    speculation: str
    note: str

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for ``json.dumps``."""
        return asdict(self)


@dataclass(frozen=True)
class Round:
    """One pass of the target model, told as soon as it is verified and before any stop is applied.

    Attributes:
        index: 0, 1, ... within the call.
        source: the drafter; "" when nothing was drafted.
        reason: why a draft of this length, or none.
        outcome: "plain" (nothing was drafted), "correction" (the target's token stands in for a
            drafted one) or "bonus" (it follows a draft that was right to its end).
        drafted: proposed token ids.
        parents: of a tree: for each drafted token the index of the one before it, -1 for none;
            empty for a chain.
        accepted: indices into `drafted`, in order.
        next_token: the target's own token.
    """

    index: int
    source: str
    reason: str
    outcome: Literal["plain", "correction", "bonus"]
    drafted: tuple[int, ...]
    parents: tuple[int, ...]
    accepted: tuple[int, ...]
    next_token: int

    @property
    def token_ids(self) -> tuple[int, ...]:
        """What the pass gave: the accepted tokens and the target's own."""
        return (*(self.drafted[i] for i in self.accepted), self.next_token)


@dataclass(frozen=True)
class OutputCheck:
    """A second, plain decoding of the same request, compared with the result.

    Attributes:
        identical: the same tokens, ended for the same reason.
        difference: the first difference in words; "" if there is none.
        first_difference: its position; None if there is none.
        plain_token_ids: what plain decoding gave.
        plain_stats: how fast it was.
    """

    identical: bool
    difference: str
    first_difference: int | None
    plain_token_ids: tuple[int, ...]
    plain_stats: DecodeStats


@dataclass(frozen=True)
class GenerationResult:
    """A finished generation.

    Attributes:
        text: generated text, without the stop string.
        token_ids: generated tokens, without the end-of-sequence token.
        from_draft: per token, whether a drafter had proposed it.
        finish_reason: "stop" (end of sequence or a stop string), "length", "cancelled", or, of an
            engine's request that had a `time_limit`, "timeout".
        stop_reason: "eos", the stop string, or "".
        logprobs: per token; None unless asked for.
        prompt_tokens: tokens of the prompt.
        seed: the seed used; give it again for the same text.
        stats: how fast, and why.
        summary: the same in one line for people.
        check: with `verify_output`: the comparison with plain decoding; None when the call was
            cancelled.
    """

    text: str
    token_ids: tuple[int, ...]
    from_draft: tuple[bool, ...]
    finish_reason: FinishReason
    stop_reason: str
    logprobs: tuple[PositionLogprobs, ...] | None
    prompt_tokens: int
    seed: int
    stats: DecodeStats
    summary: str
    check: OutputCheck | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class EngineStats:
    """What an `Engine` does now, and what it has done since its start.

    Attributes:
        queued, running: requests that wait for their turn, and those at work.
        kv_bytes, kv_used_bytes, kv_pages: the limit of all caches, what they hold, and in how many
            pages; `kept_prefixes` of them are of requests that have ended.
        submitted, finished, cancelled, timed_out, failed: requests, by how they ended.
        refused: requests that found the queue full.
        prompt_tokens, cached_tokens: of the requests that began: tokens of their prompts, and how
            many of these were found in a cache, of `prefix_hits` requests.
        evicted: kept caches that made way.
        emitted, drafted, accepted: tokens of the requests that have ended.
        passes, rows, pass_ms: passes of the target model, their rows and their time.
    """

    queued: int
    running: int
    kv_bytes: int
    kv_used_bytes: int
    kv_pages: int
    kept_prefixes: int
    submitted: int
    finished: int
    cancelled: int
    timed_out: int
    failed: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    prefix_hits: int
    evicted: int
    emitted: int
    drafted: int
    accepted: int
    passes: int
    rows: int
    pass_ms: float

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for ``json.dumps``."""
        return asdict(self)


@dataclass(frozen=True)
class ModelInfo:
    """What a model is and, from `kv_type` on, how it was loaded.

    Attributes:
        state_bytes: what the states of recurrent layers take for one sequence, at most, however
            long it is; 0 for models without such layers.
        kept_weight_bytes: weights that are used from the file which `repack="keep"` wrote, shared
            with other processes; 0: they were repacked now.
        n_ctx, vram_budget: as given to `Model`.
        device: what runs it, e.g. "cuda: NVIDIA L4, sm_89; cpu: avx2, 8 threads".
        n_gpu_layers: the last so many layers, and the output head, are on the GPU.
        gpu_context: positions whose cache is reserved there.
        gpu_bytes: weights and reserved cache there.
        placement: the plan in words, one line each; empty without a GPU.
        cpu_reason: why nothing is on a GPU; empty when something is, or nothing was to be.
        add_bos: does a prompt begin with the BOS token, as the file says?
        warnings: what is odd about the file but harmless; loading hands them to `logging` too.
    """

    path: str
    architecture: str
    name: str
    n_params: int
    size_bytes: int
    weight_bytes: int
    tensor_types: tuple[tuple[str, int], ...]
    quantisation: str
    context_length: int
    vocab_size: int
    n_vocab_rows: int
    n_layers: int
    hidden_size: int
    ffn_size: int
    n_experts: int
    n_experts_used: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    tied_head: bool
    tokenizer: str
    chat_format: str
    kv_bytes_per_token: int
    state_bytes: int
    bytes_per_step: int
    kv_type: str
    device: str
    n_threads: int
    repack: str
    kept_weight_bytes: int
    n_ctx: int | None
    vram_budget: int | None
    load_ms: float
    n_gpu_layers: int
    gpu_context: int
    gpu_bytes: int
    placement: tuple[str, ...]
    cpu_reason: str
    add_bos: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class FileInfo:
    """What a file says about itself, read without its weights.

    Attributes:
        metadata: all keys; arrays longer than `max_array` items are replaced by a description.
        tensors: name, type, shape (contiguous size first) and bytes of each tensor.
        warnings: oddities that do not keep the file from being used.
        supported: whether this version runs it; `problem` says why not.
        n_parts: files that the model is in; `size_bytes` is that of all.
    """

    path: str
    version: int
    size_bytes: int
    architecture: str
    metadata: dict[str, Any]
    tensors: tuple[TensorEntry, ...]
    warnings: tuple[str, ...]
    supported: bool
    problem: str
    n_parts: int = 1


@dataclass(frozen=True)
class TensorEntry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    n_bytes: int
    offset: int


@dataclass(frozen=True)
class PairReport:
    """Whether one model may draft for another, and whether it is likely to pay.

    Attributes:
        compatible: every id that both can emit stands for the same text.
        identical: and both vocabularies have the same size.
        first_difference: the first id that differs, None if none does.
        reason: why not, or what is odd, in a sentence; may be empty.
        cost_ratio: weight bytes a draft step reads over those of a target step.
        memory_bytes: weights of both.
    """

    compatible: bool
    identical: bool
    n_target_tokens: int
    n_draft_tokens: int
    n_shared_tokens: int
    first_difference: int | None
    target_text: str
    draft_text: str
    reason: str
    warnings: tuple[str, ...]
    cost_ratio: float
    memory_bytes: int
    kv_bytes_per_token: int


@dataclass(frozen=True)
class QuantizedTensor:
    """What became of one tensor.

    Attributes:
        name: its name.
        shape: innermost size first.
        source_type: weight format in the source.
        type: weight format now.
        source_bytes: bytes in the source.
        size_bytes: bytes now.
        relative_error: root of sum (y - x)^2 / sum x^2 over its weights x and what they became, y;
            0 for a copy.
        largest_error: of |y - x|.
        note: why it did not get the type that was asked for; "" if it did.
    """

    name: str
    shape: tuple[int, ...]
    source_type: str
    type: str
    source_bytes: int
    size_bytes: int
    relative_error: float
    largest_error: float
    note: str


@dataclass(frozen=True)
class QuantizeResult:
    """A quantised model.

    Attributes:
        type: the type asked for, e.g. "Q4_K_M".
        tensors: one entry per tensor, in file order.
        n_weights: of all tensors.
        files: what was written: the target, or its parts.
        source_bytes: size of the source file.
        size_bytes: size of all new files; of a dry run, what it would be.
        bits_per_weight: of the tensors, metadata left out.
        relative_error: as that of a tensor, over all tensors that changed.
        total_ms: time it took.
        n_threads: threads used.
    """

    type: str
    tensors: tuple[QuantizedTensor, ...]
    files: tuple[str, ...]
    n_weights: int
    source_bytes: int
    size_bytes: int
    bits_per_weight: float
    relative_error: float
    total_ms: float
    n_threads: int
