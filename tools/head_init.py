"""A head that exists, to go on from: `make_head.py --init HEAD.gguf`."""

from __future__ import annotations

import pathlib
from typing import Any

import torch

from draft_gguf import Target
from gguf_convert.errors import short
from head_net import Head, HeadShape
from training_options import are_head_layers
from training_safety import ToolError

# Keys of what this program writes: any other may change the arithmetic, as those of rope scaling.
KEYS = {
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "attention.layer_norm_rms_epsilon"),
    *("rope.dimension_count", "rope.freq_base"),
    *("target_layers", "target_hidden_size", "norm_before_residual", "norm_before_fc"),
}
HARMLESS = {"rope.scaling.type": ("none",), "rope.scaling.factor": (0, 1)}  # others' files
WIDEST = 1 << 20  # of the engine


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
        arch = self._value("general.architecture")
        if arch != "eagle3":
            raise self._wrong(f"is of architecture {_shown(arch)}, expected 'eagle3'")
        for key in ("norm_before_residual", "norm_before_fc"):
            if self._key(key, False):
                raise self._wrong(f"has {key}, which this program does not train")
        n_tokens = int(target.tensors["token_embd.weight"].shape[1])
        width = int(target.of_arch("embedding_length"))
        layers = self._layers(target, width, n_tokens)
        self.ids, self.order = self._ids(n_tokens).sort()
        if len(self.ids.unique()) < len(self.ids) or self.ids[0] < 0 or self.ids[-1] >= n_tokens:
            raise self._wrong("drafts ids twice, or such that the target has not")
        self.shape = self._shape(layers, width)
        self._check_others(width)
        self.head(torch.ones(3 * width))  # what is wrong with its tensors is said at once

    def _layers(self, target: Target, width: int, n_tokens: int) -> tuple[int, int, int]:
        """Those that it reads, of a head that fits the target."""
        layers = self._key("target_layers", [])
        if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
            raise self._wrong(f"reads the layers {_shown(layers)}; expected three whole numbers")
        found = (self._key("embedding_length"), self._key("vocab_size"))
        if found != (width, n_tokens) or len(layers) != 3:
            raise self._wrong(
                f"has width {_shown(found[0])}, {_shown(found[1])} tokens and {len(layers)} layers "
                f"that it reads; expected {width}, {n_tokens} and 3, as the target has"
            )
        n_layers = int(target.of_arch("block_count"))
        n_layers -= int(target.of_arch("nextn_predict_layers", 0))
        if not are_head_layers(layers) or layers[-1] > n_layers:
            shown = " ".join(map(str, layers))
            raise self._wrong(
                f"reads the layers {shown}; expected three ascending numbers up to {n_layers}, "
                "as many as the target has"
            )
        return (layers[0], layers[1], layers[2])

    def _ids(self, n_tokens: int) -> torch.Tensor:
        if "d2t" not in self.file.tensors:
            return torch.arange(n_tokens)
        data = self.file.tensors["d2t"].data
        if data.dtype.kind != "i" or data.ndim != 1 or data.size == 0:
            raise self._wrong(
                f"has a tensor d2t of {data.dtype} {list(data.shape)}, expected a vector of ids"
            )
        return torch.from_numpy(data.copy()).to(torch.int64)

    def _shape(self, layers: tuple[int, int, int], width: int) -> HeadShape:
        n_heads = self._whole("attention.head_count", WIDEST)
        n_kv_heads = self._whole("attention.head_count_kv", n_heads, n_heads)
        if n_heads % n_kv_heads:
            raise self._wrong(
                f"has attention.head_count_kv {n_kv_heads}, expected a divisor of {n_heads} heads"
            )
        head_dim = self._whole("attention.key_length", WIDEST, max(width // n_heads, 1))
        if head_dim % 2:
            raise self._wrong(f"has attention.key_length {head_dim}, expected an even number")
        return HeadShape(
            target_layers=layers,
            hidden_size=width,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            intermediate_size=self._whole("feed_forward_length", WIDEST),
            n_draft=len(self.ids),
            rope_theta=self._number("rope.freq_base", 1.001, 1e30, 10000.0),
            epsilon=self._number("attention.layer_norm_rms_epsilon", 1e-30, 1, 1e-5),
        )

    def _check_others(self, width: int) -> None:
        """Whatever else is in the file would be lost: what `Head` has no place for is refused."""
        fixed = {
            "block_count": 1,
            "attention.value_length": self.shape.head_dim,
            "rope.dimension_count": self.shape.head_dim,
            "target_hidden_size": width,
        }
        for key, value in fixed.items():
            if self._key(key, value) != value:
                raise self._wrong(f"has {key} {_shown(self._key(key))}, expected {value}")
        for name in self.file.reader.fields:
            key = name.removeprefix("eagle3.")
            if key == name or key in KEYS or self._key(key) in HARMLESS.get(key, ()):
                continue
            raise self._wrong(
                f"has {short(key)} {_shown(self._key(key))}, which this program does not train"
            )
        with torch.device("meta"):  # sizes only: nothing is allocated for what may be nonsense
            stored = Head(self.shape).stored()
        for name, expected in stored.items():
            if name not in self.file.tensors:
                raise self._wrong(f"has no tensor {name}")
            found = [int(n) for n in reversed(self.file.tensors[name].shape)]
            if found != list(expected.shape):
                raise self._wrong(
                    f"has a tensor {name} of {found}, expected {list(expected.shape)}"
                )
        others = sorted(set(self.file.tensors) - set(stored) - {"d2t"})
        if others:
            raise self._wrong(f"has {short(', '.join(others))}, which this program does not train")

    @torch.no_grad()
    def head(self, tap_scale: torch.Tensor) -> Head:
        """With the file's weights. `tap_scale`: of the taps, [3 * hidden_size]."""
        head = Head(self.shape)
        head.tap_scale.copy_(tap_scale)
        for name, into in head.stored().items():
            try:
                into.copy_(self.file.tensor(name))
            except (NotImplementedError, ValueError, KeyError) as error:
                raise self._wrong(f"has a tensor {name} that cannot be read ({error})") from None
        head.fc.weight.mul_(tap_scale)
        head.output.copy_(head.output[self.order])
        if not all(bool(weight.isfinite().all()) for weight in head.parameters()):
            raise self._wrong("has weights that are no numbers")
        return head

    def _value(self, key: str, default: Any = None) -> Any:
        try:
            return self.file.value(key, default)
        except (ValueError, IndexError) as error:
            raise self._wrong(f"has a key {short(key)} that cannot be read ({error})") from None

    def _key(self, key: str, default: Any = None) -> Any:
        return self._value(f"eagle3.{key}", default)

    def _whole(self, key: str, most: int, default: int | None = None) -> int:
        value = self._key(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self._wrong(
                f"has {key} {_shown(value)}, expected a whole number from 1 to {most}"
            )
        return value

    def _number(self, key: str, least: float, most: float, default: float) -> float:
        value = self._key(key, default)
        if type(value) not in (int, float) or not least <= value <= most:
            raise self._wrong(f"has {key} {_shown(value)}, expected {least:g} to {most:g}")
        return float(value)

    def _wrong(self, what: str) -> ToolError:
        return ToolError(f"--init {self.path}: {what}; give a head that make_head.py made for it")


def _shown(value: Any) -> str:
    return short(repr(value), 60)
