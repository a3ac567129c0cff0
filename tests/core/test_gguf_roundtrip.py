"""What the reader accepts, the gguf package reads alike; what the writer writes, both read back."""

from __future__ import annotations

import os
import re
import stat

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gguf_fixtures as fx
from gguf_malformed_cases import FIXTURES
from helpers import models_dir, native

gguf_native = native("gguf")

SCALARS = {
    "u8": [0, 255], "i8": [-128, 127], "u16": [0, 65535], "i16": [-32768, 32767],
    "u32": [0, 2**32 - 1], "i32": [-(2**31), 2**31 - 1],
    "u64": [0, 2**64 - 1], "i64": [-(2**63), 2**63 - 1], "f32": [0.5, -1e30], "f64": [0.1, 1e300],
    "bool": [False, True], "string": [b"", b"caf\xc3\xa9 \x1b"],
}  # fmt: skip


def reference_value(field: gguf.ReaderField):
    """The value of a field of gguf.GGUFReader, strings as bytes."""
    if field.types[0] == gguf.GGUFValueType.ARRAY:
        if not field.data:
            return []
        if field.types[1] == gguf.GGUFValueType.STRING:
            return [bytes(field.parts[i]) for i in field.data]
        return [field.parts[i].tolist()[0] for i in field.data]
    if field.types[0] == gguf.GGUFValueType.STRING:
        return bytes(field.parts[-1])
    return field.parts[-1].tolist()[0]


def assert_read_alike(path) -> None:
    ours = gguf_native.open(str(path))
    theirs = gguf.GGUFReader(path)
    fields = {k: f for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert [k.decode() for k in ours.key_names()] == list(fields)
    names = {v: k for k, v in fx.VALUE_TYPES.items()}
    for key, field in fields.items():
        kinds = [names[int(t)] for t in field.types]
        # gguf.GGUFReader does not keep the element type of an empty array.
        if kinds != ["array"]:
            assert ours.type_name(key) == " of ".join(kinds)
        ours_list, theirs_list = ours.value(key), reference_value(field)
        assert ours_list == theirs_list
    assert [t["name"] for t in ours.tensors()] == [t.name for t in theirs.tensors]
    for our, their in zip(ours.tensors(), theirs.tensors, strict=True):
        assert our["type_id"] == int(their.tensor_type)
        assert our["shape"] == their.shape.tolist()
        assert (our["n_elements"], our["n_bytes"]) == (their.n_elements, their.n_bytes)
        assert our["offset"] == their.data_offset
    largest = max(ours.tensors(), key=lambda t: t["n_bytes"], default=None)
    for their in theirs.tensors:
        if their.n_bytes < 1 << 22 or (largest and their.name == largest["name"]):
            assert ours.tensor_bytes(their.name) == np.ascontiguousarray(their.data).tobytes()


ACCEPTED = [f for f in FIXTURES if f.outcome != "refuse" and f.step != "architecture"]


@pytest.mark.parametrize("fixture", ACCEPTED, ids=lambda f: f.id)
def test_accepted_fixture_reads_like_the_gguf_package(fixture, tmp_path):
    path = tmp_path / "f.gguf"
    path.write_bytes(fixture.make())
    assert_read_alike(path)


def real_files() -> list:
    folder = models_dir()
    return sorted(
        [*folder.glob("*.gguf"), *folder.glob("vocabs/*.gguf")], key=lambda p: p.stat().st_size
    )


no_models = pytest.mark.skipif(not real_files(), reason=f"no GGUF files in {models_dir()}")


@no_models
@pytest.mark.parametrize("path", real_files(), ids=lambda p: p.name)
def test_real_file_opens_without_a_warning(path):
    file = gguf_native.open(str(path))
    assert file.is_mapped
    assert not file.warnings
    assert file.architecture()
    assert file.string_array("tokenizer.ggml.tokens")
    for tensor in file.tensors()[:3]:
        file.check_values(tensor["name"])


# The package's reader takes seconds for a large vocabulary: only the smallest files are compared.
@no_models
@pytest.mark.parametrize("path", real_files()[:2], ids=lambda p: p.name)
def test_real_file_reads_like_the_gguf_package(path):
    assert_read_alike(path)


def every_type() -> list[tuple]:
    keys = [("general.architecture", "string", "llama")]
    for kind, values in SCALARS.items():
        keys += [(f"{kind}.{i}", kind, v) for i, v in enumerate(values)]
        keys.append((f"{kind}.array", f"[{kind}]", values))
        keys.append((f"{kind}.empty", f"[{kind}]", []))
    return keys


def every_tensor() -> list[tuple]:
    rng = np.random.default_rng(5)
    out = []
    for name, (_, elements, block) in fx.TENSOR_TYPES.items():
        shape = [elements * 3, 5]
        out.append((f"t.{name}", name, shape, rng.integers(0, 128, 15 * block, np.uint8).tobytes()))
    return out


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_written_file_is_read_back_by_the_gguf_package(alignment, tmp_path):
    path = tmp_path / "w.gguf"
    size = gguf_native.write(str(path), every_type(), every_tensor(), alignment)
    assert size == path.stat().st_size
    assert_read_alike(path)
    ours = gguf_native.open(str(path))
    assert ours.alignment == alignment
    assert ours.version == 3
    assert not ours.warnings
    for key, kind, value in every_type():
        expected = [
            v.encode() if isinstance(v, str) else v for v in (value if kind[0] == "[" else [value])
        ]
        if "f32" in kind:
            expected = np.array(expected, np.float32).tolist()
        assert ours.value(key) == (expected if kind[0] == "[" else expected[0])
        assert ours.type_name(key) == (f"array of {kind[1:-1]}" if kind[0] == "[" else kind)
    for name, _, shape, data in every_tensor():
        assert ours.tensor_bytes(name) == data
        assert [t["shape"] for t in ours.tensors() if t["name"] == name] == [shape]


def scalars(kind: str) -> st.SearchStrategy:
    if kind == "string":
        return st.text(max_size=20).map(str.encode)
    if kind == "bool":
        return st.booleans()
    if kind[0] == "f":
        return st.floats(allow_nan=False, width=int(kind[1:]))
    return st.integers(*SCALARS[kind])


FIELDS = st.one_of(
    [st.tuples(st.just(kind), scalars(kind)) for kind in SCALARS]
    + [st.tuples(st.just(f"[{kind}]"), st.lists(scalars(kind), max_size=9)) for kind in SCALARS]
)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda key: not key.startswith("general.")
)
NAMES = st.text("abc.é", min_size=1, max_size=20)
SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@pytest.mark.hypothesis
def test_whatever_is_written_is_read_back(tmp_path):
    path = str(tmp_path / "w.gguf")

    @given(
        fields=st.dictionaries(KEYS, FIELDS, max_size=6),
        shapes=st.dictionaries(NAMES, SHAPES, max_size=4),
        alignment=st.sampled_from([8, 32, 256]),
    )
    def check(fields, shapes, alignment):
        data = {
            name: np.arange(np.prod(shape), dtype=np.float32).tobytes()
            for name, shape in shapes.items()
        }
        gguf_native.write(
            path,
            [(key, kind, value) for key, (kind, value) in fields.items()],
            [(name, "F32", shape, data[name]) for name, shape in shapes.items()],
            alignment,
        )
        file = gguf_native.open(path)
        assert [key for key in map(bytes.decode, file.key_names()) if key in fields] == list(fields)
        for key, (kind, value) in fields.items():
            assert file.value(key) == value
            assert file.type_name(key) == (f"array of {kind[1:-1]}" if kind[0] == "[" else kind)
        assert [(t["name"], t["shape"]) for t in file.tensors()] == list(shapes.items())
        for name in shapes:
            assert file.tensor_bytes(name) == data[name]
            assert next(t for t in file.tensors() if t["name"] == name)["offset"] % alignment == 0

    check()


def test_tensor_data_can_be_streamed_in_pieces(tmp_path):
    path = tmp_path / "w.gguf"
    data = bytes(range(120))
    pieces = [data[:1], b"", data[1:50], data[50:]]
    gguf_native.write(str(path), every_type()[:1], [("t", "F32", [30], pieces)])
    assert gguf_native.open(str(path)).tensor_bytes("t") == data


@pytest.mark.parametrize("pieces", [[b"x" * 119], [b"x" * 60, b"x" * 61], []])
def test_streamed_data_of_the_wrong_length_leaves_no_file(pieces, tmp_path):
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.write(str(tmp_path / "w.gguf"), [], [("t", "F32", [30], pieces)])
    assert (caught.value.code, caught.value.reason, caught.value.tensor) == (
        "invalid_argument",
        "bad_size",
        b"t",
    )
    assert list(tmp_path.iterdir()) == []


ONE = bytes(4)
REFUSED_BY_WRITER = {
    "empty key": ([("", "u8", 1)], [], 32, "bad_key"),
    "long key": ([("k" * 65536, "u8", 1)], [], 32, "bad_key"),
    "key with NUL": ([("a\0", "u8", 1)], [], 32, "bad_key"),
    "duplicate key": ([("a", "u8", 1), ("a", "u8", 1)], [], 32, "duplicate_key"),
    "alignment key": ([("general.alignment", "u32", 64)], [], 32, "bad_alignment"),
    "alignment key array": ([("general.alignment", "[u32]", [32])], [], 32, "bad_alignment"),
    "alignment 24": ([], [], 24, "bad_alignment"),
    "alignment 0": ([], [], 0, "bad_alignment"),
    "alignment 1 MiB": ([], [], 1 << 20, "bad_alignment"),
    "empty name": ([], [("", "F32", [1], ONE)], 32, "bad_name"),
    "long name": ([], [("t" * 64, "F32", [1], ONE)], 32, "bad_name"),
    "no dimensions": ([], [("t", "F32", [], ONE)], 32, "bad_ndims"),
    "five dimensions": ([], [("t", "F32", [1] * 5, ONE)], 32, "bad_ndims"),
    "dimension 0": ([], [("t", "F32", [0], b"")], 32, "bad_dim"),
    "partial block": ([], [("t", "Q4_0", [33], bytes(18))], 32, "bad_block"),
    "too many bytes": ([], [("t", "F32", [1], bytes(5))], 32, "bad_size"),
    "overflow": ([], [("t", "F32", [2**62, 4], ONE)], 32, "size_overflow"),
    "duplicate tensor": ([], [("t", "F32", [1], ONE)] * 2, 32, "duplicate_tensor"),
    "bad UTF-8 name": ([], [(b"t\xff", "F32", [1], ONE)], 32, "bad_utf8"),
}


@pytest.mark.parametrize("case", sorted(REFUSED_BY_WRITER))
def test_writer_refuses_what_the_reader_would_refuse(case, tmp_path):
    keys, tensors, alignment, reason = REFUSED_BY_WRITER[case]
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.write(str(tmp_path / "w.gguf"), keys, tensors, alignment)
    assert (caught.value.code, caught.value.reason) == ("invalid_argument", reason)
    assert list(tmp_path.iterdir()) == []


def test_what_only_the_reader_knows_is_refused_before_the_rename(tmp_path):
    path = tmp_path / "w.gguf"
    path.write_bytes(b"old")
    tensors = [(f"t{i}", "F32", [1], ONE) for i in range((1 << 16) + 1)]
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.write(str(path), [], tensors)
    assert caught.value.reason == "limit"
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_replaces_a_file_whole_and_respects_the_umask(tmp_path):
    path = tmp_path / ("n" * 250 + ".gguf")
    path.write_bytes(b"old" * 10000)
    old = os.umask(0o027)
    try:
        gguf_native.write(str(path), every_type()[:1])
    finally:
        os.umask(old)
    assert gguf_native.open(str(path)).architecture() == b"llama"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_into_the_working_directory_by_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gguf_native.write("w.gguf", every_type()[:1])
    assert [p.name for p in tmp_path.iterdir()] == ["w.gguf"]


def test_writing_into_a_missing_folder_is_an_io_error(tmp_path):
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.write(str(tmp_path / "no" / "w.gguf"))
    assert caught.value.code == "io"


@pytest.mark.parametrize("alignment", [32, 64])
def test_copying_a_file_over_itself_keeps_its_content(alignment, tmp_path):
    path = tmp_path / "w.gguf"
    gguf_native.write(str(path), every_type(), every_tensor(), alignment)
    before = path.read_bytes()
    gguf_native.copy_file(str(path), str(path))
    assert path.read_bytes() == before


def parsed(*kv) -> object:
    return gguf_native.parse(fx.build([fx.ARCH, *kv]))


@pytest.mark.parametrize("kind", ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"])
def test_counts_are_read_from_every_integer_type(kind):
    file = parsed(("n", kind, 100), ("a", f"[{kind}]", [1, 2]))
    assert file.require_u64("n") == 100
    assert file.get_u64("n", 5) == 100
    assert file.get_i64("n", 5) == 100
    assert file.u64_array("a") == [1, 2]


def test_getters_give_their_fallback_only_when_the_key_is_absent():
    file = parsed(("x", "f64", 0.5), ("b", True), ("s", "text"), ("n", 3))
    assert file.get_u64("none", 7) == 7
    assert file.get_i64("none", -7) == -7
    assert file.get_f32("none", 0.25) == 0.25
    assert file.get_f32("x", 0.0) == 0.5
    assert file.get_bool("none", True) is True
    assert file.get_bool("b", False) is True
    assert file.get_string("none", "d") == b"d"
    assert file.get_string("s", "d") == b"text"
    assert file.f32_array("none") == file.i32_array("none") == file.string_array("none") == []
    assert file.require_u64("n") == 3
    assert file.require_string("s") == b"text"


GETTERS = {
    "require_u64": ((), ["f32", "bool", "string", "[u32]"]),
    "get_u64": ((1,), ["f32", "f64", "bool", "string", "[u32]"]),
    "get_i64": ((1,), ["f32", "f64", "bool", "string", "[i32]"]),
    "require_f32": ((), ["u32", "bool", "string", "[f32]"]),
    "get_f32": ((1.0,), ["u32", "bool", "string", "[f32]"]),
    "get_bool": ((True,), ["u8", "u32", "string", "[bool]"]),
    "require_string": ((), ["u8", "u32", "[string]"]),
    "get_string": (("",), ["u8", "u32", "[string]"]),
    "f32_array": ((), ["f32", "[u8]", "[i32]", "[string]", "[bool]"]),
    "i32_array": ((), ["i32", "[i8]", "[u8]", "[i64]", "[f32]", "[string]"]),
    "u64_array": ((), ["u64", "[f32]", "[bool]", "[string]"]),
    "bool_array": ((), ["bool", "[u8]", "[string]"]),
    "string_array": ((), ["string", "[u8]", "[u64]"]),
}


@pytest.mark.parametrize("getter", sorted(GETTERS))
def test_getter_refuses_other_types_and_names_the_key(
    getter,
):
    arguments, kinds = GETTERS[getter]
    for kind in kinds:
        file = parsed(
            (
                "some.key",
                kind,
                ["1"]
                if kind == "[string]"
                else [1]
                if kind[0] == "["
                else "1"
                if kind == "string"
                else 1,
            )
        )
        with pytest.raises(
            gguf_native.Error, match=r"metadata key 'some\.key' is .*expected"
        ) as caught:
            getattr(file, getter)("some.key", *arguments)
        assert (caught.value.code, caught.value.reason) == ("model_format", "wrong_type")
        assert caught.value.key == b"some.key"
        assert caught.value.offset > 24


def test_counts_out_of_range_are_refused():
    file = parsed(
        ("neg", "i32", -1), ("big", "u64", 2**63), ("a", "[i64]", [1, -2]), ("u", "[u32]", [2**31])
    )
    for call in (
        lambda: file.require_u64("neg"),
        lambda: file.get_u64("neg", 1),
        lambda: file.get_i64("big", 1),
        lambda: file.u64_array("a"),
        lambda: file.i32_array("u"),
    ):
        with pytest.raises(gguf_native.Error) as caught:
            call()
        assert (caught.value.code, caught.value.reason) == ("model_format", "bad_value")


def test_a_missing_key_is_named():
    for getter in ("require_u64", "require_f32", "require_string"):
        with pytest.raises(gguf_native.Error, match=r"'llama\.block_count' is missing") as caught:
            getattr(parsed(), getter)("llama.block_count")
        assert caught.value.reason == "missing_key"


def test_a_mapped_file_changed_in_place_is_noticed_before_reading_past_an_array(tmp_path):
    path = tmp_path / "f.gguf"
    content = fx.build([fx.ARCH, ("texts", ["ab", "cd"])])
    path.write_bytes(content)
    file = gguf_native.open(str(path))
    assert file.string_array("texts") == [b"ab", b"cd"]
    with path.open("r+b") as changed:
        changed.seek(content.index(fx.string("cd")))
        changed.write((2**62).to_bytes(8, "little"))
    with pytest.raises(gguf_native.Error) as caught:
        file.string_array("texts")
    assert (caught.value.code, caught.value.reason) == ("model_format", "changed")
    file.exercise()


def test_a_double_beyond_float_becomes_infinity_for_the_caller_to_refuse():
    file = parsed(("x", "f64", -1e300))
    assert file.get_f32("x", 0.0) == float("-inf")


def test_display_strings_are_short_and_printable():
    file = parsed(
        ("s", "a\x1b[2J" + "x" * 1000),
        ("n", "i8", -5),
        ("f", "f32", 1e-5),
        ("b", True),
        ("d", "f64", 0.1),
        ("long", list(range(100000))),
        ("texts", ["a\n", "b" * 500, "c"]),
        ("none", "[u8]", []),
    )
    assert file.display("s", 12) == '"a\\x1b[2Jxxxxxxx..."'
    assert file.display("n") == "-5"
    assert file.display("b") == "true"
    assert file.display("f") == "9.99999975e-06"
    assert file.display("d") == "0.10000000000000001"
    assert file.display("none") == "[] (array of u8, 0)"
    assert re.fullmatch(r"\[0, 1, .*, \.\.\.\] \(array of u32, 100000\)", file.display("long"))
    assert len(file.display("long")) < 130
    assert all(" " <= c < "\x7f" for c in file.display("texts"))
    assert len(file.display("texts")) < 150
