"""Blocks that predict further tokens, from checkpoints to drafts: against one made of transformers'
own layers, and whether llama.cpp loads the file."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf
from helpers import native

testing = native("model")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from test_convert_transformers import random_tokens, save  # noqa: E402
from test_model_transformers import randomise  # noqa: E402

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.to_hf import gguf_to_hf  # noqa: E402

CASES = ("qwen35", "qwen35moe")


class TorchBlock(torch.nn.Module):  # type: ignore[misc]
    """The block of a Qwen3.5 checkpoint over whole sequences."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        config = model.config
        trunk = model.model
        index = config.layer_types.index("full_attention")
        kind, norm = type(trunk.layers[index]), type(trunk.norm)
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.fc = torch.nn.Linear(2 * width, width, bias=False)
        self.pre_fc_norm_embedding = norm(width, epsilon)
        self.pre_fc_norm_hidden = norm(width, epsilon)
        self.layers = torch.nn.ModuleList([kind(config, index)])
        self.norm = norm(width, epsilon)
        self.config = config

    def forward(self, model: Any, tokens: Any, h: Any) -> tuple[Any, Any]:
        """tokens [n], and the state before each: what rows say, and logits."""
        embedded = self.pre_fc_norm_embedding(model.model.embed_tokens(tokens)[None])
        x = self.fc(torch.cat((embedded, self.pre_fc_norm_hidden(h[None])), -1))
        positions = torch.arange(len(tokens))[None]
        rope = model.model.rotary_emb(x, positions)
        n = len(tokens)
        mask = torch.full((n, n), -torch.inf).triu(1)[None, None]
        out = self.layers[0](x, position_embeddings=rope, attention_mask=mask)
        out = self.norm(out[0] if isinstance(out, tuple) else out)[0]
        return out, model.lm_head(out)


def with_block(case: str, folder: pathlib.Path) -> tuple[Any, TorchBlock]:
    """A checkpoint with such a block, as Qwen publishes them."""
    from safetensors.torch import load_file, save_file

    model = save(case, folder)
    block = TorchBlock(model)
    randomise(block)
    path = folder / "model.safetensors"
    state = load_file(path) | {f"mtp.{k}": v.contiguous() for k, v in block.state_dict().items()}
    save_file(state, path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False}
    hf.write_json(folder / "config.json", config)
    return model, block.eval()


@pytest.mark.parametrize("case", CASES)
def test_states_and_logits_are_those_of_torch(case: str, tmp_path: pathlib.Path) -> None:
    model, block = with_block(case, tmp_path / "c")
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert not any("left out" in note for note in plan.notes)
    assert plan.keys[f"{plan.keys['general.architecture']}.nextn_predict_layers"] == 1
    tokens = [t % 256 for t in random_tokens(40)]
    with torch.no_grad():
        last = model.eval().model(torch.tensor([tokens])).last_hidden_state[0]
        expected, logits = block(model, torch.tensor(tokens[1:]), last[:-1])
        # And the first draft: the row behind the text's last token stands on the block's own state.
        best = int(logits[-1].argmax())
        more = torch.tensor([*tokens[1:], best])
        chained, chained_logits = block(model, more, torch.cat((last[:-1], expected[-1:])))

    target = testing.Model(str(tmp_path / "out.gguf"))
    head = testing.Model(str(tmp_path / "out.gguf"), next_tokens=True).head_session(target)
    session = target.session()
    session.forward(tokens, taps=[target.config["n_layers"]])
    taps = np.array([session.taps(r) for r in range(len(tokens) - 1)])
    features = head.fuse(taps.ravel().tolist())
    assert np.abs(features.reshape(taps.shape) - last[:-1].numpy()).max() < 1e-4
    found = head.forward(tokens[1:], hidden=features.ravel().tolist(), keep_hidden=True)
    said = np.array([head.hidden(r) for r in range(len(tokens) - 1)])
    assert np.abs(said - expected.numpy()).max() < 1e-4
    assert np.abs(found - logits.numpy()).max() < 1e-4
    assert int(found[-1].argmax()) == best
    found = head.forward([best], hidden=said[-1].tolist(), keep_hidden=True)
    assert np.abs(head.hidden(0) - chained[-1].numpy()).max() < 1e-4
    assert np.abs(found[0] - chained_logits[-1].numpy()).max() < 1e-4


def test_a_checkpoint_without_the_block_is_what_it_was(tmp_path: pathlib.Path) -> None:
    """Configurations promise a block that fine-tuned checkpoints have lost."""
    from safetensors.torch import load_file, save_file

    with_block("qwen35", tmp_path / "c")
    path = tmp_path / "c" / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if not k.startswith("mtp.")}, path)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert "qwen35.nextn_predict_layers" not in plan.keys
    assert not any("nextn" in target.name for target in plan.targets)

    save_file({k: v for k, v in state.items() if k != "mtp.fc.weight"}, path)
    with pytest.raises(ConvertError, match=r"'mtp\.fc\.weight' \[64, 128\] is missing"):
        convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    save_file(state | {"mtp.more.weight": torch.ones(4)}, path)
    with pytest.raises(ConvertError, match=r"do not belong in a qwen35 model: mtp\.more"):
        convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")

    save_file(state, path)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    for changes in ({"mtp_num_hidden_layers": 2}, {"mtp_use_dedicated_embeddings": True}):
        hf.write_json(tmp_path / "c" / "config.json", config | changes)
        plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
        assert any("that predict further tokens" in note for note in plan.notes)
        assert "qwen35.nextn_predict_layers" not in plan.keys


@pytest.mark.parametrize("case", CASES)
def test_a_file_becomes_the_checkpoint_it_came_from(case: str, tmp_path: pathlib.Path) -> None:
    from safetensors.torch import load_file

    with_block(case, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32", name="same")
    gguf_to_hf(tmp_path / "out.gguf", tmp_path / "back")
    before = load_file(tmp_path / "c" / "model.safetensors")
    after = load_file(tmp_path / "back" / "model.safetensors")
    assert torch.equal(before["mtp.fc.weight"], after["mtp.fc.weight"])
    convert(tmp_path / "back", tmp_path / "again.gguf", outtype="f32", name="same")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()


def test_llama_cpp_loads_a_file_with_the_block(tmp_path: pathlib.Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    with_block("qwen35", tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    peer = llama_cpp.Llama(str(tmp_path / "out.gguf"), n_ctx=64, logits_all=True, verbose=False)
    assert peer.metadata["qwen35.nextn_predict_layers"] == "1"
    tokens = random_tokens(12)
    peer.eval(tokens)
    theirs = int(np.argmax(peer.scores[len(tokens) - 1]))
    peer.close()
    session = testing.Model(str(tmp_path / "out.gguf")).session()
    assert int(session.forward(tokens)[-1].argmax()) == theirs
