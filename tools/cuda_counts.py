"""What the compiler made of the CUDA kernels, counted: registers, and of the inner loop that loads
most its instructions, those that compute, its loads of device memory and their bytes for a thread.

    python tools/cuda_counts.py FILE.. [--arch sm_90] [--match TEXT] [--before FILE..]

FILE is a program, library, object or cubin with the kernels; needs cuobjdump and nvdisasm of the
CUDA toolkit and c++filt. --before puts the counts of another build beside these. Counts are no
times.
"""

from __future__ import annotations

import argparse
import collections
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

RESOURCES = re.compile(r"Function (\S+?):\s*\n\s*(REG:.*)")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
# Bytes of a load by the end of its name.
WIDTHS = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
COMPUTES = ("FFMA", "FMUL", "IMMA", "HMMA", "IDP", "IMAD")


@dataclass
class Loop:
    """Instructions of a loop without another one in it."""

    first: int
    last: int
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    load_bytes: list[int] = field(default_factory=list)

    def add(self, name: str) -> None:
        parts = name.split(".")
        self.counts[parts[0]] += 1
        if parts[0] == "LDG":
            self.load_bytes.append(next((WIDTHS[p] for p in parts if p in WIDTHS), 4))

    @property
    def n_computing(self) -> int:
        return sum(self.counts[name] for name in COMPUTES)

    @property
    def n_instructions(self) -> int:
        return sum(self.counts.values())


@dataclass
class Kernel:
    name: str
    arch: str
    registers: int
    stack: int
    shared: int
    loops: list[Loop] = field(default_factory=list)  # those that load most come first


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"{name} is not on PATH")
    return found


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def readable(names: Sequence[str]) -> list[str]:
    """Kernels without what all of them have in common."""
    done = subprocess.run(
        [tool("c++filt")], input="\n".join(names), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    out = []
    for name in done:
        name = name.replace("specdec::cuda::", "").replace("specdec::", "")
        match = re.match(r"void run_kernel<(.*?)\s*>\(", name)
        out.append(match.group(1) if match else name)
    return out


def by_architecture(text: str) -> Iterator[tuple[str, str]]:
    """(architecture, part) of cuobjdump's output; "": it does not say, for a cubin."""
    parts = re.split(r"(?:arch = |code for )(sm_\d+)\w*", text)
    yield "", parts[0]
    yield from zip(parts[1::2], parts[2::2], strict=True)


def read_resources(text: str) -> list[Kernel]:
    """Of `cuobjdump --dump-resource-usage`."""
    out = []
    for arch, part in by_architecture(text):
        for name, usage in RESOURCES.findall(part):
            values = {k: int(v) for k, v in re.findall(r"([A-Z]+):(\d+)", usage)}
            out.append(Kernel(name, arch, values["REG"], values["STACK"], values["SHARED"]))
    return out


def inner_loops(code: str) -> list[Loop]:
    """Of the SASS of one kernel."""
    lines = [(int(at, 16), name, rest) for at, name, rest in INSTRUCTION.findall(code)]
    loops = []
    for at, name, rest in lines:
        target = re.search(r"0x([0-9a-f]+)", rest)
        if name.startswith("BRA") and target is not None and int(target.group(1), 16) < at:
            loops.append(Loop(int(target.group(1), 16), at))
    inner = [
        loop
        for loop in loops
        if not any(o is not loop and loop.first <= o.first and o.last <= loop.last for o in loops)
    ]
    for loop in inner:
        for at, name, _ in lines:
            if loop.first <= at <= loop.last:
                loop.add(name)
    return inner


def read_code(text: str) -> dict[tuple[str, str], list[Loop]]:
    """(architecture, kernel): its inner loops, of `cuobjdump -sass`; what loads most first."""
    out = {}
    for arch, part in by_architecture(text):
        for piece in re.split(r"Function : ", part)[1:]:
            loops = inner_loops(piece)
            loops.sort(key=lambda loop: (-sum(loop.load_bytes), -loop.n_computing))
            out[arch, piece.split()[0]] = loops
    return out


def kernels_of(files: Sequence[str], code: bool = True) -> list[Kernel]:
    out: list[Kernel] = []
    for file in files:
        found = read_resources(output(tool("cuobjdump"), "--dump-resource-usage", file))
        loops = read_code(output(tool("cuobjdump"), "-sass", file)) if code else {}
        for kernel in found:
            kernel.arch = kernel.arch or next((arch for arch, _ in loops), "")
            kernel.loops = loops.get((kernel.arch, kernel.name), [])
        out += found
    for kernel, name in zip(out, readable([k.name for k in out]), strict=True):
        kernel.name = name
    return out


def cells(kernel: Kernel | None, i: int) -> list[str]:
    """Of its i-th loop."""
    if kernel is None or i >= len(kernel.loops):
        return ["-"] * 5
    loop = kernel.loops[i]
    counts = (loop.n_instructions, loop.n_computing, len(loop.load_bytes), sum(loop.load_bytes))
    return [str(kernel.registers), *map(str, counts)]


def table(
    kernels: Sequence[Kernel], before: Sequence[Kernel] | None = None, n_loops: int = 1
) -> list[str]:
    """Lines of Markdown; with `before`, "then -> now" where a kernel was there."""
    lines = [
        "| kernel | registers | instructions of the loop | that compute | loads | bytes of these |",
        "|---|---|---|---|---|---|",
    ]
    old = {(k.arch, k.name): k for k in before or ()}
    for kernel in kernels:
        for i in range(max(1, min(n_loops, len(kernel.loops)))):
            now = cells(kernel, i)
            if before is not None:
                then = cells(old.get((kernel.arch, kernel.name)), i)
                now = [a if a == b else f"{a} -> {b}" for a, b in zip(then, now, strict=True)]
            lines.append(f"| `{kernel.name}` | " + " | ".join(now) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--match", default="", help="kernels whose names hold this text")
    parser.add_argument("--loops", type=int, default=1, help="of each kernel (default 1)")
    parser.add_argument("--before", nargs="+", help="files of another build")
    args = parser.parse_args(arguments)

    def chosen(files: Sequence[str]) -> list[Kernel]:
        return [k for k in kernels_of(files) if k.arch == args.arch and args.match in k.name]

    before = chosen(args.before) if args.before else None
    print("\n".join(table(sorted(chosen(args.files), key=lambda k: k.name), before, args.loops)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
