"""`compare` takes what `Decoder` takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

import eagle_reference as eagle
import mtp_reference as mtp
import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

TARGET = tiny_models.FAMILIES["qwen35"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("compare")
    config = mtp.MtpConfig(TARGET)
    mtp.write_mtp(folder / "target.gguf", config)
    mtp.write_mtp(folder / "mtp.gguf", config, alone=True, seed=5)
    tiny_models.write_tiny(folder / "draft.gguf", TARGET, seed=2)
    head = eagle.head_for(TARGET, context_length=1024)
    eagle.write_eagle3(folder / "eagle.gguf", head, TARGET)
    names = ("target", "mtp", "draft", "eagle")
    made = {name: sd.Model(folder / f"{name}.gguf", n_threads=1) for name in names}
    yield made
    for model in made.values():
        model.close()


@pytest.mark.parametrize(
    ("draft", "drafters", "expected"),
    [
        ("draft", {"both": ["model", "ngram"]}, {"both": "model,ngram"}),
        ("draft", {"one": sd.Cascade(sd.NGram(), sd.SuffixAutomaton())}, {"one": "ngram,suffix"}),
        ("draft", ["model", "mtp", "ngram"], {"model": "model", "mtp": "mtp", "ngram": "ngram"}),
        ("draft", ["model,suffix"], {"model,suffix": "model,suffix"}),
        ("eagle", ["eagle", "mtp"], {"eagle": "eagle", "mtp": "mtp"}),
        ("eagle", ["auto"], {"auto": "eagle,ngram,suffix"}),
        ("mtp", ["mtp", "ngram"], {"mtp": "mtp", "ngram": "ngram"}),
        ("mtp", [["mtp", "ngram"]], {"mtp+ngram": "mtp,ngram"}),
    ],
)
def test_drafters_are_those_of_a_decoder(
    models: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    draft: str,
    drafters: Any,
    expected: dict[str, str],
) -> None:
    made = []

    class Seen(sd.Decoder):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            made.append((self._native.drafter, options.get("draft")))

    module = importlib.import_module("specdec_native.studies.compare")
    monkeypatch.setattr(module, "Decoder", Seen)
    options: dict[str, Any] = {"max_tokens": 2, "rounds": 1, "n_ctx": 256}
    found = sd.compare(models["target"], ["the cat"], drafters, draft=models[draft], **options)
    assert set(found.methods) == {"plain", *expected}
    assert [name for name, _ in made] == ["none", *expected.values()]
    if expected != {"one": "ngram,suffix"}:
        assert models[draft] in [given for _, given in made]


def test_a_draft_that_fits_nothing_is_refused(models: dict[str, Any]) -> None:
    with pytest.raises(sd.InvalidArgumentError, match="'mtp' needs"):
        sd.compare(models["target"], ["the cat"], ["mtp"], draft=models["draft"], rounds=1)
