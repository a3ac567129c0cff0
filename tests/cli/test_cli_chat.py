"""`specdec chat`: on a terminal, and with lines from a pipe."""

from __future__ import annotations

import json
import os
import signal

import pytest
from test_cli import BINARY, CHATML, specdec

import tiny_models
from terminal import Screen


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    keys = {"tokenizer.chat_template": CHATML}
    return tiny_models.write_tiny(folder / "tiny.gguf", dtype="Q8_0", seed=1, extra=keys)


@pytest.fixture
def screen(model, tmp_path):
    state = tmp_path / "state"

    def start(*arguments, columns=100, rows=40, env=None):
        command = [BINARY, "chat", "-m", model, "-n", "6", "--temp", "0", *arguments]
        out = Screen(
            command,
            columns,
            rows,
            env={"XDG_STATE_HOME": str(state), "NO_COLOR": "", **(env or {})},
        )
        screens.append(out)
        out.prompted(1)
        return out

    screens: list[Screen] = []
    yield start
    for each in screens:
        each.__exit__()


def chat(model, lines, *arguments, code=0):
    return specdec(
        "chat", "-m", model, "-n", "6", "--temp", "0", *arguments, stdin=lines, code=code
    )


# ---------------------------------------------------------------- on a terminal


def test_a_greeting_names_help_and_what_the_colour_means(screen):
    terminal = screen()
    terminal.wait_for("/help lists the commands")
    terminal.wait_for("Words in this colour were guessed ahead")
    terminal.type("\x04")
    assert terminal.exit_code() == 0


def test_without_colours_there_is_no_legend(screen):
    terminal = screen("--no-color")
    terminal.wait_for("/help lists the commands")
    assert not terminal.shows("colour were guessed")


def test_lines_are_edited_before_they_are_asked(screen, model):
    terminal = screen()
    terminal.type("helo")
    terminal.type("\x1b[D" + "l" + "\r")
    terminal.prompted(2)
    assert terminal.shows("> hello")
    answer = chat(model, "hello\n").stdout.strip()
    assert terminal.shows(answer.split("\n")[0].strip()[:20])


def test_a_paste_of_several_lines_is_one_question(screen, tmp_path):
    terminal = screen()
    saved = tmp_path / "saved.json"
    terminal.say("\x1b[200~one\r\ntwo\r\n\x1b[201~three")
    terminal.say(f"/save {saved}")
    messages = json.loads(saved.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]
    assert messages[0]["content"] == "one\ntwo\nthree"


def test_ctrl_c_clears_the_line_and_twice_leaves(screen):
    terminal = screen()
    terminal.type("never sent\x03")
    terminal.wait_for("Ctrl-C once more leaves")
    terminal.type("\x03")
    assert terminal.exit_code() == 130


def test_messages_are_there_next_time(screen):
    first = screen()
    first.say("a question to find again")
    first.type("/exit\r")
    assert first.exit_code() == 0
    second = screen()
    second.type("\x12find")
    second.wait_for("(search: find) a question to find again")
    second.type("\x03\x03")
    second.exit_code()


def test_history_can_be_elsewhere_or_nowhere(screen, tmp_path):
    own = tmp_path / "own"
    terminal = screen("--history", own)
    terminal.say("kept here")
    assert "kept here" in own.read_text()
    assert own.stat().st_mode & 0o777 == 0o600
    none = screen("--no-history")
    none.say("kept nowhere")
    kept = tmp_path / "state" / "specdec" / "chat_history"
    assert not kept.exists()


def test_an_unusable_history_is_said_once_and_does_not_matter(screen):
    terminal = screen("--history", "/proc/none/history")
    terminal.wait_for("messages are not kept for the next time")
    terminal.say("hello")


def test_tab_completes_commands_settings_and_files(screen, tmp_path):
    (tmp_path / "transcript.json").write_text('{"messages": []}')
    terminal = screen()
    terminal.type("/sy\t")
    terminal.wait_for("> /system")
    terminal.type("\x15/set fr\t")
    terminal.wait_for("> /set frequency-penalty")
    terminal.type(f"\x15/load {tmp_path}/trans\t\r")
    terminal.wait_for("loaded 0 messages")


def test_sigterm_at_the_prompt_ends_it_and_restores_the_terminal(screen):
    terminal = screen()
    terminal.type("half a line")
    terminal.wait_for("> half a line")
    terminal.child.send_signal(signal.SIGTERM)
    assert terminal.exit_code() in (130, 143)
    assert terminal.raw.rstrip().endswith(b"\x1b[?2004l")


def test_a_dumb_terminal_still_chats(model, tmp_path):
    with Screen(
        [BINARY, "chat", "-m", model, "-n", "4", "--temp", "0", "--no-history"],
        env={"TERM": "dumb"},
    ) as terminal:
        terminal.wait_for(">")
        terminal.type("hi\n/stats\n")
        terminal.wait_for("tokens/s")
        terminal.type("/exit\n")
        assert terminal.exit_code() == 0
        assert b"\x1b[" not in terminal.raw


# ---------------------------------------------------------------- commands


def test_help_lists_every_command(model):
    text = chat(model, "/help\n").stderr
    for name in "help system regen undo save load set stats reset exit".split():
        assert f"/{name}" in text
    assert "/regen" in specdec("chat", "--help").stdout


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/what", ["/what", "/help", "/regen"]),
        ("/regen now", ["/regen", "now"]),
        ("/save", ["/save", "FILE"]),
        ("/set temp", ["temp", "value"]),
        ("/set speed 3", ["speed", "top-k"]),
        ("/set temp hot", ["--temp", "hot"]),
        ("/set top_p 2", ["--top-p", "2"]),
        ("/load /nonexistent/x.json", ["/nonexistent/x.json"]),
        ("/save /nonexistent/x.json", ["/nonexistent/x.json"]),
        ("/save /dev/null", ["/dev/null", "device"]),
        ("/regen", ["no answer yet"]),
        ("/undo", ["nothing to take back"]),
    ],
)
def test_a_wrong_command_says_why_and_the_chat_goes_on(model, line, words):
    done = chat(model, f"{line}\nhello\n")
    for word in words:
        assert word in done.stderr
    assert done.stdout == chat(model, "hello\n").stdout


def test_undo_takes_back_question_and_answer(model):
    both = chat(model, "first\nsecond\n").stdout
    again = chat(model, "first\nwrong\n/undo\nsecond\n").stdout
    first = chat(model, "first\n").stdout
    wrong = chat(model, "first\nwrong\n").stdout.removeprefix(first)
    assert again == first + wrong + both.removeprefix(first)


def test_regen_gives_the_same_at_temperature_0_and_says_so(model):
    done = chat(model, "hello\n/regen\n")
    once = chat(model, "hello\n").stdout
    assert done.stdout == once * 2
    assert "at temperature 0 the answer is the same" in done.stderr


def test_regen_draws_anew_and_replaces_the_answer(model, tmp_path):
    saved = tmp_path / "saved.json"
    lines = f"hello\n/regen\n/save {saved}\n"
    arguments = ["chat", "-m", model, "-n", "12", "--temp", "5", "-s", "3", "--top-k", "0"]
    done = specdec(*arguments, stdin=lines)
    once = specdec(*arguments, stdin="hello\n").stdout
    assert done.stdout.startswith(once)
    assert done.stdout != once * 2
    messages = json.loads(saved.read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"]
    shown = once + messages[1]["content"] + "\n"
    assert done.stdout.splitlines() == shown.splitlines()
    assert specdec(*arguments, stdin=lines).stdout == done.stdout  # the seed still decides


def test_set_changes_the_next_answers(model):
    done = chat(model, "/set max_tokens 2\nhello\n/set\n")
    assert done.stdout == specdec(
        "chat", "-m", model, "-n", "2", "--temp", "0", stdin="hello\n"
    ).stdout  # fmt: skip
    assert any(line.split() == ["max-tokens", "2"] for line in done.stderr.splitlines())
    hot = specdec("chat", "-m", model, "-n", "9", "--temp", "4", "-s", "7", stdin="hello\n").stdout
    switched = specdec(
        "chat", "-m", model, "-n", "9", "--temp", "0", "-s", "1",
        stdin="/set temperature 4\n/set seed 7\nhello\n",
    ).stdout  # fmt: skip
    assert switched == hot


def test_system_changes_the_prompt_and_can_be_taken_out(model, tmp_path):
    saved = tmp_path / "saved.json"
    done = chat(model, f"/system Be brief.\nhello\n/system\n/save {saved}\n")
    assert done.stdout == chat(model, "hello\n", "--system", "Be brief.").stdout
    assert "system message: Be brief." in done.stderr
    messages = json.loads(saved.read_text())["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    gone = chat(model, "/system none\nhello\n", "--system", "Be brief.")
    assert gone.stdout == chat(model, "hello\n").stdout


def test_a_saved_chat_goes_on_as_if_it_had_not_stopped(model, tmp_path):
    saved = tmp_path / "saved.json"
    whole = chat(model, 'he said "x"\\n\nand now\n', "--system", "Sys ż").stdout
    first = chat(model, f'he said "x"\\n\n/save {saved}\n', "--system", "Sys ż").stdout
    rest = chat(model, f"/load {saved}\nand now\n").stdout
    assert first + rest == whole


def test_save_replaces_files_whole_and_keeps_links(model, tmp_path):
    saved, link = tmp_path / "saved.json", tmp_path / "link.json"
    saved.write_text("old")
    link.symlink_to(saved)
    done = chat(model, f"hi\n/save {link}\n")
    assert "symbolic link" in done.stderr
    assert saved.read_text() == "old"
    chat(model, f"hi\n/save {saved}\n")
    assert json.loads(saved.read_text())["messages"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.json", "saved.json"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is not JSON", "byte 0"]),
        ('{"messages": [\n{"role": "user"}]}', ["messages[0]", "content"]),
        ('[{"role": "tool", "content": "x"}]', ["messages[0]", "tool"]),
        ('[{"role": "user", "content": "x"}, {"role": "system", "content": "x"}]', ["messages[1]"]),
        ('{"turns": []}', ["messages"]),
        ('{"messages": {}}', ["messages"]),
        ("[3]", ["messages[0]"]),
        ('[{"role": "user", "content": "x",}]', ["is not JSON"]),
        ("[" * 1000, ["deep"]),
    ],
)
def test_what_is_no_conversation_is_refused(model, tmp_path, text, words):
    path = tmp_path / "bad.json"
    path.write_text(text)
    done = chat(model, f"/load {path}\nhello\n")
    for word in words:
        assert word in done.stderr
    assert done.stdout == chat(model, "hello\n").stdout


def test_transcripts_of_others_are_read(model, tmp_path):
    path = tmp_path / "other.json"
    content = 'a "b" \\ \n\t ż 🙂'
    path.write_text(json.dumps([{"role": "user", "content": content, "name": "x"}]))
    saved = tmp_path / "saved.json"
    done = chat(model, f"/load {path}\n/regen\n/save {saved}\n")
    assert "/regen answers the last one" in done.stderr
    assert json.loads(saved.read_text())["messages"][0]["content"] == content


def test_a_fifo_is_no_transcript(model, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    done = chat(model, f"/load {tmp_path / 'fifo'}\nhello\n")
    assert str(tmp_path / "fifo") in done.stderr
    assert done.stdout == chat(model, "hello\n").stdout


# ---------------------------------------------------------------- the end of the context


def test_a_full_context_forgets_the_oldest_turns(model, tmp_path):
    saved = tmp_path / "saved.json"
    lines = "".join(f"{word * 30}\n" for word in "abcdef")
    done = chat(model, lines + f"/save {saved}\n", "-c", "128")
    assert "the context of 128 tokens is full: the oldest 2 messages" in done.stderr
    messages = json.loads(saved.read_text())["messages"]
    assert messages[-2]["content"] == "f" * 30
    assert messages[0]["role"] == "user"
    assert messages[0]["content"] != "a" * 30
    # What is left is a conversation as good as a fresh one.
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(messages[:-2]))
    alone = chat(model, f"/load {kept}\n{'f' * 30}\n", "-c", "128")
    assert done.stdout.endswith(alone.stdout)


def test_a_question_beyond_the_context_is_refused_and_the_chat_goes_on(model):
    done = chat(model, "x" * 500 + "\nhello\n", "-c", "128")
    assert "-c" in done.stderr
    assert done.stdout == chat(model, "hello\n", "-c", "128").stdout


def test_why_an_answer_was_cut_off_is_said(model):
    assert "cut off after 6 tokens (-n)" in chat(model, "hello\n").stderr
    done = specdec("chat", "-m", model, "-c", "64", "--temp", "0", stdin="hello\n")
    assert "cut off: the context of 64 tokens is full" in done.stderr


def test_stats_say_how_full_the_context_is(model):
    done = chat(model, "hello\n/stats\n", "-c", "128")
    assert "of 128 tokens of context" in done.stderr
