"""Generates with llama.cpp or transformers: a request per line of standard input, an answer each.

    python serve.py llama.cpp|transformers

The first line tells what to load: {"target", "draft" or null, "n_ctx", "n_threads"}; the answer is
{"version"} or {"error"}. Further lines: {"prompt", "max_tokens", "temperature", "seed", "top_k",
"top_p", "min_p", "drafter": "none", "model" or "ngram", "fresh": nothing of an earlier request may
be used}; the answers: {"token_ids", "stop", "prompt_ms", "decode_ms", "rate_tokens", "passes",
"drafted", "accepted"}, of which rate_tokens are those that decode_ms was needed for. Standard
output carries answers only.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import os
import pathlib
import sys
import time

DRAFT_MAX = 3  # llama.cpp's own default for draft models


class LlamaCpp:
    """llama.cpp through the C API that llama-cpp-python binds, without Python's share in sampling.

    Drafts are verified as llama.cpp does: the target samples at each row, a draft token counts
    while it is what was sampled.
    """

    def __init__(self, target, draft, n_ctx, n_threads):
        import ctypes

        import llama_cpp

        self.ll = ll = llama_cpp
        self._silent = ll.llama_log_callback(lambda *_: None)
        ll.llama_log_set(self._silent, ctypes.c_void_p(0))
        ll.llama_backend_init()
        self.version = "llama-cpp-python " + llama_cpp.__version__
        self.n_ctx, self.n_threads = n_ctx, n_threads
        self.target = self._load(target)
        self.vocab = ll.llama_model_get_vocab(self.target[0])
        self.draft_path, self.draft = draft, None
        self.batch = ll.llama_batch_init(512, 0, 1)
        self.known = {}  # tokens in each context's cache

    def _load(self, path):
        ll = self.ll
        model = ll.llama_model_load_from_file(path.encode(), ll.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx = self.n_ctx
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = self.n_threads
        params.no_perf = True
        context = ll.llama_init_from_model(model, params)
        if not context:
            raise RuntimeError(f"llama.cpp cannot make a context for {path}")
        return model, context, ll.llama_get_memory(context)

    def _feed(self, state, tokens, first, all_rows):
        """Positions from `first`; logits of all rows or of the last."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = first + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = 1 if all_rows or i == len(tokens) - 1 else 0
        if self.ll.llama_decode(state[1], batch) != 0:
            raise RuntimeError("llama_decode failed")

    def _read(self, state, tokens, known):
        """The cache holds `tokens` afterwards; `known` is what it held."""
        same = 0
        while same < min(len(known), len(tokens)) and known[same] == tokens[same]:
            same += 1
        self.ll.llama_memory_seq_rm(state[2], 0, same, -1)
        for first in range(same, len(tokens), 512):
            self._feed(state, tokens[first : first + 512], first, False)
        self.ll.llama_synchronize(state[1])

    def _sampler(self, request):
        ll = self.ll
        chain = ll.llama_sampler_chain_init(ll.llama_sampler_chain_default_params())
        if request["temperature"] == 0:
            ll.llama_sampler_chain_add(chain, ll.llama_sampler_init_greedy())
            return chain
        steps = []
        if request.get("top_k"):
            steps.append(ll.llama_sampler_init_top_k(request["top_k"]))
        if request.get("top_p", 1) < 1:
            steps.append(ll.llama_sampler_init_top_p(request["top_p"], 1))
        if request.get("min_p"):
            steps.append(ll.llama_sampler_init_min_p(request["min_p"], 1))
        steps.append(ll.llama_sampler_init_temp(request["temperature"]))
        steps.append(ll.llama_sampler_init_dist(request["seed"] & 0xFFFFFFFF))
        for step in steps:
            ll.llama_sampler_chain_add(chain, step)
        return chain

    def _drafter(self, kind):
        if kind == "none":
            return None
        if kind == "ngram":
            return LookUp()
        if self.draft is None:
            self.draft = self._load(self.draft_path)
        return DraftWalk(self)

    def generate(self, request):
        ll, state, prompt = self.ll, self.target, request["prompt"]
        drafter = self._drafter(request["drafter"])
        if request["fresh"]:
            self.known = {}
            for one in filter(None, (self.target, self.draft)):
                ll.llama_memory_clear(one[2], True)
        chain = self._sampler(request)
        start = time.perf_counter()
        self._read(state, prompt[:-1], self.known.get("target", [])[:-1])
        if drafter is not None:
            drafter.begin(prompt)
        begin = time.perf_counter()
        text, stop, n_drafted, n_accepted, passes = list(prompt), False, 0, 0, 0
        limit = min(len(prompt) + request["max_tokens"], self.n_ctx)
        while len(text) < limit and not stop:
            room = limit - len(text) - 1
            draft = drafter.propose(text, room)[:room] if drafter is not None and room > 0 else []
            self._feed(state, [text[-1], *draft], len(text) - 1, True)
            passes += 1
            n_drafted += len(draft)
            base = len(text)
            for row in range(len(draft) + 1):
                token = ll.llama_sampler_sample(chain, state[1], row)
                if ll.llama_vocab_is_eog(self.vocab, token):
                    stop = True
                    break
                text.append(token)
                if row < len(draft):
                    if token != draft[row]:
                        break
                    n_accepted += 1
            if draft:
                ll.llama_memory_seq_rm(state[2], 0, max(len(text) - 1, base), -1)
        end = time.perf_counter()
        ll.llama_sampler_free(chain)
        self.known["target"] = text
        tokens = text[len(prompt) :]
        return {
            "token_ids": tokens, "stop": stop, "prompt_ms": (begin - start) * 1000,
            "decode_ms": (end - begin) * 1000, "rate_tokens": len(tokens), "passes": passes,
            "drafted": n_drafted, "accepted": n_accepted,
        }  # fmt: skip


class LookUp:
    """Prompt lookup as llama-cpp-python has it, with its defaults."""

    def __init__(self):
        from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

        self.find = LlamaPromptLookupDecoding()

    def begin(self, prompt):
        pass

    def propose(self, text, most):
        import numpy as np

        return [int(token) for token in self.find(np.asarray(text, dtype=np.intc))][:most]


class DraftWalk:
    """The draft model's best tokens, one after the other."""

    def __init__(self, engine):
        self.engine, self.ll = engine, engine.ll
        self.n_known = 0
        self.chain = self.ll.llama_sampler_init_greedy()

    def begin(self, prompt):
        known = self.engine.known.get("draft", [])
        self.engine._read(self.engine.draft, prompt[:-1], known)
        self.cache = list(prompt[:-1])

    def propose(self, text, most):
        engine, state = self.engine, self.engine.draft
        same = 0
        while same < min(len(self.cache), len(text) - 1) and self.cache[same] == text[same]:
            same += 1
        self.ll.llama_memory_seq_rm(state[2], 0, same, -1)
        lacking, draft = text[same:], []
        self.cache = list(text)
        while len(draft) < min(most, DRAFT_MAX):
            engine._feed(state, lacking, len(self.cache) - len(lacking), False)
            token = self.ll.llama_sampler_sample(self.chain, state[1], -1)
            if self.ll.llama_vocab_is_eog(engine.vocab, token):
                break
            draft.append(token)
            lacking = [token]
            self.cache.append(token)
        if draft:
            self.cache.pop()  # the last one was not fed
        engine.known["draft"] = self.cache
        return draft


class Transformers:
    """Hugging Face transformers on the GGUF file, whose weights it makes wide (float32)."""

    def __init__(self, target, draft, n_ctx, n_threads):
        import accelerate  # noqa: F401  what reading GGUF files needs; said before a model is read
        import gguf  # noqa: F401
        import torch
        import transformers

        self.torch, self.transformers = torch, transformers
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(n_threads)
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self.target, self.draft_path, self.draft = self._load(target), draft, None
        self.passes = 0
        self.target.register_forward_pre_hook(self._count)

    def _count(self, *_):
        self.passes += 1

    def _load(self, path):
        path = pathlib.Path(path)
        model = self.transformers.AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=self.torch.float32
        )
        return model.eval()

    def generate(self, request):
        torch, ids = self.torch, self.torch.tensor([request["prompt"]])
        options = {"max_new_tokens": request["max_tokens"], "do_sample": False}
        if request["temperature"] > 0:
            options |= {"do_sample": True, "temperature": request["temperature"]}
            options |= {key: request[key] for key in ("top_k", "top_p", "min_p") if key in request}
            torch.manual_seed(request["seed"])
        if request["drafter"] == "ngram":
            options["prompt_lookup_num_tokens"] = 10
        elif request["drafter"] == "model":
            self.draft = self.draft or self._load(self.draft_path)
            options["assistant_model"] = self.draft
        seen = []  # (time, tokens so far)

        def watch(input_ids, scores, **_):
            seen.append((time.perf_counter(), input_ids.shape[1] - ids.shape[1]))
            return torch.zeros(input_ids.shape[0], dtype=torch.bool)

        self.passes = 0
        start = time.perf_counter()
        with torch.inference_mode():
            out = self.target.generate(
                ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
                stopping_criteria=self.transformers.StoppingCriteriaList([watch]), **options,
            )  # fmt: skip
        end = time.perf_counter()
        tokens = out[0, ids.shape[1] :].tolist()
        ends = self.target.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        stop = bool(tokens) and tokens[-1] in ends
        first, n_first = seen[0] if seen else (end, len(tokens))
        return {
            "token_ids": tokens[:-1] if stop else tokens, "stop": stop,
            "prompt_ms": (first - start) * 1000, "decode_ms": (end - first) * 1000,
            "rate_tokens": len(tokens) - n_first, "passes": self.passes, "drafted": 0,
            "accepted": 0,
        }  # fmt: skip


ENGINES = {"llama.cpp": LlamaCpp, "transformers": Transformers}


def main():
    # The libraries may print; only answers may go where the reader listens.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    engine = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if engine is None:
                engine = ENGINES[sys.argv[1]](**request)
                answer({"version": engine.version})
            else:
                answer(engine.generate(request))
        except ImportError as error:
            answer({"missing": str(error.name)})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}".splitlines()[0]})


if __name__ == "__main__":
    main()
