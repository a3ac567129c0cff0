"""What may happen to a file of prompts and its answers: nothing is lost, and the fault is named."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import cli  # noqa: E402
from specdec_native.batch import command, lines  # noqa: E402

N_LINES = 24


def write(path, n=N_LINES, **options):
    asked = [{"prompt": f"cat {i}", "id": f"q{i}", "max_tokens": 6, **options} for i in range(n)]
    path.write_text("".join(json.dumps(line) + "\n" for line in asked), encoding="utf-8")
    return path


def batch(model, source, output, *options):
    return cli.main(["batch", str(model), str(source), str(output), "-c", "256", "-q", *options])


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "in.jsonl")


@pytest.fixture(scope="module")
def expected(tiny_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    assert batch(tiny_path, write(folder / "in.jsonl"), folder / "out.jsonl") == 0
    return (folder / "out.jsonl").read_bytes()


def limited(model, source, output, n_bytes):
    """With files of at most so many bytes, as on a full disk."""
    code = (
        "import resource, sys; from specdec_native.cli import main; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({n_bytes}, resource.RLIM_INFINITY)); "
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["batch", str(model), str(source), str(output), "-c", "256", "-q"]
    # Measured costs would not fit either.
    environment = {**os.environ, "SPECDEC_CALIBRATION": "off"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )


@pytest.mark.parametrize("n_bytes", [0, 100, 1500])
def test_a_full_disk_is_named_and_the_run_goes_on_later(tiny_path, source, tmp_path, expected,
                                                        n_bytes):  # fmt: skip
    output = tmp_path / "out.jsonl"
    done = limited(tiny_path, source, output, n_bytes)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1, done.stderr
    assert "out.jsonl.partial" in done.stderr
    assert "File too large" in done.stderr
    assert not output.exists()
    partial = tmp_path / "out.jsonl.partial"
    assert partial.stat().st_size == (n_bytes if n_bytes > 1000 else 0)
    assert batch(tiny_path, source, output) == 0
    assert output.read_bytes() == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


@pytest.mark.parametrize(
    "rest",
    [
        b'{"line": 9, "id": "q9", "te',
        b"\x00" * 100,
        b"\x00\x00\n",
        b'{"line": 3}\n',
        b"\n",
        b'[]\n{"line": 9}\n',
    ],
)
def test_what_a_power_failure_leaves_is_not_kept(tiny_path, source, tmp_path, expected, rest):
    output = tmp_path / "out.jsonl"
    assert batch(tiny_path, source, output) == 0
    kept = b"".join(expected.splitlines(keepends=True)[:9])
    output.rename(tmp_path / "all")
    partial = tmp_path / "out.jsonl.partial"
    args = command.parser().parse_args([str(tiny_path), str(source), str(output), "-c", "256"])
    with lines.Source(source) as opened:
        note = command._fingerprint(command._setup(args), opened)
    for written, goes_on in ((json.dumps(note), True), (json.dumps(note)[:20], False)):
        output.unlink(missing_ok=True)
        partial.write_bytes(kept + rest)
        (tmp_path / "out.jsonl.partial.json").write_text(written)
        assert batch(tiny_path, source, output) == (0 if goes_on else 2)
        if goes_on:
            assert output.read_bytes() == expected
    # A note that was cut off while there was no line yet.
    partial.write_bytes(b"")
    assert batch(tiny_path, source, output) == 0
    assert output.read_bytes() == expected


def test_a_link_stays_one(tiny_path, source, tmp_path, expected):
    (tmp_path / "elsewhere").mkdir()
    output, real = tmp_path / "out.jsonl", tmp_path / "elsewhere" / "real.jsonl"
    output.symlink_to(real)
    assert batch(tiny_path, source, output) == 0
    assert output.is_symlink()
    assert real.read_bytes() == expected
    assert batch(tiny_path, source, output) == 2
    assert batch(tiny_path, source, output, "--restart") == 0
    assert output.is_symlink()
    assert [path.name for path in real.parent.iterdir()] == ["real.jsonl"]


def test_what_is_no_file_is_named(tiny_path, source, tmp_path, capfd):
    pipe, linked = tmp_path / "pipe", tmp_path / "linked.jsonl"
    os.mkfifo(pipe)
    linked.symlink_to(source)
    (tmp_path / "b.jsonl.partial").mkdir()
    (tmp_path / "c.jsonl.partial").symlink_to(pipe)
    for given, output, code, said in [
        (source, pipe, 2, "pipe is no regular file"),
        (pipe, tmp_path / "a.jsonl", 2, "pipe is no regular file"),
        ("/dev/null", tmp_path / "a.jsonl", 2, "/dev/null is no regular file"),
        (tmp_path, tmp_path / "a.jsonl", 2, "is no regular file"),
        (source, tmp_path / "b.jsonl", 2, "b.jsonl.partial is no regular file"),
        (source, tmp_path / "c.jsonl", 2, "c.jsonl.partial is no regular file"),
        (source, linked, 2, "is the input"),
        (source, tmp_path / "missing" / "out.jsonl", 3, "missing"),
        (source, source / "out.jsonl", 3, "Not a directory"),
        (tmp_path / "missing.jsonl", tmp_path / "a.jsonl", 3, "missing.jsonl: No such file"),
    ]:
        assert batch(tiny_path, given, output) == code, (given, output)
        errors = capfd.readouterr().err
        assert said in errors
        assert errors.count("\n") == 1
    assert source.read_bytes() == write(tmp_path / "same.jsonl").read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_a_folder_that_cannot_be_written_is_named(source):
    with tempfile.TemporaryDirectory() as name:  # pytest's are for its own user
        folder = pathlib.Path(name)
        folder.chmod(0o555)
        source.rename(folder / "in.jsonl")
        (folder / "in.jsonl").chmod(0o444)
        done = as_nobody(["batch", "pycode", folder / "in.jsonl", folder / "out.jsonl", "-q"])
    assert (done.returncode, "Permission denied" in done.stderr) == (3, True), done.stderr
    assert "out.jsonl.partial" in done.stderr


def as_nobody(arguments):
    code = (
        "import os, sys; from specdec_native.cli import main; import specdec_native.batch.command; "
        "os.setgid(65534); os.setuid(65534); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


class Growing:
    """What is done to the input after so many lines."""

    def __init__(self, monkeypatch, change, after=3):
        real = command.Work.add
        count = [0]

        def add(work, text):
            count[0] += 1
            if count[0] == after:
                change()
            real(work, text)

        monkeypatch.setattr(command.Work, "add", add)


def test_what_is_added_meanwhile_is_not_in_it(tiny_path, source, tmp_path, expected, monkeypatch,
                                              capfd):  # fmt: skip
    def grow():
        with source.open("a") as file:
            file.write('{"prompt": "more"}\n{"prompt": "and mo')

    Growing(monkeypatch, grow)
    output = tmp_path / "out.jsonl"
    assert cli.main(["batch", str(tiny_path), str(source), str(output), "-c", "256"]) == 0
    assert output.read_bytes() == expected
    assert "has grown" in capfd.readouterr().err


@pytest.mark.parametrize("kept", [0, 300])
def test_an_input_that_is_changed_meanwhile_is_no_input(tiny_path, source, tmp_path, monkeypatch,
                                                        capfd, kept):  # fmt: skip
    write(source, 600, temperature=-1)  # more than is read ahead
    text = source.read_text()

    def change():
        with source.open("r+") as file:
            if kept:
                file.seek(len(text) - 20)
                file.write("!")
            else:
                file.truncate(len(text) - 100)

    Growing(monkeypatch, change)
    output = tmp_path / "out.jsonl"
    assert batch(tiny_path, source, output) == 2
    assert "was changed while it was read" in capfd.readouterr().err
    assert not output.exists()


def test_lines_of_all_lengths_and_ends(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MOST_BYTES", 11_000_000)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    short = b'{"prompt": "cat", "max_tokens": 2, "id": 1, "seed": 0}'
    source.write_bytes(
        b"\xef\xbb\xbf"
        + b"\r\n".join((short, b"", b"  \t", short))
        + b"\n\n\n"
        + json.dumps({"prompt": "a" * 10_000_000, "id": 2}).encode()
        + b"\n"
        + json.dumps({"prompt": "b" * 30_000_000, "id": 3}).encode()
        + b"\n"
        + b"[" * 10_000_000
        + b"\n"
        + short
    )
    assert batch(tiny_path, source, output) == 0
    told = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [entry["line"] for entry in told] == list(range(6))
    assert [entry["id"] for entry in told] == [1, 1, 2, None, None, 1]  # twice the same is no fault
    texts = {entry["text"] for entry in told if "text" in entry}
    assert len(texts) == 1
    assert "context" in told[2]["error"]["message"]
    assert "longer than 11000000 bytes" in told[3]["error"]["message"]
    assert output.stat().st_size < 5000  # what is wrong is said without the line


MEMORY = """
import resource, sys
from specdec_native.cli import main
main(["batch", sys.argv[1], sys.argv[2], sys.argv[4], "-q", "-c", "64"])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(["batch", sys.argv[1], sys.argv[3], sys.argv[4], "-q", "-c", "64", "--restart"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "n,options",
    [
        (40_000, {"temperature": -1}),
        pytest.param(100_000, {"temperature": -1}, marks=pytest.mark.slow),
        pytest.param(100_000, {"max_tokens": 1}, marks=pytest.mark.slow),
    ],
)
def test_long_files_need_no_more_memory(tiny_path, tmp_path, n, options):
    small, large = write(tmp_path / "a", 100, max_tokens=1), write(tmp_path / "b", n, **options)
    output = tmp_path / "out.jsonl"
    names = map(str, (tiny_path, small, large, output))
    done = subprocess.run([sys.executable, "-c", MEMORY, *names], capture_output=True, text=True,
                          timeout=580, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert output.read_bytes().count(b"\n") == n
    assert int(done.stdout) < 20_000  # KiB


# The command, which stops at its fourth line: however fast the machine is, there is more to do when
# the signals come.
STOPS = """
import sys, time
from specdec_native import cli
from specdec_native.batch import command
add, count = command.Work.add, [0]
def stopping(work, text):
    count[0] += 1
    while count[0] == 4:
        time.sleep(0.01)
    add(work, text)
command.Work.add = stopping
sys.exit(cli.main())
"""

# And is still closing its engine when the second signal comes.
STOPS_SLOWLY = """
import sys, time
from specdec_native import Engine
close = Engine.close
def closing(engine):
    print("closing", flush=True)
    time.sleep(60)
    close(engine)
Engine.close = closing
""" + STOPS.replace("import sys, time\n", "")


def begun_run(program, model, source, output):
    """The command in a process of its own, as soon as three lines are written."""
    partial = output.with_name(output.name + ".partial")
    arguments = ["batch", str(model), str(source), str(output), "-c", "256", "-q"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


@pytest.mark.parametrize("signals", [[signal.SIGINT] * 2, [signal.SIGTERM] * 2,
                                     [signal.SIGINT, signal.SIGTERM]])  # fmt: skip
def test_a_second_signal_leaves_it_whole_too(tiny_path, tmp_path, signals):
    source, output = write(tmp_path / "in.jsonl", 40, max_tokens=60), tmp_path / "out.jsonl"
    process = begun_run(STOPS, tiny_path, source, output)
    for number in signals:
        process.send_signal(number)
        time.sleep(0.01)
    _, errors = process.communicate(timeout=60)
    assert process.returncode in (130, 143, -signal.SIGTERM, -signal.SIGINT)
    assert b"Traceback" not in errors
    assert not output.exists()
    assert batch(tiny_path, source, output) == 0
    told = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert [entry["id"] for entry in told] == [f"q{i}" for i in range(40)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_closing_run_at_once(tiny_path, tmp_path, number):
    source, output = write(tmp_path / "in.jsonl", 40, max_tokens=60), tmp_path / "out.jsonl"
    process = begun_run(STOPS_SLOWLY, tiny_path, source, output)
    process.send_signal(number)
    assert process.stdout.readline() == b"closing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert errors == b""
    assert batch(tiny_path, source, output) == 0


def test_handlers_of_signals_are_again_what_they_were():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    seen = []

    def interrupted():
        seen.extend(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM))
        signal.raise_signal(signal.SIGINT)

    assert cli.run_guarded("here", interrupted) == cli.EXIT_INTERRUPTED
    assert not set(before) & set(seen)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
