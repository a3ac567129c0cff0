"""What the values of options may be.

Made by tools/gen_options.py from tools/options_schema: change those.
"""

from ._checks import Callback, Check, Choice, Items, Real, Table, Text, Truth, Whole

# fmt: off
CHECKS: dict[str, dict[str, Check]] = {
    "Model": {
        "device": Choice(('auto', 'cpu', 'cuda')),
        "n_threads": Whole(1, 256, optional=True),
        "n_gpu_layers": Whole(0, 100000),
        "vram_budget": Whole(1, 1152921504606846976, optional=True),
        "n_ctx": Whole(2, 2147483647, optional=True),
        "kv_type": Choice(('f32', 'f16', 'q8_0')),
        "repack": Choice(('auto', 'off')),
        "check_tensors": Truth(),
        "requantize": Choice(('q4_0', 'q4_1', 'q5_0', 'q5_1', 'q8_0'), optional=True),
        "on_progress": Callback(optional=True),
    },
    "Decoder": {
        "n_ctx": Whole(2, 2147483647, optional=True),
        "kv_type": Choice(('f32', 'f16', 'q8_0'), optional=True),
    },
    "DraftModel": {
        "draft_max": Whole(1, 64, optional=True),
        "draft_min": Whole(0, 64),
        "gamma": Whole(0, 64, optional=True),
        "sampling": Choice(('auto', 'greedy', 'sampled', 'coupled')),
        "temperature": Real(0, 1000000, optional=True),
        "head_tokens": Whole(0, 1073741824, optional=True),
        "draft_top_k": Whole(1, 2147483647, optional=True),
        "branch": Whole(1, 16),
    },
    "NGram": {
        "n": Whole(1, 16),
        "min_count": Whole(1, 1000000),
        "filler_top_k": Whole(1, 64),
        "keep": Truth(),
        "draft_max": Whole(1, 64, optional=True),
        "draft_min": Whole(0, 64),
        "gamma": Whole(0, 64, optional=True),
    },
    "SuffixAutomaton": {
        "min_match": Whole(1, 64),
        "corpus": Text(optional=True),
        "keep": Truth(),
        "max_store": Whole(1024, 67108864),
        "draft_max": Whole(1, 64, optional=True),
        "draft_min": Whole(0, 64),
        "gamma": Whole(0, 64, optional=True),
    },
    "TokenRecycling": {
        "top_k": Whole(1, 32),
        "tree": Truth(),
        "keep": Truth(),
        "draft_max": Whole(1, 64, optional=True),
        "draft_min": Whole(0, 64),
        "gamma": Whole(0, 64, optional=True),
    },
    "LayerSkip": {
        "n_layers": Whole(1, 1000, optional=True),
        "sampling": Choice(('auto', 'greedy', 'sampled', 'coupled')),
        "temperature": Real(0, 1000000, optional=True),
        "draft_max": Whole(1, 64, optional=True),
        "draft_min": Whole(0, 64),
        "gamma": Whole(0, 64, optional=True),
    },
    "many": {
        "keep_eos": Truth(),
        "n_parallel": Whole(1, 64),
        "n_ctx": Whole(2, 2147483647, optional=True),
        "on_done": Callback(optional=True),
    },
    "call": {
        "max_tokens": Whole(0, 2147483647, optional=True),
        "ignore_eos": Truth(),
        "logprobs": Whole(0, 100, optional=True),
        "render_special": Truth(),
        "parse_special": Truth(),
        "tools": Items(optional=True),
        "template": Text(optional=True),
        "template_args": Table(optional=True),
        "on_progress": Callback(optional=True),
        "on_round": Callback(optional=True),
        "on_token": Callback(optional=True),
        "verify_output": Truth(),
    },
    "SamplingParams": {
        "repetition_penalty": Real(0, 100, open_low=True),
        "presence_penalty": Real(-100, 100),
        "frequency_penalty": Real(-100, 100),
        "penalty_last_n": Whole(-1, 2147483647),
        "temperature": Real(0, 1000000),
        "top_k": Whole(0, 2147483647),
        "top_p": Real(0, 1, open_low=True),
        "min_p": Real(0, 1, open_high=True),
        "noise_scale": Real(0, 100),
        "seed": Whole(0, 18446744073709551615, optional=True),
    },
    "quantize": {
        "n_threads": Whole(1, 256, optional=True),
        "dry_run": Truth(),
        "overwrite": Truth(),
        "pure": Truth(),
        "allow_requantize": Truth(),
        "leave_output_tensor": Truth(),
        "output_tensor_type": Text(optional=True),
        "token_embedding_type": Text(optional=True),
        "on_progress": Callback(optional=True),
    },
}
# fmt: on
