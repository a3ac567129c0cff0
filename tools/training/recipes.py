"""The models that ship with the project: their shapes and how long each is trained."""

from __future__ import annotations

from dataclasses import dataclass

STAGES = ("corpus", "vocabulary", "target", "texts", "draft", "export", "report", "card")
CONTEXT = 512  # the longest window of training
LICENCE = "apache-2.0"


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int


@dataclass(frozen=True)
class Recipe:
    name: str
    architecture: str  # "llama" or "neox"
    corpus: str  # "python" or "manuals"
    files: tuple[str, str]  # of target and draft, without .q8_0.gguf
    title: str
    writes: str
    vocab: int
    split_digits: bool
    target: Shape
    draft: Shape
    target_steps: int  # of training, those of the shipped files; so are the next two
    draft_steps: int
    written: int = 36_864  # tokens that the target writes for the draft
    window: int = 256
    batch: int = 8
    matrix_rate: float = 0.01
    other_rate: float = 0.004


RECIPES = {
    "pycode": Recipe(
        name="pycode",
        architecture="llama",
        corpus="python",
        files=("pycode-llama-5m", "pycode-llama-draft"),
        title="specdec pycode",
        writes="writes Python; trained on the standard library of Python",
        vocab=4096,
        split_digits=True,
        target=Shape(hidden=256, layers=6, heads=4, kv_heads=2, inner=704),
        draft=Shape(hidden=128, layers=2, heads=2, kv_heads=1, inner=384),
        target_steps=3233,
        draft_steps=592,
    ),
    "manuals": Recipe(
        name="manuals",
        architecture="neox",
        corpus="manuals",
        files=("manuals-neox-7m", "manuals-neox-draft"),
        title="specdec manuals",
        writes="writes English manual pages; trained on free software's manuals",
        vocab=4096,
        split_digits=False,
        target=Shape(hidden=256, layers=6, heads=4, kv_heads=4, inner=1024),
        draft=Shape(hidden=96, layers=1, heads=3, kv_heads=3, inner=384),
        target_steps=3226,
        draft_steps=617,
    ),
}
