"""What `specdec chat` reads messages with on a terminal: keys, editing, rows, history."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import examples, native

le = native("line_editor")
K = le.KINDS


def keys(data: bytes, pieces: int = 0) -> list[tuple[int, str]]:
    decoder = le.KeyDecoder()
    out = []
    chunks = [data[i : i + pieces] for i in range(0, len(data), pieces)] if pieces else [data]
    for chunk in chunks:
        decoder.feed(chunk)
        while (key := decoder.next()) is not None:
            out.append(key)
    if (key := decoder.flush()) is not None:
        out.append(key)
    return out


def merged(found: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Text keys in a row as one: how they are cut depends on how the bytes came."""
    out: list[tuple[int, str]] = []
    for kind, text in found:
        if out and kind == K["text"] == out[-1][0]:
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"ab\r", [("text", "ab"), ("enter", "")]),
        (b"\n", [("enter", "")]),
        (b"\x1b\r", [("newline", "")]),
        (b"\x1b[13;2u", [("newline", "")]),
        (b"\x1b[A", [("up", "")]),
        (b"\x1bOA", [("up", "")]),
        (b"\x1b[1~\x1b[H\x1bOH\x01", [("home", "")] * 4),
        (b"\x1b[3~", [("delete", "")]),
        (b"\x1b[1;5C\x1bf", [("word_right", "")] * 2),
        (b"\x03", [("interrupt", "")]),
        (b"\x1b", [("escape", "")]),
        (b"\x1b[99;99;99z", [("unknown", "")]),
        ("żółw🙂".encode(), [("text", "żółw🙂")]),
        (b"a\xffb", [("text", "a\ufffdb")]),
        (b"\xc5", [("text", "\ufffd")]),
        (
            b"\x1b[200~one\r\ntwo\rthree\x07\n\x1b[201~x",
            [("paste", "one\ntwo\nthree\n"), ("text", "x")],
        ),
        (b"\x1b[200~" + b"a\x1b[20" + b"\x1b[201~", [("paste", "a[20")]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pieces", [0, 1, 2, 3])
def test_bytes_become_keys_however_they_arrive(data, expected, pieces):
    assert merged(keys(data, pieces)) == [(K[kind], text) for kind, text in expected]


@given(st.binary(max_size=60), st.integers(1, 7))
@settings(max_examples=examples(400))
def test_any_bytes_are_decoded_the_same_whole_and_in_pieces(data, pieces):
    data = data.replace(b"\x1b", b"")  # an Escape is decided by what comes soon
    whole = merged(keys(data))
    assert whole == merged(keys(data, pieces))
    for _, text in whole:
        text.encode()  # valid, also after broken UTF-8


@given(st.lists(st.sampled_from([b"\x1b", b"[", b"200~", b"201~", b"O", b"A", b"\x80", b"x"])))
@settings(max_examples=examples(400))
def test_broken_sequences_neither_hang_nor_crash(parts):
    keys(b"".join(parts))


def test_a_huge_paste_is_cut_and_what_follows_is_not():
    n = le.MAX_PASTE_BYTES
    data = b"\x1b[200~" + b"y" * (n + 5_000_000) + b"\x1b[201~z\r"
    found = merged(keys(data, 65536))
    assert [kind for kind, _ in found] == [K["paste"], K["text"], K["enter"]]
    assert found[0][1] == "y" * n
    assert found[1][1] == "z"


# ---------------------------------------------------------------- editing


class Reference:
    """The same editing on a list of clusters in plain Python."""

    def __init__(self):
        self.text: list[str] = []
        self.at = 0
        self.killed: list[str] = []

    def insert(self, clusters):
        self.text[self.at : self.at] = clusters
        self.at += len(clusters)

    def word(self, i):
        first = self.text[i][0]
        return first == "_" or unicodedata.category(first)[0] in "LN"

    def start_of_word(self):
        i = self.at
        while i > 0 and not self.word(i - 1):
            i -= 1
        while i > 0 and self.word(i - 1):
            i -= 1
        return i

    def end_of_word(self):
        i = self.at
        while i < len(self.text) and not self.word(i):
            i += 1
        while i < len(self.text) and self.word(i):
            i += 1
        return i

    def line_begin(self):
        i = self.at
        while i > 0 and self.text[i - 1] != "\n":
            i -= 1
        return i

    def end_of_line(self):
        i = self.at
        while i < len(self.text) and self.text[i] != "\n":
            i += 1
        return i

    def cut(self, begin, end, keep=True):
        if begin == end:
            return
        if keep:
            self.killed = self.text[begin:end]
        del self.text[begin:end]
        self.at = begin

    def apply(self, action):
        match action:
            case "backspace":
                if self.at:
                    self.cut(self.at - 1, self.at, keep=False)
            case "erase":
                if self.at < len(self.text):
                    self.cut(self.at, self.at + 1, keep=False)
            case "left":
                self.at = max(0, self.at - 1)
            case "right":
                self.at = min(len(self.text), self.at + 1)
            case "word_left":
                self.at = self.start_of_word()
            case "word_right":
                self.at = self.end_of_word()
            case "line_start":
                self.at = self.line_begin()
            case "line_end":
                self.at = self.end_of_line()
            case "delete_word_back":
                self.cut(self.start_of_word(), self.at)
            case "delete_word_forward":
                self.cut(self.at, self.end_of_word())
            case "kill_to_line_start":
                self.cut(self.line_begin(), self.at)
            case "kill_to_line_end":
                end = self.end_of_line()
                self.cut(self.at, end + 1 if end == self.at and end < len(self.text) else end)
            case "yank":
                self.insert(self.killed)


ACTIONS = ["backspace", "erase", "left", "right", "word_left", "word_right", "line_start",
           "line_end", "delete_word_back", "delete_word_forward", "kill_to_line_start",
           "kill_to_line_end", "yank"]  # fmt: skip
CLUSTERS = ["a", "B", "_", "7", " ", ".", "\n", "é", "e\u0301", "字", "🙂", "ก็"]


@given(
    st.lists(
        st.one_of(st.sampled_from(ACTIONS), st.lists(st.sampled_from(CLUSTERS), min_size=1)),
        max_size=40,
    )
)
@settings(max_examples=examples(600))
def test_editing_is_that_of_a_list_of_characters(script):
    buffer, reference = le.EditBuffer(), Reference()
    for step in script:
        if isinstance(step, list):
            buffer.insert("".join(step))
            reference.insert(step)
        else:
            getattr(buffer, step)()
            reference.apply(step)
        assert buffer.text == "".join(reference.text)
        assert buffer.cursor == len("".join(reference.text[: reference.at]).encode())


def test_undo_takes_back_change_after_change():
    buffer = le.EditBuffer()
    states = []
    for step in ["hello world", "delete_word_back", "yank", "transpose", "kill_to_line_start"]:
        states.append(buffer.text)
        getattr(buffer, step)() if hasattr(buffer, step) else buffer.insert(step)
    while states:
        buffer.undo()
        assert buffer.text == states.pop()
    buffer.undo()
    assert buffer.text == ""


def test_typing_in_a_row_is_one_change():
    buffer = le.EditBuffer()
    for c in "word":
        buffer.insert(c)
    buffer.undo()
    assert buffer.text == ""


def test_up_and_down_keep_the_column():
    buffer = le.EditBuffer()
    buffer.insert("one line\n字字\nlast one")
    assert buffer.up()
    assert buffer.text.encode()[: buffer.cursor].decode() == "one line\n字字"
    assert buffer.up()
    assert buffer.text.encode()[: buffer.cursor].decode() == "one "
    assert not buffer.up()
    assert buffer.down()
    assert buffer.down()
    assert not buffer.down()


# ---------------------------------------------------------------- rows


@given(st.text(alphabet="ab c\n\t字é", max_size=80), st.integers(4, 20), st.data())
@settings(max_examples=examples(300))
def test_rows_fit_and_hold_the_whole_text(text, columns, data):
    cursor = len(text[: data.draw(st.integers(0, len(text)))].encode())
    rows, widths, row, column = le.lay_out("> ", ". ", text, cursor, columns, 0)
    assert all(width <= columns for width in widths)
    assert widths == [le.text_width(r) for r in rows]
    assert row < len(rows)
    assert column <= widths[row]
    shown = "".join(rows).replace("> ", "", 1)
    for c in "abcé字":
        assert shown.count(c) == text.count(c)


def test_of_too_many_rows_those_around_the_cursor_are_shown():
    text = "\n".join(f"row{i}" for i in range(100))
    for at in (0, 50, 99):
        cursor = text.index(f"row{at}")
        rows, _, row, _ = le.lay_out("> ", ". ", text, cursor, 20, 10)
        assert len(rows) == 10
        assert f"row{at}" in rows[row]


# ---------------------------------------------------------------- history


def test_history_outlives_the_session_and_holds_any_message(tmp_path):
    path = str(tmp_path / "deep" / "history")
    messages = ["one", "two\nlines", "back\\slash \\n", "字"]
    history = le.History(path)
    for message in messages:
        history.add(message)
    assert le.History(path).entries == messages
    assert pathlib.Path(path).stat().st_mode & 0o777 == 0o600


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_entries_survive_their_escapes(text):
    assert le.unescape_entry(le.escape_entry(text)) == text
    assert "\n" not in le.escape_entry(text)


def test_history_skips_repeats_blanks_and_secrets():
    history = le.History("")
    for message in ["a", "a", "", " secret", "b", "a"]:
        history.add(message)
    assert history.entries == ["a", "b", "a"]


def test_history_is_bounded_in_memory_and_on_disk(tmp_path):
    path = tmp_path / "history"
    path.write_text("".join(f"m{i}\n" for i in range(5000)))
    history = le.History(str(path))
    assert history.entries == [f"m{i}" for i in range(4000, 5000)]
    assert path.read_text().count("\n") == 1000
    history.add("new")
    assert len(history.entries) == 1000


def test_an_unusable_history_is_no_error(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", pathlib.Path("/proc/none/history")):
        history = le.History(str(path))
        assert history.problem
        history.add("kept in memory")
        assert history.entries == ["kept in memory"]


# ---------------------------------------------------------------- on a pseudo-terminal


class Terminal:
    """The editor on one end of a pseudo-terminal, a terminal emulator on the other."""

    def __init__(self, columns=40, rows=10, history="", commands=()):
        pyte = pytest.importorskip("pyte")
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows, emulate=False)
        self.before = termios.tcgetattr(self.slave)
        self.messages: list[str] | None = None
        self.raw = b""
        self.lock = threading.Lock()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        self.editor = threading.Thread(
            target=lambda: setattr(
                self, "messages", le.read_messages(self.slave, history, list(commands))
            ),
            daemon=True,
        )
        self.editor.start()
        self.prompted(1)

    def prompted(self, n):
        """Waits for the n-th prompt: the terminal is raw from there on."""
        self.wait(lambda: self.raw.count(b"\x1b[?2004h") >= n and b"> " in self.raw)

    def resize(self, columns, rows, emulate=True):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if emulate:
            self.screen.resize(rows, columns)

    def _read(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                return
            with self.lock:
                self.raw += data
                self.stream.feed(data)

    def type(self, data):
        os.write(self.master, data.encode() if isinstance(data, str) else data)

    def lines(self):
        with self.lock:
            return [line.rstrip() for line in self.screen.display if line.strip()]

    def cursor(self):
        with self.lock:
            return self.screen.cursor.y, self.screen.cursor.x

    def wait(self, condition, seconds=20):
        """Until the condition holds; a safety net, not a measurement."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "\n".join(self.lines())
            time.sleep(0.005)

    def end(self):
        # Again while it goes on: between two messages the terminal takes these keys for itself.
        for _ in range(20):
            self.type(b"\x15\x04")  # kill the line, end of input
            self.editor.join(1)
            if not self.editor.is_alive():
                break
        assert self.messages is not None
        restored = termios.tcgetattr(self.slave)
        os.close(self.slave)
        self.reader.join(20)  # before its descriptor can become somebody else's
        os.close(self.master)
        assert restored[:4] == self.before[:4]  # the terminal is as it was
        return self.messages


def test_a_message_is_edited_on_the_screen():
    terminal = Terminal()
    terminal.type("helo world")
    terminal.wait(lambda: terminal.lines() == ["> helo world"])
    terminal.type("\x1bb\x02\x02l\x05!\r")
    terminal.wait(lambda: terminal.lines()[:1] == ["> hello world!"])
    assert terminal.end() == ["hello world!", "<end>"]


def test_long_lines_wrap_and_the_cursor_is_where_the_text_says():
    terminal = Terminal(columns=20)
    terminal.type("abcdefghijklmnopqrstuvwxyz")
    terminal.wait(lambda: terminal.lines() == ["> abcdefghijklmnopq", "rstuvwxyz"])
    assert terminal.cursor() == (1, 9)
    terminal.type("\x01")
    terminal.wait(lambda: terminal.cursor() == (0, 2))
    terminal.type("X")
    terminal.wait(lambda: terminal.lines() == ["> Xabcdefghijklmnop", "qrstuvwxyz"])
    terminal.type("\r")
    assert terminal.end() == ["Xabcdefghijklmnopqrstuvwxyz", "<end>"]


def test_wide_characters_and_marks_keep_the_cursor_right():
    terminal = Terminal()
    terminal.type("字e\u0301🙂x")
    terminal.wait(lambda: terminal.cursor() == (0, 8))
    terminal.type("\x02\x02\x02")
    terminal.wait(lambda: terminal.cursor() == (0, 4))
    terminal.type("\x7f\r")
    assert terminal.end() == ["e\u0301🙂x", "<end>"]


def test_a_paste_of_several_lines_is_one_message():
    terminal = Terminal()
    terminal.type("say: \x1b[200~def f():\r\n\treturn 1\r\n\x1b[201~")
    terminal.wait(lambda: len(terminal.lines()) == 3)
    assert terminal.lines() == ["> say: def f():", ".       return 1", "."]
    terminal.type("end\r")
    assert terminal.end() == ["say: def f():\n\treturn 1\nend", "<end>"]
    assert b"\x1b[?2004l" in terminal.raw


def test_alt_enter_and_a_backslash_go_on_in_the_next_line():
    terminal = Terminal()
    terminal.type("one\x1b\rtwo\\\rthree\r")
    assert terminal.end() == ["one\ntwo\nthree", "<end>"]


def test_lines_typed_ahead_are_messages_of_their_own():
    terminal = Terminal()
    terminal.type("one\rtwo\rthree\r")
    assert terminal.end() == ["one", "two", "three", "<end>"]


def test_ctrl_c_clears_the_line_and_twice_leaves():
    terminal = Terminal()
    terminal.type("never mind\x03")
    terminal.wait(lambda: any("^C" in line for line in terminal.lines()))
    terminal.type("kept\r")
    terminal.prompted(2)
    terminal.type("again\x03\x03")
    terminal.editor.join(20)
    assert terminal.messages == ["kept", "<interrupted>"]


def test_typing_between_two_ctrl_c_stays():
    terminal = Terminal()
    terminal.type("\x03x\x03y\r")
    assert terminal.end() == ["y", "<end>"]


def test_history_is_walked_and_searched(tmp_path):
    path = str(tmp_path / "history")
    terminal = Terminal(history=path)
    terminal.type("first one\rsecond\r")
    terminal.prompted(3)
    terminal.wait(lambda: terminal.lines()[:2] == ["> first one", "> second"])
    terminal.type("new\x1b[A\x1b[A")
    terminal.wait(lambda: terminal.lines()[-1] == "> first one")
    terminal.type("\x1b[B\x1b[B")
    terminal.wait(lambda: terminal.lines()[-1] == "> new")
    terminal.type("\x15\x12irst")
    terminal.wait(lambda: terminal.lines()[-1] == "(search: irst) first one")
    terminal.type("\r")
    assert terminal.end() == ["first one", "second", "first one", "<end>"]
    again = Terminal(history=path)
    again.type("\x10\x10\r")
    assert again.end() == ["second", "<end>"]


def test_a_cancelled_search_changes_nothing():
    terminal = Terminal()
    terminal.type("abc\r")
    terminal.prompted(2)
    terminal.type("typed\x12ab")
    terminal.wait(lambda: "(search: ab) abc" in terminal.lines())
    terminal.type("\x07\r")
    assert terminal.end() == ["abc", "typed", "<end>"]


def test_tab_completes_and_lists():
    terminal = Terminal(commands=["/save ", "/set ", "/stats"])
    terminal.type("/sa\t")
    terminal.wait(lambda: terminal.lines() == ["> /save"])
    terminal.type("x\x15/s\t")
    terminal.wait(lambda: any("/save   /set   /stats" in line for line in terminal.lines()))
    terminal.type("ta\t\r")
    assert terminal.end() == ["/stats", "<end>"]


def test_a_message_taller_than_the_window_is_edited():
    terminal = Terminal(columns=20, rows=5)
    text = "\n".join(f"row {i}" for i in range(30))
    terminal.type(b"\x1b[200~" + text.encode() + b"\x1b[201~")
    terminal.wait(lambda: ". row 29" in terminal.lines())
    terminal.type("\x1b[A" * 29 + "\x01> ")
    terminal.wait(lambda: "> > row 0" in terminal.lines())
    terminal.type("\r")
    assert terminal.end() == ["> " + text, "<end>"]


@contextlib.contextmanager
def process(columns):
    """The editor in a process of its own, which a terminal can send signals to."""
    code = (
        "import sys\n"
        "from helpers import native\n"
        "print(native('line_editor').read_messages(0, '', []), file=sys.stderr)\n"
    )
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True,
        cwd=pathlib.Path(__file__).parents[1], start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    try:
        yield child, master, slave
    finally:
        child.kill()
        child.wait()


def read_until(master, stream, screen, text):
    while text not in [line.rstrip() for line in screen.display]:
        stream.feed(os.read(master, 65536))


def test_a_terminal_that_goes_away_ends_the_input():
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(60, 10)
    with process(60) as (child, master, slave):
        read_until(master, pyte.ByteStream(screen), screen, ">")
        os.write(master, b"half")
        read_until(master, pyte.ByteStream(screen), screen, "> half")
        os.close(slave)
        os.close(master)  # SIGHUP too, which ends a process that does not expect it
        assert child.wait(60) in (0, -signal.SIGHUP)


def test_a_resized_window_is_drawn_anew():
    pyte = pytest.importorskip("pyte")
    screen = pyte.Screen(60, 10)
    stream = pyte.ByteStream(screen)
    with process(60) as (child, master, slave):
        read_until(master, stream, screen, ">")
        os.write(master, b"a" * 50)
        read_until(master, stream, screen, "> " + "a" * 50)
        screen.resize(10, 30)
        screen.reset()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 30, 0, 0))
        read_until(master, stream, screen, "> " + "a" * 27)
        os.write(master, b"\r\x04")
        _, printed = child.communicate(timeout=60)
    assert printed.strip() == str(["a" * 50, "<end>"])
