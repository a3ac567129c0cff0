"""tools/make_head.py on a small random target: what it writes, refuses and goes on with."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import eagle_reference
import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "make_head.py"
SMALL = [
    *("--tokens", 3000, "--answer-tokens", 24, "--minutes", 1, "--epochs", 8, "--threads", 1),
    *("--draft-tokens", 160, "--batch-tokens", 512, "--learning-rate", 0.003, "--depth", 3),
]


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))


def tool(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write_target(path, n_layers=4, **changes):
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}<a>"
    config = tiny_models.TinyConfig(context_length=1024, n_layers=n_layers, **changes)
    keys = {"tokenizer.chat_template": template}
    return tiny_models.write_tiny(path, config, dtype="Q8_0", seed=1, extra=keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A head for a chat model, and what the tool reported."""
    folder = tmp_path_factory.mktemp("head")
    target, out = write_target(folder / "target.gguf"), folder / "head.gguf"
    report = folder / "report.json"
    done = tool(target, out, *SMALL, "--output-type", "q4_0", "--report", report)
    return target, out, done, json.loads(report.read_text())


def small_shape():
    import head_net

    return head_net.HeadShape((1, 2, 3), 64, 4, 2, 16, 96, 160)


def reference_of(head, ids, embedding):
    """The NumPy head with the same weights."""
    shape = head.shape
    config = eagle_reference.EagleConfig(
        shape.target_layers,
        draft_vocab_size=shape.n_draft,
        rope_theta=shape.rope_theta,
        norm_epsilon=shape.epsilon,
    )
    tensors = {name: t.detach().numpy() for name, t in head.tensors().items()}
    target = {"token_embd.weight": embedding.numpy()}
    return eagle_reference.Head(config, tensors | {"d2t": ids.numpy()}, target)


@needs_torch
def test_the_unrolled_pass_is_what_drafting_computes():
    """Row t of step s: the prompt's rows to t with the target's taps, then s of its own."""
    import torch

    import head_net

    torch.manual_seed(0)
    shape = small_shape()
    head = head_net.Head(shape)
    with torch.no_grad():
        head.tap_scale.uniform_(0.5, 4)
    embedding, ids = torch.randn(272, 64), torch.arange(50, 210)
    reference = reference_of(head, ids, embedding)
    n, n_steps = 7, 4
    tokens = torch.randint(0, 272, (1, n + n_steps - 1))
    taps = 2 * torch.randn(1, n, 3 * 64)
    with torch.no_grad():
        steps = head.unroll(embedding[tokens], taps, n_steps)
    for t in range(n):
        cache = eagle_reference.Cache(reference.config)
        out, laws = reference.ingest(cache, tokens[0, : t + 1].numpy(), taps[0, : t + 1].numpy())
        for step in range(n_steps):
            if step > 0:
                out, laws = reference.rows(
                    cache, tokens[0, t + step : t + step + 1].numpy(), out[-1:], [t + step]
                )
            ours = (steps[step][0, t] @ head.output.T).detach().numpy()
            assert np.abs(ours - laws[-1]).max() < 1e-4, (t, step)
