"""Keys of config.json as models were released with them, in the newer families: all are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("gguf", reason="gguf is not installed")

import hf_checkpoints  # noqa: F401  (finds the converter)
from gguf_convert.architectures import read_model
from gguf_convert.errors import ConvertError
from gguf_convert.hf_config import Config

COMMON = {
    "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02,
    "torch_dtype": "bfloat16", "transformers_version": "4.45.0", "use_cache": True,
}  # fmt: skip
PHI = COMMON | {
    "architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "hidden_act": "silu",
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "embd_pdrop": 0.0,
    "resid_pdrop": 0.0, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "num_hidden_layers": 32,
    "intermediate_size": 8192, "hidden_size": 3072, "original_max_position_embeddings": 4096,
}  # fmt: skip


def factors(n: int) -> dict[str, Any]:
    numbers = [1.0 + i / n for i in range(n)]
    return {"long_factor": numbers, "short_factor": numbers, "type": "longrope"}


RELEASED: dict[str, dict[str, Any]] = {
    "Phi-3-mini-4k": PHI | {
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
        "rope_scaling": None, "sliding_window": 2047, "vocab_size": 32064,
        "tie_word_embeddings": False,
    },
    "Phi-3.5-mini": PHI | {
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 131072,
        "rope_scaling": factors(48), "sliding_window": 262144, "vocab_size": 32064,
        "tie_word_embeddings": False,
    },
    "Phi-4-mini": PHI | {
        "num_attention_heads": 24, "num_key_value_heads": 8, "max_position_embeddings": 131072,
        "rope_scaling": factors(48), "sliding_window": 262144, "vocab_size": 200064,
        "tie_word_embeddings": True, "partial_rotary_factor": 0.75, "full_attn_mod": 1,
        "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False,
    },
    "Gemma 2 2B": COMMON | {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "cache_implementation": "hybrid", "head_dim": 256, "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304, "intermediate_size": 9216,
        "max_position_embeddings": 8192, "num_attention_heads": 8, "num_hidden_layers": 26,
        "num_key_value_heads": 4, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000,
    },
    "Gemma 2 27B": COMMON | {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2",
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "head_dim": 128,
        "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 4608, "intermediate_size": 36864,
        "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 46,
        "num_key_value_heads": 16, "query_pre_attn_scalar": 144, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "sliding_window": 4096, "vocab_size": 256000,
    },
    "gpt-oss-20b": COMMON | {
        "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True,
        "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2880,
        "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4,
        "num_hidden_layers": 24, "num_key_value_heads": 8, "num_local_experts": 32,
        "output_router_logits": False, "quantization_config": {
            "modules_to_not_convert": ["model.layers.*.self_attn"], "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-05, "rope_scaling": {
            "beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "rope_type": "yarn",
            "original_max_position_embeddings": 4096, "truncate": False,
        },
        "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "swiglu_limit": 7.0, "tie_word_embeddings": False, "vocab_size": 201088,
    },
    "Qwen3-Next-80B-A3B": COMMON | {
        "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next",
        "decoder_sparse_step": 1, "full_attention_interval": 4, "head_dim": 256,
        "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5120,
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
        "linear_num_value_heads": 32, "linear_value_head_dim": 128,
        "max_position_embeddings": 262144, "mlp_only_layers": [], "moe_intermediate_size": 512,
        "norm_topk_prob": True, "num_attention_heads": 16, "num_experts": 512,
        "num_experts_per_tok": 10, "num_hidden_layers": 48, "num_key_value_heads": 2,
        "output_router_logits": False, "partial_rotary_factor": 0.25, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 10000000, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 512, "tie_word_embeddings": False,
        "use_sliding_window": False, "vocab_size": 151936,
    },
    "Granite 3.1 3B A800M": COMMON | {
        "architectures": ["GraniteMoeForCausalLM"], "model_type": "granitemoe",
        "attention_multiplier": 0.015625, "embedding_multiplier": 12.0, "hidden_act": "silu",
        "hidden_size": 1536, "intermediate_size": 512, "logits_scaling": 6.0,
        "max_position_embeddings": 131072, "num_attention_heads": 24, "num_experts_per_tok": 8,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_local_experts": 40,
        "output_router_logits": False, "residual_multiplier": 0.22, "rms_norm_eps": 1e-06,
        "rope_scaling": None, "rope_theta": 10000000.0, "router_aux_loss_coef": 0.001,
        "tie_word_embeddings": True, "vocab_size": 49155,
    },
    "OLMo 3 7B": COMMON | {
        "architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3", "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 65536,
        "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 8,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
        "rms_norm_eps": 1e-06, "rope_theta": 500000, "sliding_window": 4096, "vocab_size": 100278,
        "rope_scaling": {
            "attention_factor": 1.2079441541679836, "beta_fast": 32.0, "beta_slow": 1.0,
            "factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "yarn",
        },
        "tie_word_embeddings": False,
    },
}  # fmt: skip
EXPECTED: dict[str, dict[str, Any]] = {
    "Phi-3-mini-4k": {"phi3.attention.sliding_window": 2047, "phi3.rope.dimension_count": 96},
    "Phi-3.5-mini": {
        "phi3.rope.scaling.original_context_length": 4096,
        "phi3.rope.scaling.attn_factor": pytest.approx(1.19023807),
        "phi3.attention.sliding_window": 262144,
    },
    "Phi-4-mini": {"phi3.rope.dimension_count": 96, "phi3.attention.key_length": 128},
    "Gemma 2 2B": {"gemma2.attn_logit_softcapping": 50.0, "gemma2.attention.sliding_window": 4096},
    "Gemma 2 27B": {"gemma2.attention.key_length": 128},
    "gpt-oss-20b": {
        "gpt-oss.rope.scaling.factor": 32.0,
        "gpt-oss.rope.scaling.original_context_length": 4096,
        "gpt-oss.attention.sliding_window": 128,
        "gpt-oss.expert_count": 32,
        "gpt-oss.expert_used_count": 4,
    },
    "Qwen3-Next-80B-A3B": {
        "qwen3next.expert_count": 512,
        "qwen3next.expert_feed_forward_length": 512,
        "qwen3next.expert_shared_feed_forward_length": 512,
        "qwen3next.full_attention_interval": 4,
        "qwen3next.rope.dimension_count": 64,
        "qwen3next.ssm.inner_size": 4096,
    },
    "Granite 3.1 3B A800M": {
        "granitemoe.expert_count": 40,
        "granitemoe.feed_forward_length": 512,
        "granitemoe.residual_scale": 0.22,
    },
    "OLMo 3 7B": {"olmo2.rope.scaling.factor": 8.0, "olmo2.attention.sliding_window": 4096},
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_configurations_are_read(name: str) -> None:
    model = read_model(Config(dict(RELEASED[name]), "config.json"))
    for key, value in EXPECTED[name].items():
        assert model.keys[key] == value, key
    unusual = [key for key in model.keys if key.endswith(("pattern", "yarn_truncate"))]
    assert not unusual
    if name == "OLMo 3 7B":  # the usual factor needs no key
        assert "olmo2.rope.scaling.attn_factor" not in model.keys
    factors = [target for target in model.computed if "rope_factors" in target.name]
    assert len(factors) == (2 if "longrope" in str(RELEASED[name].get("rope_scaling")) else 0)
    assert all(target.source.read(0, 48).dtype == np.float32 for target in factors)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("Phi-4-mini", {"partial_rotary_factor": 0.01}, "'partial_rotary_factor' should be an even"),
    (
        "Phi-4-mini",
        {"rope_scaling": factors(47)},
        "'long_factor' should be|'short_factor' should be",
    ),
    ("Phi-4-mini", {"full_attn_mod": 2}, "'full_attn_mod' should be 1"),
    ("Phi-3.5-mini", {"rope_scaling": {"type": "linear3"}}, "supported are default, longrope"),
    ("Gemma 2 2B", {"query_pre_attn_scalar": 200}, "'query_pre_attn_scalar' should be 256"),
    ("Gemma 2 2B", {"attn_logit_softcapping": -1.0}, "'attn_logit_softcapping' should be a number"),
    ("Gemma 2 2B", {"sliding_window": None}, "'sliding_window' should be a whole number"),
    ("OLMo 3 7B", {"layer_types": ["full_attention"]}, "'layer_types' should be a list of 32"),
    (
        "OLMo 3 7B",
        {
            "rope_scaling": None,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
        "with one rope_theta",
    ),
]


@pytest.mark.parametrize(("name", "changes", "message"), BAD)
def test_what_files_cannot_say_is_refused(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConvertError, match=message):
        read_model(Config(RELEASED[name] | changes, "config.json"))
