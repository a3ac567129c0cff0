"""The commands of `specdec chat` that change drafting and sampling: each changes what happens."""

from __future__ import annotations

import json
import pathlib
import re

import pytest
from test_cli import BINARY, specdec

import tiny_models
from terminal import Screen

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
TARGET = MODELS / "pycode-llama-5m.q8_0.gguf"
DRAFT = MODELS / "pycode-llama-draft.q8_0.gguf"
PAIR = ["-m", TARGET, "-md", DRAFT]
QUESTION = "x = [1, 2\n"
COMMANDS = (
    "speculative drafter ngram cache target gamma length processor top_k_filler reset_in_between "
    "debug clear quit"
).split()


def chat(lines, *arguments, models=PAIR, n=16, code=0):
    flags = ["--chat-template", "raw", "-n", n, "-s", "1", *arguments]
    return specdec("chat", *models, *flags, stdin=lines, code=code)


def rounds(done):
    """(source, drafted, accepted) of each traced pass; source "" for plain ones."""
    found = []
    for line in done.stderr.splitlines():
        if "specdec: round " in line:
            drafted = re.search(r": (\w+) drafted (\d+) .*, accepted (\d+), then", line)
            found.append((drafted[1], int(drafted[2]), int(drafted[3])) if drafted else ("", 0, 0))
    return found


def sources(done):
    return {source for source, _, _ in rounds(done)} - {""}


@pytest.fixture(scope="module")
def plain():
    """The answer to the question, without drafts."""
    return chat(QUESTION, "--drafter", "none", models=["-m", TARGET]).stdout


# ---------------------------------------------------------------- all of them


def test_help_lists_them_all():
    text = chat("/help\n").stderr
    assert [name for name in COMMANDS if f"/{name}" not in text] == []
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/speculative maybe", ["/speculative takes on, off or nothing", "'maybe'"]),
        ("/target 1", ["/target takes on, off"]),
        ("/reset_in_between no", ["/reset_in_between takes on, off"]),
        ("/debug 2", ["/debug takes on, off"]),
        ("/drafter nope", ["nope", "expected one of", "suffix"]),
        ("/drafter ngram,nope", ["nope"]),
        ("/drafter ngram,auto", ["ngram,auto", "without none and auto"]),
        ("/drafter ngram,ngram", ["twice"]),
        ("/ngram 17", ["--ngram-n", "1 to 16", "17"]),
        ("/ngram x", ["--ngram-n", "'x'"]),
        ("/gamma 65", ["--gamma", "0 to 64", "65"]),
        ("/gamma x", ["--gamma", "'x'"]),
        ("/length", ["/length needs something after it: N"]),
        ("/length x", ["--max-tokens", "'x'"]),
        ("/top_k_filler", ["/top_k_filler needs something after it: N"]),
        ("/top_k_filler 65", ["--filler-top-k", "1 to 64"]),
        ("/processor best", ["unknown processor 'best'", "topknucleus", "twostage"]),
        ("/processor greedy 1", ["/processor greedy takes nothing, got '1'"]),
        ("/processor multinomial", ["takes TEMPERATURE, got nothing"]),
        ("/processor topk 1", ["takes TEMPERATURE TOP_K, got '1'"]),
        ("/processor topk hot 5", ["--temperature", "'hot'"]),
        ("/processor nucleus 1 2", ["--top-p", "2"]),
        ("/processor twostage 1 10 -1", ["--noise-scale", "-1"]),
        ("/clear all", ["/clear takes nothing"]),
    ],
)
def test_a_wrong_argument_says_why_in_one_line_and_changes_nothing(plain, line, words):
    done = chat(f"{line}\n/debug\n{QUESTION}", "--drafter", "model")
    said = done.stderr.splitlines()[0]
    assert [word for word in words if word not in said] == []
    assert done.stderr.splitlines()[1].startswith("specdec: each pass of the target is told")
    assert done.stdout == plain
    assert sources(done) == {"model"}


def test_a_conversation_survives_a_wrong_argument_and_every_change_of_drafters():
    turns = ["def add(a, b):\n", QUESTION, "for x in\n"]
    whole = chat("".join(turns)).stdout
    between = "/drafter nope\n/drafter ngram\n/gamma 3\n/speculative\n/ngram 2\n/processor x\n"
    assert chat(between.join(turns)).stdout == whole


# ---------------------------------------------------------------- who drafts


def test_debug_tells_each_pass_and_what_it_tells_adds_up(plain):
    done = chat(f"/debug\n{QUESTION}/debug\n{QUESTION}", "--drafter", "model")
    found = rounds(done)
    emitted = sum(accepted + 1 for _, _, accepted in found)
    assert emitted == 16
    assert done.stdout.startswith(plain)
    assert done.stderr.count("specdec: round 1:") == 1
    assert rounds(chat(f"/debug on\n/debug off\n{QUESTION}", "--drafter", "model")) == []


def test_speculative_switches_drafting_off_and_on(plain):
    done = chat(f"/debug\n/speculative\n{QUESTION}", "--drafter", "model")
    assert rounds(done) == [("", 0, 0)] * 16
    assert done.stdout == plain
    there_and_back = ["/speculative\n/speculative\n", "/speculative off\n/drafter model\n"]
    for lines in [*there_and_back, "/speculative on\n"]:
        again = chat(f"/debug\n{lines}{QUESTION}", "--drafter", "model")
        assert sources(again) == {"model"}
        assert again.stdout == plain


def test_speculative_can_be_switched_on_where_the_chat_began_plainly(plain):
    done = chat(f"/speculative\n/drafter\n/gamma 4\n/debug\n{QUESTION}", "--drafter", "none")
    assert "speculation is on: auto" in done.stderr
    assert sources(done)
    assert done.stdout == plain


@pytest.mark.parametrize("name", ["model", "ngram", "suffix", "recycling", "layerskip"])
def test_drafter_chooses_who_drafts(plain, name):
    done = chat(f"/drafter {name}\n/gamma 3\n/debug\n{QUESTION}")
    assert sources(done) == {name}
    assert f"drafting: {name}" in done.stderr
    assert done.stdout == plain


def test_drafter_shows_who_drafts():
    said = chat("/drafter\n/drafter ngram,suffix\n/drafter\n/drafter none\n/drafter\n").stderr
    lines = [line for line in said.splitlines() if "/drafter takes" in line]
    assert "drafting: auto; " in lines[0]
    assert "drafting: ngram,suffix; " in lines[1]
    assert "drafting: off; /speculative switches to ngram,suffix; " in lines[2]


def test_a_draft_model_that_was_not_needed_at_first_is_loaded(plain):
    done = chat(f"/debug\n/drafter model\n{QUESTION}", "--drafter", "ngram")
    assert sources(done) == {"model"}
    assert done.stdout == plain


def test_without_a_draft_model_there_is_none(plain):
    done = chat(f"/drafter model\n/drafter alone\n{QUESTION}", models=["-m", TARGET])
    assert "the drafter model needs a draft model: start the chat with -md FILE" in done.stderr
    assert "there is no draft model: start the chat with -md FILE" in done.stderr
    assert done.stdout == plain


def test_a_draft_model_of_another_vocabulary_is_refused_and_the_chat_goes_on(plain, tmp_path):
    other = tiny_models.write_tiny(tmp_path / "other.gguf")
    models = ["-m", TARGET, "-md", other]
    done = chat(f"/drafter model\n/debug\n{QUESTION}", "--drafter", "ngram", models=models)
    assert "vocabular" in done.stderr
    assert sources(done) <= {"ngram"}
    assert done.stdout == plain


def test_ngram_takes_its_order_and_turns_back(plain):
    text = "a b c d a b c\n"
    orders = {n: rounds(chat(f"/ngram {n}\n/gamma 4\n/debug\n{text}")) for n in (1, 8)}
    assert orders[1] != orders[8]
    for n, found in orders.items():
        flags = ["--drafter", "ngram", "--ngram-n", n, "--gamma", "4"]
        assert found == rounds(chat(f"/debug\n{text}", *flags))
    done = chat(f"/debug\n/ngram\n/ngram\n{QUESTION}", "--drafter", "model")
    assert "drafting: ngram" in done.stderr
    assert sources(done) == {"model"}
    assert done.stdout == plain


@pytest.mark.parametrize("gamma", [0, 1, 2, 5])
def test_gamma_is_the_length_of_drafts(plain, gamma):
    done = chat(f"/gamma {gamma}\n/debug\n{QUESTION}", "--drafter", "model", "--draft-max", "3")
    assert max(drafted for _, drafted, _ in rounds(done)) == gamma
    assert done.stdout == plain


def test_gamma_auto_gives_the_length_back():
    done = chat(f"/gamma 9\n/gamma\n/gamma auto\n/debug\n{QUESTION}", "--drafter", "model")
    assert "drafts have 9 tokens" in done.stderr
    assert rounds(done) == rounds(chat(f"/debug\n{QUESTION}", "--drafter", "model"))


def test_top_k_filler_changes_what_ngrams_learn():
    found = {}
    for k in (1, 64):
        lines = f"/drafter ngram\n/top_k_filler {k}\n/gamma 4\n/debug\n{QUESTION}"
        done = chat(lines, "--temp", "1", n=60)
        flags = ["--drafter", "ngram", "--filler-top-k", k, "--gamma", "4", "--temp", "1"]
        same = chat(f"/debug\n{QUESTION}", *flags, n=60)
        found[k] = rounds(done)
        assert found[k] == rounds(same)
        assert done.stdout == same.stdout
    assert found[1] != found[64]
    assert "it does not draft now: /ngram" in chat("/drafter model\n/top_k_filler 3\n").stderr


def test_cache_off_lets_every_pass_read_its_whole_context(plain):
    turn = f"{QUESTION}/stats\n"
    done = chat(f"/target\n/cache\n{turn}/cache\n{turn}/cache off\n{turn}", "--drafter", "model")
    assert done.stdout == chat(QUESTION * 3, "--drafter", "model").stdout
    assert done.stdout.startswith(plain)
    assert done.stderr.count("tokens: the same 16") == 3
    speed = [line for line in done.stderr.splitlines() if "tokens/s, " in line and "|" in line]
    assert ["read again" in line for line in speed] == [True, False, True]
    flagged = chat(turn, "--drafter", "model", "--no-cache").stderr
    again = re.search(r"no cache: (\d+) read again", flagged)
    assert again is not None
    assert again[0] in speed[0]


# ---------------------------------------------------------------- sampling and length


def test_length_is_the_most_tokens_of_an_answer():
    assert chat(f"/length 5\n{QUESTION}").stdout == chat(QUESTION, n=5).stdout
    said = chat("/length -1\n/set\n").stderr
    assert ["max-tokens", "-1"] in [line.split() for line in said.splitlines()]


@pytest.mark.parametrize(
    ("processor", "flags"),
    [
        ("greedy", ["--temp", "0"]),
        ("multinomial 0.9", ["--temp", "0.9"]),
        ("topk 1.5 3", ["--temp", "1.5", "--top-k", "3"]),
        ("nucleus 1.5 0.5", ["--temp", "1.5", "--top-p", "0.5"]),
        ("topknucleus 1.5 9 0.8", ["--temp", "1.5", "--top-k", "9", "--top-p", "0.8"]),
        ("twostage 0.8 10 2.5", ["--temp", "0.8", "--top-k", "10", "--noise-scale", "2.5"]),
    ],
)
def test_a_processor_is_its_flags_whatever_held_before(processor, flags):
    before = ["--temp", "3", "--top-k", "40", "--top-p", "0.7", "--min-p", "0.1"]
    lines = f"/processor {processor}\n{QUESTION}"
    done = chat(lines, *before, "--noise-scale", "1", n=24)
    assert done.stdout == chat(QUESTION, *flags, n=24).stdout
    assert done.stdout != chat(QUESTION, *before, n=24).stdout


def test_a_processor_is_shown():
    said = chat("/processor\n/processor twostage 1 10 0.3\n/processor\n").stderr.splitlines()
    assert said[0] == "specdec: sampling: the best token always (temperature 0)"
    assert said[2] == "specdec: sampling: temperature 1, top-k 10, noise 0.3"


@pytest.mark.parametrize("line", ["/set temp 0.7", "/processor topk 0.7 5"])
def test_sampling_that_the_verifier_does_not_take_is_refused_at_once(plain, line):
    done = chat(f"{line}\n{QUESTION}", "--verify", "greedy")
    assert "verifier 'greedy' needs temperature 0" in done.stderr.splitlines()[0]
    assert done.stdout == plain


def test_settings_that_the_drafter_does_not_take_end_no_conversation(plain):
    flags = ("--drafter", "model", "--verify", "standard", "--draft-sampling", "coupled")
    done = chat(f"/set temp 0.7\n{QUESTION}/set temp 0\n{QUESTION}", *flags)
    assert "coupled" in done.stderr
    assert done.stdout == plain


def test_a_new_seed_can_still_be_drawn():
    seeds = set()
    for _ in range(2):
        said = chat("/set seed -1\n/set\n").stderr
        seeds |= {line.split()[1] for line in said.splitlines() if line.split()[:1] == ["seed"]}
    assert len(seeds - {"1"}) == 2


# ---------------------------------------------------------------- what is shown beside


def test_target_shows_its_own_answer_and_compares(plain):
    done = chat(f"/target\n/debug\n{QUESTION}/debug\n/target\n{QUESTION}", "--drafter", "model")
    assert done.stdout.startswith(plain)
    assert f"target alone: {plain}" in done.stderr
    found = rounds(done)
    drafted = sum(n for _, n, _ in found)
    accepted = sum(n for _, _, n in found)
    share = 100 * accepted / drafted
    assert f"acceptance: {share:.1f} % ({accepted} of {drafted} drafted tokens)" in done.stderr
    assert "tokens: the same 16" in done.stderr
    numbers = re.search(
        r"Throughput increase: ([+-][\d.]+) % \(([\d.]+) tokens/s, the target alone ([\d.]+)\)",
        done.stderr,
    )
    assert numbers is not None
    increase, fast, alone = map(float, numbers.groups())
    assert increase == pytest.approx(100 * (fast / alone - 1), abs=0.2)
    assert done.stderr.count("target alone:") == 1


def test_target_follows_a_conversation_and_a_seed():
    turns = ["def add(a, b):\n", QUESTION, "for x in\n"]
    done = chat("/target\n" + "/ngram\n".join(turns), "--temp", "0.8")
    assert done.stderr.count("tokens: the same 16") == 3
    whole = chat("".join(turns), "--temp", "0.8").stdout
    assert done.stdout == whole
    shown = re.findall(r"target alone: (.*?)\nspecdec: acceptance", done.stderr, re.DOTALL)
    assert "".join(text + "\n" for text in shown) == whole


def test_target_says_when_other_tokens_are_no_fault():
    flags = ["--temp", "2", "--verify", "standard", "--drafter", "model"]
    done = chat(f"/target\n{QUESTION}", *flags)
    assert "tokens: others from position" in done.stderr
    assert "draws from the same distribution" in done.stderr


def test_target_has_nothing_to_compare_while_nothing_is_drafted(plain):
    done = chat(f"/speculative off\n/target\n{QUESTION}")
    assert "/speculative gives something to compare" in done.stderr
    assert "target alone:" not in done.stderr
    assert done.stdout == plain


def test_drafter_alone_shows_the_draft_models_own_answer(plain):
    done = chat(f"/drafter alone\n{QUESTION}/drafter alone\n{QUESTION}")
    own = chat(QUESTION, "--drafter", "none", models=["-m", DRAFT]).stdout
    assert own != plain
    assert done.stderr.count("draft model alone: ") == 1
    assert f"draft model alone: {own}" in done.stderr
    assert done.stdout.startswith(plain)


def test_answers_of_one_model_alone_are_not_remembered(tmp_path):
    """They would be drafts for the other one, and the answer itself twice."""
    texts = []
    for name, lines in (("plain", QUESTION), ("alone", f"/target\n/drafter alone\n{QUESTION}")):
        file = tmp_path / f"{name}.memory"
        chat(lines, "--memory", file)
        texts.append(file.read_bytes())
    assert texts[0] == texts[1]


# ---------------------------------------------------------------- between answers


def test_reset_in_between_lets_every_question_stand_alone(tmp_path):
    saved = tmp_path / "saved.json"
    first, second = "def add(a, b):\n", QUESTION
    done = chat(f"{first}/reset_in_between\n{second}/save {saved}\n")
    alone = chat(first).stdout + chat(second).stdout
    assert done.stdout == alone
    assert chat(first + second).stdout != alone
    assert len(json.loads(saved.read_text())["messages"]) == 2
    kept = chat(f"/reset_in_between\n/reset_in_between\n{first}{second}")
    assert kept.stdout == chat(first + second).stdout


@pytest.mark.parametrize("name", ["ngram", "suffix", "recycling"])
def test_reset_in_between_off_keeps_what_lookups_learnt(name):
    """The answer that was taken back is found when the question comes again."""
    lines = f"{QUESTION}/undo\n/debug\n{QUESTION}"
    flags = ["--drafter", name, "--temp", "0"]
    fresh = chat(lines, *flags)
    kept = chat(f"/reset_in_between off\n{lines}", *flags)
    assert kept.stdout == fresh.stdout
    assert len(rounds(kept)) < len(rounds(fresh))


# ---------------------------------------------------------------- on a terminal


@pytest.fixture
def terminal(tmp_path):
    command = [BINARY, "chat", *map(str, PAIR), "--chat-template", "raw", "-n", "4", "--temp", "0"]
    with Screen(command, env={"XDG_STATE_HOME": str(tmp_path), "NO_COLOR": "1"}) as screen:
        screen.prompted(1)
        yield screen


def test_clear_clears_the_screen(terminal):
    terminal.type("/gamma\r")
    terminal.wait_for("drafts are as long")
    terminal.type("/clear\r")
    terminal.prompted(3)
    terminal.wait(lambda: not terminal.shows("drafts are as long"))


def test_tab_completes_what_the_commands_take(terminal):
    terminal.type("/proc\t")
    terminal.wait_for("> /processor")
    terminal.type("topkn\t")
    terminal.wait_for("> /processor topknucleus")
    terminal.type("\x15/drafter rec\t")
    terminal.wait_for("> /drafter recycling")
    terminal.type("\x15/speculative of\t\r")
    terminal.wait_for("speculation is off")
