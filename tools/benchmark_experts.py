"""What speculation costs and brings on a mixture of experts: writes a model of the shape of
Qwen3-30B-A3B with random weights, times passes of 1 to 16 rows, and decodes prompts plainly and
with `auto`.

    python tools/benchmark_experts.py model.gguf [--layers 8] [--type Q4_K] [--peer-python PYTHON]

A model that is there already is measured as it is. The vocabulary is cut in proportion to the
layers, so that the head keeps its share. With random weights rows choose experts nearly
independently: the worst case for passes of several rows.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np

from bench_common import machine, run_json

ARCH = "qwen3moe"
HIDDEN, HEADS, KV_HEADS, HEAD_DIM = 2048, 32, 4, 128
EXPERTS, USED, EXPERT_SIZE = 128, 8, 768
LAYERS, VOCAB = 48, 151936
# Where the scales of a block are: d, and that of the minima.
SCALES = {"Q4_K": (0, 2), "Q6_K": (208, None), "Q8_0": (0, None)}
MIN_RATIO = {"Q4_K": 7.5}  # of dmin to d, so that the mean is 0
PROMPTS = (
    "def quicksort(items):\n",
    "The quick brown fox jumps over the lazy dog. The quick brown fox",
    "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    '{"name": "a", "value": 1}, {"name": "b", "value": 2}, {"name": "c",',
    "Once upon a time there was a house in the woods, and in the house",
)


def random_rows(
    dtype: str, n_rows: int, n_in: int, rng: np.random.Generator
) -> tuple[np.ndarray, Any]:
    """Random blocks whose weights have the mean 0 and the spread 1 / sqrt(n_in)."""
    kind = gguf.GGMLQuantizationType[dtype]
    n_elements, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (n_rows, n_in // n_elements, n_bytes), dtype=np.uint8)
    d_at, min_at = SCALES[dtype]

    def set_scale(at: int, values: np.ndarray) -> None:
        blocks[..., at : at + 2] = values.astype(np.float16)[..., None].view(np.uint8)

    d = rng.uniform(0.5, 1.5, blocks.shape[:2])
    factor = 1.0
    for _ in range(2):  # the spread is measured with d near 1, then scaled
        set_scale(d_at, d * factor)
        if min_at is not None:
            set_scale(min_at, d * factor * MIN_RATIO[dtype])
        values = gguf.quants.dequantize(blocks[:64].reshape(min(64, n_rows), -1), kind)
        factor *= 1.0 / (np.sqrt(n_in) * float(values.std()))
    return blocks.reshape(n_rows, -1), kind


def tokenizer(n_tokens: int) -> dict[str, Any]:
    """Bytes, tokens that no text becomes, and an end."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {b: chr(b) for b in printable}
    for n, b in enumerate(b for b in range(256) if b not in alphabet):
        alphabet[b] = chr(256 + n)
    extra = [f"token{i}" for i in range(n_tokens - 257)]
    return {
        "tokens": [alphabet[b] for b in range(256)] + extra + ["<|endoftext|>"],
        "types": [1] * (n_tokens - 1) + [3],
    }


def tensors(
    layers: int, vocab: int, dtype: str, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, Any]]:
    f32 = gguf.GGMLQuantizationType.F32

    def matrix(name: str, n_out: int, n_in: int) -> tuple[str, np.ndarray, Any]:
        return (f"{name}.weight", *random_rows(dtype, n_out, n_in, rng))

    def stack(name: str, n_out: int, n_in: int) -> tuple[str, np.ndarray, Any]:
        # Rows of a few experts in another order: what is read is all different memory.
        rows, kind = random_rows(dtype, 4 * n_out, n_in, rng)
        experts = np.stack([rows[rng.permutation(4 * n_out)[:n_out]] for _ in range(EXPERTS)])
        return (f"{name}.weight", experts, kind)

    def ones(name: str, n: int) -> tuple[str, np.ndarray, Any]:
        return (f"{name}.weight", np.ones(n, np.float32), f32)

    yield matrix("token_embd", vocab, HIDDEN)
    for layer in range(layers):
        to = f"blk.{layer}"
        yield ones(f"{to}.attn_norm", HIDDEN)
        yield matrix(f"{to}.attn_q", HEADS * HEAD_DIM, HIDDEN)
        yield matrix(f"{to}.attn_k", KV_HEADS * HEAD_DIM, HIDDEN)
        yield matrix(f"{to}.attn_v", KV_HEADS * HEAD_DIM, HIDDEN)
        yield ones(f"{to}.attn_q_norm", HEAD_DIM)
        yield ones(f"{to}.attn_k_norm", HEAD_DIM)
        yield matrix(f"{to}.attn_output", HIDDEN, HEADS * HEAD_DIM)
        yield ones(f"{to}.ffn_norm", HIDDEN)
        router = rng.standard_normal((EXPERTS, HIDDEN)) / np.sqrt(HIDDEN)
        yield (f"{to}.ffn_gate_inp.weight", router.astype(np.float32), f32)
        yield stack(f"{to}.ffn_gate_exps", EXPERT_SIZE, HIDDEN)
        yield stack(f"{to}.ffn_up_exps", EXPERT_SIZE, HIDDEN)
        yield stack(f"{to}.ffn_down_exps", HIDDEN, EXPERT_SIZE)
    yield ones("output_norm", HIDDEN)
    yield matrix("output", vocab, HIDDEN)


def write_model(path: pathlib.Path, layers: int, vocab: int, dtype: str, seed: int = 0) -> None:
    writer = gguf.GGUFWriter(path, ARCH, use_temp_file=True)
    for key, value in {
        "block_count": layers,
        "context_length": 32768,
        "embedding_length": HIDDEN,
        "feed_forward_length": 6144,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "expert_count": EXPERTS,
        "expert_used_count": USED,
        "expert_feed_forward_length": EXPERT_SIZE,
        "rope.dimension_count": HEAD_DIM,
    }.items():
        writer.add_uint32(f"{ARCH}.{key}", value)
    writer.add_float32(f"{ARCH}.attention.layer_norm_rms_epsilon", 1e-6)
    writer.add_float32(f"{ARCH}.rope.freq_base", 1e6)
    vocabulary = tokenizer(vocab)
    writer.add_string("general.name", f"random, {layers} layers of Qwen3-30B-A3B's shape")
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "gpt-2")
    writer.add_array("tokenizer.ggml.tokens", vocabulary["tokens"])
    writer.add_array("tokenizer.ggml.token_type", vocabulary["types"])
    writer.add_array("tokenizer.ggml.merges", ["Ġ t"])
    writer.add_uint32("tokenizer.ggml.eos_token_id", vocab - 1)
    writer.add_uint32("tokenizer.ggml.bos_token_id", vocab - 1)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    for name, data, kind in tensors(layers, vocab, dtype, np.random.default_rng(seed)):
        print(f"  {name}", file=sys.stderr)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def times_of_passes(
    binary: str, model: pathlib.Path, threads: int, rounds: int
) -> dict[int, float]:
    command = [binary, "bench", "-q", "--json", "-m", str(model), "-t", str(threads)]
    command += ["--rows", ",".join(map(str, range(1, 17))), "--rounds", str(rounds)]
    return {int(rows): ms for rows, ms in run_json(command)["t_ms"].items()}


def decode(model: pathlib.Path, threads: int, tokens: int, rounds: int) -> list[dict[str, Any]]:
    """Each prompt plainly and with `auto` in alternation: medians of tokens per second."""
    import specdec_native as sd

    rows = []
    with sd.Model(str(model), n_threads=threads or None, device="cpu") as target:
        decoders = {
            name: sd.Decoder(target, drafter=drafter, n_ctx=4096)
            for name, drafter in (("plain", None), ("auto", "auto"))
        }
        for prompt in PROMPTS:
            speeds: dict[str, list[float]] = {name: [] for name in decoders}
            texts = {}
            for _ in range(rounds):
                for name, decoder in decoders.items():
                    start = time.perf_counter()
                    out = decoder.generate(prompt, max_tokens=tokens, temperature=0.0)
                    seconds = time.perf_counter() - start
                    speeds[name].append(len(out.token_ids) / seconds)
                    texts[name] = out.token_ids
            if texts["plain"] != texts["auto"]:
                raise SystemExit("auto gives other tokens than plain decoding")
            plain, auto = (statistics.median(speeds[name]) for name in ("plain", "auto"))
            rows.append({"prompt": prompt, "plain": plain, "auto": auto, "ratio": auto / plain})
    return rows


def peer_speed(python: str, model: pathlib.Path, threads: int, tokens: int) -> float:
    """Tokens per second of llama.cpp, decoding plainly."""
    code = (
        "import json, sys, time\nfrom llama_cpp import Llama\n"
        "path, threads, tokens, prompt = sys.argv[1:]\n"
        "llm = Llama(path, n_ctx=4096, n_threads=int(threads) or None, verbose=False)\n"
        "llm(prompt, max_tokens=4, temperature=0.0)\n"
        "start = time.perf_counter()\n"
        "out = llm(prompt, max_tokens=int(tokens), temperature=0.0)\n"
        "seconds = time.perf_counter() - start\n"
        "print(json.dumps(out['usage']['completion_tokens'] / seconds))\n"
    )
    command = [python, "-c", code, str(model), str(threads), str(tokens), PROMPTS[0]]
    return float(run_json(command))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab", type=int, help="default: in proportion to the layers")
    parser.add_argument("--type", default="Q4_K", choices=sorted(SCALES))
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", help="a Python that has llama-cpp-python")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures there")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.layers < 1:
        raise SystemExit("--layers must be at least 1")
    vocab = options.vocab or max(1024, VOCAB * options.layers // LAYERS // 64 * 64)
    binary = shutil.which("specdec", path=str(pathlib.Path(sys.executable).parent)) or "specdec"
    if not options.model.exists():
        write_model(options.model, options.layers, vocab, options.type)
    times = times_of_passes(binary, options.model, options.threads, options.rounds)
    print("| rows | ms | T(M)/T(1) |\n|---|---|---|")
    for rows, ms in times.items():
        print(f"| {rows} | {ms:.2f} | {ms / times[1]:.2f} |")
    decoded = decode(options.model, options.threads, options.tokens, options.rounds)
    print("\n| prompt | plain tokens/s | auto tokens/s | auto / plain |\n|---|---|---|---|")
    for row in decoded:
        name = row["prompt"][:24].replace("\n", " ").replace("|", " ")
        print(f"| {name} | {row['plain']:.2f} | {row['auto']:.2f} | {row['ratio']:.3f} |")
    figures: dict[str, Any] = {"machine": machine(options.threads), "t_ms": times}
    figures["prompts"] = decoded
    if options.peer_python:
        speed = peer_speed(options.peer_python, options.model, options.threads, options.tokens)
        figures["llama_cpp"] = speed
        print(f"\nllama.cpp, plainly: {speed:.2f} tokens/s")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
