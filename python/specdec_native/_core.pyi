"""
The native part of specdec_native; use the package instead.
"""
from __future__ import annotations
import collections.abc
import typing
__all__: list[str] = ['CallSlot', 'CancelFlag', 'DecodeStats', 'DraftModelOptions', 'EagleOptions', 'Engine', 'EngineOptions', 'GenerateRequest', 'GenerateResult', 'HiddenStates', 'LayerSkipOptions', 'Memory', 'Model', 'MtpOptions', 'NGramOptions', 'OutputCheck', 'OutputChunk', 'RecyclingOptions', 'SamplingParams', 'Session', 'SessionOptions', 'StreamBase', 'SuffixOptions', 'Ticket', 'build_info', 'check_pair', 'drafter_names', 'generate_many', 'inspect', 'kept_options', 'parse_drafters', 'quantize', 'read_bandwidth', 'take_log', 'verifier_names']
class HiddenStates:
    def __init__(self, numbers: bytes, n_tokens: typing.SupportsInt | typing.SupportsIndex, n_layers: typing.SupportsInt | typing.SupportsIndex, n_embd: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Model:
    def __init__(self, path: bytes, *, device: str, n_threads: typing.SupportsInt | typing.SupportsIndex, kv_type: str, repack: str, check_tensors: bool, requantize: str, n_gpu_layers: typing.SupportsInt | typing.SupportsIndex, vram_budget: str, n_ctx: typing.SupportsInt | typing.SupportsIndex, on_progress: typing.Any, poll_signals: bool) -> None:
        ...
    def chat_prompt(self, messages: bytes, *, tools: bytes, chat_template: bytes, arguments: bytes, add_generation_prompt: bool, poll_signals: bool) -> tuple[str, list[int]]:
        ...
    def chat_template(self) -> str:
        ...
    def chat_templates(self) -> dict[str, str]:
        ...
    def detokenize(self, tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], *, render_special: bool, strip_space_prefix: bool) -> str:
        ...
    def eog_ids(self) -> list[int]:
        ...
    def hidden_ids(self) -> list[int]:
        ...
    def hidden_states(self, tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], layers: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], *, n_ctx: typing.SupportsInt | typing.SupportsIndex, poll_signals: bool) -> HiddenStates:
        ...
    def info(self) -> dict[str, typing.Any]:
        ...
    def metadata(self, *, max_array: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
        ...
    def token_bytes(self) -> list[bytes]:
        ...
    def token_text(self, token: typing.SupportsInt | typing.SupportsIndex) -> str:
        ...
    def tokenize(self, text: bytes, *, add_special: bool, parse_special: bool, poll_signals: bool) -> list[int]:
        ...
    @property
    def bos_id(self) -> int | None:
        ...
    @property
    def eos_id(self) -> int | None:
        ...
class SamplingParams:
    def __init__(self) -> None:
        ...
    @property
    def frequency_penalty(self) -> float:
        """
        [-100, 100]; subtracted once per occurrence.
        """
    @frequency_penalty.setter
    def frequency_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def logit_bias(self) -> list[tuple[int, float]]:
        """
        token id -> what is added to its logit, -inf bans the token.
        """
    @logit_bias.setter
    def logit_bias(self, arg0: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsFloat | typing.SupportsIndex]]) -> None:
        ...
    @property
    def min_p(self) -> float:
        """
        [0, 1); drop tokens below this share of the best one's probability; 0: none.
        """
    @min_p.setter
    def min_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def noise_scale(self) -> float:
        """
        [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the survivors' logits.
        """
    @noise_scale.setter
    def noise_scale(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def penalty_last_n(self) -> int:
        """
        -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
        """
    @penalty_last_n.setter
    def penalty_last_n(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def presence_penalty(self) -> float:
        """
        [-100, 100]; subtracted once from the logits of seen tokens.
        """
    @presence_penalty.setter
    def presence_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def repetition_penalty(self) -> float:
        """
        (0, 100]; divides positive logits of seen tokens, multiplies negative ones.
        """
    @repetition_penalty.setter
    def repetition_penalty(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def seed(self) -> int:
        """
        0 or more; the same one gives the same tokens, unless `stats.reproducible` says no; None: a new one, which the result reports.
        """
    @seed.setter
    def seed(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def temperature(self) -> float:
        """
        [0, 1000000]; 0 takes the best token, ties to the lowest id.
        """
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def top_k(self) -> int:
        """
        0 or more; keep the best so many tokens; 0: all.
        """
    @top_k.setter
    def top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def top_p(self) -> float:
        """
        (0, 1]; keep the best tokens that make up this probability; 1: all.
        """
    @top_p.setter
    def top_p(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
class GenerateRequest:
    sampling: SamplingParams
    def __init__(self) -> None:
        ...
    def set_matcher(self, matcher: typing.Any) -> None:
        """
        A grammar's matcher, for this request alone.
        """
    def set_prompt(self, text: bytes) -> None:
        ...
    @property
    def add_bos(self) -> int:
        ...
    @add_bos.setter
    def add_bos(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def ignore_eos(self) -> bool:
        """
        forbid the tokens that end a generation, as llama.cpp's --ignore-eos does: they are never drawn, and the model goes on until `max_tokens`, a stop string or a full context.
        """
    @ignore_eos.setter
    def ignore_eos(self, arg0: bool) -> None:
        ...
    @property
    def max_tokens(self) -> int:
        """
        0 or more; at most so many; None: until the context is full.
        """
    @max_tokens.setter
    def max_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def memory_key(self) -> bytes:
        """
        whose texts these are: within a `memory`, requests draft from texts of the same key only.
        """
    @memory_key.setter
    def memory_key(self, arg1: bytes) -> None:
        ...
    @property
    def n_logprobs(self) -> int:
        """
        0 to 100; log-probabilities, and so many alternatives per token; None: none.
        """
    @n_logprobs.setter
    def n_logprobs(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def parse_special(self) -> bool:
        """
        recognise control tokens that a text prompt spells out.
        """
    @parse_special.setter
    def parse_special(self, arg0: bool) -> None:
        ...
    @property
    def prompt_ids(self) -> list[int]:
        ...
    @prompt_ids.setter
    def prompt_ids(self, arg0: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> None:
        ...
    @property
    def remember(self) -> bool:
        """
        False: of a decoder with a `memory`, neither draft from it nor add this request to it.
        """
    @remember.setter
    def remember(self, arg0: bool) -> None:
        ...
    @property
    def render_special(self) -> bool:
        """
        spell control tokens out in the text.
        """
    @render_special.setter
    def render_special(self, arg0: bool) -> None:
        ...
    @property
    def speculate(self) -> bool:
        """
        False: decode this request plainly, whatever drafters there are.
        """
    @speculate.setter
    def speculate(self, arg0: bool) -> None:
        ...
    @property
    def stop(self) -> list[str]:
        """
        a string or up to 64; the text ends before the first that appears; None: no string.
        """
    @stop.setter
    def stop(self, arg0: collections.abc.Sequence[str]) -> None:
        ...
class DecodeStats:
    @property
    def acceptance_rate(self) -> float | None:
        ...
    @property
    def accepted(self) -> int:
        ...
    @property
    def accepted_cut(self) -> int:
        ...
    @property
    def accepted_histogram(self) -> list[int]:
        ...
    @property
    def accepted_per_position(self) -> list[int]:
        ...
    @property
    def calibration_ms(self) -> float:
        ...
    @property
    def candidate_acceptance(self) -> float | None:
        ...
    @property
    def candidate_positions(self) -> int:
        ...
    @property
    def cut(self) -> int:
        ...
    @property
    def decode_ms(self) -> float:
        ...
    @property
    def device_ms(self) -> float:
        ...
    @property
    def draft_ms(self) -> float:
        ...
    @property
    def draft_reread_tokens(self) -> int:
        ...
    @property
    def drafted(self) -> int:
        ...
    @property
    def drafted_per_position(self) -> list[int]:
        ...
    @property
    def emitted(self) -> int:
        ...
    @property
    def in_set(self) -> float | None:
        ...
    @property
    def mean_acceptance_length(self) -> float | None:
        ...
    @property
    def note(self) -> str:
        ...
    @property
    def plain_steps(self) -> int:
        ...
    @property
    def prompt_ms(self) -> float:
        ...
    @property
    def prompt_tokens(self) -> int:
        ...
    @property
    def reproducible(self) -> bool:
        ...
    @property
    def reread_tokens(self) -> int:
        ...
    @property
    def reused_prompt_tokens(self) -> int:
        ...
    @property
    def rounds(self) -> int:
        ...
    @property
    def sample_ms(self) -> float:
        ...
    @property
    def speculation(self) -> str:
        ...
    @property
    def time_to_first_token_ms(self) -> float:
        ...
    @property
    def tokens_per_second(self) -> float | None:
        ...
    @property
    def total_ms(self) -> float:
        ...
    @property
    def verify_ms(self) -> float:
        ...
class OutputChunk:
    @property
    def from_draft(self) -> list[bool]:
        ...
    @property
    def logprobs(self) -> list[tuple[float, list[tuple[int, float]]]]:
        ...
    @property
    def text(self) -> str:
        ...
    @property
    def token_ids(self) -> list[int]:
        ...
class GenerateResult:
    @property
    def finish_reason(self) -> str:
        ...
    @property
    def from_draft(self) -> list[bool]:
        ...
    @property
    def logprobs(self) -> list[tuple[float, list[tuple[int, float]]]]:
        ...
    @property
    def n_prompt_tokens(self) -> int:
        ...
    @property
    def seed(self) -> int:
        ...
    @property
    def stats(self) -> DecodeStats:
        ...
    @property
    def stop_reason(self) -> str:
        ...
    @property
    def text(self) -> str:
        ...
    @property
    def token_ids(self) -> list[int]:
        ...
class OutputCheck:
    @property
    def cancelled(self) -> bool:
        ...
    @property
    def difference(self) -> str:
        ...
    @property
    def first_difference(self) -> int:
        ...
    @property
    def identical(self) -> bool:
        ...
    @property
    def plain(self) -> GenerateResult:
        ...
class CancelFlag:
    def __init__(self) -> None:
        ...
    def is_set(self) -> bool:
        ...
    def set(self) -> None:
        ...
class CallSlot:
    def __enter__(self) -> CancelFlag:
        ...
    def __exit__(self, kind: typing.Any, error: typing.Any, traceback: typing.Any) -> None:
        ...
    def __init__(self) -> None:
        ...
    def cancel(self) -> None:
        ...
    def close(self) -> None:
        ...
    @property
    def busy(self) -> bool:
        ...
    @property
    def closed(self) -> bool:
        ...
class StreamBase:
    def __exit__(self, kind: typing.Any, error: typing.Any, traceback: typing.Any) -> None:
        ...
    def __init__(self, cancel: CancelFlag) -> None:
        ...
    def __next__(self) -> typing.Any:
        ...
class Memory:
    def __init__(self, path: bytes, max_tokens: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def bind(self, model: Model) -> None:
        ...
    def clear(self) -> None:
        ...
    def save(self) -> None:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
class DraftModelOptions:
    sampling: str
    def __init__(self) -> None:
        ...
    @property
    def branch(self) -> int:
        ...
    @branch.setter
    def branch(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def draft_top_k(self) -> int | None:
        ...
    @draft_top_k.setter
    def draft_top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def head_tokens(self) -> int | None:
        ...
    @head_tokens.setter
    def head_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def temperature(self) -> float | None:
        ...
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex | None) -> None:
        ...
class NGramOptions:
    keep: bool
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def filler_top_k(self) -> int:
        ...
    @filler_top_k.setter
    def filler_top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def min_count(self) -> int:
        ...
    @min_count.setter
    def min_count(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def n(self) -> int:
        ...
    @n.setter
    def n(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class SuffixOptions:
    corpus: bytes
    corpus_path: bytes
    keep: bool
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def max_store(self) -> int:
        ...
    @max_store.setter
    def max_store(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def min_match(self) -> int:
        ...
    @min_match.setter
    def min_match(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class RecyclingOptions:
    keep: bool
    tree: bool
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def top_k(self) -> int:
        ...
    @top_k.setter
    def top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class MtpOptions:
    sampling: str
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def draft_top_k(self) -> int | None:
        ...
    @draft_top_k.setter
    def draft_top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def head_tokens(self) -> int | None:
        ...
    @head_tokens.setter
    def head_tokens(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def temperature(self) -> float | None:
        ...
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex | None) -> None:
        ...
class EagleOptions:
    sampling: str
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def draft_top_k(self) -> int | None:
        ...
    @draft_top_k.setter
    def draft_top_k(self, arg0: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def temperature(self) -> float | None:
        ...
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex | None) -> None:
        ...
class LayerSkipOptions:
    sampling: str
    def __init__(self) -> None:
        ...
    @property
    def draft_max(self) -> int | None:
        ...
    @draft_max.setter
    def draft_max(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def draft_min(self) -> int:
        ...
    @draft_min.setter
    def draft_min(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def gamma(self) -> int | None:
        ...
    @gamma.setter
    def gamma(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def n_layers(self) -> int | None:
        ...
    @n_layers.setter
    def n_layers(self, arg1: typing.SupportsInt | typing.SupportsIndex | None) -> None:
        ...
    @property
    def temperature(self) -> float | None:
        ...
    @temperature.setter
    def temperature(self, arg0: typing.SupportsFloat | typing.SupportsIndex | None) -> None:
        ...
class SessionOptions:
    adaptive: bool
    kv_type: str
    memory: Memory
    prefer_next_tokens: bool
    use_cache: bool
    verifier: str
    def __init__(self) -> None:
        ...
    @property
    def drafters(self) -> list[DraftModelOptions | NGramOptions | SuffixOptions | RecyclingOptions | LayerSkipOptions | EagleOptions | MtpOptions]:
        ...
    @drafters.setter
    def drafters(self, arg0: collections.abc.Sequence[DraftModelOptions | NGramOptions | SuffixOptions | RecyclingOptions | LayerSkipOptions | EagleOptions | MtpOptions]) -> None:
        ...
    @property
    def n_ctx(self) -> int:
        ...
    @n_ctx.setter
    def n_ctx(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Session:
    def __init__(self, target: Model, draft: Model | None, options: SessionOptions, *, poll_signals: bool) -> None:
        ...
    def cached_tokens(self) -> list[int]:
        ...
    def check_output(self, request: GenerateRequest, result: GenerateResult, *, cancel: CancelFlag, poll_signals: bool) -> OutputCheck:
        ...
    def encode_prompt(self, request: GenerateRequest) -> list[int]:
        ...
    def fork(self) -> Session:
        ...
    def generate(self, request: GenerateRequest, *, on_chunk: typing.Any, on_progress: typing.Any, on_round: typing.Any, cancel: CancelFlag, poll_signals: bool) -> GenerateResult:
        ...
    def load(self, path: bytes, *, poll_signals: bool) -> None:
        ...
    def require_checkable(self, request: GenerateRequest) -> None:
        ...
    def reset(self) -> None:
        ...
    def save(self, path: bytes, *, poll_signals: bool) -> None:
        ...
    def speed_line(self, stats: DecodeStats, bandwidth: typing.SupportsFloat | typing.SupportsIndex) -> str:
        ...
    @property
    def busy(self) -> bool:
        ...
    @property
    def drafter(self) -> str:
        ...
    @property
    def memory_bytes(self) -> int:
        ...
    @property
    def n_ctx(self) -> int:
        ...
    @property
    def remembers(self) -> bool:
        ...
class Ticket:
    def cancel(self) -> None:
        ...
class EngineOptions:
    session: SessionOptions
    share_prefixes: bool
    def __init__(self) -> None:
        ...
    @property
    def kv_bytes(self) -> int:
        ...
    @kv_bytes.setter
    def kv_bytes(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def max_queue(self) -> int:
        ...
    @max_queue.setter
    def max_queue(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def max_requests(self) -> int:
        ...
    @max_requests.setter
    def max_requests(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Engine:
    def __init__(self, target: Model, draft: Model | None, options: EngineOptions, *, poll_signals: bool) -> None:
        ...
    def close(self) -> None:
        ...
    def speed_line(self, stats: DecodeStats, bandwidth: typing.SupportsFloat | typing.SupportsIndex) -> str:
        ...
    def stats(self) -> dict[str, typing.Any]:
        ...
    def submit(self, request: GenerateRequest, told: typing.Any, *, rounds: bool, time_limit: typing.SupportsFloat | typing.SupportsIndex | None, poll_signals: bool) -> bool:
        ...
    def time_out(self, request: GenerateRequest, *, poll_signals: bool) -> GenerateResult:
        ...
    @property
    def n_ctx(self) -> int:
        ...
def build_info() -> dict[str, typing.Any]:
    ...
def check_pair(target: Model, draft: Model) -> dict[str, typing.Any]:
    ...
def drafter_names() -> list[str]:
    ...
def generate_many(model: Model, *, prompts: collections.abc.Sequence[collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]], seeds: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], sampling: SamplingParams, max_tokens: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], ignore_eos: bool, keep_eos: bool, n_logprobs: typing.SupportsInt | typing.SupportsIndex, n_parallel: typing.SupportsInt | typing.SupportsIndex, n_ctx: typing.SupportsInt | typing.SupportsIndex, layers: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], on_progress: typing.Any, poll_signals: bool) -> list[tuple[list[int], str, list[tuple[float, list[tuple[int, float]]]], HiddenStates | None]]:
    ...
def inspect(path: bytes, *, max_array: typing.SupportsInt | typing.SupportsIndex) -> dict[str, typing.Any]:
    ...
def kept_options(path: bytes, target: Model, *, poll_signals: bool) -> tuple[int, str]:
    ...
def parse_drafters(names: str, has_draft_model: bool) -> list[DraftModelOptions | NGramOptions | SuffixOptions | RecyclingOptions | LayerSkipOptions | EagleOptions | MtpOptions]:
    ...
def quantize(source: bytes, target: bytes, type: str, *, n_threads: typing.SupportsInt | typing.SupportsIndex, dry_run: bool, overwrite: bool, pure: bool, allow_requantize: bool, leave_output_tensor: bool, output_tensor_type: str, token_embedding_type: str, split_max_size: str, split_max_tensors: typing.SupportsInt | typing.SupportsIndex, on_progress: typing.Any, poll_signals: bool) -> dict[str, typing.Any]:
    ...
def read_bandwidth(n_threads: typing.SupportsInt | typing.SupportsIndex = 0) -> float:
    ...
def take_log() -> list[tuple[int, str]]:
    ...
def verifier_names() -> list[str]:
    ...
__version__: str = '0.2.0'
