"""Changes to the CUDA kernels that a GPU would not forgive, each of which some test must notice on
the emulator: what stands in for a GPU's verdict while none is at hand.

    python tools/cuda_mutants.py [--only TEXT] [--build FOLDER]

Works on a copy of the checkout in FOLDER (default: a temporary one), builds its test modules there
once, and for each mutant what it changes. Needs CMake, Ninja, pybind11 and pytest, and no CUDA.
Ends with 1 when a mutant survives.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = "cpp/backend/cuda/kernels"
MODULES = ["_testing_cuda_kernels", "_testing_engine", "_testing_model"]
TESTS = ["cuda_kernels", "cuda_kernels_attention", "cuda_experts", "cuda_chain", "cuda_engine"]


@dataclass(frozen=True)
class Mutant:
    what: str
    file: str
    old: str  # once in the file, or the first of several
    new: str


MUTANTS = [
    Mutant("activations read before the wait, as if they were weights", "pack_input-inl.h",
        "    if (row == 0 && p.norm != 0) prefetch_norm(g, p);\n",
        "    if (row == 0 && p.norm != 0) prefetch_norm(g, p);\n"
        "    if (row < p.n_rows && p.row_index == nullptr)\n"
        "      (void)g.load_weight(p.x + row * p.x_stride);\n"),
    Mutant("no sync() before a part of attention is published", "attention-inl.h",
        "    g.sync();  // all have written their part\n", ""),
    Mutant("no fence before a part of attention is published", "attention-inl.h",
        "      g.fence();\n      const bool last", "      const bool last"),
    Mutant("no fence behind the count of parts", "attention-inl.h",
        "      g.fence();\n      is_last.set", "      is_last.set"),
    Mutant("no sync() behind the count of parts", "attention-inl.h",
        "    g.sync();\n    if (is_last.get(0) == 0) return;",
        "    if (is_last.get(0) == 0) return;"),
    Mutant("the count of parts is not set back for the next pass", "attention-inl.h",
        "      if (last) g.store(counter, 0);\n", ""),
    Mutant("parts of attention merged in another order", "attention_parts-inl.h",
        "const Merge next = merge_of(m, l, part_m[i], part_l[i]);",
        "const Merge next = merge_of(part_m[i], part_l[i], m, l);"),
    Mutant("a part behind the last is merged", "attention_parts-inl.h",
        "if ((chunk + i) * kChunk >= length) break;",
        "if ((chunk + i) * kChunk > length) break;"),
    Mutant("weights of a list of experts before the list is there", "matmul-inl.h",
        "    if (listed) g.wait_for_previous();\n    const Place place = find_place(g, p, "
        "g.block_y());",
        "    const Place place = find_place(g, p, g.block_y());\n"
        "    if (listed) g.wait_for_previous();"),
    Mutant("no sync() between the pieces of a product and their sum", "matmul-inl.h",
        "    g.sync();\n    write_tile<kTiles, kParts>(g, p, place, g.block(), partial, 0,",
        "    write_tile<kTiles, kParts>(g, p, place, g.block(), partial, 0,"),
    Mutant("the wait of a product left out", "matmul-inl.h",
        "    if (!listed) g.wait_for_previous();\n\n    int tile[kTiles];\n"
        "    find_columns<kTiles>(p, g.block(), tile);\n"
        "    const auto partial = g.template shared<float>(0);\n    SPECDEC_UNROLL\n"
        "    for (int part = 0; part < kParts; ++part)",
        "    int tile[kTiles];\n"
        "    find_columns<kTiles>(p, g.block(), tile);\n"
        "    const auto partial = g.template shared<float>(0);\n    SPECDEC_UNROLL\n"
        "    for (int part = 0; part < kParts; ++part)"),
    Mutant("an expert's last tile dropped when it is not full", "experts-inl.h",
        "n_tiles.set(e, (n + 7) / 8);", "n_tiles.set(e, n / 8);"),
    Mutant("no sync() between the experts' tiles and their places", "experts-inl.h",
        "    g.sync();\n    int first = 0;", "    int first = 0;"),
    Mutant("the best logit of a block is not shared before it is read", "head-inl.h",
        "      if (g.thread() == 0) keys.set(0, best);\n      g.sync();\n",
        "      if (g.thread() == 0) keys.set(0, best);\n"),
    Mutant("rows with logits that are no numbers count", "head-inl.h",
        "const std::uint64_t key = bad != 0 ? 0 : keys.get(i);",
        "const std::uint64_t key = keys.get(i);"),
    Mutant("a token of the step before the last", "elementwise-inl.h",
        "g.load(p.found + std::int64_t{pick} * 2)",
        "g.load(p.found + std::int64_t{pick > 0 ? pick - 1 : 0} * 2)"),
    Mutant("a row behind the last one is computed", "pack_input-inl.h",
        "std::int64_t source = row < p.n_rows ? row : -1;",
        "std::int64_t source = row <= p.n_rows ? row : -1;"),
]  # fmt: skip


def run(command: Sequence[str | os.PathLike[str]], **options: object) -> bool:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return bool(done.returncode == 0)


class Copy:
    """The checkout, with the test modules of its kernels."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.root = folder / "tree"
        self.build = folder / "build"
        names = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file() and not name.startswith("models/"):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        pybind = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        subprocess.run(
            [
                *("cmake", "-S", self.root, "-B", self.build, "-G", "Ninja"),
                *("-DCMAKE_BUILD_TYPE=Release", "-DSPECDEC_PYTHON=ON", "-DSPECDEC_TESTS=ON"),
                *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind}"),
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if not self.compiles():
            raise SystemExit("the test modules cannot be built")

    def compiles(self) -> bool:
        return run(["cmake", "--build", self.build, "--target", *MODULES])

    def verdict(self) -> str:
        """What the tests say: "passed", or the first failure."""
        modules = os.pathsep.join({str(path.parent) for path in self.build.rglob("_testing_*.so")})
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
                *("--no-header", "--tb=no", "-rf"),
                *(f"tests/kernels/test_{name}.py" for name in TESTS),
            ],
            cwd=self.root, check=False, capture_output=True, text=True,
            env={**os.environ, "SPECDEC_TEST_MODULES": modules},
        )  # fmt: skip
        if done.returncode == 0:
            return "passed"
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        if not failed:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        return failed[0].split(" ")[1].split("::")[-1]

    def try_out(self, mutant: Mutant) -> str:
        path = self.root / KERNELS / mutant.file
        text = path.read_text("utf-8")
        if mutant.old not in text:
            raise SystemExit(f"{mutant.file} has changed: {mutant.old!r} is not there any more")
        try:
            path.write_text(text.replace(mutant.old, mutant.new, 1), "utf-8")
            return self.verdict() if self.compiles() else "does not compile"
        finally:
            path.write_text(text, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="those whose description holds this text")
    parser.add_argument("--build", type=pathlib.Path, help="an empty folder for copy and build")
    args = parser.parse_args(arguments)
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = Copy(args.build or pathlib.Path(temporary))
        if (verdict := copy.verdict()) != "passed":
            raise SystemExit(f"without a change {verdict} fails")
        print("| Change | File | Noticed by |\n| --- | --- | --- |", flush=True)
        for mutant in MUTANTS:
            if args.only not in mutant.what:
                continue
            verdict = copy.try_out(mutant)
            survivors += verdict in ("passed", "does not compile")
            verdict = "**nobody**" if verdict == "passed" else verdict
            print(f"| {mutant.what} | `{mutant.file}` | {verdict} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
