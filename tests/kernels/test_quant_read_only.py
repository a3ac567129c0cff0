"""Formats that are only read: the patterns their codes number, and the refusal to write them."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import gguf
import numpy as np
import pytest
from gguf import quants

import tiny_models
from helpers import native, specdec_binary
from weight_formats import FORMATS, set_halves

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import gen_grids

quant = native("quant")
READ = [name for name, f in FORMATS.items() if not f.written]


def test_the_patterns_are_those_of_the_gguf_package():
    assert gen_grids.OUTPUT.read_text("utf-8") == gen_grids.text(), "run: python tools/gen_grids.py"


def test_every_pattern_is_read_at_its_number():
    """Random blocks may miss one of 2048."""
    numbers = np.arange(2048, dtype=np.uint16).reshape(64, 8, 4)
    blocks = np.zeros((64, 50), np.uint8)
    set_halves(blocks, 0, 0x3C00)
    blocks[:, 2:34] = (numbers & 255).reshape(64, 32)
    high = (numbers >> 8 << np.array([0, 3, 6, 9], np.uint16)).sum(axis=2, dtype=np.uint16)
    blocks[:, 34:] = high.view(np.uint8)
    ours = quant.dequantize("IQ1_S", blocks.tobytes())
    theirs = quants.dequantize(blocks, gguf.GGMLQuantizationType.IQ1_S)
    np.testing.assert_array_equal(ours, theirs.reshape(-1))
    assert len(np.unique(ours.reshape(-1, 8), axis=0)) == 2048


def test_formats_without_an_encoder_are_those_that_are_only_read():
    assert len(READ) == 7
    for name in FORMATS:
        if name in READ:
            with pytest.raises(ValueError, match="only read"):
                quant.encode(name, np.zeros(256, np.float32))
        else:
            assert quant.encode(name, np.zeros(256, np.float32))


@pytest.mark.parametrize("name", READ)
def test_quantising_to_them_is_refused_with_the_reason(name, tmp_path):
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    source = tiny_models.write_tiny(tmp_path / "tiny.gguf", tiny_models.TinyConfig(), seed=4)
    for options in (
        {"type": name},
        {"output_tensor_type": name},
        {"token_embedding_type": name.lower()},
    ):
        with pytest.raises(sd.InvalidArgumentError, match=f"{name}, which is only read.*take one"):
            sd.quantize(source, tmp_path / "out.gguf", **({"type": "Q8_0"} | options))
    for arguments in ((name,), ("Q8_0", "--output-tensor-type", name)):
        done = subprocess.run(
            [specdec_binary(), "quantize", source, tmp_path / "out.gguf", *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert f"{name}, which is only read" in done.stderr
    assert not (tmp_path / "out.gguf").exists()
