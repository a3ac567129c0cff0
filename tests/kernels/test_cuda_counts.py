"""What nvcc made of the kernels, against what processors have: with a build for GPUs
(SPECDEC_CUDA_BIN) and cuobjdump, else only how tools/cuda_counts.py reads."""

from __future__ import annotations

import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from test_cuda_kernels import product, rows_of_x
from test_matmul import random_weights

from helpers import native

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

import cuda_counts  # noqa: E402

gpu = native("cuda_kernels")

RESOURCES = """
Fatbin elf code:
================
arch = sm_90
code version = [1,8]

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN7specdec4cuda10run_kernelINS0_5EmbedEEEvNT_6ParamsE:
  REG:38 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:880 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
CODE = """
Fatbin elf code:
================
arch = sm_90
\tcode for sm_90
\t\tFunction : _ZN7specdec4cuda10run_kernelINS0_5EmbedEEEvNT_6ParamsE
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   MOV R2, R1 ;
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0030*/              @!P0 LDG.E.U16 R8, desc[UR4][R2.64+0x10] ;
        /*0040*/                   FFMA R9, R4, R8, R9 ;
        /*0050*/               @P1 BRA 0x20 ;
        /*0060*/                   FFMA R9, R4, R8, R9 ;
        /*0070*/               @P2 BRA 0x10 ;
        /*0080*/                   FADD R1, R2, R3 ;
        /*0090*/               @P2 BRA 0x80 ;
        /*00a0*/                   EXIT ;
        /*00b0*/                   BRA 0xb0;
"""


def test_registers_and_the_inner_loop_that_loads_most_are_read() -> None:
    (kernel,) = cuda_counts.read_resources(RESOURCES)
    assert (kernel.arch, kernel.registers, kernel.stack) == ("sm_90", 38, 16)
    kernel.loops = cuda_counts.read_code(CODE)["sm_90", kernel.name]
    loop = kernel.loops[0]
    assert len(kernel.loops) == 2
    assert (loop.first, loop.last) == (0x20, 0x50)
    assert (loop.n_instructions, loop.n_computing, loop.load_bytes) == (4, 1, [16, 2])
    before = cuda_counts.Kernel(kernel.name, "sm_90", 40, 0, 0, kernel.loops)
    assert cuda_counts.table([kernel], [before])[-1].endswith("| 40 -> 38 | 4 | 1 | 2 | 18 |")


@pytest.mark.parametrize(
    ("arch", "threads", "shared", "registers", "n_blocks"),
    [
        ("sm_75", 256, 0, 0, 4),
        ("sm_75", 32, 32 << 10, 0, 2),
        ("sm_86", 32, 48 << 10, 0, 2),  # each block takes 1 KiB more
        ("sm_90", 512, 0, 128, 1),
        ("sm_90", 512, 0, 64, 2),
        ("sm_80", 256, 0, 65, 3),  # registers are handed out by 8
        ("sm_89", 32, 0, 0, 24),
    ],
)
def test_a_processor_holds_so_many_blocks(
    arch: str, threads: int, shared: int, registers: int, n_blocks: int
) -> None:
    assert gpu.blocks_at_a_time(arch, threads, shared, registers) == n_blocks


def launch_many() -> dict[str, tuple[int, int, int]]:
    """Kernels with their bounds and the shared memory that they get."""
    rng = np.random.default_rng(1)
    for name in ("F16", "Q4_0", "Q4_K", "Q6_K"):
        x = rows_of_x(33, 512, rng)
        weight = product(name, 32, random_weights(name, 32, 512, rng))
        for processors in (0, 1000):
            gpu.set_processors(processors)
            for n_rows in (1, 3, 8, 9, 33):
                gpu.linear(x[:n_rows], [weight])
                if n_rows <= 9:
                    gpu.gated(x[:n_rows], weight, weight)
    for kv_type in ("f32", "f16", "q8_0"):
        for head_dim in (64, 128):
            cache = gpu.Cache(kv_type, 1, head_dim, 512)
            for processors, n_rows in ((0, 20), (0, 1), (3, 3), (1000, 1)):
                gpu.set_processors(processors)
                q = rng.standard_normal((n_rows, 4, head_dim)).astype(np.float32)
                kv = rng.standard_normal((n_rows, 1, head_dim)).astype(np.float32)
                cache.rope_store(q, kv, kv, 0)
                cache.attention(q, 0, max_chunks=2)
    gpu.set_processors(1)
    return dict(gpu.launched_kernels())


def test_every_architecture_has_the_registers_and_shared_memory_of_every_kernel() -> None:
    binary = os.environ.get("SPECDEC_CUDA_BIN", "")
    if not binary:
        pytest.skip("SPECDEC_CUDA_BIN names no command built with CUDA")
    for program in ("cuobjdump", "c++filt"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    kernels = cuda_counts.kernels_of([binary], code=False)
    assert len({k.arch for k in kernels}) >= 1
    launched = {
        name.replace("specdec::cuda::", "").replace("specdec::", ""): bounds
        for name, bounds in launch_many().items()
    }
    seen = set()
    for kernel in kernels:
        assert kernel.registers <= 255, kernel
        if kernel.name not in launched:
            continue
        seen.add(kernel.name)
        threads, min_blocks, shared = launched[kernel.name]
        n_blocks = gpu.blocks_at_a_time(kernel.arch, threads, shared, kernel.registers)
        assert n_blocks >= min_blocks, (kernel, threads, min_blocks, shared)
    assert len(seen) > 40, sorted(launched)[:5]
