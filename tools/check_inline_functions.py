#!/usr/bin/env python3
"""Find inline functions and templates whose copies differ from one object file to another.

The linker keeps any one copy of an inline function, so all copies must be the same: a body that
depends on a macro, a class of the same name elsewhere, or a template instantiated where other
instructions are allowed would otherwise be used everywhere. Objects must be compiled without
optimisation and with the same options (the preset `odr`), so that one body gives one code.

    python tools/check_inline_functions.py OBJECT...      # or @FILE with one path on each line

Prints each function whose copies differ and exits with 1 if there are any. Reads ELF for 64-bit
little-endian machines.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SHT_SYMTAB, SHT_RELA, SHT_GROUP = 2, 4, 17
SHF_EXECINSTR, SHF_GROUP = 0x4, 0x200
STB_LOCAL, STT_SECTION = 0, 3
# Skipped, since equal bodies give unequal code. Destructors: how they reach a table of virtual
# functions depends on where that is. Of the standard library and pybind11, unless they hold types
# of ours: even without optimisation, code depends on which of their functions the compiler has
# seen and found not to throw.
DESTRUCTOR = re.compile(r".*D[0-2]Ev$")
FOREIGN = re.compile(r"_Z(TS|TI|TV|Th)?N?[KVRO]*(S[tabs]|9__gnu_cxx|10__cxxabiv|8pybind11)")


class Section(NamedTuple):
    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def c_string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode("utf-8", "replace")


class ObjectFile:
    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        if self.data[:6] != b"\x7fELF\x02\x01":
            raise ValueError(f"{path}: not a 64-bit little-endian ELF object")
        (table,) = struct.unpack_from("<Q", self.data, 40)
        count, names = struct.unpack_from("<HH", self.data, 60)
        if count == 0:  # more than 65279 sections: the number stands in the first one
            count = struct.unpack_from("<Q", self.data, table + 32)[0]
        if names == 0xFFFF:
            names = struct.unpack_from("<I", self.data, table + 40)[0]
        self.sections = [
            Section._make(struct.unpack_from("<IIQQQQIIQQ", self.data, table + 64 * i))
            for i in range(count)
        ]
        self.names = self.content(self.sections[names])
        self.symbols: list[Symbol] = []
        self.strings = b""
        for section in self.sections:
            if section.type == SHT_SYMTAB:
                rows = struct.iter_unpack("<IBBHQQ", self.content(section))
                self.symbols = [Symbol._make(row) for row in rows]
                self.strings = self.content(self.sections[section.link])

    def content(self, section: Section) -> bytes:
        return self.data[section.offset : section.offset + section.size]

    def symbol_name(self, index: int) -> str:
        symbol = self.symbols[index]
        # Names of local symbols and of sections depend on what else the file holds.
        if symbol.info >> 4 == STB_LOCAL or symbol.info & 15 == STT_SECTION:
            return ""
        return c_string(self.strings, symbol.name)

    def inline_functions(self) -> Iterator[tuple[str, str]]:
        """Name and digest of the code of each function that other objects may also define."""
        relocations = {s.info: s for s in self.sections if s.type == SHT_RELA}
        for group in self.sections:
            if group.type != SHT_GROUP:
                continue
            for (index,) in struct.iter_unpack("<I", self.content(group)[4:]):
                section = self.sections[index]
                if not section.flags & SHF_EXECINSTR:
                    continue
                name = c_string(self.names, section.name).removeprefix(".text.")
                if DESTRUCTOR.match(name) or (FOREIGN.match(name) and "7specdec" not in name):
                    continue
                digest = hashlib.sha256(self.content(section))
                if index in relocations:
                    rows = struct.iter_unpack("<QQq", self.content(relocations[index]))
                    for offset, info, _ in rows:
                        entry = f"{offset} {info & 0xFFFFFFFF} {self.symbol_name(info >> 32)}\n"
                        digest.update(entry.encode())
                yield name, digest.hexdigest()


def readable(name: str) -> str:
    if shutil.which("c++filt") is None:
        return name
    return subprocess.run(
        ["c++filt", name], capture_output=True, text=True, check=True
    ).stdout.strip()


def differing(paths: list[Path]) -> dict[str, list[list[Path]]]:
    """For each function with several codes: the objects, grouped by code, largest group first."""
    copies: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        for name, digest in ObjectFile(path).inline_functions():
            copies[name][digest].append(path)
    return {
        name: sorted(by_code.values(), key=len, reverse=True)
        for name, by_code in sorted(copies.items())
        if len(by_code) > 1
    }


def main(arguments: list[str]) -> int:
    paths: list[Path] = []
    for argument in arguments:
        if argument.startswith("@"):
            paths += [Path(line) for line in Path(argument[1:]).read_text().split("\n") if line]
        else:
            paths.append(Path(argument))
    if not paths:
        print(__doc__, file=sys.stderr)
        return 2
    found = differing(paths)
    for name, groups in found.items():
        print(f"{readable(name)} ({name}) is not the same everywhere:")
        for group in groups:
            more = f" and {len(group) - 1} more" if len(group) > 1 else ""
            print(f"    one code in {group[0]}{more}")
    print(f"{len(paths)} objects, {len(found)} inline functions with more than one code")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
