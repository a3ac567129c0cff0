"""The NumPy reference of EAGLE-3 heads against one in PyTorch that shares nothing with it: whole
sequences without a cache, weights in the order of checkpoints, rotation of halves."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
import pytest

import eagle_reference
from eagle_reference import Cache, EagleConfig, Head, head_for
from tiny_models import TinyConfig, random_tensors

torch = pytest.importorskip("torch")
functional = torch.nn.functional

TARGET = TinyConfig(n_layers=4)
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_before_residual": {"norm_before_residual": True},
    "norm_before_fc": {"norm_before_fc": True},
    "narrow": {"hidden_size": 32, "n_heads": 2, "n_kv_heads": 1},
    "whole vocabulary": {"draft_vocab_size": None},
    "the target's output": {"draft_vocab_size": None, "own_output": False},
    "divided frequencies": {"divided_frequencies": True},
}


class TorchHead:
    def __init__(self, config: EagleConfig, tensors: Any, target: Any) -> None:
        self.c = config
        self.w = {k: torch.tensor(np.asarray(v)).double() for k, v in tensors.items()}
        self.embedding = self.w.get("token_embd.weight")
        if self.embedding is None:
            self.embedding = torch.tensor(target["token_embd.weight"]).double()
        self.output = self.w.get("output.weight")
        if self.output is None:
            self.output = torch.tensor(target["output.weight"]).double()
        self.q, self.k = (self.halves(self.w[f"blk.0.attn_{p}.weight"]) for p in "qk")

    def halves(self, rows: Any) -> Any:
        """From the file's order of rows to that of checkpoints."""
        d = self.c.head_dim
        return rows.view(-1, d // 2, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)

    def norm(self, x: Any, name: str) -> Any:
        return functional.rms_norm(x, x.shape[-1:], self.w[name], self.c.norm_epsilon)

    def rope(self, x: Any, positions: Any) -> Any:
        inverse = 1 / self.c.rope_theta ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1]).double()
        if self.c.divided_frequencies:
            inverse = inverse / self.w["rope_freqs.weight"]
        angles = torch.outer(positions.double(), inverse).repeat(1, 2)
        low, high = x.chunk(2, -1)
        return x * angles.cos() + torch.cat((-high, low), -1) * angles.sin()

    def fc(self, taps: Any) -> Any:
        taps = torch.tensor(taps).double()
        if self.c.norm_before_fc:
            taps = self.norm(taps, "enc.output_norm.weight")
        return functional.linear(taps, self.w["fc.weight"])

    def run(self, tokens: Any, g: Any, positions: Any, mask: Any) -> tuple[Any, Any]:
        c, w = self.c, self.w
        normed = self.norm(g, "blk.0.attn_norm_2.weight")
        x = torch.cat((self.norm(self.embedding[tokens], "blk.0.attn_norm.weight"), normed), -1)

        def split(matrix: Any, n: int) -> Any:
            return functional.linear(x, matrix).view(len(x), n, c.head_dim).transpose(0, 1)

        q, k = self.rope(split(self.q, c.n_heads), positions), split(self.k, c.n_kv_heads)
        v = split(w["blk.0.attn_v.weight"], c.n_kv_heads)
        out = functional.scaled_dot_product_attention(
            q[None], self.rope(k, positions)[None], v[None], mask, enable_gqa=True
        )[0]
        out = functional.linear(
            out.transpose(0, 1).reshape(len(x), -1), w["blk.0.attn_output.weight"]
        )
        r = (normed if c.norm_before_residual else g) + out
        y = self.norm(r, "blk.0.ffn_norm.weight")
        gate = functional.silu(functional.linear(y, w["blk.0.ffn_gate.weight"]))
        up = functional.linear(y, w["blk.0.ffn_up.weight"])
        u = r + functional.linear(gate * up, w["blk.0.ffn_down.weight"])
        return u, functional.linear(self.norm(u, "output_norm.weight"), self.output)


def heads(variant: str) -> tuple[Head, TorchHead]:
    config = head_for(TARGET, **VARIANTS[variant])
    tensors, target = eagle_reference.random_tensors(config), random_tensors(TARGET)
    return Head(config, tensors, target), TorchHead(config, tensors, target)


def text(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    return rng.integers(0, 272, n), 3 * rng.standard_normal((n, 3 * 64))


def close(a: np.ndarray, b: Any) -> bool:
    return float(np.abs(a - b.numpy()).max()) <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_prompts_give_what_pytorch_gives(variant: str) -> None:
    mine, theirs = heads(variant)
    tokens, taps = text(13)
    cache = Cache(mine.config)
    parts = [mine.ingest(cache, tokens[:8], taps[:8]), mine.ingest(cache, tokens[8:], taps[8:])]
    mask = torch.ones(13, 13).tril().bool()
    hidden, logits = theirs.run(torch.tensor(tokens), theirs.fc(taps), torch.arange(13), mask)
    assert close(np.concatenate([p[0] for p in parts]), hidden)
    assert close(np.concatenate([p[1] for p in parts]), logits)
    assert len(cache) == 13


@pytest.mark.parametrize("variant", VARIANTS)
def test_chains_give_what_pytorch_gives(variant: str) -> None:
    mine, theirs = heads(variant)
    tokens, taps = text(9)
    cache = Cache(mine.config)
    out, logits = mine.ingest(cache, tokens, taps)
    ids, laws = mine.chain(cache, out[-1], logits[-1], 5)
    assert len(cache) == 9 + 4
    all_tokens, g = torch.tensor(tokens), theirs.fc(taps)
    for step in range(5):
        n = 9 + step
        mask = torch.ones(n, n).tril().bool()
        hidden, expected = theirs.run(all_tokens, g, torch.arange(n), mask)
        assert close(laws[step], expected[-1])
        best = int(expected[-1].argmax())
        assert ids[step] == int(mine.target_ids[best])
        g = torch.cat((g, hidden[-1:]))
        all_tokens = torch.cat((all_tokens, torch.tensor(ids[step : step + 1])))


def path_to(node: int, parents: Sequence[int]) -> list[int]:
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_path_of_a_tree_is_a_chain_of_pytorch(variant: str) -> None:
    mine, theirs = heads(variant)
    tokens, taps = text(6)
    cache = Cache(mine.config)
    out, _ = mine.ingest(cache, tokens, taps)
    nodes, parents = [5, 9, 200, 31, 5, 77, 100], [-1, -1, 0, 0, 1, 2, 4]
    hiddens, laws = mine.tree(cache, out[-1], nodes, parents)
    for node in range(len(nodes)):
        g, seen = theirs.fc(taps), list(tokens)
        for step in [*path_to(node, parents), None]:
            mask = torch.ones(len(seen), len(seen)).tril().bool()
            hidden, logits = theirs.run(torch.tensor(seen), g, torch.arange(len(seen)), mask)
            if step is not None:
                seen, g = [*seen, nodes[step]], torch.cat((g, hidden[-1:]))
        assert close(hiddens[node], hidden[-1])
        assert close(laws[node], logits[-1])


def test_single_precision_stays_near() -> None:
    config = head_for(TARGET)
    tensors, target = eagle_reference.random_tensors(config), random_tensors(TARGET)
    tokens, taps = text(12)
    outs = [
        Head(config, tensors, target, kind).ingest(Cache(config), tokens, taps)
        for kind in (np.float32, np.float64)
    ]
    assert outs[0][1].dtype == np.float32
    assert np.abs(outs[0][1] - outs[1][1]).max() < 1e-4


def test_ids_of_the_reduced_vocabulary_are_the_targets() -> None:
    mine, _ = heads("plain")
    logits = np.random.default_rng(0).standard_normal(160)
    full = mine.full_logits(logits)
    assert int(full.argmax()) == mine.best(logits)
    assert np.isneginf(full).sum() == 272 - 160


@pytest.mark.parametrize("dtype", ["F32", "Q8_0"])
def test_files_have_the_layout_of_heads(tmp_path: pathlib.Path, dtype: str) -> None:
    config = head_for(TARGET, norm_before_fc=True)
    path = eagle_reference.write_eagle3(tmp_path / "head.gguf", config, TARGET, dtype=dtype)
    reader = gguf.GGUFReader(path)
    shapes = {t.name: (t.tensor_type.name, t.shape.tolist()) for t in reader.tensors}
    assert shapes["d2t"] == ("I64", [160])
    assert shapes["fc.weight"] == (dtype, [3 * 64, 64])
    assert shapes["enc.output_norm.weight"] == ("F32", [3 * 64])
    assert shapes["blk.0.attn_q.weight"] == (dtype, [2 * 64, 64])
    assert shapes["output.weight"] == (dtype, [64, 160])
    ids = next(t.data for t in reader.tensors if t.name == "d2t")
    assert (np.diff(ids) > 0).all()
    assert ids[-1] > 160
    assert reader.fields["eagle3.target_layers"].contents() == [1, 2, 3]
