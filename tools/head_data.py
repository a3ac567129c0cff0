"""What the target's layers say of the texts of draft_data.py: the taps that a head reads."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

import draft_data
import specdec_native as sd
from training_safety import ToolError, save_bytes


@dataclasses.dataclass
class TappedText(draft_data.Text):
    """A text with its taps.

    Attributes:
        taps: int16 [n, 3 * hidden_size], the bits of bfloat16 numbers; a map of a file.
    """

    taps: np.ndarray


def default_layers(n_layers: int) -> tuple[int, int, int]:
    """Low, middle and high, as heads for EAGLE-3 have them; near the end of small models."""
    if n_layers < 3:
        raise ToolError(f"the target has {n_layers} layers: a head needs three to read from")
    return (2, n_layers // 2, n_layers - 3) if n_layers > 6 else _last_three(n_layers)


def _last_three(n: int) -> tuple[int, int, int]:
    return (n - 3, n - 2, n - 1)


def from_bits(bits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(bits).view(torch.bfloat16).float()


class Taps:
    """A folder below that of the texts with one file per round."""

    def __init__(self, model: sd.Model, store: draft_data.Store, layers: Sequence[int]) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.width = len(layers) * model.info.hidden_size
        self.folder = store.folder / f"taps-{'-'.join(map(str, layers))}"
        self.store = store

    def of_text(self, tokens: np.ndarray) -> np.ndarray:
        """int16 [n, 3 * hidden_size], in the context that they were written in."""
        n_ctx = None if self.store.n_ctx is None else max(self.store.n_ctx, len(tokens))
        states = np.asarray(self.model.hidden_states(tokens.tolist(), self.layers, n_ctx=n_ctx))
        return draft_data.bfloat16_bits(states.reshape(len(tokens), self.width))

    def write(self, index: int, texts: Sequence[draft_data.Text]) -> None:
        self._save(index, [self.of_text(text.tokens) for text in texts])

    def keep(self, index: int, texts: Sequence[draft_data.Builder]) -> None:
        """What was said while they were written."""
        self._save(index, [text.states for text in texts if text.states is not None])

    def _save(self, index: int, bits: Sequence[np.ndarray]) -> None:
        self.folder.mkdir(exist_ok=True)
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(bits))
        save_bytes(self._path(index), buffer.getvalue())

    def _path(self, index: int) -> pathlib.Path:
        return self.folder / f"round-{index:05d}.npy"

    def read(self, path: pathlib.Path, n: int) -> np.ndarray:
        try:
            found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ToolError(
                f"{path}: cannot be read ({error}); delete it, the same command writes it again"
            ) from None
        if found.shape != (n, self.width) or found.dtype != np.int16:
            raise ToolError(
                f"{path}: is {found.dtype} {found.shape}, expected int16 {(n, self.width)}: delete "
                "it, the same command writes it again"
            )
        return found

    def load(
        self, progress: Callable[[str], None], stopped: Callable[[], bool] = lambda: False
    ) -> list[tuple[int, TappedText]]:
        """All texts with the number of their round; reads those anew that have no taps yet."""
        rounds: dict[int, list[draft_data.Text]] = {}
        for index, text in self.store.load():
            rounds.setdefault(index, []).append(text)
        found: list[tuple[int, TappedText]] = []
        start, n_read = time.monotonic(), 0
        for index, texts in rounds.items():
            path = self._path(index)
            n = sum(len(text.tokens) for text in texts)
            if not path.exists():
                self.write(index, texts)
                n_read += n
                rate = n_read / (time.monotonic() - start)
                progress(f"taps: round {index} of {max(rounds)}, {rate:.0f} tokens/s")
            taps, first = self.read(path, n), 0
            for text in texts:
                own = taps[first : first + len(text.tokens)]
                found.append((index, TappedText(**vars(text), taps=own)))
                first += len(text.tokens)
        return found
