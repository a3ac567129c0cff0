"""config.json: typed access, and a refusal of every key that is not known to be harmless."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Any

from .errors import ConvertError, short
from .safe_json import read_object

# Keys that do not change what the model computes, or that are checked elsewhere.
HARMLESS = set(
    """
    _name_or_path _attn_implementation _attn_implementation_autoset _flash_attn_2_enabled
    architectures attention_dropout attention_probs_dropout_prob
    attn_implementation
    attn_pdrop bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    classifier_dropout cross_attention_hidden_size decoder_start_token_id diversity_penalty
    do_sample dtype early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id
    gradient_checkpointing hidden_dropout hidden_dropout_prob id2label initializer_range
    is_decoder is_llama_config label2id length_penalty max_length min_length
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_scores pad_token_id prefix pretraining_tp
    problem_type remove_invalid_values repetition_penalty resid_pdrop return_dict
    return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version typical_p unk_token_id unsloth_fixed
    unsloth_version use_bfloat16 use_cache
    """.split()
)
# Keys that would change the arithmetic; only these values leave it as it is here.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "embedding_multiplier": (1, None),
    "attention_multiplier": (None,),
    "residual_multiplier": (1, None),
    "logits_scaling": (1, None),
    "final_logit_softcapping": (None,),
    "attn_logit_softcapping": (None,),
    "num_local_experts": (None, 0),
    "num_experts": (None, 0),
    "pruned_heads": (None, {}),
    "quantization_config": (None,),
    "use_mrope": (False, None),
    "use_qk_norm": (False, None),
    "qk_layernorm": (False, None),
    "query_key_norm": (False, None),
    "rope_interleaved": (False, None),
    "no_rope_layers": (None, []),
    "interleaved_sliding_window": (None,),
    "is_causal": (True, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
}
# Keys that --ignore-key may name although their values are looked at: they only ever lead to a
# refusal. All others that are read give sizes or numbers, without which there is no file.
CHECKED = set(
    """
    attention_bias auto_map hidden_act layer_types max_window_layers mlp_bias
    sliding_window use_sliding_window
    """.split()
)
SMALLEST, LARGEST = 1e-30, 1e30  # of a number in a GGUF file, which is a float32
_MISSING = object()


class Config:
    """Remembers which keys were looked at; what is left over must be harmless."""

    def __init__(
        self, values: dict[str, Any], path: pathlib.Path | str, ignored: Iterable[str] = ()
    ) -> None:
        """Keys that are `ignored` count as absent."""
        self.path = path
        self.ignored = frozenset(ignored)
        self.values = {key: value for key, value in values.items() if key not in self.ignored}
        self.notes: list[str] = []  # what a user should know
        self._used: set[str] = set()
        absent = sorted(self.ignored - set(values))
        if absent:
            self.notes.append(f"--ignore-key: config.json has no {short(', '.join(absent))}")

    @classmethod
    def load(cls, folder: pathlib.Path, ignored: Iterable[str] = ()) -> Config:
        path = folder / "config.json"
        if not path.is_file():
            raise ConvertError(f"{folder}: config.json is missing; is this a checkpoint folder?")
        return cls(read_object(path), path, ignored)

    def fail(self, key: str, expected: str, found: Any = _MISSING) -> ConvertError:
        """`found`: the value, where it is not simply that of the key."""
        value = self.values.get(key, _MISSING) if found is _MISSING else found
        text = "nothing" if value is _MISSING else short(repr(value))
        return ConvertError(f"{self.path}: '{key}' should be {expected}, found {text}")

    def has(self, key: str) -> bool:
        self._used.add(key)
        return self.values.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        self._used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def integer(self, key: str, default: int | None = None, *, low: int = 1) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value < 1 << 31:
            raise self.fail(key, f"a whole number from {low}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        return self.checked_number(key, self.get(key, default))

    def checked_number(self, key: str, value: Any) -> float:
        """`key` names the value in a message."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(key, "a number", value)
        if not SMALLEST <= value <= LARGEST:  # nor NaN, which JSON of Python may hold
            raise self.fail(key, f"a number from {SMALLEST:g} to {LARGEST:g}", value)
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def require(self, key: str, allowed: Iterable[Any], why: str, default: Any = None) -> None:
        """Refuses a value under which the model would compute something else."""
        if self.get(key, default) not in allowed:
            choices = ", ".join(map(repr, allowed))
            raise ConvertError(f"{self.fail(key, choices)}: {why}")

    def refuse_unknown(self) -> None:
        """Call when everything has been read."""
        needed = sorted(self.ignored & self._used - CHECKED - set(NEUTRAL) - HARMLESS)
        if needed:
            raise ConvertError(
                f"{self.path}: --ignore-key {needed[0]}: this key is known and part of the model; "
                "only keys that do not change what it computes can be left out"
            )
        for key, neutral in NEUTRAL.items():
            if key in self.values and key not in self._used:
                reason = "this changes the arithmetic and is not supported; if it surely does not"
                self.require(key, neutral, f"{reason} here, pass --ignore-key {key}")
        unknown = sorted(set(self.values) - self._used - HARMLESS)
        if unknown:
            raise ConvertError(
                f"{self.path}: unknown keys: {short(', '.join(unknown), 300)}; they may change "
                "what the model computes. Pass --ignore-key NAME for each that surely does not"
            )
