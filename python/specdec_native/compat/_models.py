"""Models and tokenizers by name, on a device by its torch name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from .._names import find_model
from ..download import Notify
from ..errors import InvalidArgumentError
from ..model import Model, StrPath, logger

ModelOrName = Model | StrPath


def device_of(device: object) -> Literal["auto", "cpu"]:
    """What `Model` is to be given; "cuda" may fall back to the CPU, as the original did."""
    name = str(device)  # a torch.device spells its own name
    if name == "cpu":
        return "cpu"
    if name in ("cuda", "cuda:0", "auto"):
        return "auto"
    raise InvalidArgumentError(
        f"device must be 'cuda', 'cpu' or 'auto', not {device!r}: 'cuda' is the first GPU, and the "
        "CPU where none can be used"
    )


def fallback_note(model: Model, device: object) -> str:
    """Why the model is not on the GPU that was asked for; "" if it is, or none was."""
    if not str(device).startswith("cuda") or model.info.n_gpu_layers > 0:
        return ""
    reason = model.info.cpu_reason or "there is no usable GPU"
    return f"device={str(device)!r}: running on the CPU: {reason}"


def load_model(
    model_name: StrPath, device: object = "cuda", *, notify: Notify = lambda text: None
) -> Model:
    """Loads a model by its name.

    Args:
        model_name: a GGUF file; a model that comes with the package ("pycode", "pycode-draft",
            "manuals", "manuals-draft", "smollm2-draft"); or one that `specdec-native pull` knows
            ("smollm2", ``hf:ORG/REPO/FILE.gguf``), which is fetched unless it is there already.
        device: "cuda" falls back to the CPU, and says so through `logging`; "cpu"; "auto" falls
            back quietly.
        notify: called with a sentence before a download.
    """
    model = Model(find_model(model_name, notify=notify), device=device_of(device))
    if note := fallback_note(model, device):
        logger.warning("%s", note)
    return model


@contextmanager
def opened(model: ModelOrName) -> Iterator[Model]:
    """A model as it is; one by name is closed again."""
    if isinstance(model, Model):
        yield model
    else:
        with load_model(model, "auto") as loaded:
            yield loaded


class Tokenizer:
    """The tokenizer of a loaded model, with the calls that the originals made on theirs."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @property
    def vocab_size(self) -> int:
        return self._model.info.vocab_size

    @property
    def eos_token_id(self) -> int | None:
        return self._model.eos_token_id

    @property
    def bos_token_id(self) -> int | None:
        return self._model.bos_token_id

    def __len__(self) -> int:
        return self.vocab_size

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt, with BOS where the model wants it."""
        return self._model.tokenize(text)

    def decode(self, token_ids: list[int]) -> str:
        """Text, without control tokens."""
        return self._model.detokenize(token_ids)


def load_tokenizer(model_name: StrPath) -> Tokenizer:
    """The tokenizer that a model's file holds."""
    return Tokenizer(Model(find_model(model_name), device="cpu", repack="off"))
