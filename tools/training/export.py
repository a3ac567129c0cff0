"""From checkpoints of transformers to the GGUF files of models/."""

from __future__ import annotations

import pathlib

import transformers

from gguf_convert.checkpoint import Checkpoint
from gguf_convert.pipeline import make_plan, run
from training import recipes, vocabulary
from training_safety import ToolError


def save_checkpoint(
    model: transformers.PreTrainedModel, tokenizer_file: pathlib.Path, folder: pathlib.Path
) -> None:
    """A folder that transformers and convert_hf_to_gguf.py read."""
    try:
        _save(model, tokenizer_file, folder)
    except Exception as error:  # safetensors, tokenizers and transformers have kinds of their own
        raise ToolError(f"{folder}: cannot be written: {error}") from None


def _save(
    model: transformers.PreTrainedModel, tokenizer_file: pathlib.Path, folder: pathlib.Path
) -> None:
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token=vocabulary.END,
        eos_token=vocabulary.END,
        unk_token=None,
        model_max_length=recipes.CONTEXT,
    )
    tokenizer.save_pretrained(folder)


def write_gguf(
    folder: pathlib.Path, output: pathlib.Path, *, name: str, description: str, size: str
) -> None:
    """As convert_hf_to_gguf.py --outtype q8_0 does, and says what the model is."""
    with Checkpoint(folder) as checkpoint:
        plan = make_plan(checkpoint, "Q8_0", name=name)
        plan.keys |= {
            "general.description": description,
            "general.license": recipes.LICENCE,
            "general.size_label": size,
        }
        run(plan, checkpoint, output, progress=False)
