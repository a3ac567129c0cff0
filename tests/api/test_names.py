"""Models by name, wherever a model can be named; and those that come from the hub."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from fake_hub import FakeHub
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import _engine_options, _names, cli, download  # noqa: E402
from specdec_native._native_command import NATIVE_COMMANDS, find_program, with_files  # noqa: E402

COMMAND = [sys.executable, "-m", "specdec_native"]
DATA = b"GGUF" + bytes(range(256)) * 5000


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    monkeypatch.setenv("SPECDEC_MODELS", str(folder))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return folder


@pytest.fixture
def hub(models, monkeypatch):
    with FakeHub() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        made.files["org/repo"] = {"README.md": b"", "a b.gguf": DATA}
        yield made


def contents(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- the hub


@pytest.mark.parametrize("name", ["hf:org/repo", "hf:org/repo/a b.gguf", "hf:org/repo:a b.gguf"])
def test_a_file_of_the_hub_is_fetched_once(hub, models, name):
    path = download.pull(name)
    assert path == models / "org--repo" / "a b.gguf"
    assert path.read_bytes() == DATA
    assert contents(models) == {"org--repo/a b.gguf"}
    n = len(hub.asked)
    assert download.pull("hf:org/repo/a b.gguf") == path
    assert len(hub.asked) == n


def test_what_an_earlier_attempt_has_is_gone_on_from(hub, models):
    hub.cut_after = [100_000, 200_000, 300_000, 0]
    with pytest.raises(sd.DownloadError, match="cannot be reached"):
        download.pull("hf:org/repo")
    [partial] = contents(models)
    assert partial.endswith(".partial")
    assert (models / partial).stat().st_size >= 600_000
    assert download.pull("hf:org/repo").read_bytes() == DATA
    ranges = [given for host, _, given, _ in hub.asked if host == "cdn" and given]
    assert len(set(ranges)) >= 3
    assert int(ranges[-1].removeprefix("bytes=")[:-1]) >= 600_000
    assert contents(models) == {"org--repo/a b.gguf"}


@pytest.mark.parametrize("change", ["no ranges", "no checksum", "another file"])
def test_parts_of_different_files_are_never_joined(hub, models, change):
    hub.cut_after = [100_000, 0, 0, 0]
    with pytest.raises(sd.DownloadError):
        download.pull("hf:org/repo")
    hub.keeps_ranges = change != "no ranges"
    hub.tells_sha = change != "no checksum"
    data = DATA[:4] + DATA[:3:-1] if change == "another file" else DATA
    hub.files["org/repo"]["a b.gguf"] = data
    assert download.pull("hf:org/repo").read_bytes() == data
    assert contents(models) == {"org--repo/a b.gguf"}


def test_without_a_checksum_nothing_is_gone_on_from(hub, models):
    hub.tells_sha = False
    hub.cut_after = [100_000]
    with pytest.raises(sd.DownloadError, match="it ended after 100000 of"):
        download.pull("hf:org/repo")
    data = DATA[:4] + DATA[:3:-1]
    hub.files["org/repo"]["a b.gguf"] = data
    assert download.pull("hf:org/repo").read_bytes() == data


def test_a_damaged_partial_file_is_found_out(hub, models):
    hub.cut_after = [100_000, 0, 0, 0]
    with pytest.raises(sd.DownloadError):
        download.pull("hf:org/repo")
    [partial] = models.rglob("*.partial")
    partial.write_bytes(b"x" * partial.stat().st_size)
    with pytest.raises(sd.DownloadError, match="SHA-256"):
        download.pull("hf:org/repo")
    assert contents(models) == set()
    assert download.pull("hf:org/repo").read_bytes() == DATA


def test_what_is_damaged_or_no_model_is_not_kept(hub, models):
    hub.wrong_sha = True
    with pytest.raises(sd.DownloadError, match=r"the SHA-256 is .*, expected .*not kept"):
        download.pull("hf:org/repo")
    hub.wrong_sha, hub.tells_sha = False, False
    hub.files["org/repo"]["a b.gguf"] = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(sd.DownloadError, match="no GGUF file: it begins with b'vers'"):
        download.pull("hf:org/repo")
    hub.files["org/repo"]["a b.gguf"] = DATA
    hub.cut_after = [5000]
    with pytest.raises(sd.DownloadError, match="cannot be reached"):
        download.pull("hf:org/repo")
    assert download.pull("hf:org/repo").read_bytes() == DATA


def test_the_key_is_for_the_hub_alone(hub, models, monkeypatch, tmp_path):
    hub.private.add("org/repo")
    with pytest.raises(sd.DownloadError, match=r"401.*HF_TOKEN"):
        download.pull("hf:org/repo")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("key\n")
    hub.asked.clear()
    assert download.pull("hf:org/repo").read_bytes() == DATA
    keys = {(host, key) for host, _, _, key in hub.asked}
    assert keys == {("hub", "Bearer key"), ("cdn", None)}
    monkeypatch.setenv("HF_TOKEN", "wrong")
    shutil.rmtree(models)
    with pytest.raises(sd.DownloadError, match="401"):
        download.pull("hf:org/repo")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:org/other", ["401", "no such repository"]),
        ("hf:org/repo/c.gguf", ["404", "Entry not found"]),
        ("hf:org/two", ["x.gguf, y.gguf", "hf:org/two/FILE"]),
        ("hf:org/none", ["no GGUF file"]),
    ],
)
def test_what_the_hub_does_not_have_is_said(hub, capsys, name, words):
    hub.files |= {"org/two": {"x.gguf": DATA, "y.gguf": DATA}, "org/none": {"README.md": b""}}
    assert cli.main(["pull", name]) == cli.EXIT_FAILED
    told = capsys.readouterr().err
    for word in words:
        assert word in told
    assert "Traceback" not in told


def test_without_a_connection_what_is_here_does(hub, models, monkeypatch, capsys):
    path = download.pull("hf:org/repo")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("hf:org/repo", "hf:org/repo/a b.gguf"):
        assert download.pull(name) == path
    with pytest.raises(sd.DownloadError, match=r"127\.0\.0\.1:9 cannot be reached"):
        download.pull("hf:org/repo/other.gguf")
    for variable in ("SPECDEC_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert download.pull("hf:org/repo") == path
            for name in ("smollm2", "hf:org/repo/other.gguf", "hf:org/other"):
                assert cli.main(["generate", "-m", name, "-p", "a"]) == cli.EXIT_FAILED
                told = capsys.readouterr().err
                assert f"specdec-native pull {name}" in told
                assert variable in told
    monkeypatch.setenv("HF_ENDPOINT", "ftp://x")
    with pytest.raises(sd.DownloadError, match="HF_ENDPOINT"):
        download.pull("hf:org/repo/other.gguf")


def test_all_parts_of_a_model_are_fetched(hub, models):
    names = [f"a-{i:05}-of-00003.gguf" for i in (1, 2, 3)]
    hub.files["org/repo"] = {"README.md": b"", **dict.fromkeys(reversed(names), DATA)}
    for name in ("hf:org/repo", f"hf:org/repo/{names[0]}"):
        assert download.pull(name) == models / "org--repo" / names[0]
        assert sorted(p.name for p in (models / "org--repo").iterdir()) == names
    (models / "org--repo" / names[1]).unlink()
    download.pull("hf:org/repo")
    assert (models / "org--repo" / names[1]).exists()


def test_a_full_disk_is_said_before_anything_is_fetched(hub, models, monkeypatch):
    full = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(sd.DownloadError, match=r"are free at .*SPECDEC_MODELS"):
        download.pull("hf:org/repo")
    assert not [host for host, _, given, _ in hub.asked if given]


@pytest.mark.parametrize("name", ["../../x.gguf", "a/../../../x.gguf", "{}/x.gguf", "..\\x.gguf"])
def test_a_hub_writes_nowhere_but_into_the_models_folder(hub, name, tmp_path):
    name = name.format(tmp_path)
    hub.files["org/repo"] = {name: DATA}
    with pytest.raises(sd.DownloadError, match="holds no GGUF file"):
        download.pull("hf:org/repo")
    assert not list(tmp_path.rglob("*x.gguf"))
    hub.files["org/repo"]["sub/a b.gguf"] = DATA
    assert download.pull("hf:org/repo") == download.models_dir() / "org--repo/sub/a b.gguf"


# ---------------------------------------------------------------- names in Python


def test_models_are_opened_by_name_and_know_their_draft(hub, tiny_path, monkeypatch, tmp_path):
    hub.files["org/repo"] = {"t.gguf": tiny_path.read_bytes()}
    pair = sd.embedded("pycode")
    for name, path, draft in (
        ("pycode", pair.target, pair.draft),
        ("manuals-draft", sd.embedded("manuals").draft, None),
        (str(pair.target), pair.target, None),
        ("hf:org/repo/t.gguf", tmp_path / "models/org--repo/t.gguf", None),
    ):
        with sd.Model(name, n_threads=1) as model:
            assert model.info.path == str(path)
            other = model.open_draft()
            assert (None if other is None else other.info.path) == (draft and str(draft))
    # Not drafter="auto": whether it drafts at all depends on measured times.
    drafter = sd.DraftModel(sd.Model("pycode").open_draft(), gamma=4)
    with sd.Model("pycode") as target, sd.Decoder(target, drafter=drafter) as decoder:
        result = decoder.generate("def add(", max_tokens=24, verify_output=True)
        assert result.stats.accepted > 0
    # A file that is there wins.
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_path, "pycode")
    with sd.Model("pycode") as model:
        assert model.info.path == "pycode"
        assert model.open_draft() is None


def test_smollm2_is_opened_by_name_where_it_is(tmp_path, monkeypatch):
    path = download.models_dir() / download.KNOWN_MODELS["smollm2"].file_name
    if not path.is_file():
        pytest.skip("specdec-native pull smollm2")
    with sd.Model("smollm2") as model:
        assert model.open_draft().info.path == str(sd.embedded_draft("smollm2"))
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    monkeypatch.setenv("SPECDEC_OFFLINE", "1")
    with pytest.raises(sd.DownloadError, match="specdec-native pull smollm2"):
        sd.Model("smollm2")


def test_a_name_that_is_nothing_lists_those_there_are():
    for name in ("nonsense", "smollm3"):
        with pytest.raises(sd.ModelFileNotFoundError) as caught:
            sd.Model(name)
        for known in (*download.KNOWN_MODELS, *_names.own_names(), "hf:ORG/REPO/FILE.gguf"):
            assert known in str(caught.value)
    for path in ("no/such/file", "none.gguf", "./nonsense"):
        with pytest.raises(sd.ModelFileNotFoundError, match="cannot open"):
            sd.Model(path)


# ---------------------------------------------------------------- names in commands


def test_native_commands_get_files(tmp_path, monkeypatch):
    program = find_program()
    pair = sd.embedded("pycode")
    target, draft = str(pair.target), str(pair.draft)
    text = ["-p", "-m", "-f", "pycode"]  # values of other options
    cases = [
        (["generate", "-m", "pycode"], ["generate", "-m", target, "-md", draft]),
        (["chat", *text, "--model=pycode"], ["chat", *text, "--model", target, "-md", draft]),
        (["generate", "-m", "pycode", "-md", "none"], ["generate", "-m", target]),
        (["generate", "-m", "pycode", "--drafter", "ngram"],
         ["generate", "-m", target, "--drafter", "ngram"]),
        (["generate", "--drafter=auto", "-m", "pycode"],
         ["generate", "--drafter", "auto", "-m", target, "-md", draft]),
        (["generate", "-m", "x.gguf", "-md", "pycode-draft"],
         ["generate", "-m", "x.gguf", "-md", draft]),
        (["bench", "-m", "pycode", "-md", "pycode-draft"], ["bench", "-m", target, "-md", draft]),
        (["inspect", "pycode"], ["inspect", target]),
        (["inspect", "--json", "-m", "pycode"], ["inspect", "--json", "-m", target]),
        (["quantize", "pycode", "out", "q4_0"], ["quantize", target, "out", "q4_0"]),
        (["tokenize", "-m", "pycode", "-p", "a=b"], ["tokenize", "-m", target, "-p", "a=b"]),
    ]  # fmt: skip
    for given, expected in cases:
        assert with_files(program, given) == expected
    for name in NATIVE_COMMANDS:
        for rest in ([], ["-m"], ["-m", target, "-p", "pycode"], ["--help"], ["-m", "x.gguf"]):
            assert with_files(program, [name, *rest]) == [name, *rest]
    monkeypatch.chdir(tmp_path)
    shutil.copy(target, "manuals")
    pathlib.Path("pycode").mkdir()  # hides nothing
    assert with_files(program, ["inspect", "-m", "manuals"]) == ["inspect", "-m", "manuals"]
    assert with_files(program, ["inspect", "-m", "pycode"]) == ["inspect", "-m", target]
    with pytest.raises(sd.InvalidArgumentError, match=r"nonsense.*smollm2, pycode"):
        with_files(program, ["generate", "-m", "nonsense", "-p", "a"])


def test_a_named_model_says_what_its_file_says():
    pair = sd.embedded("pycode")
    rest = ["-p", "def add(", "-n", "16", "-q"]
    direct = [specdec_binary(), "generate", "-m", pair.target, *rest]
    named = [*COMMAND, "generate", "-m", "pycode", *rest]
    texts = [
        subprocess.run(list(map(str, c)), capture_output=True, timeout=120, check=True).stdout
        for c in (direct, named)
    ]
    assert texts[0] == texts[1] != b""


def test_engines_of_commands_get_the_draft_that_suits(tmp_path):
    import argparse

    parser = argparse.ArgumentParser()
    _engine_options.add_engine_options(parser)
    pair = sd.embedded("pycode")
    for given, draft in (
        (["pycode"], str(pair.draft)),
        (["pycode", "-md", "none"], None),
        (["pycode", "--drafter", "ngram"], None),
        ([str(pair.target)], None),
        (["pycode", "-md", "manuals-draft"], str(sd.embedded("manuals").draft)),
    ):
        found = _engine_options.model_paths(parser.parse_args(given))
        assert found == (str(pair.target), draft)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": "def add(", "max_tokens": 8}) + "\n")
    assert cli.main(["batch", "-t", "1", "-q", "pycode", str(source), str(out)]) == 0
    assert json.loads(out.read_text())["text"]
    assert cli.main(["batch", "nonsense", str(source), str(tmp_path / "o")]) == cli.EXIT_USAGE
    assert cli.main(["serve", "nonsense", "--port", "0"]) == cli.EXIT_USAGE
