"""GGUF -> Hugging Face -> GGUF: every key comes back with its type and place, unless changed."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import hf_checkpoints as hf
import tiny_models
from helpers import model_path

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.gguf_metadata import is_of_the_file  # noqa: E402
from gguf_convert.to_hf import gguf_to_hf  # noqa: E402

# The reader of the package `gguf` takes 10 s for the vocabulary of SmolLM2.
MODELS = [
    pytest.param(
        path,
        marks=() if "-draft" in path.name and "smollm2" not in path.name else pytest.mark.slow,
        id=path.stem,
    )
    for path in sorted((hf.ROOT / "models").glob("*.gguf"))
]
SIDE = "gguf_metadata.json"


def keys_of(path: pathlib.Path) -> dict[str, Any]:
    """Type names and value of every key that is not about the file itself, in order."""
    found = {}
    for key, field in gguf.GGUFReader(path).fields.items():
        if not is_of_the_file(key) and not key.startswith("GGUF."):
            kinds = [kind.name for kind in field.types]
            found[key] = (kinds, repr(field.contents()))
    return found


def assert_keys_come_back(path: pathlib.Path, folder: pathlib.Path, **options: Any) -> None:
    gguf_to_hf(path, folder / "back")
    plan = convert(folder / "back", folder / "two.gguf", **options)
    one, two = keys_of(path), keys_of(folder / "two.gguf")
    assert {k: two.get(k) for k in one} == one
    assert set(two) == set(one)
    assert list(two) == list(one)
    assert not [note for note in plan.notes if SIDE in note]


@pytest.mark.parametrize("path", MODELS)
def test_every_key_of_the_shipped_models_comes_back(
    path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert "general.license" in keys_of(path)
    assert_keys_come_back(path, tmp_path, outtype="f16")


@pytest.mark.slow
def test_every_key_of_smollm2_comes_back(tmp_path: pathlib.Path) -> None:
    path = model_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert len(keys_of(path)) > 30
    assert_keys_come_back(path, tmp_path, outtype="f16")


def odd_file(path: pathlib.Path, **extra: Any) -> pathlib.Path:
    """Keys of every type, spellings of its own, ids that no token has, no optional key."""
    config = tiny_models.TinyConfig()
    names = tiny_models.byte_tokenizer()
    writer = gguf.GGUFWriter(path, "llama")
    keys = tiny_models.metadata(config) | names | extra
    del keys["general.architecture"], keys["tokenizer.ggml.add_bos_token"]
    keys["tokenizer.ggml.pre"] = "mpt"  # another name of gpt-2
    for key, value in keys.items():
        kind = {str: "STRING", float: "FLOAT64", bool: "BOOL", int: "INT64", list: "ARRAY"}
        writer.add_key_value(key, value, gguf.GGUFValueType[kind[type(value)]])
    value_type = gguf.GGUFValueType
    for number, (name, value) in enumerate(
        {
            "UINT8": 200,
            "INT8": -100,
            "UINT16": 60000,
            "INT16": -30000,
            "UINT32": 4294967295,
            "INT32": -5,
            "UINT64": 2**63,
            "INT64": -(2**40),
            "FLOAT32": 0.1,
            "FLOAT64": 0.1,
            "BOOL": True,
            "STRING": "ünï\n\0<|endoftext|>",
        }.items()
    ):
        writer.add_key_value(f"x.{name}", value, value_type[name])
        array = [value, value]
        writer.add_key_value(f"array.{number}", array, value_type.ARRAY, sub_type=value_type[name])
    writer.add_array("general.tags", ["a", "b"])
    writer.add_uint32("tokenizer.ggml.padding_token_id", 4294967295)
    writer.add_uint32("tokenizer.ggml.eot_token_id", 3)
    writer.add_string("general.license", "apache-2.0")
    writer.add_string("nodots", "kept too")
    writer.add_string("tokenizer.chat_template", "{{ messages }}")
    writer.add_string("tokenizer.chat_template.tool_use", "{{ tools }}")
    writer.add_array("tokenizer.chat_templates", ["tool_use"])
    for name, values in tiny_models.random_tensors(config).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_keys_of_every_type_come_back(tmp_path: pathlib.Path) -> None:
    path = odd_file(tmp_path / "one.gguf")
    assert "x.UINT64" in keys_of(path)
    assert_keys_come_back(path, tmp_path, outtype="f32")
    side = json.loads((tmp_path / "back" / SIDE).read_text("utf-8"))
    stored = {entry["key"] for entry in side["keys"]}
    assert "tokenizer.ggml.merges" not in stored  # only what differs
    # A second time round nothing moves.
    gguf_to_hf(tmp_path / "two.gguf", tmp_path / "again")
    convert(tmp_path / "again", tmp_path / "three.gguf", outtype="f32")
    assert (tmp_path / "two.gguf").read_bytes() == (tmp_path / "three.gguf").read_bytes()


def test_what_was_changed_in_between_wins(tmp_path: pathlib.Path) -> None:
    path = odd_file(tmp_path / "one.gguf")
    gguf_to_hf(path, tmp_path / "back")
    before = convert(tmp_path / "back", tmp_path / "two.gguf", outtype="f32").keys
    assert before["tokenizer.ggml.bos_token_id"].value == 271
    file = tmp_path / "back" / "tokenizer_config.json"
    values = json.loads(file.read_text("utf-8"))
    assert {entry["name"] for entry in values["chat_template"]} == {"default", "tool_use"}
    hf.write_json(file, values | {"bos_token": "the", "chat_template": "new"})
    texts = json.loads((tmp_path / "back" / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    name = next(text for text in texts if len(text) > 3)
    hf.write_json(file, values | {"bos_token": name, "chat_template": "new"})
    plan = convert(tmp_path / "back", tmp_path / "two.gguf", outtype="f32", name="other")
    assert plan.keys["tokenizer.ggml.bos_token_id"] == texts[name]
    assert plan.keys["tokenizer.chat_template"] == "new"
    assert plan.keys["general.name"] == "other"
    assert plan.keys["general.license"].value == "apache-2.0"
    assert any("has changed since" in note and "bos_token_id" in note for note in plan.notes)


def test_the_name_does_not_come_from_the_folder(tmp_path: pathlib.Path) -> None:
    gguf_to_hf(odd_file(tmp_path / "one.gguf"), tmp_path / "back")
    (tmp_path / "back").rename(tmp_path / "elsewhere")
    plan = convert(tmp_path / "elsewhere", tmp_path / "two.gguf")
    assert plan.keys["general.name"].value == "tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(order="x"), "'order' should be a list of keys"),
        (lambda v: v.update(keys=[{}]), "each with a 'key'"),
        (lambda v: v["keys"][0].update(type="uint7"), "has the unknown type 'uint7'"),
        (lambda v: v["keys"][0].update(type=["a"]), "has the unknown type"),
        (lambda v: v["keys"][0].update(type="uint8", value=256), "is no uint8: 256"),
        (lambda v: v["keys"][0].update(type="string", value=5), "is no string: 5"),
        (lambda v: v["keys"][0].update(type="float32", value=1e300), "is no float32"),
        (lambda v: v["keys"][0].update(type="bool", value=1), "is no bool: 1"),
        (lambda v: v["keys"][0].update(type="array", items="array", value=[]), "unknown type"),
        (lambda v: v["keys"][0].update(type="array", items="int8", value=3), "is no array: 3"),
        (lambda v: v["keys"][0].update(type="string", value="\ud800"), "not Unicode"),
    ],
)
def test_a_damaged_side_file_is_named(change: Any, message: str, tmp_path: pathlib.Path) -> None:
    gguf_to_hf(tiny_models.write_tiny(tmp_path / "one.gguf"), tmp_path / "back")
    path = tmp_path / "back" / SIDE
    values = json.loads(path.read_text("utf-8"))
    values["keys"].insert(0, {"key": "general.x", "instead_of": None})
    change(values)
    hf.write_json(path, values)
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path / "back", tmp_path / "two.gguf")


ARITHMETIC: list[tuple[dict[str, Any], str]] = [
    ({"llama.attention.scale": 0.5}, r"'llama.attention.scale' should be 1 / sqrt\(16\)"),
    ({"llama.rope.dimension_count": 8}, "'llama.rope.dimension_count' should be the 16"),
    ({"llama.attention.value_length": 8}, "'llama.attention.value_length' should be key_length"),
    (
        {"llama.attention.sliding_window": 64, "llama.attention.sliding_window_pattern": 2},
        "'llama.attention.sliding_window_pattern' should be that of all layers",
    ),
    ({"llama.nextn_predict_layers": 1}, "'llama.nextn_predict_layers' should be 0"),
    ({"llama.logit_scale": 0.5}, "'llama.logit_scale' should be 1, as config.json"),
    ({"llama.attention.causal": False}, "'llama.attention.causal' should be True"),
    ({"llama.rope.freq_base": "x"}, "'llama.rope.freq_base' should be a number, found 'x'"),
    ({"llama.rope.freq_base": float("nan")}, "'llama.rope.freq_base' should be a finite number"),
    ({"llama.block_count": "two"}, "'llama.block_count' should be one whole number from 1"),
    ({"llama.attention.head_count": [4, 4]}, "'llama.attention.head_count' should be one whole"),
    ({"llama.attention.head_count": 0}, "'llama.attention.head_count' should be one whole"),
    ({"split.count": 3}, "is one of 3 files that make a model"),
]


@pytest.mark.parametrize(("extra", "message"), ARITHMETIC)
def test_what_config_json_cannot_say_is_refused(
    extra: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    path = odd_file(tmp_path / "one.gguf", **extra)
    with pytest.raises(ConvertError, match=message):
        gguf_to_hf(path, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_the_older_key_of_linear_scaling_is_read(tmp_path: pathlib.Path) -> None:
    path = odd_file(tmp_path / "one.gguf", **{"llama.rope.scale_linear": 4.0})
    gguf_to_hf(path, tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text("utf-8"))
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert config["eos_token_id"] == 271
    special = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text("utf-8"))
    assert "pad_token" not in special  # 4294967295 is no token


def test_a_folder_of_another_checkpoint_is_refused(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "one.gguf")
    for name in ("chat_template.jinja", "pytorch_model-00001-of-00002.bin", "added_tokens.json"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(ConvertError, match=f"holds {name} of another checkpoint"):
            gguf_to_hf(path, folder)
        assert [file.name for file in folder.iterdir()] == [name]
    with pytest.raises(ConvertError, match="is not a folder"):
        gguf_to_hf(path, path)
    with pytest.raises(ConvertError, match="no such file"):
        gguf_to_hf(tmp_path, tmp_path / "back")
    gguf_to_hf(path, tmp_path / "back")
    gguf_to_hf(path, tmp_path / "back")  # its own output is replaced
