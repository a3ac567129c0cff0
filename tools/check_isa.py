#!/usr/bin/env python3
"""Proves, by disassembly, that code of an instruction set stays in that set's own functions.

    python tools/check_isa.py build/dev            # a build folder, or single files
    python tools/check_isa.py --objdump aarch64-linux-gnu-objdump build/aarch64

A kernel compiled for AVX-512 may only run after the machine was asked. So everything that such
code touches lies in a namespace of its own (``specdec::avx2``, ...), is reached only through tables
of pointers, and nothing outside uses more than every processor of the architecture has. What can go
wrong, and is found here:

* a static initialiser, a helper or a whole file compiled with the wider instructions;
* an inline function or template (``std::`` too) that is emitted by such a file: the linker keeps
  one copy for everybody, and it may be that one;
* a namespace that uses more than its check asks for (AVX-512 in ``specdec::avx2``);
* a direct call from outside into such a namespace: only a table may choose.

Needs objdump, and objects or programs with their symbols: those in a wheel are stripped, those in
its build folder are not. Exit status 1 with one line for each finding.
"""

from __future__ import annotations

import argparse
import collections
import functools
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

# What each namespace's check asks for: missing_features() in cpp/base/cpu_isa.cc.
_AVX2 = frozenset({"sse3", "ssse3", "sse4", "popcnt", "avx2", "fma", "f16c", "bmi2"})
_ARM82 = frozenset({"dotprod", "lse", "rdm", "crc32"})
GRANTED: dict[str, frozenset[str]] = {
    "avx2": _AVX2,
    "avxvnni": _AVX2 | {"avxvnni"},
    "avxvnniint8": _AVX2 | {"avxvnni", "avxvnniint8"},
    "avx512": _AVX2 | {"avx512"},
    "amx": _AVX2 | {"avx512", "amx"},
    "neon": _ARM82,
    "i8mm": _ARM82 | {"i8mm"},
}
# These are the checks: our own, and those of the compiler's library.
CHECKS = {
    "get_available_features": "xgetbv",
    "__cpu_indicator_init": "xgetbv",
    "specdec_saved_registers": "xgetbv",
    "__aarch64_": "lse",
}

# Instructions beyond x86-64's first version, by mnemonic. Not tzcnt: without BMI1 compilers write
# `rep bsf`, which is the same bytes.
_X86 = {
    "branch": r"callq?|jmpq?|j[a-z]{1,3}",
    "popcnt": r"popcnt[wlq]?",
    "lzcnt": r"lzcnt[wlq]?",
    "movbe": r"movbe[wlq]?",
    "sse3": r"addsubp[sd]|h(?:add|sub)p[sd]|lddqu|movs[hl]dup|movddup|fisttp\w*",
    "ssse3": r"pshufb|palignr|pabs[bwd]|ph(?:add|sub)(?:w|d|sw)|pmaddubsw|pmulhrsw|psign[bwd]",
    "sse4": r"blendv?p[sd]|pblendw|pblendvb|dpp[sd]|extractps|insertps|mpsadbw|movntdqa|packusdw"
    r"|pcmp(?:eq|gt)q|pcmp[ei]str[im]|pextr[bdq]|pinsr[bdq]|phminposuw|pm(?:ax|in)(?:s[bd]|u[wd])"
    r"|pmov[sz]x\w\w|pmuldq|pmulld|ptest|round[ps][sd]|crc32[bwlq]?",
    "crypto": r"aes\w+|pclmul\w+|sha1\w+|sha256\w+|gf2p8\w+",
    "cx16": r"cmpxchg16b",
    "xgetbv": r"xgetbv|xsave\w*|xrstor\w*",
    "other": r"ad[co]x[lq]?|rd(?:rand|seed)[wlq]?|clflushopt|clwb|prefetchw|movdir\w+|rdpid",
    "amx": r"tile\w+|ldtilecfg|sttilecfg|tdpb(?:ss|su)d",
    # VEX and EVEX, first what no namespace is granted.
    "newer": r"vgf2p8\w+|vaes\w+|vpclmul\w+|vpmadd52\w+|vsha512\w+|vsm[34]\w+|v\w*bf16\w*"
    r"|vpdpb(?:su|uu)ds?|vpdpw(?:su|us|uu)ds?|vpermb|vperm[ti]2b|vpmultishiftqb"
    r"|vp(?:compress|expand)[bw]|vpsh[lr]dv?[wdq]|vpopcnt[bwdq]|vpshufbitqmb|vpconflict[dq]"
    r"|vplzcnt[dq]|vpbroadcastm\w+|vp2intersect[dq]|v(?:add|sub|mul|div|min|max|sqrt|f\w+)[ps]h",
    "bmi1": r"(?:andn|bextr|blsi|blsmsk|blsr)[lq]?",
    "bmi2": r"(?:bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx)[lq]?",
    "f16c": r"vcvtph2ps|vcvtps2ph",
    "fma": r"vfn?m(?:add|sub)\w+",
    "avxvnni": r"vpdp(?:bus|wss)ds?",
    "avxvnniint8": r"vpdpbssds?",
    "avx512": r"k(?:mov|and|or|xor|xnor|not|add|test|shift|unpck)\w+",
    "avx2": r"v\w+",
}
# On half precision, arithmetic is new in Armv8.2-A, conversions and moves are not.
_ARM = {
    "branch": r"bl?|b\.\w+|cbn?z|tbn?z",
    "dotprod": r"[su]dot",
    "i8mm": r"(?:s|u|us)mmla|usdot|sudot",
    "lse": r"cas[ablhp]*|swp[ablhp]*|(?:ld|st)(?:add|clr|eor|set|[su]max|[su]min)[ablh]*",
    "rdm": r"sqrdml[as]h",
    "crc32": r"crc32\w+",
    "fp16": r"f(?:add|sub|mul|div|ml[as]|min|max|n?m?add|n?msub|abs|neg|cmp|cm\w\w|sqrt)\w*",
}
_PREFIXES = frozenset(
    "lock rep repz repnz data16 addr32 bnd notrack cs ds es fs gs ss {vex} {evex}".split()
)
_NAMESPACE = re.compile(
    r"_ZZ*NK?7specdec(?:" + "|".join(f"{len(name)}({name})" for name in GRANTED) + ")"
)
_HEADER = re.compile(r"[0-9a-f]+ <(.+)>:\n")
_TARGET = re.compile(r"<([^>+]+)")
_HALVES = re.compile(r"\.[48]h\b|\bh\d+\b")


def namespace_of(symbol: str) -> str:
    """The instruction set whose namespace a mangled name lies in; empty outside of all."""
    found = _NAMESPACE.match(symbol)
    return next(filter(None, found.groups())) if found else ""


def _lookup(table: dict[str, str]) -> Callable[[str], str]:
    patterns = [(name, re.compile(pattern)) for name, pattern in table.items()]

    @functools.cache
    def feature(mnemonic: str) -> str:
        return next((name for name, p in patterns if p.fullmatch(mnemonic)), "")

    return feature


_x86_feature = _lookup(_X86)
_arm_feature = _lookup(_ARM)


class Instruction(NamedTuple):
    mnemonic: str
    feature: str  # that it needs beyond the architecture's first version
    target: str = ""  # of a call or jump


def decode_x86(fields: list[str]) -> Instruction | None:
    """Address, bytes, text and relocation of one line; None: every processor has it."""
    words = fields[2].split()
    while len(words) > 1 and (words[0] in _PREFIXES or words[0].startswith("rex")):
        del words[0]
    feature = _x86_feature(words[0]) if words else ""
    if not feature:
        return None
    if feature == "branch":
        if len(fields) > 4:  # 5: R_X86_64_PLT32 <tab> name-0x4
            return Instruction(words[0], "", re.split(r"[+-]0x", fields[4].strip())[0])
        found = _TARGET.search(fields[2])
        return Instruction(words[0], "", found[1] if found else "")
    encoding = next((b for b in fields[1].split() if b not in ("64", "65", "67")), "")
    if feature != "newer" and (encoding == "62" or "%k" in fields[2]):
        feature = "avx512"
    return Instruction(words[0], feature)


def decode_arm(fields: list[str]) -> Instruction | None:
    mnemonic = fields[2].strip()
    feature = _arm_feature(mnemonic)
    operands = fields[3] if len(fields) > 3 else ""
    if not feature or (feature == "fp16" and not _HALVES.search(operands)):
        return None
    if feature == "branch":
        found = _TARGET.search(operands)
        return Instruction(mnemonic, "", found[1] if found else fields[-1].strip())
    return Instruction(mnemonic, feature)


class Finding(NamedTuple):
    file: str
    symbol: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}: {self.symbol}: {self.what}"


class Report:
    def __init__(self) -> None:
        self.findings: dict[Finding, None] = {}  # in order, each once
        self.used: dict[str, set[str]] = collections.defaultdict(set)  # features of a namespace
        self.n_functions: collections.Counter[str] = collections.Counter()  # of a namespace

    def examine(self, name: str, symbol: str, instruction: Instruction) -> None:
        """One instruction of the function `symbol` in the file `name`."""
        mnemonic, feature, target = instruction
        space = namespace_of(symbol)
        what = ""
        if not feature:
            other = namespace_of(target)
            if other and other != space:
                what = f"calls {target} without a table in between"
        elif space:
            self.used[space].add(feature)
            if feature not in GRANTED[space]:
                what = f"{mnemonic} ({feature}) is not what the check of {space} asks for"
        elif not any(symbol.startswith(s) and f == feature for s, f in CHECKS.items()):
            what = f"{mnemonic} ({feature}) outside of the instruction sets' namespaces"
        if what:
            self.findings[Finding(name, symbol, what)] = None


def disassembly(objdump: str, files: list[pathlib.Path]) -> Iterator[str]:
    command = [objdump, "-drw", *map(str, files)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode != 0:
        raise SystemExit(f"check_isa: {objdump} ended with status {process.returncode}")


def check(objdump: str, files: Iterable[pathlib.Path]) -> Report:
    report = Report()
    name, symbol = "", ""
    decode = decode_x86
    for line in disassembly(objdump, list(files)):
        if line.startswith(" "):
            fields = line.split("\t")
            instruction = decode(fields) if len(fields) > 2 else None
            if instruction is not None:
                report.examine(name, symbol, instruction)
        elif (header := _HEADER.fullmatch(line)) is not None:
            symbol = header[1]
            report.n_functions[namespace_of(symbol)] += 1
        elif "file format elf" in line:
            name = line.split(":")[0]
            decode = decode_arm if "aarch64" in line else decode_x86
    return report


def binaries(paths: Iterable[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Objects, programs and extension modules below folders; files as they are."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            # Static libraries hold what lies beside them.
            if file.is_dir() or file.suffix == ".a" or "CompilerId" in str(file):
                continue
            with file.open("rb") as stream:
                magic = stream.read(4)
            if magic == b"\x7fELF":
                yield file


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    parser.add_argument("--objdump", default="objdump")
    options = parser.parse_args()
    if shutil.which(options.objdump) is None:
        parser.error(f"{options.objdump} is not installed (Debian: binutils)")
    for path in options.paths:
        if not path.exists():
            parser.error(f"{path} does not exist")
    files = list(binaries(options.paths))
    if not files:
        parser.error("no objects there: build first")
    report = check(options.objdump, files)
    for finding in report.findings:
        print(finding)
    for space, features in sorted(report.used.items()):
        print(f"{report.n_functions[space]} functions of {space} use {', '.join(sorted(features))}")
    print(f"{len(files)} files, {report.n_functions['']} other functions")
    print(f"{len(report.findings)} findings")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
