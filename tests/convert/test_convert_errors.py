"""Bad checkpoints: one clear message, the exit code for bad input, no traceback, no output."""

from __future__ import annotations

import json
import pathlib
import pickle
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_checkpoints as hf
from damage import changed, damaged, put
from helpers import examples

pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from gguf_convert import ConvertError, convert
from gguf_convert.cli import main
from gguf_convert.safetensors_file import SafetensorsFile

Break = Callable[[pathlib.Path], Any]


def change_config(**changes: Any) -> Break:
    def apply(folder: pathlib.Path) -> None:
        path = folder / "config.json"
        hf.write_json(path, json.loads(path.read_text("utf-8")) | changes)

    return apply


def drop_config(key: str) -> Break:
    def apply(folder: pathlib.Path) -> None:
        path = folder / "config.json"
        values = json.loads(path.read_text("utf-8"))
        del values[key]
        hf.write_json(path, values)

    return apply


def change_state(change: Callable[[hf.State], Any]) -> Break:
    def apply(folder: pathlib.Path) -> None:
        state = hf.random_state(hf.llama_config())
        change(state)
        (folder / "model.safetensors").write_bytes(hf.safetensors_bytes(state))

    return apply


def change_header(change: Callable[[dict[str, Any]], Any]) -> Break:
    def apply(folder: pathlib.Path) -> None:
        path = folder / "model.safetensors"
        raw = path.read_bytes()
        (size,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + size])
        change(header)
        path.write_bytes(hf.with_header(json.dumps(header).encode(), raw[8 + size :]))

    return apply


def write(name: str, content: bytes | str) -> Break:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def remove(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def truncate(name: str, n_bytes: int) -> Break:
    def apply(folder: pathlib.Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[:n_bytes])

    return apply


def shards(change: Break) -> Break:
    def apply(folder: pathlib.Path) -> None:
        (folder / "model.safetensors").unlink()
        hf.write_checkpoint(folder, n_shards=3)
        change(folder)

    return apply


def point_index(file_name: str) -> Break:
    index = {"weight_map": {"model.norm.weight": file_name}}
    return shards(lambda folder: hf.write_json(folder / "model.safetensors.index.json", index))


MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
EMBED = "model.embed_tokens.weight"
DEEP = "[" * 200_000 + "]" * 200_000
BAD: dict[str, tuple[Break, str]] = {
    "a shard is missing": (
        shards(remove("model-00002-of-00003.safetensors")),
        "1 of 3 shards .* are missing: model-00002-of-00003.safetensors",
    ),
    "an index that leaves the folder": (point_index("../x.safetensors"), "of the same folder"),
    "an index with an absolute path": (point_index("/etc/passwd"), "of the same folder"),
    "an index of nothing": (
        shards(write("model.safetensors.index.json", "{}")),
        "'weight_map' should map",
    ),
    "the weights are cut off": (truncate("model.safetensors", 200_000), "truncated"),
    "only the length of a header": (truncate("model.safetensors", 8), "truncated"),
    "an empty file of weights": (truncate("model.safetensors", 0), "too few for a safetensors"),
    "a giant header": (
        write("model.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
        "header claims 1099511627776 bytes, at most",
    ),
    "deep JSON in the header": (
        write("model.safetensors", hf.with_header(DEEP.encode())),
        "nested too deeply|not valid JSON",
    ),
    "deep JSON in the configuration": (
        write("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000),
        "nested too deeply|not valid JSON",
    ),
    "a giant number": (write("config.json", '{"a": ' + "9" * 100_000 + "}"), "not valid JSON"),
    "a giant configuration": (write("config.json", b" " * (17 << 20)), "larger than"),
    "a configuration that is a list": (write("config.json", "[]"), "expected a JSON object"),
    "a configuration in another encoding": (write("config.json", b"\xff\xfe"), "not valid JSON"),
    "a key twice": (write("config.json", '{"a": 1, "a": 2}'), "'a' occurs twice"),
    "no configuration": (remove("config.json"), "config.json is missing"),
    "no weights": (remove("model.safetensors"), "no weights: expected one of"),
    "no tokenizer": (remove("tokenizer.json"), "no tokenizer: expected tokenizer.json"),
    "a broken tokenizer": (write("tokenizer.json", "{"), "tokenizer.json: not valid JSON"),
    "another architecture": (
        change_config(architectures=["GPT2LMHeadModel"]),
        "'GPT2LMHeadModel' is not supported; supported are LlamaForCausalLM, MistralForCausalLM",
    ),
    "no architecture": (
        change_config(architectures=None, model_type="gpt2"),
        "'architectures' is missing and 'model_type' is 'gpt2'; supported are LlamaForCausalLM",
    ),
    "two architectures": (
        change_config(architectures=["LlamaForCausalLM", "Qwen2ForCausalLM"]),
        "'architectures' should be a list with one name",
    ),
    "an architecture and another model_type": (
        change_config(model_type="qwen2"),
        "says LlamaForCausalLM but 'model_type' qwen2; correct the one",
    ),
    "a missing key": (drop_config("hidden_size"), "'hidden_size' should be .* found nothing"),
    "a key of the wrong type": (change_config(num_hidden_layers="2"), "'num_hidden_layers'"),
    "too many layers": (change_config(num_hidden_layers=10**9), "at most 4096"),
    "an unknown key": (change_config(residual_scale=0.5), "unknown keys: residual_scale"),
    "a multiplier": (change_config(residual_multiplier=0.2), "'residual_multiplier' should be"),
    "quantised weights": (
        change_config(quantization_config={"bits": 4}),
        "'quantization_config' should be None",
    ),
    "another activation": (change_config(hidden_act="gelu"), "'hidden_act' should be 'silu', "),
    "dynamic rope": (
        change_config(rope_scaling={"type": "dynamic", "factor": 2.0}),
        "rope scaling 'dynamic' is not supported",
    ),
    "an unknown rope parameter": (
        change_config(rope_scaling={"type": "linear", "factor": 2.0, "mscale": 0.7}),
        "unknown rope parameters: mscale",
    ),
    "a sliding window of SmolLM3": (
        change_config(
            architectures=["SmolLM3ForCausalLM"], model_type="smollm3",
            use_sliding_window=True, sliding_window=64,
        ),
        "sliding_window is 64, less than the context of 512 tokens",
    ),
    "a sliding window that is no number": (
        change_config(**MISTRAL, sliding_window="all"),
        "'sliding_window' should be a whole number from 1, or null, found 'all'",
    ),
    "a tensor is missing": (
        change_state(lambda state: state.pop("model.layers.1.mlp.up_proj.weight")),
        r"'model.layers.1.mlp.up_proj.weight' \[96, 64\] is missing",
    ),
    "the head is missing": (
        change_state(lambda state: state.pop("lm_head.weight")),
        "'lm_head.weight'.* is missing",
    ),
    "an unknown tensor": (
        change_state(lambda state: state.update({"model.extra.weight": np.ones(3)})),
        "do not belong in a llama model: model.extra.weight",
    ),
    "a wrong shape": (
        change_state(lambda state: state.update({EMBED: np.ones((320, 60))})),
        r"'model.embed_tokens.weight' should have the shape \[320, 64\] .* found \[320, 60\]",
    ),
    "a weight that is not a number": (
        change_state(lambda state: state[EMBED].__setitem__((7, 7), np.nan)),
        "'model.embed_tokens.weight' holds numbers that are infinite or not numbers",
    ),
    "a tensor of whole numbers": (
        change_header(lambda header: header[EMBED].update(dtype="I32")),
        "'model.embed_tokens.weight' has the type I32",
    ),
    "a tensor of an unknown type": (
        change_header(lambda header: header[EMBED].update(dtype="F4")),
        "unknown type 'F4'",
    ),
    "tensors that overlap": (
        change_header(
            lambda header: header["model.norm.weight"].update(
                data_offsets=header["model.layers.0.input_layernorm.weight"]["data_offsets"]
            )
        ),
        "overlaps|leaves a gap",
    ),
    "offsets beyond the file": (
        change_header(
            lambda header: header[EMBED].update(data_offsets=[1 << 50, (1 << 50) + 81920])
        ),
        "truncated",
    ),
    "a shape that does not fit its bytes": (
        change_header(lambda header: header[EMBED].update(shape=[320, 65])),
        "its offsets span",
    ),
    "a shape that would overflow": (
        change_header(lambda header: header[EMBED].update(shape=[1 << 39] * 8)),
        "its offsets span",
    ),
    "a negative offset": (
        change_header(lambda header: header[EMBED].update(data_offsets=[-4, 81916])),
        "expected two numbers",
    ),
    "more tokens than rows": (
        lambda folder: hf.add_bpe(folder, 400),
        "has 400 tokens but the embedding 320 rows; 80 of those beyond it are more than padding",
    ),
    "a tokenizer of another model": (
        lambda folder: hf.write_checkpoint(folder, hf.llama_config(vocab_size=4000)),
        "has 4000 rows but the tokenizer only 300",
    ),
    "a special token that does not exist": (
        write("tokenizer_config.json", '{"eos_token": "<end>"}'),
        "eos_token is '<end>', which is not in the vocabulary",
    ),
    "BOS is added but not named": (
        write("tokenizer_config.json", '{"add_bos_token": true}'),
        "adds a BOS token, but none is named",
    ),
    "two tokenizers": (
        lambda folder: (folder / "tokenizer.model").write_bytes(hf.trained_spm()),
        "byte-level BPE but tokenizer.model a sentencepiece",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_gives_one_clear_message(
    case: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = BAD[case]
    if case == "two tokenizers":
        pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    folder = tmp_path / "checkpoint"
    hf.write_checkpoint(folder)
    change(folder)
    code = main([str(folder), str(tmp_path / "out.gguf"), "--quiet"])
    shown = capsys.readouterr()
    assert code == 3, shown.err
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert len(shown.err) < 1200
    assert "Traceback" not in shown.err
    with pytest.raises(AssertionError):  # the message is about this, not about something else
        assert_matches("(?!)", shown.err)
    assert_matches(message, shown.err)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def assert_matches(pattern: str, text: str) -> None:
    import re

    assert re.search(pattern, text), text


def test_a_good_checkpoint_stays_good(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "checkpoint")
    assert main([str(tmp_path / "checkpoint"), str(tmp_path / "out.gguf"), "--quiet"]) == 0


def test_a_key_that_the_user_vouches_for_is_ignored(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path, hf.llama_config(my_note="x"))
    with pytest.raises(ConvertError, match="--ignore-key"):
        convert(tmp_path, tmp_path / "out.gguf")
    arguments = [str(tmp_path), str(tmp_path / "out.gguf"), "--quiet", "--ignore-key", "my_note"]
    assert main(arguments) == 0


def test_wrong_arguments(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    hf.write_checkpoint(tmp_path / "c")
    out = str(tmp_path / "out.gguf")
    for arguments, message in [
        ([str(tmp_path / "c"), out, "--outtype", "q9"], "unknown --outtype 'q9'; known are f32"),
        ([str(tmp_path / "nowhere"), out], "no such folder"),
        ([str(tmp_path / "c"), str(tmp_path / "no" / "x")], "no: no such folder"),
        ([str(tmp_path / "c"), str(tmp_path)], "is a folder"),
        ([str(tmp_path / "c"), str(tmp_path / "c" / "model.safetensors")], "of the checkpoint"),
    ]:
        assert main([*arguments, "--quiet"]) == 3
        assert message in capsys.readouterr().err
    for wrong in ([str(tmp_path / "c")], [str(tmp_path / "c"), out, "--revision", "v1"]):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == 2
    assert "--revision is for a repository id" in capsys.readouterr().err


def test_a_repository_that_cannot_be_reached(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(hub, "list_repo_files", refuse)
    monkeypatch.chdir(tmp_path)
    assert main(["some-org/some-model", "out.gguf"]) == 3
    message = capsys.readouterr().err
    assert "some-org/some-model: no such folder" in message
    assert "no route to host" in message


def test_a_repository_is_downloaded_without_other_formats(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    hf.write_checkpoint(tmp_path / "snapshot")
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "list_repo_files", lambda *_, **__: ["model.safetensors"])
    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    assert main(["org/name", "out.gguf", "--quiet", "--revision", "v1"]) == 0
    assert (asked["name"], asked["revision"]) == ("org/name", "v1")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])
    assert (tmp_path / "out.gguf").exists()


@pytest.mark.hypothesis
def test_damaged_headers_never_escape_as_another_exception(tmp_path: pathlib.Path) -> None:
    good = hf.safetensors_bytes({"a": np.ones((3, 4)), "b": np.ones(5), "c": np.zeros((2, 2))})
    n_header = len(good) - 84
    path = tmp_path / "x.safetensors"
    outcomes = []
    byte = st.sampled_from([bytes([b]) for b in b'0123456789"[]{},:-ea\xff\x00'])
    in_json = st.builds(put, st.integers(0, n_header), byte)

    @given(
        st.one_of(
            st.lists(in_json, min_size=1, max_size=4).map(lambda some: changed(good, some)),
            damaged(good, 0, n_header),
        ),
        st.one_of(st.just(len(good)), st.integers(0, len(good))),
    )
    @settings(max_examples=examples(150))
    def check(raw: bytes, n: int) -> None:
        path.write_bytes(raw[:n])
        try:
            SafetensorsFile(path).close()
            outcomes.append(True)
        except ConvertError:
            outcomes.append(False)

    check()
    assert set(outcomes) == {True, False}


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("code was run",))


def test_a_pickle_with_code_is_refused_and_not_run(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hf.write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    out = str(tmp_path / "out.gguf")
    for save in (
        lambda path: torch.save({"w": Evil()}, path),
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: torch.save({"w": Evil()}, path, _use_new_zipfile_serialization=False),
        lambda path: path.write_bytes(b"PK\x03\x04 no zip"),
    ):
        save(tmp_path / "pytorch_model.bin")
        assert main([str(tmp_path), out, "--quiet"]) == 3
        shown = capfd.readouterr()
        assert "safe loader (weights_only) refuses this file" in shown.err
        assert "still be loaded" not in shown.err
        assert "code was run" not in shown.out + shown.err.replace("perhaps code", "")
        assert shown.err.count("\n") == 1
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    assert main([str(tmp_path), out, "--quiet"]) == 3
    assert "expected a dictionary of tensors" in capfd.readouterr().err


def test_a_bin_checkpoint_without_torch_says_what_to_install(
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hf.write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert main([str(tmp_path), str(tmp_path / "out.gguf")]) == 3
    assert "needs PyTorch: install torch" in capsys.readouterr().err
