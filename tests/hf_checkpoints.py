"""Small Hugging Face checkpoints with random weights, written without transformers or torch."""

from __future__ import annotations

import functools
import io
import json
import pathlib
import struct
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"
if str(TOOLS) not in sys.path:
    sys.path.insert(0, str(TOOLS))
SCRIPT = TOOLS / "convert_hf_to_gguf.py"

State = dict[str, np.ndarray]


# ---------------------------------------------------------------- weights


def llama_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "vocab_size": 320,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    } | changes


def neox_config(**changes: Any) -> dict[str, Any]:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "vocab_size": 320,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "tie_word_embeddings": False,
        "use_parallel_residual": True,
    } | changes


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of a checkpoint by name, independently of the converter's tables."""
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    found: dict[str, tuple[int, ...]] = {}
    if config["model_type"] == "gpt_neox":
        found["gpt_neox.embed_in.weight"] = (vocab, hidden)
        for i in range(config["num_hidden_layers"]):
            layer = f"gpt_neox.layers.{i}"
            for name, shape in {
                "attention.query_key_value": (3 * hidden, hidden),
                "attention.dense": (hidden, hidden),
                "mlp.dense_h_to_4h": (ffn, hidden),
                "mlp.dense_4h_to_h": (hidden, ffn),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items():
                found[f"{layer}.{name}.weight"] = shape
                found[f"{layer}.{name}.bias"] = shape[:1]
        found["gpt_neox.final_layer_norm.weight"] = (hidden,)
        found["gpt_neox.final_layer_norm.bias"] = (hidden,)
        found["embed_out.weight"] = (vocab, hidden)
        return found
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    found["model.embed_tokens.weight"] = (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, shape in {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (ffn, hidden),
            "mlp.up_proj": (ffn, hidden),
            "mlp.down_proj": (hidden, ffn),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            found[f"{layer}.{name}.weight"] = shape
            if config["model_type"] == "qwen2" and name[10:] in ("q_proj", "k_proj", "v_proj"):
                found[f"{layer}.{name}.bias"] = shape[:1]
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocab, hidden)
    return found


def random_state(config: Mapping[str, Any], seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in shapes(config).items()
    }


def safetensors_bytes(state: Mapping[str, np.ndarray], dtype: str = "F32") -> bytes:
    """`dtype`: F32, F16 or BF16 (cut, not rounded), of numbers that are not whole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = io.BytesIO()
    for name, values in state.items():
        begin = data.tell()
        own = {"int64": "I64", "int32": "I32", "bool": "BOOL"}.get(values.dtype.name)
        if own is not None:
            data.write(values.tobytes())
        elif dtype == "BF16":
            bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
            data.write((bits >> 16).astype("<u2").tobytes())
        else:
            data.write(values.astype("<f4" if dtype == "F32" else "<f2").tobytes())
        offsets = [begin, data.tell()]
        header[name] = {"dtype": own or dtype, "shape": list(values.shape), "data_offsets": offsets}
    return with_header(json.dumps(header).encode(), data.getvalue())


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


# ---------------------------------------------------------------- tokenizers


@functools.cache
def corpus() -> tuple[str, ...]:
    """The project's own documents."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    return tuple("\n".join(path.read_text("utf-8") for path in files).split("\n"))


@functools.cache
def trained_bpe(vocab_size: int, digits: bool = False) -> str:
    """A byte-level BPE as the JSON of a tokenizer.json; `<|endoftext|>` is 0, `<|padding|>` 1."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    steps = [pre_tokenizers.Digits(individual_digits=True), byte_level]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if digits else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return str(tokenizer.to_str())


def add_bpe(folder: pathlib.Path, vocab_size: int = 300, **options: Any) -> None:
    (folder / "tokenizer.json").write_text(trained_bpe(vocab_size, **options), "utf-8")
    names = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    write_json(
        folder / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )


@functools.cache
def trained_spm(vocab_size: int = 700, **options: Any) -> bytes:
    """A tokenizer.model as LLaMA's: BPE with byte fallback and no normalisation."""
    import sentencepiece

    model = io.BytesIO()
    defaults = {
        "model_type": "bpe",
        "byte_fallback": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "character_coverage": 0.999,
        "minloglevel": 2,
        "num_threads": 1,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in corpus() if line),
        model_writer=model,
        vocab_size=vocab_size,
        **(defaults | options),
    )
    return model.getvalue()


# ---------------------------------------------------------------- checkpoints


def write_json(path: pathlib.Path, values: Any) -> None:
    path.write_text(json.dumps(values), "utf-8")


def write_checkpoint(
    folder: pathlib.Path,
    config: Mapping[str, Any] | None = None,
    *,
    dtype: str = "F32",
    n_shards: int = 1,
    seed: int = 0,
    tokenizer: bool = True,
) -> State:
    """The state it holds, in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config or llama_config()
    write_json(folder / "config.json", config)
    if tokenizer:
        add_bpe(folder)
    state = random_state(config, seed)
    if n_shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(state, dtype))
        return state
    names, weight_map = list(state), {}
    for shard in range(n_shards):
        file_name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        part = {name: state[name] for name in names[shard::n_shards]}
        (folder / file_name).write_bytes(safetensors_bytes(part, dtype))
        weight_map |= dict.fromkeys(part, file_name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
    return state
