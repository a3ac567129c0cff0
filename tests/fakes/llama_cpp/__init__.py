"""Stands in for llama-cpp-python where its loop is tested: a "model" whose next token is a function
of the tokens in its cache, and a cache that notices every wrong position.

A file's name says what the model is: "...draft..." is wrong after every fifth token.
"""

from __future__ import annotations

import json
import os
import types

__version__ = "fake"
END = 0


class Context:
    def __init__(self, path):
        self.is_draft = b"draft" in path
        self.cache = []  # tokens
        self.rows = {}  # index in the batch -> prefix

    def next_token(self, prefix):
        token = (7 * prefix[-1] + 3 * len(prefix) % 4 + 5) % 11 + 1
        if prefix[-3:] == [4, 4, 4] or len(prefix) >= int(os.environ.get("FAKE_END", "1000")):
            return END
        return token % 11 + 1 if self.is_draft and len(prefix) % 5 == 0 else token


def llama_log_callback(function):
    return function


def llama_log_set(callback, data):
    pass


def llama_backend_init():
    pass


def llama_model_default_params():
    return types.SimpleNamespace()


llama_context_default_params = llama_model_default_params
llama_sampler_chain_default_params = llama_model_default_params


def llama_model_load_from_file(path, params):
    return None if b"missing" in path else path


def llama_model_get_vocab(model):
    return model


def llama_init_from_model(model, params):
    return Context(model)


def llama_get_memory(context):
    return context


def llama_memory_clear(context, data):
    context.cache = []


def llama_memory_seq_rm(context, sequence, first, last):
    assert last == -1
    del context.cache[first:]


def llama_batch_init(size, embd, n_seq):
    return types.SimpleNamespace(
        n_tokens=0, token=[0] * size, pos=[0] * size, n_seq_id=[0] * size,
        seq_id=[[0] for _ in range(size)], logits=[0] * size,
    )  # fmt: skip


def llama_decode(context, batch):
    context.rows = {}
    for i in range(batch.n_tokens):
        if batch.pos[i] != len(context.cache):
            return 1  # a hole in the cache, or a token twice
        context.cache.append(batch.token[i])
        if batch.logits[i]:
            context.rows[i] = list(context.cache)
    context.last = max(context.rows)
    if os.environ.get("FAKE_LOG"):
        with open(os.environ["FAKE_LOG"], "a") as file:  # noqa: PTH123
            file.write(json.dumps([context.is_draft, batch.n_tokens]) + "\n")
    return 0


def llama_synchronize(context):
    pass


def llama_sampler_chain_init(params):
    return []


def llama_sampler_chain_add(chain, sampler):
    chain.append(sampler)


def llama_sampler_init_greedy():
    return "greedy"


def llama_sampler_init_top_k(k):
    return ("top_k", k)


def llama_sampler_init_top_p(p, keep):
    return ("top_p", p)


def llama_sampler_init_min_p(p, keep):
    return ("min_p", p)


def llama_sampler_init_temp(t):
    return ("temp", t)


def llama_sampler_init_dist(seed):
    return ("dist", seed)


def llama_sampler_free(chain):
    pass


def llama_sampler_sample(chain, context, row):
    return context.next_token(context.rows[context.last if row == -1 else row])


def llama_vocab_is_eog(vocab, token):
    return token == END
