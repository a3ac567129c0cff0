#!/usr/bin/env python3
"""Runs the commands and the Python package on processors that this machine is not.

    python tools/emulated_cpus.py                 # every processor, a Markdown table
    python tools/emulated_cpus.py --cpu Nehalem   # one

qemu-x86_64 (Debian: qemu-user) runs whole programs and ends them with SIGILL at instructions that
the named processor lacks. Each command must then give what it gives here without an emulator. A
small program probes first which missing instructions this emulator really refuses: it cannot
emulate AVX-512 and AVX-VNNI at all, and runs BMI2 everywhere. docs/cpus.md holds the table.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
TIMEOUT_S = 400.0


class Cpu(NamedTuple):
    name: str  # for qemu's -cpu
    what: str
    isa: str  # what must be chosen there
    whole: bool  # every command, or a single generation


CPUS = (
    Cpu("qemu64", "x86-64 as it began: SSE2 (and SSE3)", "scalar", True),
    Cpu("Nehalem", "Intel 2008: SSE4.2", "scalar", True),
    Cpu("Haswell-v4", "Intel 2013: AVX2", "avx2", True),
    Cpu("Skylake-Client-v4", "Intel 2015, laptops", "avx2", True),
    Cpu("EPYC-Rome", "AMD Zen 2, 2019", "avx2", True),
    Cpu("max", "all that the emulator has", "avx2", True),
    Cpu("SandyBridge", "Intel 2011: AVX, no AVX2", "scalar", False),
    Cpu("Haswell-v4,-avx2", "one feature missing", "scalar", False),
    Cpu("Haswell-v4,-fma", "one feature missing", "scalar", False),
    Cpu("Haswell-v4,-f16c", "one feature missing", "scalar", False),
    Cpu("Haswell-v4,-bmi2", "one feature missing", "scalar", False),
    Cpu("Haswell-v4,-popcnt", "one feature missing", "scalar", False),
    Cpu(
        "Haswell-v4,-xsave", "AVX2, but a system that does not save its registers", "scalar", False
    ),
)

# Feature by feature: what the processor says, and what happens.
PROBE = r"""
#include <csetjmp>
#include <csignal>
#include <cstdio>
static sigjmp_buf back;
static void refused(int) { siglongjmp(back, 1); }
#define PROBE(feature, ...)                                                      \
  do {                                                                           \
    const bool ran = sigsetjmp(back, 1) == 0 && (([] { asm volatile(__VA_ARGS__); })(), true); \
    std::printf("%s %d %d\n", feature, __builtin_cpu_supports(feature) != 0, ran); \
  } while (false)
int main() {
  __builtin_cpu_init();
  std::signal(SIGILL, refused);
  PROBE("ssse3", "pshufb %%xmm0, %%xmm0" ::: "xmm0");
  PROBE("sse4.1", "pmulld %%xmm0, %%xmm0" ::: "xmm0");
  PROBE("sse4.2", "pcmpgtq %%xmm0, %%xmm0" ::: "xmm0");
  PROBE("popcnt", "popcnt %%eax, %%eax" ::: "eax");
  PROBE("avx", "vaddps %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
  PROBE("avx2", "vpaddd %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
  PROBE("fma", "vfmadd231ps %%ymm0, %%ymm0, %%ymm0" ::: "xmm0");
  PROBE("f16c", "vcvtph2ps %%xmm0, %%ymm0" ::: "xmm0");
  PROBE("bmi", "andn %%eax, %%eax, %%eax" ::: "eax");
  PROBE("bmi2", "shlx %%eax, %%eax, %%eax" ::: "eax");
  PROBE("avxvnni", ".byte 0xc4, 0xe2, 0x7d, 0x50, 0xc0" ::: "xmm0");
  PROBE("avx512f", "vpaddd %%zmm0, %%zmm0, %%zmm0" ::: "xmm0");
  PROBE("avx512vl", "vpternlogd $1, %%xmm0, %%xmm0, %%xmm0" ::: "xmm0");
}
"""

PROMPT = "for i in range("
TEXT = "The name of the file is read first. The rest of the line is the name of a module.\n"

PYTHON = """
import json, sys
import specdec_native as sd
target, draft = sys.argv[1:]
out = {}
with sd.Model(target, n_threads=1) as m, sd.Model(draft, n_threads=1) as d:
    def keep(name, result):
        out[name] = [result.token_ids, result.from_draft, result.text]
    with sd.Decoder(m, drafter=None) as decoder:
        out["stream"] = "".join(c.text for c in decoder.stream("for i in range(", max_tokens=4))
    with sd.Decoder(m, drafter=sd.DraftModel(d, gamma=2)) as decoder:
        keep("drafted", decoder.generate("for i in range(", max_tokens=6))
    with sd.Decoder(d, drafter=sd.NGram(gamma=2)) as decoder:
        keep("sampled", decoder.generate("def add(", max_tokens=8, temperature=0.8, seed=5))
    out["many"] = [
        r.token_ids for r in sd.generate_many(d, ["def", "class"], max_tokens=4)
    ]
print(json.dumps(out))
"""


class Run(NamedTuple):
    """What a command did: its exit status and what must be the same on every processor."""

    code: int
    value: str
    message: str  # standard error, for people


class Commands:
    """The commands, each by a name, with small models that come with the project."""

    def __init__(self, specdec: str, folder: pathlib.Path) -> None:
        self.specdec = specdec
        self.folder = folder
        self.target = str(MODELS / "pycode-llama-5m.q8_0.gguf")
        self.draft = str(MODELS / "pycode-llama-draft.q8_0.gguf")
        self.mixed = str(folder / "mixed.gguf")  # Q4_K, Q6_K, Q5_0, Q8_0, F32
        self.text = str(folder / "text.txt")
        pathlib.Path(self.text).write_text(TEXT, encoding="utf-8")
        made = self.start([], self.quantize(self.target, self.mixed, "q4_k_m"), {})
        if made.returncode != 0:
            raise SystemExit(f"emulated_cpus: {made.stderr}")

    def quantize(self, source: str, target: str, kind: str) -> list[str]:
        return [self.specdec, "quantize", "--allow-requantize", "--force", source, target, kind]

    def generate(self, *options: str, model: str = "", n: int = 8) -> list[str]:
        command = [self.specdec, "generate", "-m", model or self.target, "-n", str(n), "-t", "1"]
        return [*command, "-p", PROMPT, "--json", *options]

    def all(self, written: str) -> dict[str, list[str]]:
        """Name and command line; `written`: the file that `quantize` makes."""
        neox = str(MODELS / "manuals-neox-7m.q8_0.gguf")
        neox_draft = str(MODELS / "manuals-neox-draft.q8_0.gguf")
        drafted = ("-md", self.draft, "--drafter", "model", "--gamma", "2")
        return {
            "generate": self.generate("--drafter", "none", "--logprobs", "3", model=self.draft),
            "with a draft": self.generate(*drafted),
            "sampled": self.generate(
                *("--drafter", "ngram", "--gamma", "2", "--temp", "0.8", "-s", "3"),
                model=self.draft,
                n=16,
            ),
            "K-quants": self.generate("--drafter", "none", model=self.mixed),
            "GPT-NeoX, auto, 2 threads": self.generate(
                "-md", neox_draft, "-t", "2", model=neox, n=4
            ),
            "q8_0 cache, no repacking": self.generate(
                *("--drafter", "none", "--repack", "off", "--kv-type", "q8_0"), model=self.draft
            ),
            "perplexity": [
                *(self.specdec, "perplexity", "-m", self.draft, "-f", self.text),
                *("-c", "16", "-t", "1", "--json"),
            ],
            "quantize": self.quantize(self.draft, written, "q4_0"),
            "inspect": [self.specdec, "inspect", self.target],
            "tokenize": [self.specdec, "tokenize", "-m", self.target, "-p", TEXT],
            "Python": [sys.executable, "-c", PYTHON, self.target, self.draft],
        }

    def start(
        self, prefix: list[str], command: list[str], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env={
                **{k: v for k, v in os.environ.items() if k != "SPECDEC_CPU_ISA"},
                "SPECDEC_CALIBRATION": str(self.folder),
                **environment,
            },
        )

    def run(self, name: str, prefix: list[str], **environment: str) -> Run:
        """`prefix`: the emulator and its processor; empty: this machine."""
        with tempfile.TemporaryDirectory(dir=self.folder) as own:
            written = pathlib.Path(own) / "out.gguf"
            done = self.start(prefix, self.all(str(written))[name], environment)
            value = comparable(name, done.stdout)
            if written.exists():
                value = hashlib.sha256(written.read_bytes()).hexdigest()
        return Run(done.returncode, value, plain(done.stderr))


def plain(stderr: str) -> str:
    """Without the emulator's remarks on features it does not know."""
    lines = [x for x in stderr.splitlines() if "TCG doesn't support requested feature" not in x]
    return "\n".join(lines).strip()


def comparable(name: str, stdout: str) -> str:
    """What must not depend on the processor: not times, and of `auto` only the text."""
    try:
        result = json.loads(stdout)
    except ValueError:
        return stdout
    if name == "perplexity":  # the C library's exp and log differ in the last bit
        return f"{result['perplexity']:.9g} over {result['n_tokens_scored']} tokens"
    keys = ["text", "token_ids", "finish_reason", "logprobs"]
    if "auto" not in name:
        keys.append("from_draft")
    return json.dumps({key: result[key] for key in keys if key in result} or result)


def compile_probe(folder: pathlib.Path) -> str:
    source = folder / "probe.cc"
    source.write_text(PROBE)
    compiler = os.environ.get("CXX") or "g++"
    command = [compiler, "-std=c++20", "-O1", str(source), "-o", str(folder / "probe")]
    subprocess.run(command, check=True, timeout=120)
    return str(folder / "probe")


def probe(probe_binary: str, prefix: list[str]) -> tuple[set[str], set[str]]:
    """(features that the processor has, features it lacks and whose instructions run all the
    same)."""
    done = subprocess.run(
        [*prefix, probe_binary], capture_output=True, text=True, check=True, timeout=TIMEOUT_S
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    has = {name for name, says, _ in rows if says == "1"}
    return has, {name for name, says, ran in rows if says == "0" and ran == "1"}


def on(qemu: str, cpu: Cpu) -> list[str]:
    return [qemu, "-cpu", cpu.name]


def outcomes(commands: Commands, qemu: str, cpu: Cpu, names: list[str]) -> dict[str, Run]:
    """Each command on that processor, two at a time."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = pool.map(lambda name: commands.run(name, on(qemu, cpu)), names)
        return dict(zip(names, runs, strict=True))


def names_for(cpu: Cpu, commands: Commands) -> list[str]:
    every = list(commands.all(""))
    return every if cpu.whole else every[:1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu", action="append", help="only this one; repeatable")
    parser.add_argument("--specdec", default=str(pathlib.Path(sys.executable).parent / "specdec"))
    options = parser.parse_args()
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        parser.error("qemu-x86_64 is not installed (Debian: qemu-user)")
    wanted = [cpu for cpu in CPUS if not options.cpu or cpu.name in options.cpu]
    if not wanted:
        parser.error(f"--cpu must be one of {', '.join(cpu.name for cpu in CPUS)}")
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        commands = Commands(options.specdec, folder)
        probe_binary = compile_probe(folder)
        here = {job: commands.run(job, []) for job in commands.all("")}
        print("| processor | kernels | refused | " + " | ".join(here) + " |")
        print("|---" * (len(here) + 3) + "|")
        for cpu in wanted:
            blind = probe(probe_binary, on(qemu, cpu))[1]
            version = commands.start(on(qemu, cpu), [options.specdec, "--version"], {})
            cells = []
            got = outcomes(commands, qemu, cpu, names_for(cpu, commands))
            for job, expected in here.items():
                run = got.get(job)
                same = run is not None and run.code == 0 and run[:2] == expected[:2]
                failed |= run is not None and not same
                cells.append("" if run is None else "same" if same else f"**{run.code}**")
            isa = version.stdout.strip().rpartition("(")[2].rstrip(")")
            failed |= isa != cpu.isa
            traps = "all" if not blind else "all but " + ", ".join(sorted(blind))
            print(f"| `{cpu.name}` | {isa} | {traps} | " + " | ".join(cells) + " |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
