"""Changes to the CUDA kernels that a GPU would not forgive, each of which some test must notice on
the emulator: what stands in for a GPU's verdict while none is at hand.

    python tools/cuda_mutants.py [--only EXPRESSION] [--build FOLDER] [--list]

Works on a copy of the checkout in FOLDER (default: a temporary one), builds its test modules there
once, and for each mutant what it changes. The tests that are about it run first, all of TESTS when
these pass. Needs CMake, Ninja, pybind11 and pytest, and no CUDA; CMake's environment applies, as
CMAKE_CXX_COMPILER_LAUNCHER. Ends with 1 when a mutant survives.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parent.parent
BACKEND = "cpp/backend"
AREAS_OF_KERNELS = ("cuda_kernels", "experts", "matmul", "ops")
AREAS_OF_MODELS = ("engine", "model")
TESTS_OF_MODELS = ("cuda_chain", "cuda_engine", "cuda_hidden_states")
TESTS = ["cuda_kernels", "cuda_kernels_attention", "cuda_experts", *TESTS_OF_MODELS]


@dataclass(frozen=True)
class Mutant:
    what: str
    file: str  # in BACKEND
    tests: str  # a word in the names of those that should notice it: "file word"
    old: str  # once in the file, or the first of several
    new: str

    def apply(self, text: str) -> str:
        if self.old not in text:
            raise SystemExit(f"{self.file} has changed: {self.old!r} is not there any more")
        return text.replace(self.old, self.new, 1)


MUTANTS = [
    Mutant("activations read before the wait, as if they were weights",
        "cuda/kernels/pack_input-inl.h",
        "cuda_engine logits_are_those and llama",
        "    if (row == 0 && p.norm != 0) prefetch_norm(g, p);\n",
        "    if (row == 0 && p.norm != 0) prefetch_norm(g, p);\n"
        "    if (row < p.n_rows && p.row_index == nullptr)\n"
        "      (void)g.load_weight(p.x + row * p.x_stride);\n"),
    Mutant("no sync() before a part of attention is published", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "    g.sync();  // all have written their part\n", ""),
    Mutant("no fence before a part of attention is published", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "      g.fence();\n      const bool last", "      const bool last"),
    Mutant("no fence behind the count of parts", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "      g.fence();\n      is_last.set", "      is_last.set"),
    Mutant("no sync() behind the count of parts", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "    g.sync();\n    if (is_last.get(0) == 0) return;",
        "    if (is_last.get(0) == 0) return;"),
    Mutant("the count of parts is not set back for the next pass", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "      if (last) g.store(counter, 0);\n", ""),
    Mutant("parts of attention merged in another order", "cuda/kernels/attention_parts-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "const Merge next = merge_of(m, l, part_m[i], part_l[i]);",
        "const Merge next = merge_of(part_m[i], part_l[i], m, l);"),
    Mutant("a part behind the last is merged", "cuda/kernels/attention_parts-inl.h",
        "cuda_kernels_attention many_chunks and 2-32",
        "if ((chunk + i) * kChunk >= length) break;",
        "if ((chunk + i) * kChunk > length) break;"),
    Mutant("weights of a list of experts before the list is there", "cuda/kernels/matmul-inl.h",
        "cuda_experts experts_have_the_bits and F16",
        "    if (listed) g.wait_for_previous();\n    const Place place = find_place(g, p, "
        "g.block_y());",
        "    const Place place = find_place(g, p, g.block_y());\n"
        "    if (listed) g.wait_for_previous();"),
    Mutant("no sync() between the pieces of a product and their sum", "cuda/kernels/matmul-inl.h",
        "cuda_kernels bits_of_the_cpu_for_every_row and F16",
        "    g.sync();\n    write_tile<kTiles, kParts>(g, p, place, g.block(), partial, 0,",
        "    write_tile<kTiles, kParts>(g, p, place, g.block(), partial, 0,"),
    Mutant("the wait of a product left out", "cuda/kernels/matmul-inl.h",
        "cuda_kernels bits_of_the_cpu_for_every_row and F16",
        "    if (!listed) g.wait_for_previous();\n\n    int tile[kTiles];\n"
        "    find_columns<kTiles>(p, g.block(), tile);\n"
        "    const auto partial = g.template shared<float>(0);\n    SPECDEC_UNROLL\n"
        "    for (int part = 0; part < kParts; ++part)",
        "    int tile[kTiles];\n"
        "    find_columns<kTiles>(p, g.block(), tile);\n"
        "    const auto partial = g.template shared<float>(0);\n    SPECDEC_UNROLL\n"
        "    for (int part = 0; part < kParts; ++part)"),
    Mutant("an expert's last tile dropped when it is not full", "cuda/kernels/experts-inl.h",
        "cuda_experts experts_have_the_bits and F16",
        "n_tiles.set(e, (n + 7) / 8);", "n_tiles.set(e, n / 8);"),
    Mutant("no sync() between the experts' tiles and their places", "cuda/kernels/experts-inl.h",
        "cuda_experts experts_have_the_bits and F16",
        "    g.sync();\n    int first = 0;", "    int first = 0;"),
    Mutant("the best logit of a block is not shared before it is read", "cuda/kernels/head-inl.h",
        "cuda_kernels_attention heads_give and Q4_0",
        "      if (g.thread() == 0) keys.set(0, best);\n      g.sync();\n",
        "      if (g.thread() == 0) keys.set(0, best);\n"),
    Mutant("rows with logits that are no numbers count", "cuda/kernels/head-inl.h",
        "cuda_kernels_attention not_finite_are_told",
        "const std::uint64_t key = bad != 0 ? 0 : keys.get(i);",
        "const std::uint64_t key = keys.get(i);"),
    Mutant("a token of the step before the last", "cuda/kernels/elementwise-inl.h",
        "cuda_kernels tokens_of_a_head",
        "g.load(p.found + std::int64_t{pick} * 2)",
        "g.load(p.found + std::int64_t{pick > 0 ? pick - 1 : 0} * 2)"),
    Mutant("a row behind the last one is computed", "cuda/kernels/pack_input-inl.h",
        "cuda_kernels bits_of_the_cpu_for_every_row and F16",
        "std::int64_t source = row < p.n_rows ? row : -1;",
        "std::int64_t source = row <= p.n_rows ? row : -1;"),
    Mutant("a unit of weights behind the last is loaded", "cuda/kernels/matmul-inl.h",
        "cuda_kernels bits_of_the_cpu_for_every_row and F16",
        "if (u + 1 < end) unit.load(g, s, base + u + 1, lane);",
        "if (u < end) unit.load(g, s, base + u + 1, lane);"),
    Mutant("a fifth row where there are four columns", "cuda/kernels/matmul_float_launch.h",
        "cuda_kernels bits_of_the_cpu_for_every_row and F16",
        "launch.params.n_rows <= 4", "launch.params.n_rows <= 5"),
    Mutant("as many slots of experts as there are pairs", "stream/experts.cc",
        "cuda_engine logits_are_those and qwen3moe",
        "linear.n_rows = n_slots;", "linear.n_rows = n_pairs;"),
    Mutant("threads without queries add values", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention usual_head_sizes and 2-f32",
        "    if (sub >= kSubs) return;\n", ""),
    Mutant("a kernel for more blocks than a processor holds", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention usual_head_sizes and 2-f32",
        "static constexpr int kMinBlocks = 2;", "static constexpr int kMinBlocks = 5;"),
    Mutant("more threads than a kernel is compiled for", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention usual_head_sizes and 2-f32",
        "static constexpr int kMaxThreads = 256;", "static constexpr int kMaxThreads = 128;"),
    Mutant("too little shared memory for running sums", "cuda/kernels/attention-inl.h",
        "cuda_kernels_attention usual_head_sizes and 2-f32",
        "(kSplit ? 1 : 2) * kQueries * head_dim * 4", "kQueries * head_dim * 4"),
    Mutant("a work space with a row of queries too few", "stream/work_space.cc",
        "cuda_engine as_many_rows",
        "attention = place(rows(q_row));", "attention = place(rows(q_row) - q_row * 4);"),
    Mutant("angles of one row too few for a pass", "stream/work_space.cc",
        "cuda_engine logits_are_those and llama",
        "cos_sin = place(size(n_fed) *", "cos_sin = place(size(n_fed - 1) *"),
    Mutant("a page table without its last page", "stream/work_space.cc",
        "cuda_engine logits_are_those and llama",
        "pages = place(size(n_pages) *", "pages = place(size(n_pages - 1) *"),
    Mutant("a recording for passes that tap other layers", "stream/pass.cc",
        "cuda_hidden_states a_recording_is_good_for",
        "  const PassInputs inputs = put_inputs();\n",
        "  key_.pass.taps.clear();\n  const PassInputs inputs = put_inputs();\n"),
    Mutant("a recording that copies to where taps were before", "stream/taps.cc",
        "cuda_hidden_states recordings_go_when",
        "  std::erase_if(recordings_, [](const auto& entry) { return "
        "!entry.first.pass.taps.empty(); });\n", ""),
    Mutant("a tap in the place of the one before", "stream/taps.cc",
        "cuda_hidden_states taps_are_what_enters and llama",
        "n_tapped_++ * n_bytes", "n_tapped_++ / 2 * n_bytes"),
]  # fmt: skip


def run(command: Sequence[str | os.PathLike[str]], **options: object) -> bool:
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return bool(done.returncode == 0)


class Copy:
    """The checkout, with the test modules of its kernels."""

    def __init__(self, folder: pathlib.Path, defines: Sequence[str]) -> None:
        self.root = folder / "tree"
        self.build = self.root / "build" / "mutants"
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
                # What builds soonest: the CPU's side of a comparison has the same bits on all.
                *("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"),
                *("-DSPECDEC_SCALAR_ONLY=ON", "-DSPECDEC_PYTHON=ON", "-DSPECDEC_TESTS=ON"),
                *(f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind}", *defines),
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if not self.compiles():
            raise SystemExit("the test modules cannot be built")

    def compiles(self, *more: str) -> bool:
        modules = [f"_testing_{area}" for area in (*AREAS_OF_KERNELS, *more)]
        return run(["cmake", "--build", self.build, "--target", *modules])

    def verdict(self, *tests: str) -> str:
        """What pytest says of these: "passed", or the first failure."""
        modules = os.pathsep.join({str(path.parent) for path in self.build.rglob("_testing_*.so")})
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
                *("--no-header", "--tb=no", "-rf", *tests),
            ],
            cwd=self.root, check=False, capture_output=True, text=True,
            env={**os.environ, "SPECDEC_TEST_MODULES": modules},
        )  # fmt: skip
        if done.returncode == 0 and " passed" in done.stdout:
            return "passed"
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
        if not failed:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        return failed[0].split(" ")[1].split("::")[-1]

    def verdict_of(self, tests: str) -> str:
        file, word = tests.split(maxsplit=1)
        if file in TESTS_OF_MODELS and not self.compiles(*AREAS_OF_MODELS):
            return "does not compile"
        return self.verdict(f"tests/kernels/test_{file}.py", "-k", word)

    def verdict_of_all(self) -> str:
        if not self.compiles(*AREAS_OF_MODELS):
            return "does not compile"
        return self.verdict(*(f"tests/kernels/test_{name}.py" for name in TESTS))

    def try_out(self, mutant: Mutant) -> str:
        path = self.root / BACKEND / mutant.file
        text = path.read_text("utf-8")
        try:
            path.write_text(mutant.apply(text), "utf-8")
            if not self.compiles():
                return "does not compile"
            verdict = self.verdict_of(mutant.tests)
            return verdict if verdict != "passed" else self.verdict_of_all()
        finally:
            path.write_text(text, "utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", help="those whose file or description holds this text"
    )
    parser.add_argument("--build", type=pathlib.Path, help="an empty folder for copy and build")
    parser.add_argument("--define", action="append", default=[], help="-D.. for CMake")
    parser.add_argument("--list", action="store_true", help="the mutants, without a build")
    args = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if re.search(args.only, f"{mutant.file}: {mutant.what}")]
    if args.list:
        for mutant in chosen:
            mutant.apply((ROOT / BACKEND / mutant.file).read_text("utf-8"))
            print(f"{mutant.file}: {mutant.what}")
        return 0
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        copy = Copy(args.build or pathlib.Path(temporary), args.define)
        for tests in sorted({mutant.tests for mutant in chosen}):
            if (verdict := copy.verdict_of(tests)) != "passed":
                raise SystemExit(f"without a change {verdict} fails")
        print("| Change | File | Noticed by |\n| --- | --- | --- |", flush=True)
        for mutant in chosen:
            verdict = copy.try_out(mutant)
            survivors += verdict in ("passed", "does not compile")
            verdict = "**nobody**" if verdict == "passed" else verdict
            print(f"| {mutant.what} | `{mutant.file}` | {verdict} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
