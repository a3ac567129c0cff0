"""Whole commands and the Python package on processors that this machine is not, under an emulator
that ends a program at an instruction which the processor lacks: the same tokens as here."""

from __future__ import annotations

import pathlib
import platform
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from helpers import specdec_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import emulated_cpus  # noqa: E402
from emulated_cpus import CPUS, Commands, Cpu, Run, on  # noqa: E402

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")


@pytest.fixture(scope="module")
def qemu() -> str:
    found = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if found is None:
        pytest.skip("qemu-x86_64 is not installed (Debian: qemu-user)")
    return found


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Commands:
    return Commands(specdec_binary(), tmp_path_factory.mktemp("emulated"))


@pytest.fixture(scope="module")
def here(commands: Commands) -> dict[str, Run]:
    """Each command on this machine, with the kernels it chooses."""
    return {name: commands.run(name, []) for name in commands.all("")}


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    return emulated_cpus.compile_probe(tmp_path_factory.mktemp("probe"))


def test_every_command_works_here_and_drafts_are_accepted(here: dict[str, Run]) -> None:
    for name, run in here.items():
        assert run.code == 0, f"{name}: {run.message}"
        assert len(run.value) > 20, name
    assert '"from_draft": [true' in here["with a draft"].value.replace("false, ", "")


@pytest.mark.parametrize("isa", sd.info()["cpu_isas_supported"])
def test_every_instruction_set_of_this_machine_gives_the_same(
    commands: Commands, here: dict[str, Run], isa: str
) -> None:
    for name, expected in here.items():
        assert commands.run(name, [], SPECDEC_CPU_ISA=isa)[:2] == expected[:2], name


# With every kind of kernels, on the processor that has least of those that run them: what it lacks
# is what can be missing. The others, which have more, run one command here and all when asked to.
LEAST = ("qemu64", "Haswell-v4")


def processors() -> list[Any]:
    found = [pytest.param(cpu, cpu.whole and cpu.name in LEAST, id=cpu.name) for cpu in CPUS]
    slow = [cpu for cpu in CPUS if cpu.whole and cpu.name not in LEAST]
    return found + [
        pytest.param(cpu, True, id=f"{cpu.name}, all", marks=pytest.mark.slow) for cpu in slow
    ]


@pytest.mark.parametrize(("cpu", "whole"), processors())
def test_every_command_gives_on_a_processor_what_it_gives_here(
    qemu: str, probe: str, commands: Commands, here: dict[str, Run], cpu: Cpu, whole: bool
) -> None:
    has, blind = emulated_cpus.probe(probe, on(qemu, cpu))
    needed = blind & {"avx", "avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512vl"}
    if needed:
        pytest.skip(f"this emulator runs {', '.join(sorted(needed))} on a {cpu.name} all the same")
    assert ("avx2" in has) or cpu.isa == "scalar"
    version = commands.start(on(qemu, cpu), [commands.specdec, "--version"], {})
    assert version.stdout.strip().endswith(f"({cpu.isa})"), version.stdout + version.stderr
    names = emulated_cpus.names_for(cpu, commands) if whole else ["generate"]
    for name, run in emulated_cpus.outcomes(commands, qemu, cpu, names).items():
        assert run.code == 0, f"{name}: {run.message}"
        assert run.value == here[name].value, name


@pytest.mark.parametrize("name", ["qemu64", "Nehalem", "Haswell-v4", "Haswell-v4,-fma"])
def test_a_set_that_a_processor_lacks_is_refused_with_what_is_missing(
    qemu: str, probe: str, commands: Commands, name: str
) -> None:
    cpu = next(cpu for cpu in CPUS if cpu.name == name)
    has, _ = emulated_cpus.probe(probe, on(qemu, cpu))
    for isa, feature in (
        ("avx2", ""),
        ("avx512_vnni", "avx512f"),
        ("avx_vnni_int8", "avxvnni"),
        ("neon_i8mm", "Arm"),
    ):
        if isa == cpu.isa:
            continue
        run = commands.run("generate", on(qemu, cpu), SPECDEC_CPU_ISA=isa)
        assert run.code == 2, run
        assert f"SPECDEC_CPU_ISA: '{isa}' needs what is missing here: " in run.message
        assert feature in run.message
        missing = run.message.partition("here: ")[2].partition(";")[0].split(", ")
        assert has.isdisjoint(missing), run.message
        can = "scalar, avx2" if cpu.isa == "avx2" else "scalar"
        assert run.message.endswith(f"; this machine can run: {can}"), run.message


def test_scalar_kernels_can_be_asked_for_everywhere(
    qemu: str, commands: Commands, here: dict[str, Run]
) -> None:
    run = commands.run("generate", [qemu, "-cpu", "Haswell-v4"], SPECDEC_CPU_ISA="scalar")
    assert run[:2] == here["generate"][:2], run.message


def test_an_unknown_set_is_refused() -> None:
    script = (
        "import specdec_native as sd\n"
        "try:\n    sd.info()\n"
        "except sd.InvalidArgumentError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        timeout=60, env={"SPECDEC_CPU_ISA": "sse9"},
    )  # fmt: skip
    assert "SPECDEC_CPU_ISA: 'sse9' is unknown; this machine can run: scalar" in done.stdout


def test_the_page_lists_every_processor_with_its_kernels() -> None:
    page = (ROOT / "docs/cpus.md").read_text(encoding="utf-8")
    table = page.partition("## Emulated processors")[2]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|", table, re.M)
    assert rows == [(cpu.name, cpu.isa) for cpu in CPUS]
