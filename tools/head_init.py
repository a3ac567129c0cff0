"""A head that exists, to go on from: `make_head.py --init HEAD.gguf`."""

from __future__ import annotations

import pathlib

import torch

from draft_gguf import Target
from head_net import Head, HeadShape
from training_options import are_head_layers
from training_safety import ToolError


class FirstHead:
    """A head's file, of this program's own layout: one layer, own output, no further norms.

    Attributes:
        shape: its sizes and the layers that it reads.
        ids: int64 [n_draft], the target's ids that it drafts, ascending.

    Raises:
        ToolError: it is another kind of file, or made for another target.
    """

    def __init__(self, path: pathlib.Path, target: Target) -> None:
        self.path = path
        try:
            self.file = Target(path)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise ToolError(f"--init {path}: cannot be read as GGUF ({error})") from None
        arch = self.file.value("general.architecture")
        if arch != "eagle3":
            raise self._wrong(f"is of architecture {arch!r}, expected 'eagle3'")
        for key in ("norm_before_residual", "norm_before_fc"):
            if self.file.of_arch(key, False):
                raise self._wrong(f"has {key}, which this program does not train")
        n_tokens = int(target.tensors["token_embd.weight"].shape[1])
        width = int(target.of_arch("embedding_length"))
        layers = self.file.of_layers("target_layers")
        found = (int(self.file.of_arch("embedding_length", 0)), self.file.of_arch("vocab_size"))
        if found != (width, n_tokens) or len(layers) != 3:
            raise self._wrong(
                f"has width {found[0]}, {found[1]} tokens and {len(layers)} layers that it reads; "
                f"expected {width}, {n_tokens} and 3, as the target has"
            )
        n_layers = int(target.of_arch("block_count"))
        n_layers -= int(target.of_arch("nextn_predict_layers", 0))
        if not are_head_layers(layers) or layers[-1] > n_layers:
            shown = " ".join(map(str, layers))
            raise self._wrong(
                f"reads the layers {shown}; expected three ascending numbers up to {n_layers}, "
                "as many as the target has"
            )
        ids = self._tensor("d2t") if "d2t" in self.file.tensors else torch.arange(n_tokens)
        self.ids, self.order = ids.to(torch.int64).sort()
        if len(self.ids.unique()) < len(ids) or self.ids[0] < 0 or self.ids[-1] >= n_tokens:
            raise self._wrong("drafts ids twice, or such that the target has not")
        n_heads = int(self.file.of_arch("attention.head_count"))
        self.shape = HeadShape(
            target_layers=(layers[0], layers[1], layers[2]),
            hidden_size=width,
            n_heads=n_heads,
            n_kv_heads=int(self.file.of_arch("attention.head_count_kv", n_heads)),
            head_dim=int(self.file.of_arch("attention.key_length", width // n_heads)),
            intermediate_size=int(self.file.of_arch("feed_forward_length")),
            n_draft=len(ids),
            rope_theta=float(self.file.of_arch("rope.freq_base", 10000.0)),
            epsilon=float(self.file.of_arch("attention.layer_norm_rms_epsilon", 1e-5)),
        )
        self.head(torch.ones(3 * width))  # what is wrong with its tensors is said at once

    @torch.no_grad()
    def head(self, tap_scale: torch.Tensor) -> Head:
        """With the file's weights. `tap_scale`: of the taps, [3 * hidden_size]."""
        head = Head(self.shape)
        head.tap_scale.copy_(tap_scale)
        for name, into in head.stored().items():
            values = self._tensor(name)
            if values.shape != into.shape:
                raise self._wrong(
                    f"has a tensor {name} of {list(values.shape)}, expected {list(into.shape)}"
                )
            into.copy_(values)
        head.fc.weight.mul_(tap_scale)
        head.output.copy_(head.output[self.order])
        if not all(bool(weight.isfinite().all()) for weight in head.parameters()):
            raise self._wrong("has weights that are no numbers")
        return head

    def _tensor(self, name: str) -> torch.Tensor:
        if name not in self.file.tensors:
            raise self._wrong(f"has no tensor {name}")
        if name == "d2t":
            return torch.from_numpy(self.file.tensors[name].data.copy())
        return self.file.tensor(name)

    def _wrong(self, what: str) -> ToolError:
        return ToolError(f"--init {self.path}: {what}; give a head that make_head.py made for it")
