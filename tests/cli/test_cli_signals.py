"""What the native program reads, and how signals end it: at once, with 128 + their number."""

from __future__ import annotations

import fcntl
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from helpers import specdec_binary

SPECDEC = specdec_binary()
MIB = 1 << 20


def start(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [SPECDEC, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,  # type: ignore[call-overload]
    )


def is_reading(pid: int) -> bool:
    """Whether the process waits in read() of its standard input."""
    call = pathlib.Path(f"/proc/{pid}/syscall")
    try:
        return call.read_text().startswith("0 0x0 ")
    except OSError:
        pytest.skip("this system does not tell what a process waits for")


def feed(process: subprocess.Popen[bytes], block: bytes, n_bytes: int) -> None:
    assert process.stdin is not None
    try:
        for _ in range(0, n_bytes, len(block)):
            process.stdin.write(block)
        process.stdin.close()
    except BrokenPipeError:  # it had enough
        pass
    process.stdin = None


RAW = ["--chat-format", "raw"]
READERS = {
    "chat": ["chat", *RAW],
    "generate": ["generate", "-n", "4", "-f", "-"],
    "tokenize": ["tokenize", "-f", "-"],
    "perplexity": ["perplexity", "-f", "-"],
}


def command(name: str, model: pathlib.Path) -> list[object]:
    first, *rest = READERS[name]
    return [first, "-m", model, *rest]


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_waits_for_input(tiny_path, name, number):
    process = start(*command(name, tiny_path))
    deadline = time.monotonic() + 60
    while not is_reading(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 128 + number


@pytest.mark.parametrize("name", READERS)
def test_endless_input_is_an_error_that_says_the_limit(tiny_path, name):
    process = start(*command(name, tiny_path))
    feed(process, b"x" * MIB, 10_000 * MIB)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    limit = "8 MiB" if name == "chat" else "128 MiB"
    assert f"standard input has more than {limit}" in err.decode()
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_chat_with_endless_messages(tiny_path, number):
    process = subprocess.Popen(
        [SPECDEC, "chat", *RAW, "-m", tiny_path, "-n", "2", "-c", "256"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    feeder = threading.Thread(target=feed, args=(process, b"hello\n" * 1000, 10_000 * MIB))
    feeder.start()
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    process.stdout.close()
    feeder.join(60)


def test_long_lines_of_a_chat_are_messages_up_to_the_limit(tiny_path):
    process = start("chat", *RAW, "-m", tiny_path, "-n", "1", "-c", "64")
    _, err = process.communicate(b"y" * (8 * MIB) + b"\n" + b"a\r\n" * 3, timeout=240)
    assert process.returncode == 0, err
    assert b"no room for one more token" in err  # that is all
    process = start("chat", *RAW, "-m", tiny_path)
    _, err = process.communicate(b"y" * (8 * MIB + 1) + b"\n", timeout=240)
    assert (process.returncode, b"more than 8 MiB" in err) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_signal_ends_a_generation_with_what_there_is(tiny_path, number, json):
    process = start(
        "generate", "-m", tiny_path, "-p", "the cat", "-c", 60000, "--ignore-eos", *json
    )
    assert process.stdout is not None
    if not json:
        process.stdout.read(1)
    else:
        time.sleep(1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    if json:
        assert b'"finish_reason":' in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_output_that_nobody_takes(tiny_path, number):
    process = start("generate", "-m", tiny_path, "-p", "the cat", "-c", 200000, "--ignore-eos")
    assert process.stdout is not None
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)  # soon full
    call = pathlib.Path(f"/proc/{process.pid}/syscall")
    deadline = time.monotonic() + 120
    while not call.read_text().startswith(("1 0x1 ", "7 0x")):  # write() to its output, or poll()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    process.stdout.close()


def test_a_pipe_that_does_not_block_gets_everything(tiny_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    arguments = ["tokenize", "-m", str(tiny_path), "-p", "the cat in the hat " * 5000, "--ids"]
    process = subprocess.Popen([SPECDEC, *arguments], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    time.sleep(0.3)
    with os.fdopen(reader, "rb") as out:
        text = out.read()
    assert (process.wait(60), process.stderr.read()) == (0, b"")  # type: ignore[union-attr]
    assert len(text.split()) >= 5000
