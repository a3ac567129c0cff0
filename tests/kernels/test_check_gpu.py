"""tools/check_gpu.py: on the emulated device, with tiny models and matrices. What it measures there
means nothing; that it measures, survives failures and holds figures against gates does."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import venv
import zipfile
from typing import Any

import pytest

import tiny_models
from helpers import native

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

from gpu_check import outside, report, section, synthetic, wheels  # noqa: E402

module = native("gpu_check")
pytest.importorskip("specdec_native", reason="the package is not installed")


def check(
    *arguments: object, code: int = 0, python: object = sys.executable, **environment: str
) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [str(python), TOOLS / "check_gpu.py", *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, pathlib.Path]:
    folder = tmp_path_factory.mktemp("gpu")
    target = tiny_models.TinyConfig(n_layers=3, context_length=2048)
    draft = tiny_models.TinyConfig(n_layers=1, context_length=2048)
    return (
        tiny_models.write_tiny(folder / "target.gguf", target, dtype="Q8_0", seed=1),
        tiny_models.write_tiny(folder / "draft.gguf", draft, dtype="Q8_0", seed=2),
    )


# What docs/cuda.md lists for a machine that has only Python, with what these need.
WHEELS = (
    *("specdec-native", "numpy", "gguf", "pyyaml", "pytest", "pytest-timeout", "iniconfig"),
    *("packaging", "pluggy", "pygments", "hypothesis", "sortedcontainers"),
)
OF_OLD_PYTHONS = ("exceptiongroup", "tomli", "typing-extensions", "attrs", "tqdm", "requests")


def pack(name: str, folder: pathlib.Path) -> None:
    """A wheel of what is installed."""
    found = importlib.metadata.distribution(name)
    files = [f for f in found.files or [] if "__pycache__" not in f.parts]
    tag = sys.implementation.cache_tag.replace("cpython-", "cp")
    machine = os.uname().machine
    binary = any(f.suffix == ".so" for f in files)
    stem = f"{name.replace('-', '_')}-{found.version}"
    kind = f"{tag}-{tag}-linux_{machine}" if binary else "py3-none-any"
    with zipfile.ZipFile(folder / f"{stem}-{kind}.whl", "w") as wheel:
        for file in files:
            path = pathlib.Path(str(found.locate_file(file)))
            if ".." not in file.parts:
                wheel.write(path, str(file))
            elif path.parent.name == "bin":
                wheel.write(path, f"{stem}.data/scripts/{path.name}")


@pytest.fixture(scope="module")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in (*WHEELS, *OF_OLD_PYTHONS):
        try:
            pack(name, folder)
        except importlib.metadata.PackageNotFoundError:
            if name in WHEELS:
                pytest.skip(f"{name} is not installed as a package")
    (folder / "numpy-9.9-cp27-cp27mu-linux_x86_64.whl").write_bytes(b"for another Python")
    return folder


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """One that can import nothing but its own library."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def whole_run(
    pair: tuple[pathlib.Path, pathlib.Path],
    wheel_folder: pathlib.Path,
    bare_python: pathlib.Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], str]:
    """The line of docs/cuda.md for a machine that has only Python, with no GPU in it."""
    folder = tmp_path_factory.mktemp("run")
    prompt = folder / "short.txt"
    prompt.write_text("ab ab ab ab ab ab\n")
    done = check(
        "--emulated", "-m", pair[0], "-md", pair[1], "--synthetic", "tiny", "--prompt", prompt,
        "--max-tokens", 12,
        "--json", folder / "out.json", "--wheels", wheel_folder, python=bare_python,
        PATH="/usr/bin:/bin", PYTHONPATH="", TMPDIR=str(tmp_path_factory.mktemp("unpacked")),
    )  # fmt: skip
    assert "wheels unpacked" in done.stderr
    return json.loads((folder / "out.json").read_text()), done.stdout


def test_every_format_and_operation_is_timed(whole_run: tuple[dict[str, Any], str]) -> None:
    kernels = whole_run[0]["kernels"]
    assert kernels["errors"] == []
    assert kernels["clock"] in ("host", "device")
    assert {p["format"] for p in kernels["products"]} == set(module.formats())
    for product in kernels["products"]:
        assert {"1", "2", "16"} <= set(product["us"])
        assert product["ratio"]["1"] == 1
        assert product["copies"] >= 4
        assert product["share"] > 0
    assert any("33" in p["us"] for p in kernels["products"])
    for key in ("pack_input", "rope_store", "attention", "heads", "gated"):
        assert kernels[key], key
    assert {a["type"] for a in kernels["attention"]} == {"f16", "q8_0"}
    assert all(a["tree_us"] for a in kernels["attention"])
    assert kernels["launch_us"] > 0
    assert kernels["copy_gb_s"] > 0


def test_models_are_timed_generate_and_fit_by_half(whole_run: tuple[dict[str, Any], str]) -> None:
    models = whole_run[0]["models"]
    assert models["errors"] == []
    real, random = models["models"]
    assert set(real["passes"]["wall_ms"]) == {"1", "2", "16", "33"}
    if real["passes"]["device_ms"]:  # a device may have no clock
        assert set(real["passes"]["device_ms"]) == set(real["passes"]["wall_ms"])
    assert set(real["draft"]["wall_ms"]) == {"1", "2"}
    assert random["synthetic"] == "tiny"
    assert random["info"]["quantisation"].startswith(("Q4_K", "Q6_K"))
    runs = {run["method"]: run for run in models["generations"]}
    assert list(runs) == ["plain", "ngram", "model", "auto"]
    for run in runs.values():
        assert run["same_text"]
        assert run["tokens_per_second"] > 0
        assert run["prompt"] == "short"
        assert run["model"] == "target.gguf"
    assert runs["plain"]["waits_per_round"] == pytest.approx(1, abs=0.2)
    assert runs["plain"]["replayed"] > 0.5
    assert runs["model"]["drafted"] > 0
    for budget in models["budgets"]:
        assert budget["kept"]
        assert budget["split"]
        assert budget["same_text"]


def test_the_report_has_tables_and_gates(whole_run: tuple[dict[str, Any], str]) -> None:
    found, text = whole_run
    for title in ("Tests", "compute-sanitizer", "Kernels", "Models", "Gates"):
        assert f"## {title}" in text
    assert "compute-sanitizer is not on PATH" in text
    assert "| Q4_K | 32 x 256 |" in text
    assert "| generations whose text differs from the plain one | 0.00 | <= 0 | - | met |" in text
    tests = found["tests"]["tests"]
    assert (tests["exit_code"], tests["failures"]) == (0, [])
    assert tests["passed"] + tests["skipped"] > 100  # every file could be imported


def test_nothing_is_left_of_what_the_wheels_brought(
    whole_run: tuple[dict[str, Any], str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert list(tmp_path_factory.getbasetemp().glob("unpacked*/check-gpu-*")) == []


def test_without_the_wheels_a_bare_python_cannot_check(bare_python: pathlib.Path) -> None:
    done = check("--emulated", code=2, python=bare_python, PYTHONPATH="")
    assert "--wheels" in done.stderr


def test_the_shapes_that_can_be_asked_for_are_the_synthetic_ones() -> None:
    import check_gpu

    assert set(check_gpu.SHAPES) == set(synthetic.SHAPES)


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        ("gguf-0.17.1-py3-none-any.whl", True),
        ("six-1.0-py2.py3-none-any.whl", True),
        ("old-1.0-py2-none-any.whl", False),
        ("numpy-2.0-{ours}-{ours}-manylinux_2_27_{m}.whl", True),
        ("numpy-2.0-{ours}-{ours}-win_amd64.whl", False),
        ("numpy-2.0-cp39-cp39-manylinux_2_17_{m}.whl", False),
        ("cmake-4.0-py3-none-manylinux2014_{m}.manylinux_2_17_{m}.whl", True),
        ("cmake-4.0-py3-none-manylinux2014_sparc.whl", False),
        ("abi-1.0-cp39-abi3-linux_{m}.whl", True),
        ("abi-1.0-cp399-abi3-linux_{m}.whl", False),
        ("nothing.whl", False),
    ],
)  # fmt: skip
def test_wheels_are_chosen_by_their_names(name: str, usable: bool) -> None:
    ours = f"cp3{sys.version_info[1]}"
    assert wheels.fits(name.format(m=os.uname().machine, ours=ours)) is usable


def test_without_a_wheel_of_the_package_it_is_built_from_the_checkout(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("cmake", "ninja", "nvcc"):
        (tools / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\n')
        (tools / name).chmod(0o755)
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "pybind11-3.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pybind11/__init__.py", "")
        wheel.writestr("pybind11/__main__.py", "print('/here/cmake')")
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    environment = wheels.prepare(folder, tmp_path / "work", emulated=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [line.split()[1] for line in calls] == ["-S", "--build", "--install"]
    for option in ("SPECDEC_CUDA=ON", "SPECDEC_TESTS=ON", "SPECDEC_PYTHON=ON",
                   "CMAKE_CUDA_ARCHITECTURES=native", "pybind11_DIR=/here/cmake"):  # fmt: skip
        assert f"-D{option}" in calls[0]
    site = tmp_path / "work" / "site"
    assert (site / "specdec_native" / "__init__.py").exists()
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(site)
    (tools / "nvcc").unlink()
    monkeypatch.setattr(wheels, "TOOLKITS", ())
    if not (os.environ.get("CUDACXX")):
        with pytest.raises(section.Missing, match="nvcc is missing"):
            wheels.prepare(folder, tmp_path / "again", emulated=False)
    with pytest.raises(section.Missing, match="no wheels"):
        wheels.prepare(tools, tmp_path / "none", emulated=False)


def test_without_a_gpu_it_says_in_one_line_what_is_missing(tmp_path: pathlib.Path) -> None:
    if module.cuda_devices()[0]:
        pytest.skip("there is a GPU")
    done = check("--json", tmp_path / "out.json", code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "without CUDA" in done.stderr or "no usable GPU" in done.stderr
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "kernel"], "'kernel' is no section"),
        (["-md", "draft.gguf"], "-md needs -m"),
        (["-m", "/nowhere.gguf"], "/nowhere.gguf is not there"),
        (["--max-tokens", "0"], "must be positive"),
    ],
)
def test_wrong_options_are_told(arguments: list[str], message: str) -> None:
    assert message in check("--emulated", *arguments, code=2).stderr


def test_what_a_failing_section_found_is_kept_and_the_others_run(tmp_path: pathlib.Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF is what this is not")
    out = tmp_path / "out.json"
    done = check(
        "--emulated", "--only", "kernels,models", "-m", broken, "--json", out, code=1,
    )  # fmt: skip
    found = json.loads(out.read_text())
    assert "broken.gguf" in found["models"]["errors"][0]
    assert found["kernels"]["launch_us"] > 0
    assert "**error**" in done.stdout


def test_a_process_that_dies_leaves_what_it_found(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import check_gpu

    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys\n"
        "open(sys.argv[4], 'w').write(json.dumps({'errors': [], 'skipped': [], 'kept': 1}))\n"
        "print('a last word', flush=True)\nos.abort()\n"
    )
    monkeypatch.setattr(check_gpu, "__file__", str(worker))
    found = check_gpu.run_section("kernels", {}, 20)
    assert found["kept"] == 1
    assert "exit code -6" in found["errors"][0]
    assert "a last word" in found["errors"][0]


# ---------------------------------------------------------------- other programs

CLEAN = "========= COMPUTE-SANITIZER\nout\n========= ERROR SUMMARY: 0 errors\n"
DIRTY = "========= Invalid __global__ read of size 16\n========= ERROR SUMMARY: 3 errors\n"
RACES = "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)\n"
REFUSED = "========= Device not supported\n========= Target application returned an error\n"


def test_what_the_sanitizer_says_is_understood() -> None:
    assert outside.read_sanitizer(0, CLEAN)["clean"] is True
    dirty = outside.read_sanitizer(86, DIRTY)
    assert (dirty["clean"], dirty["found"]) == (False, 3)
    assert "Invalid __global__ read" in dirty["lines"][0]
    assert outside.read_sanitizer(86, RACES)["found"] == 1
    refused = outside.read_sanitizer(1, REFUSED)
    assert refused["clean"] is None
    assert "Device not supported" in refused["reason"]
    assert "too long" in outside.read_sanitizer(None, "")["reason"]


@pytest.mark.parametrize(
    ("said", "exit_code", "code"), [(CLEAN, 0, 0), (DIRTY, 86, 1)], ids=["clean", "dirty"]
)
def test_the_sanitizer_runs_over_a_generation_and_the_kernel_tests(
    said: str, exit_code: int, code: int, tmp_path: pathlib.Path
) -> None:
    tool = tmp_path / "compute-sanitizer"
    calls = tmp_path / "calls"
    tool.write_text(f"#!/bin/sh\necho \"$@\" >> {calls}\necho '{said}'\nexit {exit_code}\n")
    tool.chmod(0o755)
    out = tmp_path / "out.json"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    check("--emulated", "--only", "sanitizer", "--json", out, code=code, PATH=path)
    lines = calls.read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["--tool", "memcheck"], ["--tool", "racecheck"], ["--tool", "memcheck"],
    ]  # fmt: skip
    assert " generate " in lines[0]
    assert " -md " in lines[0]
    assert "tests/kernels/test_cuda_kernels.py" in lines[2]
    runs = json.loads(out.read_text())["sanitizer"]["sanitizer"]
    assert [run["clean"] for run in runs] == [exit_code == 0] * 3


def test_failures_of_tests_are_named(tmp_path: pathlib.Path) -> None:
    xml = tmp_path / "results.xml"
    xml.write_text(
        "<testsuites><testsuite>"
        '<testcase classname="tests.test_a" name="fine"/>'
        '<testcase classname="tests.test_a" name="bad"><failure message="1 != 2">x</failure>'
        '</testcase><testcase classname="tests.test_a" name="not"><skipped message="no"/>'
        "</testcase></testsuite></testsuites>"
    )
    found = outside.read_results(xml)
    assert (found["passed"], found["failed"], found["skipped"]) == (1, 1, 1)
    failure = {"name": "test_a::bad", "file": "tests/test_a.py", "message": "1 != 2"}
    assert found["failures"] == [failure]
    assert found["skip_reasons"] == {"no": 1}


def test_tests_that_fail_are_tried_again_without_early_starts(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "test_starts.py"
    file.write_text(
        "import os\nimport pytest\n\n"
        "@pytest.mark.cuda\ndef test_late():\n"
        "    assert os.environ.get('SPECDEC_CUDA_EARLY_START') == '0'\n"
        "@pytest.mark.cuda\ndef test_never():\n    assert False, 'never'\n"
    )
    out = tmp_path / "out.json"
    done = check("--emulated", "--only", "tests", "--test-file", file, "--json", out, code=1)
    tests = json.loads(out.read_text())["tests"]["tests"]
    assert (tests["failed"], tests["failed_without_early_start"]) == (2, 1)
    assert [f["name"] for f in tests["failures"]] == [
        "test_starts::test_late", "test_starts::test_never",
    ]  # fmt: skip
    assert "SPECDEC_CUDA_EARLY_START=0: 1 failed" in done.stdout


# ---------------------------------------------------------------- gates


def made_up(share: float, t8: float, same_text: bool, failed: int) -> dict[str, Any]:
    """A report of a GPU."""
    product = {
        "format": "Q4_K", "n_out": 8960, "n_in": 8960, "bytes": 50_000_000, "share": share,
        "us": {"1": 10.0}, "ratio": {"1": 1.0, "8": t8},
    }  # fmt: skip
    small = {**product, "bytes": 1_000_000, "share": 0.01, "ratio": {"8": 9.0}}
    run = {"model": "m", "prompt": "p", "tokens_per_second": 100.0, "waits_per_round": 1.0}
    return {
        "emulated": False,
        "tests": {"tests": {"passed": 100, "failed": failed}},
        "sanitizer": {"sanitizer": [{"clean": True}, {"clean": None}]},
        "kernels": {"products": [product, small]},
        "models": {
            "models": [
                {
                    "model": "m",
                    "info": {"weight_bytes": 1e9},
                    "passes": {"wall_ratio": {"8": t8}, "share": share},
                }
            ],
            "generations": [
                {**run, "method": "plain", "same_text": True},
                {**run, "method": "auto", "same_text": same_text},
            ],
            "budgets": [{"kept": True, "split": True, "same_text": same_text}],
        },
    }


def test_gates_are_met_or_not() -> None:
    good = report.gates(made_up(share=0.7, t8=1.2, same_text=True, failed=0))
    assert {g["passed"] for g in good if g["value"] is not None} == {True}
    bad = report.gates(made_up(share=0.3, t8=1.3, same_text=False, failed=2))
    failed = {g["name"] for g in bad if g["passed"] is False}
    assert failed == {
        "tests that failed",
        "Q4_K products: least share at 1 row",
        "Q4_K products: largest T(8)/T(1)",
        "m: T(8)/T(1)",
        "m: share at 1 row",
        "generations whose text differs from the plain one",
        "models with part of their memory that failed",
    }


def test_nothing_measured_is_no_gate_met() -> None:
    empty = {"emulated": False, "tests": {}, "sanitizer": {}, "kernels": {}, "models": {}}
    assert all(g["passed"] is None for g in report.gates(empty))
    skipped = {"emulated": False, "tests": {"tests": {"passed": 0, "failed": 0, "skipped": 90}}}
    assert [g["passed"] for g in report.gates(skipped)] == [None]


def test_ending_it_ends_what_it_started(tmp_path: pathlib.Path) -> None:
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(90)"
    program = (
        f"import sys; sys.path.insert(0, {str(TOOLS)!r})\n"
        "from gpu_check import outside\n"
        "outside.exit_when_ended()\n"
        f"outside.run_limited([sys.executable, '-c', {child!r}], 80)\n"
    )
    running = subprocess.Popen([sys.executable, "-c", program])
    while not (pid_file.exists() and pid_file.read_text()):
        assert running.poll() is None
        time.sleep(0.02)
    running.terminate()
    assert running.wait(timeout=60) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
