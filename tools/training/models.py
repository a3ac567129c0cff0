"""Freshly initialised models of a recipe."""

from __future__ import annotations

import torch
import transformers

from training.recipes import CONTEXT, Recipe, Shape


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
