"""Logits agree with transformers on random checkpoints: weights F32, cache F32, bound 1e-4."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tiny_models
import tiny_transformers
from helpers import native

testing = native("model")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

BOUND = 1e-4
N_TOKENS = 90

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
COMMON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


def llama(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "tie_word_embeddings": False} | changes
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**options))


def mixtral(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "num_local_experts": 5} | changes
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**options))


def qwen2(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "tie_word_embeddings": True} | changes
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**options))


def qwen3(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "head_dim": 32, "tie_word_embeddings": True}
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**(options | changes)))


def qwen35(**changes: Any) -> Any:
    options = COMMON | {
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
        # Sums of keys that hardly agree are small: norms of them would make rounding large.
        "rms_norm_eps": 1e-2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 6,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
        },
    }
    return transformers.Qwen3_5ForCausalLM(transformers.Qwen3_5TextConfig(**(options | changes)))


EXPERTS = {
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "num_experts": 5,
    "num_experts_per_tok": 2,
}


def qwen35_moe(**changes: Any) -> Any:
    options = qwen35().config.to_dict() | {"model_type": "qwen3_5_moe_text"} | EXPERTS
    del options["intermediate_size"]
    config = transformers.Qwen3_5MoeTextConfig(**(options | changes))
    return transformers.Qwen3_5MoeForCausalLM(config)


def qwen3_next(**changes: Any) -> Any:
    options = qwen35().config.to_dict() | {"model_type": "qwen3_next"} | EXPERTS
    del options["rope_parameters"]["mrope_section"]
    options["norm_topk_prob"] = True
    return transformers.Qwen3NextForCausalLM(transformers.Qwen3NextConfig(**(options | changes)))


def qwen3_moe(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "head_dim": 32, "moe_intermediate_size": 24}
    options |= {"num_experts": 5, "num_experts_per_tok": 2, "norm_topk_prob": True}
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**(options | changes)))


def smollm3(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "num_hidden_layers": 5, "pad_token_id": 0}
    return transformers.SmolLM3ForCausalLM(transformers.SmolLM3Config(**(options | changes)))


def granite(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "attention_multiplier": 0.11}
    options |= {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "logits_scaling": 3.0}
    return transformers.GraniteForCausalLM(transformers.GraniteConfig(**(options | changes)))


def granite_moe(shared: int = 40, **changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "attention_multiplier": 0.11}
    options |= {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "logits_scaling": 3.0}
    options |= {"num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 48}
    if shared == 0:
        config = transformers.GraniteMoeConfig(**(options | changes))
        return transformers.GraniteMoeForCausalLM(config)
    options["shared_intermediate_size"] = shared
    config = transformers.GraniteMoeSharedConfig(**(options | changes))
    return transformers.GraniteMoeSharedForCausalLM(config)


def gemma2(**changes: Any) -> Any:
    options = COMMON | {
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 12,
        "attn_logit_softcapping": 5.0,
        "attn_implementation": "eager",
    }
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**(options | changes)))


def gemma3(**changes: Any) -> Any:
    theta = {"sliding_attention": 1e4, "full_attention": 1e6}
    options = COMMON | {
        "num_key_value_heads": 2,
        "num_hidden_layers": 7,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 12,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": value} for kind, value in theta.items()
        },
    }
    return transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**(options | changes)))


def olmo2(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2} | changes
    return transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**options))


def olmo3(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "num_hidden_layers": 4, "sliding_window": 12}
    return transformers.Olmo3ForCausalLM(transformers.Olmo3Config(**(options | changes)))


def olmoe(**changes: Any) -> Any:
    options = COMMON | {"num_key_value_heads": 2, "num_experts": 5, "num_experts_per_tok": 2}
    return transformers.OlmoeForCausalLM(transformers.OlmoeConfig(**(options | changes)))


def gpt_oss(**changes: Any) -> Any:
    rope = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "truncate": False}
    options = COMMON | {
        "num_key_value_heads": 2,
        "num_hidden_layers": 4,
        "head_dim": 32,
        "num_local_experts": 5,
        "num_experts_per_tok": 2,
        "sliding_window": 12,
        "rope_parameters": rope | {"original_max_position_embeddings": 128},
    }
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**(options | changes)))


def phi3(original: int = 256, **changes: Any) -> Any:
    """The session of a test has room for 256 tokens: the long factors are those of 64."""
    options = COMMON | {"num_key_value_heads": 2, "pad_token_id": 0, "sliding_window": None}
    options |= {"original_max_position_embeddings": original}
    options["rope_parameters"] = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.75,
        "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
        "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 8.0],
    }
    return transformers.Phi3ForCausalLM(transformers.Phi3Config(**(options | changes)))


def neox(**changes: Any) -> Any:
    options = COMMON | {"rotary_pct": 0.25, "hidden_act": "gelu"} | changes
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**options))


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0} | more


CASES: dict[str, Callable[[], Any]] = {
    "llama grouped queries": lambda: llama(),
    "llama one kv head": lambda: llama(num_key_value_heads=1),
    "llama all heads": lambda: llama(num_key_value_heads=4),
    "llama tied head": lambda: llama(tie_word_embeddings=True),
    "llama attention biases": lambda: llama(attention_bias=True),
    "llama wide heads": lambda: llama(head_dim=32),
    "llama odd sizes": lambda: llama(
        hidden_size=72, intermediate_size=100, num_attention_heads=6, num_key_value_heads=3
    ),
    "llama large theta": lambda: llama(
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}
    ),
    "llama 3 rope factors": lambda: llama(rope_parameters=LLAMA3_ROPE),
    "llama linear rope": lambda: llama(rope_parameters=rope("linear")),
    "llama yarn rope": lambda: llama(
        rope_parameters=rope("yarn", original_max_position_embeddings=128)
    ),
    "mixtral": lambda: mixtral(),
    "mixtral window": lambda: mixtral(sliding_window=12),
    "qwen2 tied head": lambda: qwen2(),
    "qwen2 own head": lambda: qwen2(tie_word_embeddings=False, num_key_value_heads=1),
    "qwen3": lambda: qwen3(),
    "qwen3 yarn rope, own head": lambda: qwen3(
        tie_word_embeddings=False,
        rope_parameters=rope("yarn", original_max_position_embeddings=128),
    ),
    "qwen35": lambda: qwen35(),
    "qwen35 own head, all heads, another interval": lambda: qwen35(
        tie_word_embeddings=False,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        num_hidden_layers=5,
        layer_types=["linear_attention", "full_attention"] * 2 + ["linear_attention"],
    ),
    "qwen35moe": lambda: qwen35_moe(),
    "qwen35moe own head": lambda: qwen35_moe(tie_word_embeddings=False),
    "qwen3next": lambda: qwen3_next(),
    "qwen3next own head, all heads": lambda: qwen3_next(
        tie_word_embeddings=False, linear_num_key_heads=6
    ),
    "qwen3moe": lambda: qwen3_moe(),
    "qwen3moe all experts": lambda: qwen3_moe(num_experts_per_tok=5),
    "smollm3": lambda: smollm3(),
    "smollm3 own head": lambda: smollm3(tie_word_embeddings=False),
    "granite": lambda: granite(),
    "granite tied head": lambda: granite(tie_word_embeddings=True),
    "granitemoe": lambda: granite_moe(),
    "granitemoe without a shared expert": lambda: granite_moe(0, tie_word_embeddings=True),
    "gemma2": lambda: gemma2(),
    "gemma2 without caps": lambda: gemma2(
        attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": lambda: gemma3(),
    "gemma3 capped logits": lambda: gemma3(final_logit_softcapping=2.0),
    "gemma3 linear rope": lambda: gemma3(
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        }
    ),
    "gemma3 another pattern": lambda: gemma3(
        num_hidden_layers=3,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "olmo2": lambda: olmo2(),
    "olmo2 tied head": lambda: olmo2(tie_word_embeddings=True, num_key_value_heads=1),
    "olmo3": lambda: olmo3(),
    "olmo3 yarn rope": lambda: olmo3(
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": rope("yarn", original_max_position_embeddings=128),
        }
    ),
    "olmoe": lambda: olmoe(),
    "gpt-oss": lambda: gpt_oss(),
    "gpt-oss truncating": lambda: gpt_oss(
        rope_parameters=rope("yarn", original_max_position_embeddings=128)
    ),
    "gpt-oss another pattern": lambda: gpt_oss(
        num_hidden_layers=3, layer_types=["full_attention"] * 2 + ["sliding_attention"]
    ),
    "phi3 short factors": lambda: phi3(),
    "phi3 long factors": lambda: phi3(64),
    "phi3 window, tied head": lambda: phi3(64, sliding_window=12, tie_word_embeddings=True),
    "phi3 without scaling": lambda: phi3(
        num_key_value_heads=1, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
    ),
    "gptneox parallel": lambda: neox(),
    "gptneox sequential": lambda: neox(use_parallel_residual=False),
    "gptneox full rotation": lambda: neox(rotary_pct=1.0),
    "gptneox tied head": lambda: neox(tie_word_embeddings=True),
}


def randomise(model: Any) -> None:
    """Fresh checkpoints have zero biases, unit norms and tiny weights: make every part count."""
    gemma = model.config.model_type.startswith("gemma")  # whose norms add 1 and embeddings sqrt(E)
    qwen35 = model.config.model_type.startswith(("qwen3_5", "qwen3_next"))
    gpt_oss = model.config.model_type == "gpt_oss"
    adds_one = gemma or qwen35
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                p.normal_(0.0 if adds_one and "linear_attn" not in name else 1.0, 0.2)
            elif p.ndim == 1:
                p.normal_(0.0, 0.3)
            elif name.endswith("experts.gate_up_proj"):
                # gpt-oss clamps what is beyond 7.
                p.normal_(0.0, 0.4 if gpt_oss else p.shape[-1] ** -0.5)
            elif gpt_oss and name.endswith("experts.down_proj"):
                p.normal_(0.0, 0.02)
            elif "embed_tokens" in name or "embed_in" in name:
                p.normal_(0.0, 0.15 if gemma else 0.6 if qwen35 else 1.0)
            else:
                p.normal_(0.0, p.shape[-1] ** -0.5)
            if qwen35 and name == "model.norm.weight" and model.config.tie_word_embeddings:
                p.sub_(0.7)


def expected_logits(model: Any, tokens: list[int]) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0].float().numpy()


@pytest.mark.parametrize("case", CASES)
def test_logits_agree_with_transformers(case: str, backend: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(zlib.crc32(case.encode()))
    model = CASES[case]()
    randomise(model)
    keys, tensors = tiny_transformers.from_transformers(model)
    path = tiny_models.write_gguf(tmp_path / "model.gguf", keys, tensors)
    tokens = np.random.default_rng(1).integers(0, model.config.vocab_size, N_TOKENS).tolist()

    session = testing.Model(str(path), backend=backend).session(n_ctx=256, kv_type="f32")
    found = session.forward(tokens[:-8])
    found = np.concatenate([found, *(session.forward([t]) for t in tokens[-8:])])

    expected = expected_logits(model, tokens)
    assert found.shape == expected.shape
    assert expected.std() > 0.3
    assert np.abs(found - expected).max() < BOUND


def test_a_padded_vocabulary_shows_only_real_tokens(backend: str, tmp_path: pathlib.Path) -> None:
    torch.manual_seed(3)
    model = neox(vocab_size=320)
    randomise(model)
    keys, tensors = tiny_transformers.from_transformers(model)
    keys |= tiny_models.byte_tokenizer(301)
    path = tiny_models.write_gguf(tmp_path / "model.gguf", keys, tensors)
    loaded = testing.Model(str(path), backend=backend)
    assert loaded.config["n_tokens"] == 301
    assert loaded.config["vocab_size"] == 320
    assert any("padded_vocabulary" in warning for warning in loaded.warnings)

    tokens = list(range(0, 300, 7))
    found = loaded.session(n_ctx=64).forward(tokens)
    assert found.shape == (len(tokens), 301)
    assert np.abs(found - expected_logits(model, tokens)[:, :301]).max() < BOUND


@pytest.fixture(params=["cpu", "reference"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
