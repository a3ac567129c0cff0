#!/usr/bin/env python3
"""Tokens per second of plain decoding, of each drafter and of llama.cpp, in alternation.

    python tools/bench_speculation.py -m TARGET.gguf [-md DRAFT.gguf] --prompt FILE [--prompt FILE]
    python tools/bench_speculation.py -m TARGET.gguf --spec-bench spec_bench.jsonl --per-task 4
    python tools/bench_speculation.py -m TARGET.gguf --humaneval humaneval.jsonl --count 20
    python tools/bench_speculation.py -m TARGET.gguf -md DRAFT.gguf --adversarial --prompt FILE

Models are loaded once. Each round runs every method on a prompt, starting with another one each
time; speed-ups are taken within a round. At temperature 0, and above it with the verifier `match`,
all methods must emit the same tokens: if they do not, the exit code is 1.

Methods: plain, auto, ngram, suffix, recycling, layerskip, model, and peer (llama.cpp, plain);
ngram:N, suffix:N and model:N draft at most N tokens. A method that the installed version does not
know is reported. A prompt file is taken as it is, without one final newline; the questions of
Spec-Bench and the functions of HumanEval are asked through the model's chat template.

--adversarial runs `auto` with a draft model of shuffled weights, which costs as much as the real
one and is always wrong, and with the real and the shuffled one in alternation.

The peer is llama-cpp-python, see bench_llama_cpp.py; --peer-python names its Python.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from bench_common import (
    INSTALL_PEER,
    geometric_mean,
    machine,
    peer_version,
    progress,
    significant,
    spread,
    write_report,
)

SYSTEM = "You are a helpful assistant."
MOST_ROUNDS = 24  # of a prompt whose answers are short
SAMPLING = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}  # above temperature 0, for both engines


class Prompt(NamedTuple):
    id: str
    category: str
    token_ids: list[int]


class Run(NamedTuple):
    tokens_per_second: float
    decode_ms: float
    token_ids: tuple[int, ...]
    drafted: int
    accepted: int
    speculation: str
    calibration_ms: float = 0.0  # not part of decode_ms


# ---------------------------------------------------------------- the peer, in its own process


def serve_peer(model: str, n_ctx: int, n_threads: int) -> None:
    """Answers one request per line of standard input with one line of JSON."""
    try:
        import llama_cpp as ll  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(f"llama-cpp-python is not installed here.\n\n{INSTALL_PEER}") from None
    silent = ll.llama_log_callback(lambda *_: None)
    ll.llama_log_set(silent, ctypes.c_void_p(0))
    ll.llama_backend_init()
    handle = ll.llama_model_load_from_file(model.encode(), ll.llama_model_default_params())
    if not handle:
        raise SystemExit(f"llama.cpp cannot load {model}")
    params = ll.llama_context_default_params()
    params.n_ctx = n_ctx
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    context = ll.llama_init_from_model(handle, params)
    vocab = ll.llama_model_get_vocab(handle)
    memory = ll.llama_get_memory(context)

    def decode(tokens: list[int]) -> None:
        array = (ll.llama_token * len(tokens))(*tokens)
        if ll.llama_decode(context, ll.llama_batch_get_one(array, len(tokens))) != 0:
            raise SystemExit("llama_decode failed")

    print("{}", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        if request["temperature"] == 0:
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_greedy())
        else:
            for sampler in (
                ll.llama_sampler_init_top_k(SAMPLING["top_k"]),
                ll.llama_sampler_init_top_p(SAMPLING["top_p"], 1),
                ll.llama_sampler_init_min_p(SAMPLING["min_p"], 1),
                ll.llama_sampler_init_temp(request["temperature"]),
                ll.llama_sampler_init_dist(request["seed"]),
            ):
                ll.llama_sampler_chain_add(chain, sampler)
        ll.llama_memory_clear(memory, True)
        prompt = request["prompt"]
        for first in range(0, len(prompt) - 1, 512):
            decode(prompt[first : min(first + 512, len(prompt) - 1)])
        ll.llama_synchronize(context)
        tokens: list[int] = []
        token = prompt[-1]
        start = time.perf_counter()
        while len(tokens) < request["max_tokens"]:
            decode([token])
            token = ll.llama_sampler_sample(chain, context, -1)
            if ll.llama_vocab_is_eog(vocab, token):
                break
            tokens.append(token)
        elapsed = (time.perf_counter() - start) * 1000
        ll.llama_sampler_free(chain)
        print(json.dumps({"token_ids": tokens, "decode_ms": elapsed}), flush=True)


class Peer:
    """llama.cpp in another interpreter, its model loaded once."""

    def __init__(self, options: argparse.Namespace) -> None:
        command = [options.peer_python, __file__, "--serve-peer", "-m", str(options.model)]
        command += ["--ctx", str(options.ctx), "-t", str(options.threads)]
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise SystemExit("the peer's process ended")
        return json.loads(line)

    def generate(self, prompt: list[int], options: argparse.Namespace) -> Run:
        assert self.child.stdin is not None
        request = {
            "prompt": prompt,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "seed": options.seed,
        }
        self.child.stdin.write(json.dumps(request) + "\n")
        self.child.stdin.flush()
        answer = self._answer()
        tokens = tuple(answer["token_ids"])
        ms = answer["decode_ms"]
        return Run(1000 * len(tokens) / ms, ms, tokens, 0, 0, "off: peer")

    def close(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


# ---------------------------------------------------------------- our own methods


def make_drafter(sd: Any, method: str, draft: Any) -> tuple[Any, dict[str, Any]]:
    """Drafter and further options of `Decoder`; LookupError says why there is none."""
    name, _, length = method.partition(":")
    limits = {"draft_max": int(length)} if length else {}
    if name == "plain":
        return None, {}
    if name == "auto":
        if draft is None:
            return "auto", {}
        if "draft" in inspect.signature(sd.Decoder.__init__).parameters:
            return "auto", {"draft": draft}
        raise LookupError("this version has no automatic choice with a draft model")
    if name == "model":
        if draft is None:
            raise LookupError("needs a draft model: -md")
        return sd.DraftModel(draft, **limits), {}
    classes = {
        "ngram": "NGram",
        "suffix": "SuffixAutomaton",
        "recycling": "TokenRecycling",
        "layerskip": "LayerSkip",
    }
    if name not in classes:
        raise LookupError("no such method")
    if not hasattr(sd, classes[name]):
        raise LookupError("not in this version")
    return getattr(sd, classes[name])(**limits), {}


def make_decoder(sd: Any, target: Any, method: str, draft: Any, options: Any) -> Any:
    try:
        drafter, more = make_drafter(sd, method, draft)
        return sd.Decoder(target, drafter=drafter, n_ctx=options.ctx, **more)
    except sd.SpecdecError as error:
        raise LookupError(str(error)) from None


def generate(decoder: Any, prompt: list[int], options: argparse.Namespace) -> Run:
    decoder.reset()  # every method reads the whole prompt
    sampling = SAMPLING if options.temperature > 0 else {}
    result = decoder.generate(
        prompt,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=options.seed,
        **sampling,
    )
    stats = result.stats
    return Run(
        stats.tokens_per_second or 0.0,
        stats.decode_ms,
        result.token_ids,
        stats.drafted,
        stats.accepted,
        stats.speculation,
        getattr(stats, "calibration_ms", 0.0),
    )


# ---------------------------------------------------------------- prompts


def chat_tokens(target: Any, user: str) -> list[int]:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
    return list(target.tokenize(target.apply_chat_template(messages)))


def spread_out(items: list[Any], count: int | None) -> list[Any]:
    """`count` items at even distances."""
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


def spec_bench_task(category: str) -> str:
    """MT-bench's eight categories are one task."""
    tasks = ("translation", "summarization", "qa", "math_reasoning", "rag")
    return category if category in tasks else "mt_bench"


def read_lines(path: pathlib.Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def read_prompts(target: Any, options: argparse.Namespace) -> Iterator[Prompt]:
    for path in options.prompt:
        text = path.read_text("utf-8")
        text = text[:-1] if text.endswith("\n") else text
        yield Prompt(path.stem, "file", list(target.tokenize(text)))
    if options.spec_bench:
        tasks: dict[str, list[Any]] = {}
        for entry in read_lines(options.spec_bench):
            tasks.setdefault(spec_bench_task(entry["category"]), []).append(entry)
        per_task = options.per_task
        chosen = [(task, e) for task, all_ in tasks.items() for e in spread_out(all_, per_task)]
        for task, entry in spread_out(chosen, None if per_task else options.count):
            yield Prompt(
                f"{task}/{entry['question_id']}", task, chat_tokens(target, entry["turns"][0])
            )
    if options.humaneval:
        for entry in spread_out(read_lines(options.humaneval), options.count):
            question = f"Complete this function:\n```python\n{entry['prompt']}\n```"
            yield Prompt(entry["task_id"], "humaneval", chat_tokens(target, question))


# ---------------------------------------------------------------- comparing methods


def measure_prompt(
    prompt: Prompt, methods: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """All methods in turn in each round; every round starts with the next one."""
    runs: dict[str, list[Run]] = {method: [] for method in methods}
    names = list(methods)

    def measured_ms() -> float:
        own = (all_ for method, all_ in runs.items() if method != "peer")
        return min(sum(run.decode_ms for run in all_) for all_ in own)

    turn = 0
    while turn < options.rounds or (turn < MOST_ROUNDS and measured_ms() < options.min_ms):
        at = turn % len(names)
        turn += 1
        for method in names[at:] + names[:at]:
            decoder = methods[method]
            if isinstance(decoder, Peer):
                if turn > options.peer_rounds:
                    continue
                run = decoder.generate(prompt.token_ids, options)
            else:
                run = generate(decoder, prompt.token_ids, options)
            runs[method].append(run)
    reference = runs["plain"][0].token_ids
    entry: dict[str, Any] = {
        "id": prompt.id,
        "category": prompt.category,
        "prompt_tokens": len(prompt.token_ids),
        "n_tokens": len(reference),
        "rounds": turn,
        "different": [
            m
            for m, all_ in runs.items()
            if m != "peer" and any(run.token_ids != reference for run in all_)
        ],
        "methods": {},
    }
    for method, all_ in runs.items():
        cell: dict[str, Any] = {
            "tokens_per_second": spread([run.tokens_per_second for run in all_]),
            "decode_ms": spread([run.decode_ms for run in all_]),
        }
        if method != "plain" and len(reference) > 0:
            pairs = zip(all_, runs["plain"], strict=method != "peer")
            cell["speedup"] = spread([a.tokens_per_second / b.tokens_per_second for a, b in pairs])
        if all_[0].drafted:
            # The lengths that `auto` chooses depend on timing: all rounds together.
            cell["drafted"] = sum(run.drafted for run in all_)
            cell["accepted"] = sum(run.accepted for run in all_)
        if method not in ("plain", "peer"):
            cell["speculation"] = all_[-1].speculation
            if any(run.calibration_ms for run in all_):
                cell["calibration_ms"] = [significant(run.calibration_ms) for run in all_]
        entry["methods"][method] = cell
    return entry


def summarise(prompts: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Over prompts, of each one's median over rounds."""
    summary = {}
    usable = [p for p in prompts if p["n_tokens"] > 0]
    for name in names:
        cells = [p["methods"][name] for p in usable]
        speedups = [c["speedup"]["median"] if "speedup" in c else 1.0 for c in cells]
        plain_ms = sum(p["methods"]["plain"]["decode_ms"]["median"] for p in usable)
        own_ms = sum(c["decode_ms"]["median"] for c in cells)
        summary[name] = {
            "tokens_per_second": significant(
                geometric_mean([c["tokens_per_second"]["median"] for c in cells])
            ),
            "geomean": significant(geometric_mean(speedups)),
            "min": significant(min(speedups)),
            "max": significant(max(speedups)),
            "total": significant(plain_ms / own_ms),
            "slowest_prompt": usable[speedups.index(min(speedups))]["id"],
        }
    return summary


def print_comparison(report: dict[str, Any]) -> None:
    names = [m for m, state in report["methods"].items() if state == "ok"]
    print(f"{report['name']}, T = {report['temperature']}, {report['rounds']} rounds: tokens/s")
    print("| prompt | tokens | " + " | ".join(names) + " |")
    print("|" + "---|" * (len(names) + 2))
    for prompt in report["prompts"]:
        cells = []
        for name in names:
            cell = prompt["methods"][name]
            text = f"{cell['tokens_per_second']['median']:.1f}"
            if "speedup" in cell:
                text += f" ({cell['speedup']['median']:.2f}x)"
            cells.append(text)
        print(f"| {prompt['id']} | {prompt['n_tokens']} | " + " | ".join(cells) + " |")
    for name in names[1:]:
        s = report["summary"][name]
        print(
            f"{name}: geometric mean {s['geomean']:.2f}, min {s['min']:.2f} "
            f"({s['slowest_prompt']}), max {s['max']:.2f}, all prompts together {s['total']:.2f}"
        )
    for method, state in report["methods"].items():
        if state != "ok":
            print(f"{method}: not measured: {state}")
    different = [f"{p['id']}: {', '.join(p['different'])}" for p in report["prompts"]]
    different = [line for line in different if not line.endswith(": ")]
    print("tokens: " + ("; ".join(different) + " DIFFER" if different else "identical"))


def compare(sd: Any, target: Any, draft: Any, options: argparse.Namespace) -> dict[str, Any]:
    wanted = list(dict.fromkeys(["plain", *options.methods.split(",")]))
    methods: dict[str, Any] = {}
    states: dict[str, str] = {}
    for method in wanted:
        try:
            if method == "peer":
                methods[method] = Peer(options)
            else:
                methods[method] = make_decoder(sd, target, method, draft, options)
            states[method] = "ok"
        except LookupError as error:
            states[method] = str(error)
            progress(f"{method} is left out: {error}")
    prompts = []
    for prompt in read_prompts(target, options):
        prompts.append(measure_prompt(prompt, methods, options))
        progress(f"{prompt.id} done")
    if not prompts:
        raise SystemExit("no prompts: give --prompt, --spec-bench or --humaneval")
    peer = methods.get("peer")
    if peer is not None:
        peer.close()
    return {
        "kind": "speculation",
        "name": options.name,
        **about(sd, target, draft, options),
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "rounds": options.rounds,
        "methods": states,
        "prompts": prompts,
        "summary": summarise(prompts, list(methods)),
    }


def about(sd: Any, target: Any, draft: Any, options: argparse.Namespace) -> dict[str, Any]:
    def describe(model: Any) -> dict[str, Any]:
        return {
            "file": pathlib.Path(model.info.path).name,
            "quantisation": model.info.quantisation,
            "file_gb": significant(model.info.size_bytes / 1e9),
        }

    has_peer = "peer" in options.methods.split(",")
    return {
        "machine": machine(options.threads),
        "versions": {
            "specdec": sd.__version__,
            "peer": peer_version(options.peer_python) if has_peer else None,
        },
        "isa": sd.info()["cpu_isa"],
        "model": describe(target),
        "draft": None if draft is None else describe(draft),
    }


# ---------------------------------------------------------------- hostile drafts


def shuffle_weights(path: pathlib.Path, out: pathlib.Path) -> None:
    """A copy whose matrices hold the same blocks in random order: valid, as costly, and useless."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGUFReader

    shutil.copyfile(path, out)
    data = np.memmap(out, dtype=np.uint8, mode="r+")
    random = np.random.default_rng(1)
    for tensor in GGUFReader(path).tensors:
        if len(tensor.shape) < 2:
            continue
        block_bytes = GGML_QUANT_SIZES[tensor.tensor_type][1]
        first = int(tensor.data_offset)
        blocks = data[first : first + int(tensor.n_bytes)].reshape(-1, block_bytes)
        blocks[:] = blocks[random.permutation(len(blocks))]
    data.flush()


def adversarial(sd: Any, target: Any, draft: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Time of requests in a row, each between two plain runs of the same prompt."""
    if draft is None:
        raise SystemExit("--adversarial needs -md")
    prompts = list(read_prompts(target, options))
    if not prompts:
        raise SystemExit("no prompts: give --prompt, --spec-bench or --humaneval")
    prompts = [prompts[i % len(prompts)] for i in range(options.count or 20)]
    plain = make_decoder(sd, target, "plain", None, options)
    generate(plain, prompts[0].token_ids, options)  # warm
    cases = []
    different = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "shuffled.gguf"
        shuffle_weights(pathlib.Path(options.model_draft), path)
        with sd.Model(path, n_threads=options.threads) as useless:
            for name, drafts in {
                "shuffled weights": [useless],
                "real and shuffled in turn": [draft, useless],
            }.items():
                decoders = [make_decoder(sd, target, options.attacked, d, options) for d in drafts]
                ratios: list[float] = []
                totals = [0.0, 0.0]
                n_drafted = n_accepted = 0
                for i, prompt in enumerate(prompts):
                    base = generate(plain, prompt.token_ids, options)
                    run = generate(decoders[i % len(decoders)], prompt.token_ids, options)
                    again = generate(plain, prompt.token_ids, options)
                    if run.token_ids != base.token_ids:
                        different.append(f"{name}: {prompt.id}")
                    plain_ms = (base.decode_ms + again.decode_ms) / 2
                    totals[0] += plain_ms
                    totals[1] += run.decode_ms
                    ratios.append(run.decode_ms / plain_ms)
                    n_drafted += run.drafted
                    n_accepted += run.accepted
                    progress(f"{name}: request {i + 1}, {ratios[-1]:.3f} x plain")
                for decoder in decoders:
                    decoder.close()
                cases.append(
                    {
                        "name": name,
                        "total_over_plain": significant(totals[1] / totals[0]),
                        "worst_over_plain": significant(max(ratios)),
                        "median_over_plain": significant(statistics.median(ratios)),
                        "per_request": [significant(r) for r in ratios],
                        "drafted": n_drafted,
                        "accepted": n_accepted,
                    }
                )
    for case in cases:
        print(
            f"{case['name']}: {len(prompts)} requests take {case['total_over_plain']:.3f} x plain, "
            f"the worst one {case['worst_over_plain']:.3f} x, the median "
            f"{case['median_over_plain']:.3f} x; accepted {case['accepted']} of {case['drafted']}"
        )
    print("tokens: " + (f"{'; '.join(different)} DIFFER" if different else "identical"))
    return {
        "kind": "adversarial",
        **about(sd, target, draft, options),
        "method": options.attacked,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "n_requests": len(prompts),
        "different": different,
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("-md", "--model-draft")
    parser.add_argument("--prompt", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--spec-bench", type=pathlib.Path)
    parser.add_argument("--per-task", type=int, help="prompts of each Spec-Bench task")
    parser.add_argument("--humaneval", type=pathlib.Path)
    parser.add_argument("--count", type=int, help="prompts of a file, or adversarial requests")
    parser.add_argument("--methods", default="plain,ngram,suffix,model,auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--min-ms", type=float, default=0.0,
        help=f"more rounds (up to {MOST_ROUNDS}) of a prompt until every method decoded so long",
    )  # fmt: skip
    parser.add_argument(
        "--peer-rounds", type=int, default=MOST_ROUNDS, help="rounds in which the peer runs too"
    )
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("-c", "--ctx", type=int, default=4096)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--name", default="speculation", help="title of the report")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--adversarial", action="store_true")
    parser.add_argument("--attacked", default="auto", help="method that --adversarial runs")
    parser.add_argument("--serve-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_peer:
        serve_peer(options.model, options.ctx, options.threads)
        return
    if "peer" in options.methods.split(","):
        peer_version(options.peer_python)

    import specdec_native as sd

    with sd.Model(options.model, n_threads=options.threads) as target:
        draft = None
        if options.model_draft:
            draft = sd.Model(options.model_draft, n_threads=options.threads)
        if options.adversarial:
            report = adversarial(sd, target, draft, options)
            failed = bool(report["different"])
        else:
            report = compare(sd, target, draft, options)
            print_comparison(report)
            failed = any(prompt["different"] for prompt in report["prompts"])
    if options.json:
        write_report(options.json, report)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
