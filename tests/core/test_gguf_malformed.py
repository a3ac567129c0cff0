"""A GGUF file from a stranger is read right or refused by name; it never crashes, over-reads or
exhausts memory."""

from __future__ import annotations

import os
import pathlib
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings

import gguf_fixtures as fx
from damage import damaged
from gguf_malformed_cases import FIXTURES, Fixture
from helpers import examples, native

gguf_native = native("gguf")

STATUS = pathlib.Path("/proc/self/status")  # holds the peak memory of a process


def run(fixture: Fixture, source):
    """Opens a fixture through `source` and takes the step that decides."""
    file = source(fixture.make(), dict(fixture.limits))
    if fixture.step == "architecture":
        file.architecture()
    if fixture.step == "check_values":
        for tensor in file.tensors():
            file.check_values(tensor["name"])
    return file


def test_fixture_ids_are_unique():
    ids = [f.id for f in FIXTURES]
    assert len(set(ids)) == len(ids)
    assert len(ids) > 150


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda f: f.id)
def test_malformed_file_has_its_documented_outcome(fixture, tmp_path):
    def from_disk(content, limits):
        path = tmp_path / "f.gguf"
        path.write_bytes(content)
        return gguf_native.open(str(path), limits)

    for source in (gguf_native.parse, from_disk):
        if fixture.outcome != "refuse":
            file = run(fixture, source)
            file.exercise()
            reasons = [w.split(":")[0] for w in file.warnings]
            assert reasons == ([fixture.reason] if fixture.outcome == "warn" else [])
            continue
        with pytest.raises(gguf_native.Error) as caught:
            run(fixture, source)
        error = caught.value
        assert (error.code, error.reason) == (fixture.code, fixture.reason), str(error)
        assert error.path.endswith(b".gguf")
        assert str(error).startswith(error.path.decode())
        if fixture.key is not None:
            assert error.key == fixture.key
            assert fixture.key.decode(errors="replace")[0] in str(error)
        if fixture.tensor is not None:
            assert error.tensor == fixture.tensor
        if error.offset is not None:
            assert 0 <= error.offset <= max(len(fixture.make()), 65536)
        # A terminal cannot be attacked through the message, and it stays short.
        assert all(" " <= c < "\x7f" for c in str(error))
        assert len(str(error)) < 1000


def test_message_says_what_where_expected_and_got():
    content = fx.build([fx.ARCH], [fx.Tensor("blk.3.ffn_down.weight", (64, 32))])[:-4096]
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.parse(content, path="model.gguf")
    start = hex(len(content))
    assert str(caught.value) == (
        f"model.gguf: tensor 'blk.3.ffn_down.weight' at offset {start} needs 8192 bytes, "
        f"file ends at {start} (truncated?)"
    ).replace(start, hex(caught.value.offset), 1)


def test_removed_and_unknown_types_are_named():
    for type_id, name in ((34, "TQ1_0"), (31, "Q4_0_4_4 (removed)"), (1000, "1000")):
        with pytest.raises(gguf_native.Error, match=name.replace("(", r"\(").replace(")", r"\)")):
            gguf_native.parse(fx.build([fx.ARCH], [fx.Tensor("t", (256,), type_id=type_id)]))


def test_truncation_at_every_byte_is_refused():
    content = fx.small()
    last = gguf_native.parse(content).tensors()[-1]
    end = last["offset"] + last["n_bytes"]
    # Only the padding after the last tensor may be missing.
    assert gguf_native.accepted_truncations(content) == list(range(end, len(content)))


def test_truncation_of_a_file_without_tensors_is_refused():
    content = fx.build([fx.ARCH, ("tokenizer.ggml.tokens", ["a", "bc"])])
    assert gguf_native.accepted_truncations(content) == []


def test_every_header_byte_mutated_opens_or_raises_error():
    content = fx.small()
    start = gguf_native.parse(content).data_start
    accepted, refused = gguf_native.probe_mutations(content, start)
    assert accepted + refused == 4 * start
    assert accepted > 100
    assert refused > 1000


def outcome_of(content: bytes) -> tuple[str, str] | None:
    """Code and reason of the refusal, None for an accepted file; reads everything in it."""
    try:
        gguf_native.parse(content).exercise()
    except gguf_native.Error as error:
        return error.code, error.reason
    return None


@pytest.mark.hypothesis
def test_damaged_files_open_or_raise_error():
    outcomes = set()

    @settings(max_examples=examples(120))
    @given(damaged(fx.small()))
    def check(content):
        outcome = outcome_of(content)
        outcomes.add(outcome)
        if outcome is not None:
            code, reason = outcome
            assert code in ("model_format", "unsupported")
            assert reason

    check()
    assert None in outcomes
    assert len(outcomes) > 5, "few ways to be refused were met"


def hostile_files() -> dict[str, bytes]:
    filler = bytes(1 << 20)
    return {
        "keys": fx.build([filler], n_kv=len(filler) // 13),
        "tensors": fx.build([fx.ARCH], tail=filler, n_tensors=len(filler) // 32),
        "numbers": fx.build([fx.string("k") + fx.array(4, len(filler) // 4 + 1, filler)]),
        "strings": fx.build([fx.string("k") + fx.array(8, len(filler) // 8, filler[:-1])]),
        "huge": fx.build([fx.string("k") + fx.array(0, 2**63, filler)]),
        "name": fx.build([fx.string("k", 2**62) + filler]),
    }


PEAK_SCRIPT = """
import sys
sys.path[:0] = sys.argv[2].split("|")
from helpers import native
module = native("gguf")
content = open(sys.argv[1], "rb").read()
def peak():
    return int([l for l in open("/proc/self/status") if l.startswith("VmHWM")][0].split()[1]) * 1024
before = peak()
try:
    module.parse(content)
    outcome = "accept"
except module.Error as error:
    outcome = error.reason
print(outcome, peak() - before)
"""


def peak_memory(content: bytes, tmp_path) -> tuple[str, int]:
    """What becomes of a file in a fresh process, and by how many bytes the peak memory grew."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    folders = [str(pathlib.Path(__file__).parents[1]), *sys.path]
    result = subprocess.run(
        [sys.executable, "-c", PEAK_SCRIPT, str(path), "|".join(folders)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    outcome, grown = result.stdout.split()
    return outcome, int(grown)


@pytest.mark.skipif(
    not pathlib.Path("/proc/self/status").exists(), reason="needs /proc/self/status"
)
@pytest.mark.parametrize("name", sorted(hostile_files()))
def test_hostile_counts_cost_no_more_memory_than_the_metadata_there_is(name, tmp_path):
    content = hostile_files()[name]
    outcome, grown = peak_memory(content, tmp_path)
    assert outcome != "accept"
    assert grown <= 2 * len(content) + (64 << 20)


def many_keys(n: int) -> bytes:
    pairs = b"".join(struct.pack("<Q8sIB", 8, b"%08x" % i, 0, i & 255) for i in range(n))
    return b"GGUF" + struct.pack("<IQQ", 3, 0, n) + pairs


def test_very_many_keys_are_read_in_linear_time_and_memory(tmp_path):
    content = many_keys(400_000)
    # A quadratic search for duplicates would take long and meet the suite's time limit.
    file = gguf_native.parse(content)
    assert file.require_u64("00061a7f") == 399_999 & 255
    outcome, grown = peak_memory(content, tmp_path)
    assert outcome == "accept"
    assert grown <= 2 * len(content) + (64 << 20)


def test_more_keys_than_the_limit_are_refused():
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.parse(many_keys((1 << 20) + 1))
    assert caught.value.reason == "limit"


def test_a_sparse_file_of_a_tebibyte_is_opened_without_reading_its_holes(tmp_path):
    path = tmp_path / "sparse.gguf"
    n = 1 << 40
    head = fx.build([fx.ARCH], [fx.Tensor("t", (n // 4,), data=b"")])
    path.write_bytes(head)
    try:
        os.truncate(path, len(head) + n)
    except OSError as error:
        pytest.skip(f"the file system has no files of this size: {error}")
    file = gguf_native.open(str(path))
    assert file.tensors()[0]["n_bytes"] == n
    assert path.stat().st_blocks * 512 < 1 << 20


def test_io_errors_name_the_path(tmp_path):
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.open(str(tmp_path / "none.gguf"))
    assert (caught.value.code, caught.value.reason) == ("io", "not_found")
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.open(str(tmp_path))
    assert caught.value.code == "io"


def test_a_path_with_escape_codes_is_escaped_in_messages(tmp_path):
    path = tmp_path / "a\x1b[31m\n.gguf"
    path.write_bytes(b"GGUX")
    with pytest.raises(gguf_native.Error) as caught:
        gguf_native.open(str(path))
    assert "\x1b" not in str(caught.value)
    assert "\\x1b[31m\\x0a" in str(caught.value)
    assert caught.value.path == os.fsencode(path)
