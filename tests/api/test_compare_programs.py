"""tools/compare_programs.py: any difference between two builds is found."""

from __future__ import annotations

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import compare_programs as tool  # noqa: E402

# Writes what depends on everything that it is asked for; `CHANGE` is what another build does.
PROGRAM = """#!{python} -S
import os, sys
isa, arguments = os.environ["SPECDEC_CPU_ISA"], sys.argv[1:]
if "--version" in arguments:
    sys.exit("error: this machine can run: " + ISAS)
other = CHANGE(isa, arguments)
if "perplexity" in arguments:
    print('{{"perplexity": %r, "total_ms": %d}}' % (2.0 + 1e-9 * other, os.getpid()))
else:
    print("other" if other else isa, " ".join(a for a in arguments if "/" not in a))
"""


def program(
    folder: pathlib.Path, name: str, *, isas: str = "scalar, avx2", change: str = "False"
) -> str:
    path = folder / name
    body = PROGRAM.format(python=sys.executable)
    head, _, rest = body.partition("\n")
    path.write_text(
        f"{head}\nISAS = {isas!r}\nCHANGE = lambda isa, args: {change}\n{rest}", "utf-8"
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture(autouse=True)
def one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "PAIRS", {"pycode": tool.PAIRS["pycode"]})


def test_equal_programs_are_equal_on_every_common_set(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = program(tmp_path, "one", isas="scalar, avx2, neon")
    other = program(tmp_path, "other")
    assert tool.main([one, other]) == 0
    assert capsys.readouterr().out == "18 outputs are the same, 0 differ (scalar, avx2)\n"


@pytest.mark.parametrize(
    "change, said",
    [
        (
            'isa == "avx2" and "-md" in args and "1" in args and "off" in args',
            "avx2: pycode with draft",
        ),
        ('isa == "scalar" and "perplexity" in args', "scalar: pycode, perplexity"),
    ],
)
def test_one_difference_is_enough(
    change: str, said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = program(tmp_path, "one"), program(tmp_path, "other", change=change)
    assert tool.main([one, other]) == 1
    assert f"DIFFERENT: {said}" in capsys.readouterr().out


def test_programs_without_a_common_set_are_not_called_equal(tmp_path: pathlib.Path) -> None:
    one, other = program(tmp_path, "one", isas="neon"), program(tmp_path, "other")
    assert tool.main([one, other]) == 1
