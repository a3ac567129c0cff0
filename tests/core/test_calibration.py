"""What is measured once and kept: shared by threads and processes, and never trusted."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
import threading

import pytest

import tiny_models
from helpers import native

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat the cat in the hat the cat in the "
SHORT = {"max_tokens": 12, "ignore_eos": True}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path / "kept"))
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def expected(tiny):
    return sd.Decoder(tiny, drafter=None).generate(PROMPT, **SHORT).token_ids


def generate(model):
    result = sd.Decoder(model).generate(PROMPT, **SHORT)
    return result.token_ids, result.stats.calibration_ms


def test_threads_that_calibrate_at_once_leave_one_whole_file(tiny, folder, expected):
    n_threads = 12
    together = threading.Barrier(n_threads)
    found = []

    def work():
        together.wait()
        for _ in range(5):
            found.append(generate(tiny)[0])

    threads = [threading.Thread(target=work) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * (5 * n_threads)
    (file,) = folder.iterdir()
    assert file.suffix == ".txt"
    assert generate(tiny) == (expected, 0.0)  # read, not measured


def test_a_temporary_file_is_nobody_elses(tiny, folder, expected):
    generate(tiny)
    (file,) = folder.iterdir()
    file.unlink()
    # What another thread of this process, or another machine, may be writing.
    others = [folder / f"{file.name}.{end}" for end in (os.getpid(), "tmp", "partial")]
    for other in others:
        other.write_text("somebody else's")
    assert generate(tiny)[0] == expected
    assert {path.name for path in folder.iterdir()} == {file.name, *(o.name for o in others)}
    assert {other.read_text() for other in others} == {"somebody else's"}


def test_processes_that_calibrate_at_once_leave_one_whole_file(tiny_path, folder, expected):
    code = """
        import sys
        import specdec_native as sd
        model = sd.Model(sys.argv[1], n_threads=2)
        for _ in range(5):
            sd.Decoder(model).generate("the cat", max_tokens=3)
    """
    children = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tiny_path)])
        for _ in range(3)
    ]
    assert [child.wait(240) for child in children] == [0, 0, 0]
    assert [file.suffix for file in folder.iterdir()] == [".txt"]


HEADER = "specdec calibration 5\n"
DAMAGE = {
    "empty": b"",
    "garbage": bytes(range(256)) * 40,
    "other header": b"specdec calibration 99\n1 1 1.0\n0\n0 0\n0 0\n",
    "earlier header": b"specdec calibration 4\n1 1 1.0\n0\n0 0\n-9 9\n",
    "only a header": HEADER.encode(),
    "no end": (HEADER + "2 1 1.0 2").encode(),
    "negative": (HEADER + "1 1 -1.0\n0\n0 0\n0 0\n").encode(),
    "too many": (HEADER + "999999999 1 1.0\n").encode(),
    "not a number": (HEADER + "1 1 nan\n0\n0 0\n0 0\n").encode(),
    "credit": (HEADER + "1 1 1.0\n0\n0 0\n1e300 0\n").encode(),
    "large": HEADER.encode() + b"1 " * (1 << 20),
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_measured_again_and_written_again(tiny, folder, expected, content):
    assert generate(tiny)[0] == expected
    (file,) = folder.iterdir()
    file.write_bytes(content)
    tokens, ms = generate(tiny)
    assert (tokens, ms > 0) == (expected, True)
    assert file.read_text().startswith(HEADER)
    assert generate(tiny) == (expected, 0.0)


@pytest.mark.parametrize("obstacle", ["folder", "fifo", "dangling link"])
def test_whatever_stands_in_its_place_is_no_error(tiny, folder, expected, obstacle):
    generate(tiny)
    (file,) = folder.iterdir()
    file.unlink()
    if obstacle == "folder":
        (file / "inside").mkdir(parents=True)
    elif obstacle == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to(folder / "nowhere")
    assert generate(tiny)[0] == expected
    assert generate(tiny)[0] == expected
    assert [left.name for left in folder.iterdir()] == [file.name]


@pytest.mark.parametrize("where", ["a file", "no such device", "off", "relative"])
def test_a_folder_that_cannot_be_written_is_no_error(tiny, tmp_path, monkeypatch, expected, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    places = {
        "a file": str(tmp_path / "file"),
        "no such device": "/proc/self/nothing/here",
        "off": "off",
        "relative": "kept/here",
    }
    monkeypatch.setenv("SPECDEC_CALIBRATION", places[where])
    assert generate(tiny)[0] == expected
    assert (tmp_path / "file").read_text() == "mine"
    kept = list(pathlib.Path("kept").rglob("*.txt"))
    assert len(kept) == (where == "relative")


@pytest.mark.parametrize("home", [None, "", "relative", "/proc/self/nothing"])
def test_without_a_usable_home_nothing_is_kept(tiny, tmp_path, monkeypatch, expected, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPECDEC_CALIBRATION")
    if home is None:
        monkeypatch.delenv("HOME")
    else:
        monkeypatch.setenv("HOME", home)
    assert generate(tiny)[0] == expected
    assert list(tmp_path.iterdir()) == []


def with_nan(path, tensor, row):
    config = tiny_models.TinyConfig()
    tensors = tiny_models.random_tensors(config, 1)
    tensors[tensor][row] = float("nan")
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    return sd.Model(tiny_models.write_gguf(path, keys, tensors), n_threads=1)


def drafters(draft):
    return {"auto": "auto", "list": [sd.NGram(), sd.DraftModel(draft)]}


@pytest.mark.parametrize("which", ["auto", "list"])
def test_a_draft_model_that_cannot_be_timed_only_ends_its_drafts(
    tiny, folder, tmp_path, expected, which
):
    with with_nan(tmp_path / "bad.gguf", "output.weight", 5) as bad:
        options = {"drafter": drafters(bad)[which], "draft": bad if which == "auto" else None}
        with sd.Decoder(tiny, **options) as decoder:
            for _ in range(2):
                assert decoder.generate(PROMPT, **SHORT).token_ids == expected
        with sd.Engine(tiny, n_ctx=256, **options) as engine:
            assert engine.submit(PROMPT, **SHORT).result(60).token_ids == expected
    assert len(list(folder.iterdir())) == 1


def test_a_target_that_cannot_be_timed_goes_on_without(tmp_path, folder):
    """Its first token is among those that are fed for their time, and not in the text."""
    with with_nan(tmp_path / "bad.gguf", "token_embd.weight", 1) as bad:
        prompt = [97, 98, 99, 97, 98, 99, 97, 98]
        call = {**SHORT, "logit_bias": {1: -float("inf")}}
        with sd.Decoder(bad, drafter=None) as decoder:
            plain = decoder.generate(prompt, **call).token_ids
        with sd.Decoder(bad, n_ctx=256) as decoder, sd.Engine(bad, n_ctx=256) as engine:
            for _ in range(2):
                assert decoder.generate(prompt, **call).token_ids == plain
                assert engine.submit(prompt, **call).result(60).token_ids == plain
    assert not folder.exists()


def test_a_draft_model_is_timed_with_the_output_that_it_drafts_with(tiny, folder, tmp_path):
    """Of a row behind its first tokens nothing is computed, whatever is wrong with it."""
    with with_nan(tmp_path / "bad.gguf", "output.weight", 260) as bad:
        for head_tokens, is_timed in ((0, False), (128, True)):
            drafter = [sd.DraftModel(bad, head_tokens=head_tokens)]
            before = set(folder.iterdir()) if folder.exists() else set()
            with sd.Decoder(tiny, drafter=drafter) as decoder:
                decoder.generate([97, 98, 99], max_tokens=2)
            (file,) = set(folder.iterdir()) - before  # each has a file of its own
            assert (file.read_text().splitlines()[2] != "0") == is_timed


def test_first_layers_are_timed_with_the_output_that_they_draft_with(folder, tmp_path):
    """Of a large vocabulary a part: a row behind it overflows after the first layer, and after the
    second, which makes everything else so much larger, does not."""
    config = tiny_models.TinyConfig(vocab_size=1 << 16)
    tensors = tiny_models.random_tensors(config, 1)
    for values in tensors.values():
        values[:] = values.ndim == 1  # weights of norms
    tensors["token_embd.weight"][:, 0] = 10
    tensors["blk.1.ffn_gate.weight"][0, 0] = tensors["blk.1.ffn_up.weight"][0, 0] = 1
    tensors["blk.1.ffn_down.weight"][1:, 0] = 10
    tensors["output.weight"][-1, 0] = 3e38
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    path = tiny_models.write_gguf(tmp_path / "model.gguf", keys, tensors)
    with sd.Model(path, n_threads=1) as model:
        with sd.Decoder(model, drafter=[sd.LayerSkip(1)]) as decoder:
            decoder.generate([97, 98, 99], max_tokens=2)
    (file,) = folder.iterdir()
    assert file.read_text().splitlines()[3].split()[0] == "1"


@pytest.mark.parametrize("use_draft", [False, True])
def test_a_session_of_the_core_loads_without_a_callback(
    tiny_path, folder, tmp_path, expected, use_draft
):
    engine = native("engine")
    kept = str(tmp_path / "kept.prompt")
    model = engine.load(str(tiny_path), n_threads=1)
    draft = model if use_draft else None
    call = {"prompt": PROMPT, **SHORT}
    one = engine.Session(model, draft, n_ctx=256)
    one.generate(**call)
    one.save(kept)
    n_kept = len(one.cached_tokens())
    (file,) = folder.iterdir()
    file.unlink()  # so that passes are timed again
    loaded = engine.Session(model, draft, n_ctx=256)
    loaded.load(kept)
    assert file.exists()
    assert len(loaded.cached_tokens()) == n_kept
    result = loaded.generate(**call)
    assert tuple(result["token_ids"]) == expected
    assert result["n_reused_tokens"] > 0


@pytest.mark.parametrize("use_draft", [False, True])
def test_a_session_that_was_loaded_knows_what_passes_cost(
    tiny, tiny_draft, folder, tmp_path, expected, use_draft
):
    draft = tiny_draft if use_draft else None
    kept = tmp_path / "kept.prompt"
    with sd.Decoder(tiny, draft=draft) as decoder:
        decoder.generate(PROMPT, **SHORT)
        decoder.save(kept)
    (file,) = folder.iterdir()

    def loaded():
        with sd.Decoder.load(kept, tiny, draft=draft) as decoder:
            result = decoder.generate(PROMPT, **SHORT)
            assert result.token_ids == expected
            assert result.stats.reused_prompt_tokens > 0
            return result.stats.calibration_ms

    # What was earned and lost before counts, and what this one does for the next.
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], "-12.5 1e6\n"]))
    assert loaded() == 0.0
    credit, plain = map(float, file.read_text().splitlines()[-1].split())
    assert (credit < 0, plain > 1e6) == (True, True)
    file.unlink()
    assert loaded() > 0.0
    assert [left.name for left in folder.iterdir()] == [file.name]
