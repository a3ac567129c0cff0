"""Who may include whom, and what library code must never do."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
CPP = ROOT / "cpp"

# Layer -> the layers it may include, besides itself.
ALLOWED: dict[str, set[str]] = {"base": set()}
ALLOWED["tensor"] = {"base"}
ALLOWED["gguf"] = {"base", "tensor"}
ALLOWED["quant"] = {"base", "tensor"}
ALLOWED["tokenizer"] = {"base", "gguf"}
ALLOWED["chat_template"] = {"base"}
ALLOWED["sampling"] = {"base", "tensor"}
ALLOWED["grammar"] = {"base", "sampling", "chat_template"}
ALLOWED["backend"] = {"base", "tensor", "gguf", "quant"}
ALLOWED["kv"] = ALLOWED["backend"] | {"backend"}
ALLOWED["model"] = ALLOWED["kv"] | {"kv"}
ALLOWED["decode"] = ALLOWED["model"] | {"model", "sampling"}
ALLOWED["engine"] = ALLOWED["decode"] | {"decode", "tokenizer", "chat_template", "grammar"}
ALLOWED["cli"] = ALLOWED["engine"] | {"engine"}
ALLOWED["bindings"] = ALLOWED["engine"] | {"engine"}

# Verifiers are pure: they see proposals and distributions, no model and no loop.
VERIFIERS = "decode/verifiers"
VERIFIERS_MAY_INCLUDE = ("base/", "sampling/", "decode/verifier.h", "decode/verifiers/")

SOURCES = sorted(
    path
    for path in CPP.rglob("*")
    if path.suffix in {".h", ".cc", ".cu", ".cuh", ".def", ".inc", ".in"}
)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
ANY_INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^">]+)[">]', re.MULTILINE)


COMPUTED_INCLUDE = re.compile(r'^\s*#\s*include\s+([^"<\s][^\n]*)', re.MULTILINE)
DEFINED = re.compile(r"^\s*#\s*define\s+(SPECDEC_\w+)", re.MULTILINE)
MACRO = re.compile(r"\bSPECDEC_\w+")


def includes(text: str) -> list[str]:
    """Of a template of CMake (units/*.in) for one of the sets that it stands for."""
    return INCLUDE.findall(text.replace("@SPACE@", "scalar"))


def macro_layers(sources: dict[str, str]) -> dict[str, set[str]]:
    """The layers whose files define each macro."""
    out: dict[str, set[str]] = {}
    for path, text in sources.items():
        for name in DEFINED.findall(text):
            out.setdefault(name, set()).add(path.split("/")[0])
    return out


def wrong_macros(path: str, text: str, defined: dict[str, set[str]]) -> list[str]:
    """Macros that only layers above define: text that cannot stand without them, though it
    includes nothing of theirs."""
    layer = path.split("/")[0]
    used = set(MACRO.findall(without_comments_and_strings(text)))
    below = ALLOWED[layer] | {layer}
    return sorted(name for name in used if name in defined and not defined[name] & below)


def wrong_includes(path: str, text: str) -> list[str]:
    """Includes of a file at `path` (relative to cpp/) that point the wrong way."""
    layer = path.split("/")[0]
    wrong = []
    for include in includes(text):
        target = include.split("/")[0]
        allowed = target == layer or target in ALLOWED[layer]
        if path.startswith(VERIFIERS) and not include.startswith(VERIFIERS_MAY_INCLUDE):
            allowed = False
        if not allowed:
            wrong.append(include)
    return wrong


def without_comments_and_strings(text: str) -> str:
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def test_every_folder_of_cpp_is_a_known_layer():
    assert {p.name for p in CPP.iterdir() if p.is_dir()} <= set(ALLOWED)


def relative(path: pathlib.Path) -> str:
    return path.relative_to(CPP).as_posix()


def test_includes_point_to_lower_layers_only():
    wrong = {relative(p): wrong_includes(relative(p), p.read_text("utf-8")) for p in SOURCES}
    assert len(wrong) > 50
    assert {path: found for path, found in wrong.items() if found} == {}


def test_macros_come_from_lower_layers_only():
    sources = {relative(p): p.read_text("utf-8") for p in SOURCES}
    defined = macro_layers(sources)
    assert "backend" in defined["SPECDEC_INLINE"]
    wrong = {path: wrong_macros(path, text, defined) for path, text in sources.items()}
    assert {path: found for path, found in wrong.items() if found} == {}


def test_the_check_of_macros_finds_what_leans_on_a_layer_above():
    sources = {
        "quant/x/tile-inl.h": "namespace SPECDEC_KERNELS { SPECDEC_INLINE int f(); }",
        "quant/list.def": "#ifndef SPECDEC_LINE\n#define SPECDEC_LINE(x)\n#endif\nSPECDEC_LINE(1)",
        "backend/cpu/unroll-inl.h": "#define SPECDEC_INLINE\n#define SPECDEC_KERNELS avx2\n",
        "backend/a.cc": '#define SPECDEC_LINE(x) x,\n#include "quant/list.def"\n',
    }
    defined = macro_layers(sources)
    found = {path: wrong_macros(path, text, defined) for path, text in sources.items()}
    assert found.pop("quant/x/tile-inl.h") == ["SPECDEC_INLINE", "SPECDEC_KERNELS"]
    assert not any(found.values())


def test_no_include_is_computed():
    found = [
        (relative(p), m) for p in SOURCES for m in COMPUTED_INCLUDE.findall(p.read_text("utf-8"))
    ]
    assert found == []


def test_includes_are_written_relative_to_cpp():
    missing = {
        relative(p): [i for i in includes(p.read_text("utf-8")) if not (CPP / i).exists()]
        for p in SOURCES
    }
    assert {path: found for path, found in missing.items() if found} == {}


def test_the_check_itself_finds_a_wrong_arrow():
    assert wrong_includes("base/x.h", '#include "gguf/reader.h"\n') == ["gguf/reader.h"]
    assert wrong_includes("tokenizer/x.cc", '  #include "model/model.h"\n') == ["model/model.h"]
    assert wrong_includes("decode/verifiers/x.cc", '#include "model/model.h"\n') != []
    assert wrong_includes("engine/x.cc", '#include "decode/stats.h"\n') == []


FORBIDDEN = {
    "prints": re.compile(r"\b(?:printf|puts|putchar|vprintf|perror|fprintf|fputs)\s*\("
                         r"|std::c(?:out|err|log)\b"),
    "exits": re.compile(r"\b(?:std::)?(?:exit|_exit|quick_exit|abort|terminate)\s*\("),
    "asserts": re.compile(r"(?<![_\w])assert\s*\("),
    "has hidden random state": re.compile(r"\b(?:std::)?(?:srand|rand)\s*\("),
}  # fmt: skip


def test_library_code_never_prints_exits_or_asserts():
    found = []
    for path in SOURCES:
        if relative(path).startswith("cli/"):
            continue
        code = without_comments_and_strings(path.read_text("utf-8"))
        for what, pattern in FORBIDDEN.items():
            found += [f"{relative(path)} {what}: {m[0]}" for m in pattern.finditer(code)]
    assert found == []


def test_the_search_for_forbidden_calls_finds_them():
    code = 'std::cout << 1; printf("x"); exit(1); std::abort(); assert(a); rand();'
    hits = sum(len(pattern.findall(code)) for pattern in FORBIDDEN.values())
    assert hits == 6
    harmless = 'snprintf(a, 1, "printf(x)"); static_assert(a); // exit(1)'
    code = without_comments_and_strings(harmless)
    assert not any(pattern.search(code) for pattern in FORBIDDEN.values())


def test_no_recursive_regular_expressions_and_no_foreign_headers():
    wrong = []
    for path in SOURCES:
        layer = relative(path).split("/")[0]
        for header in ANY_INCLUDE.findall(path.read_text("utf-8")):
            folder = header.split("/")[0] if "/" in header else ""
            if header == "regex" or (header == "iostream" and layer != "cli"):
                wrong.append((relative(path), header))
            elif folder not in {"", *ALLOWED, "sys", "asm", "linux", "mach"} and (
                layer,
                folder,
            ) != (
                "bindings",
                "pybind11",
            ):
                wrong.append((relative(path), header))
    assert wrong == []


def test_headers_guard_themselves():
    headers = [p for p in SOURCES if p.suffix == ".h"]
    assert [relative(p) for p in headers if "#pragma once" not in p.read_text("utf-8")] == []


def test_each_layer_links_only_what_it_may_include():
    pattern = re.compile(r"specdec_layer\(\s*(\w+)(.*?)\)", re.DOTALL)
    for file in CPP.glob("*/CMakeLists.txt"):
        for name, body in pattern.findall(file.read_text(encoding="utf-8")):
            depends = body.partition("DEPENDS")[2].split()
            assert set(depends) <= ALLOWED[name], file
