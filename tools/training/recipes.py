"""The models that ship with the project: their shapes and how long each is trained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import transformers

CONTEXT = 512  # the longest window of training
LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int


@dataclass(frozen=True)
class Recipe:
    name: str
    architecture: str  # "llama" or "neox"
    corpus: str  # "python" or "manuals"
    files: tuple[str, str]  # of target and draft, without .q8_0.gguf
    title: str
    writes: str
    vocab: int
    split_digits: bool
    target: Shape
    draft: Shape
    window: int = 256
    batch: int = 8
    matrix_rate: float = 0.01
    other_rate: float = 0.004


RECIPES = {
    "pycode": Recipe(
        name="pycode",
        architecture="llama",
        corpus="python",
        files=("pycode-llama-5m", "pycode-llama-draft"),
        title="specdec pycode",
        writes="writes Python; trained on the standard library of Python",
        vocab=4096,
        split_digits=True,
        target=Shape(hidden=256, layers=6, heads=4, kv_heads=2, inner=704),
        draft=Shape(hidden=128, layers=2, heads=2, kv_heads=1, inner=384),
    ),
    "manuals": Recipe(
        name="manuals",
        architecture="neox",
        corpus="manuals",
        files=("manuals-neox-7m", "manuals-neox-draft"),
        title="specdec manuals",
        writes="writes English manual pages; trained on free software's manuals",
        vocab=4096,
        split_digits=False,
        target=Shape(hidden=256, layers=6, heads=4, kv_heads=4, inner=1024),
        draft=Shape(hidden=96, layers=1, heads=3, kv_heads=3, inner=384),
    ),
}


def build(recipe: Recipe, shape: Shape) -> transformers.PreTrainedModel:
    """A freshly initialised model of the recipe's architecture; token 0 ends a document."""
    common = {
        "vocab_size": recipe.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": CONTEXT,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "use_cache": False,
        "initializer_range": 0.02,
    }
    if recipe.architecture == "llama":
        config = transformers.LlamaConfig(
            **common, num_key_value_heads=shape.kv_heads, tie_word_embeddings=True
        )
        model = transformers.LlamaForCausalLM(config)
    else:
        config = transformers.GPTNeoXConfig(
            **common, use_parallel_residual=True, tie_word_embeddings=False
        )
        model = transformers.GPTNeoXForCausalLM(config)
    # On a CPU and for windows this short, plain matrix products beat the fused attention.
    model.set_attn_implementation("sdpa" if torch.cuda.is_available() else "eager")
    return model
