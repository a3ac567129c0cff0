"""The forerunners' entry points: what they return is what the package itself gives."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import warnings

import pytest

import tiny_models
from helpers import model_path

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from specdec_native import _names, compat  # noqa: E402
from specdec_native.compat import SpeculativeDecoder  # noqa: E402
from specdec_native.compat import __main__ as command  # noqa: E402
from specdec_native.compat import _decoder as decoder_module  # noqa: E402

PROMPT = "import os\nimport sys\n\n\ndef main(argv):\n"


@pytest.fixture(scope="module")
def models():
    pair = sd.embedded("pycode")
    with sd.Model(pair.target) as target, sd.Model(pair.draft) as draft:
        yield target, draft


@pytest.fixture(scope="module")
def decoder():
    with SpeculativeDecoder("pycode-draft", "pycode", device="cpu") as decoder:
        yield decoder


def greedy(model, n):
    return sd.Decoder(model, drafter=None).generate(PROMPT, max_tokens=n)


# ---------------------------------------------------------------- speculative_sample


def test_attributes_and_defaults(decoder):
    assert (decoder.gamma, decoder.max_tokens, decoder.device) == (4, 20, "cpu")
    assert isinstance(decoder.approx_model, sd.Model)
    assert decoder.approx_model.info.n_params < decoder.target_model.info.n_params
    ids = decoder.tokenizer.encode(PROMPT)
    assert ids == decoder.target_model.tokenize(PROMPT)
    assert decoder.tokenizer.decode(ids) == PROMPT
    assert len(decoder.tokenizer) == decoder.target_model.info.vocab_size


@pytest.mark.parametrize("gamma", [0, 1, 4, 9])
def test_a_seed_gives_the_text_that_the_target_gives_alone(models, gamma):
    target, _ = models
    plain = sd.Decoder(target, drafter=None)
    wanted = [
        PROMPT + plain.generate(PROMPT, max_tokens=30, temperature=1, seed=seed).text
        for seed in (7, 8)
    ]
    assert wanted[0] != wanted[1]
    with SpeculativeDecoder("pycode-draft", "pycode", gamma, 30, "cpu", seed=7) as decoder:
        assert decoder.speculative_sample(PROMPT) == wanted[0]
        assert decoder.speculative_sample(PROMPT) == wanted[0]
        longest = len(decoder.last_result.stats.drafted_per_position)
        assert longest <= gamma
        assert (decoder.last_result.stats.drafted > 0) == (gamma > 0)
        decoder.seed = 8
        assert decoder.speculative_sample(PROMPT) == wanted[1]


def test_without_a_seed_texts_differ_and_the_seed_is_told(decoder):
    texts = set()
    for _ in range(4):
        texts.add(decoder.speculative_sample(PROMPT))
    assert len(texts) > 1
    decoder.seed = decoder.last_result.seed
    last = PROMPT + decoder.last_result.text
    assert decoder.speculative_sample(PROMPT) == last
    decoder.seed = None


@pytest.mark.parametrize("gamma", [3, 4, 7])
def test_max_tokens_counts_new_tokens_exactly(decoder, gamma):
    decoder.gamma, decoder.temperature = gamma, 0
    for n in (0, 1, 5, 11):
        decoder.max_tokens = n
        text = decoder.speculative_sample(PROMPT)
        assert len(decoder.last_result.token_ids) == n
        assert text == PROMPT + greedy(decoder.target_model, n).text
    decoder.gamma, decoder.temperature, decoder.max_tokens = 4, 1.0, 20


def test_gamma_can_be_assigned(decoder):
    decoder.gamma, decoder.temperature = 9, 0  # by chance an answer may end at once
    decoder.speculative_sample(PROMPT)
    assert max(decoder.last_result.stats.drafted_per_position) > 0
    assert 4 < len(decoder.last_result.stats.drafted_per_position) <= 9
    decoder.gamma, decoder.temperature = 4, 1.0


# ---------------------------------------------------------------- the other constructor


def test_both_words_for_the_draft_and_both_orders():
    with SpeculativeDecoder(target_model_name="pycode", draft_model_name="pycode-draft") as first:
        with SpeculativeDecoder.for_target("pycode", "pycode-draft", "cpu") as second:
            with SpeculativeDecoder("pycode-draft", "pycode") as third:
                paths = {
                    (d.target_model.info.path, d.approx_model.info.path)
                    for d in (first, second, third)
                }
    pair = sd.embedded("pycode")
    assert paths == {(str(pair.target), str(pair.draft))}


def test_models_in_the_wrong_order_are_noticed():
    with pytest.warns(UserWarning, match="for_target"):
        SpeculativeDecoder("pycode", "pycode-draft").close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SpeculativeDecoder("pycode-draft", "pycode").close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "approx_model_name is missing"),
        ({"approx_model_name": "pycode-draft"}, "target_model_name is missing"),
        ({"target_model_name": "pycode"}, "approx_model_name is missing"),
        (
            dict.fromkeys(("approx_model_name", "draft_model_name", "target_model_name"), "pycode"),
            "give one of them",
        ),
        ({"gamma": 65}, "gamma must be a whole number from 0 to 64"),
        ({"gamma": 2.5}, "gamma must be a whole number"),
        ({"max_tokens": -1}, "max_tokens must be a whole number"),
        ({"device": "tpu"}, "device must be 'cuda', 'cpu' or 'auto', not 'tpu'"),
        ({"device": "cuda:1"}, "the first GPU"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    models = {"approx_model_name": "pycode-draft", "target_model_name": "pycode"}
    lengths = set(arguments) & {"gamma", "max_tokens", "device"}
    with pytest.raises(sd.InvalidArgumentError, match=re.escape(words)):
        SpeculativeDecoder(**({**models, **arguments} if lengths else arguments))


def test_wrong_options_of_calls_are_named(decoder):
    decoder.temperature = -1
    with pytest.raises(sd.InvalidArgumentError, match="temperature"):
        decoder.speculative_sample(PROMPT)
    decoder.temperature = 1.0
    with pytest.raises(sd.InvalidArgumentError, match="num_speculative_tokens"):
        decoder.speculative_decode(PROMPT, num_speculative_tokens=99)
    with pytest.raises(sd.InvalidArgumentError, match="num_runs"):
        decoder.benchmark(PROMPT, num_runs=0)


def test_models_of_different_vocabularies_are_refused(tmp_path):
    other = tiny_models.write_tiny(tmp_path / "tiny.gguf", dtype="F32")
    with pytest.raises(sd.UnsupportedModelError):
        SpeculativeDecoder(other, "pycode")


def test_cuda_falls_back_to_the_cpu_and_says_why(caplog):
    with caplog.at_level(logging.WARNING, logger="specdec_native"):
        with SpeculativeDecoder("pycode-draft", "pycode", device="cuda") as decoder:
            if decoder.device == "cuda":
                pytest.skip("there is a GPU")
            assert "'cuda': running on the CPU: " in decoder.note
            assert decoder.note in caplog.text
        caplog.clear()
        for device in ("cpu", "auto"):
            with SpeculativeDecoder("pycode-draft", "pycode", device=device) as decoder:
                assert decoder.note == ""
        assert caplog.text == ""


# ---------------------------------------------------------------- names


def test_names_of_the_package_and_paths(tmp_path):
    pair = sd.embedded("manuals")
    assert _names.find_model("manuals") == pair.target
    assert _names.find_model("manuals-draft") == pair.draft
    assert _names.find_model("smollm2-draft") == sd.embedded_draft("smollm2")
    assert _names.find_model(pair.target) == pair.target
    assert _names.find_model(str(pair.target)) == pair.target
    with pytest.raises(sd.ModelFileNotFoundError):
        compat.load_model("not there.gguf", "cpu")
    with pytest.raises(sd.InvalidArgumentError, match="not int"):
        compat.load_model(3)


def test_a_name_that_pull_knows_is_fetched(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(_names, "pull", lambda name, notify: asked.append(name) or tmp_path)
    assert _names.find_model("smollm2") == _names.find_model("hf:a/b:c.gguf") == tmp_path
    assert asked == ["smollm2", "hf:a/b:c.gguf"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bigscience/bloom-560m", ["tools/convert_hf_to_gguf.py bigscience/bloom-560m", "hf:"]),
        ("nonsense", ["smollm2", "pycode-draft", "hf:ORG/REPO/FILE.gguf", "'nonsense'"]),
        ("", ["pycode"]),
        ("x" * 5000, ["pycode"]),
        ("x\0y", ["pycode"]),
    ],
)
def test_what_is_no_gguf_file_is_told_how_to_become_one(name, words):
    with pytest.raises(sd.InvalidArgumentError) as caught:
        SpeculativeDecoder("pycode-draft", name)
    for word in words:
        assert word in str(caught.value)


def test_a_folder_is_told_how_to_become_a_model(monkeypatch, tmp_path):
    (tmp_path / "org" / "checkpoint").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("org/checkpoint", str(tmp_path)):
        with pytest.raises(sd.InvalidArgumentError, match=r"is a folder.*convert_hf_to_gguf"):
            compat.load_model(name)
    (tmp_path / "pycode").mkdir()  # hides nothing
    assert _names.find_model("pycode") == sd.embedded("pycode").target


# ---------------------------------------------------------------- speculative_decode, benchmark


def test_speculative_decode_is_greedy_and_begins_with_the_prompt(decoder):
    wanted = greedy(decoder.target_model, 40)
    assert decoder.speculative_decode(PROMPT, 40) == PROMPT + wanted.text
    assert len(decoder.last_result.stats.drafted_per_position) <= 17
    assert len(decoder.last_result.stats.drafted_per_position) > 4
    decoder.speculative_decode(PROMPT, max_tokens=40, num_speculative_tokens=2)
    assert len(decoder.last_result.stats.drafted_per_position) == 2


@pytest.fixture
def recorded(monkeypatch):
    """The calls of a benchmark, in order, with a clock that gives each the seconds wanted."""
    calls, seconds, now = [], {}, [0.0]
    generate = sd.Decoder.generate

    def record(self, prompt, **options):
        result = generate(self, prompt, **options)
        way = "speculative" if result.stats.drafted > 0 else "baseline"
        calls.append((way, result))
        now[0] += seconds[way][sum(1 for w, _ in calls if w == way) - 1]
        return result

    monkeypatch.setattr(sd.Decoder, "generate", record)
    monkeypatch.setattr(decoder_module, "_clock", lambda: now[0])
    return calls, seconds


def test_benchmark_takes_means_over_counted_runs_in_turn(decoder, recorded):
    calls, seconds = recorded
    seconds |= {"speculative": [99, 1, 2, 3], "baseline": [50, 4, 4, 10]}
    out = decoder.benchmark(PROMPT, max_tokens=12, num_runs=3)
    assert [way for way, _ in calls] == ["speculative", "baseline"] * 4
    assert all(result.stats.reused_prompt_tokens == 0 for _, result in calls)
    assert all(len(result.token_ids) == 12 for _, result in calls)
    speculative, baseline = out["speculative"], out["baseline"]
    assert list(out) == ["speculative", "baseline", "speedup", "latency_reduction"]
    names = ["times", "tokens_per_second", "avg_time", "avg_tokens_per_second"]
    assert list(speculative) == list(baseline) == names
    assert speculative["times"] == [1, 2, 3]
    assert baseline["times"] == [4, 4, 10]
    assert speculative["tokens_per_second"] == [12, 6, 4]
    assert (speculative["avg_time"], baseline["avg_time"]) == (2, 6)
    assert speculative["avg_tokens_per_second"] == pytest.approx(22 / 3)
    assert out["speedup"] == pytest.approx(3)
    assert out["latency_reduction"] == pytest.approx(100 * (1 - 2 / 6))


def test_benchmark_without_a_baseline(decoder, recorded):
    calls, seconds = recorded
    seconds["speculative"] = [9, 2]
    out = decoder.benchmark(PROMPT, 12, 1, False, num_speculative_tokens=3)
    assert [way for way, _ in calls] == ["speculative"] * 2
    assert len(calls[0][1].stats.drafted_per_position) == 3
    assert out["speculative"]["times"] == [2]
    assert out["baseline"] is out["speedup"] is out["latency_reduction"] is None


def test_benchmark_refuses_to_compare_different_texts(decoder, monkeypatch):
    generate = sd.Decoder.generate

    def shortened(self, prompt, **options):
        result = generate(self, prompt, **options)
        return generate(self, prompt, max_tokens=3) if result.stats.drafted == 0 else result

    monkeypatch.setattr(sd.Decoder, "generate", shortened)
    with pytest.raises(sd.OutputMismatchError, match="different tokens"):
        decoder.benchmark(PROMPT, 8, 1)


def test_drafting_and_verifying_by_hand(decoder):
    ids = decoder.tokenizer.encode(PROMPT)
    own = list(greedy(decoder.target_model, 8).token_ids)
    drafted = decoder.generate_draft_tokens(ids, 8)
    assert drafted == list(greedy(decoder.approx_model, 8).token_ids)
    assert len(decoder.generate_draft_tokens(ids)) == 17
    assert compat.generate_speculative_tokens(decoder.approx_model, ids, 3) == drafted[:3]
    assert decoder.verify_tokens(ids, own) == (own, None)
    assert decoder.verify_tokens(ids, []) == ([], None)
    for i in (0, 3, 7):
        wrong = [*own[:i], own[i] + 1, *own[i + 1 :]]
        assert decoder.verify_tokens(ids, wrong) == (own[:i], i)
        assert compat.validate_tokens(decoder.target_model, ids, wrong) == own[:i]


# ---------------------------------------------------------------- functions


@pytest.mark.parametrize("n", [1, 2, 5, 17])
def test_functions_return_the_text_and_what_became_of_drafts(models, n):
    target, draft = models
    text, accepted, total = compat.speculative_generate(target, draft, PROMPT, 40, n)
    assert text == compat.normal_generate(target, PROMPT, 40) == greedy(target, 40).text
    rounds, limit = [], 40
    result = sd.Decoder(target, drafter=sd.DraftModel(draft, gamma=n)).generate(
        PROMPT, max_tokens=limit, on_round=rounds.append
    )
    assert total == sum(len(each.drafted) for each in rounds) > 0
    assert accepted == sum(result.from_draft) > 0
    assert accepted < total


def test_functions_take_names(models):
    target, _ = models
    text, accepted, total = compat.speculative_generate("pycode", "pycode-draft", PROMPT, 10, 2)
    assert text == greedy(target, 10).text == compat.normal_generate("pycode", PROMPT, 10)
    assert 0 <= accepted <= total
    assert compat.speculative_generate("pycode", "pycode-draft", PROMPT, 1, 4)[1:] == (0, 0)


def test_an_end_of_text_ends_both(models):
    target, draft = models
    eos = target.eos_token_id
    ending = "x = 1\n" + target.detokenize([eos], render_special=True) + "\n"
    whole = sd.Decoder(target, drafter=None).generate(ending, max_tokens=400)
    assert compat.normal_generate(target, ending, 400) == whole.text
    assert compat.speculative_generate(target, draft, ending, 400, 4)[0] == whole.text


def test_the_timer_returns_what_the_function_returns(capsys):
    assert compat.benchmark(lambda a, b: a + b, 2, b=3) == 5
    assert re.fullmatch(r"Execution time: \d+\.\d{4} seconds\n", capsys.readouterr().out)
    compat.log_message("hello")
    assert capsys.readouterr().err == "[LOG] hello\n"


# ---------------------------------------------------------------- command line

PAIR = ["--approx_model_name", "pycode-draft", "--target_model_name", "pycode", "--device", "cpu"]


def run(capsys, *arguments):
    code = command.main([*PAIR, *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_prints_prompt_and_continuation(capsys, models):
    target, _ = models
    code, out, err = run(capsys, "--input", PROMPT, "-g", "3", "-M", "12", "--seed", "5")
    wanted = sd.Decoder(target).generate(PROMPT, max_tokens=12, temperature=1, seed=5).text
    assert (code, out, err) == (0, f"Generated Text: {PROMPT}{wanted}\n", "")
    flags = ["--input", PROMPT, "--gamma", "7", "--max_tokens", "12", "--seed", "5"]
    assert run(capsys, *flags)[1] == out
    assert run(capsys, "--input", PROMPT, "-M", "12", "--seed", "6")[1] != out
    greedy_text = greedy(target, 12).text
    assert run(capsys, "--input", PROMPT, "-M", "12", "--temperature", "0")[1] == (
        f"Generated Text: {PROMPT}{greedy_text}\n"
    )


def test_the_command_tells_and_times(capsys):
    code, out, err = run(capsys, "--input", PROMPT, "--verbose", "--benchmark", "--seed", "5")
    assert code == 0
    assert re.match(r"Execution time: \d+\.\d{4} seconds\nGenerated Text: ", out)
    assert all(line.startswith("[LOG] ") for line in err.splitlines())
    assert re.search(r"accepted \d+ of \d+ drafted tokens", err)
    assert "[LOG] seed 5; " in err
    assert run(capsys, "--input", PROMPT, "-v", "-b", "--seed", "5")[1].endswith(
        out.partition("Generated Text: ")[2]
    )


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--target_model_name", "meta/llama-7b"], 2, "tools/convert_hf_to_gguf.py"),
        (["--target_model_name", "gone.gguf"], 3, "gone.gguf"),
        (["--gamma", "99"], 2, "gamma must be"),
        (["--temperature", "-1"], 2, "temperature must be"),
        (["--approx_model_name", "manuals-draft"], 4, "vocabular"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(capsys, flags, code, words):
    found, out, err = run(capsys, *flags)
    assert (found, out) == (code, "")
    assert words in err
    assert err.count("\n") == 1


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "specdec_native.compat", *PAIR, "--input", "def", "-M", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Generated Text: def")
    flags = "--input --approx_model_name --target_model_name --gamma --max_tokens --device"
    help_text = subprocess.run(
        [sys.executable, "-m", "specdec_native.compat", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for flag in [*flags.split(), "--verbose", "--benchmark", "--seed", "-g", "-M", "-v", "-b"]:
        assert flag in help_text


def test_on_a_chat_model_that_was_fetched():
    target = model_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    with SpeculativeDecoder("smollm2-draft", target, max_tokens=12, seed=3) as decoder:
        text = decoder.speculative_sample("Once upon a time")
        alone = sd.Decoder(decoder.target_model, drafter=None).generate(
            "Once upon a time", max_tokens=12, temperature=1, seed=3
        )
        assert text == "Once upon a time" + alone.text
