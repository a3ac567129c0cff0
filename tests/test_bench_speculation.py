"""What tools/bench_speculation.py makes of its runs: the gate on tokens, means, counts."""

from __future__ import annotations

import argparse
import pathlib
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import bench_speculation as bench  # noqa: E402

OPTIONS = argparse.Namespace(rounds=2, min_ms=0.0, peer_rounds=9, temperature=0.0, seed=7,
                             max_tokens=8)  # fmt: skip


class Fake:
    """A decoder whose runs were made before."""

    def __init__(self, *runs):
        self.runs, self.at = runs, 0

    def reset(self):
        pass

    def close(self):
        pass

    def generate(self, prompt, **options):
        tokens, ms, drafted, accepted = self.runs[self.at % len(self.runs)]
        self.at += 1
        stats = types.SimpleNamespace(
            tokens_per_second=1000 * len(tokens) / ms, decode_ms=ms, drafted=drafted,
            accepted=accepted, speculation="on", calibration_ms=0.0,
        )  # fmt: skip
        return types.SimpleNamespace(token_ids=tuple(tokens), stats=stats)


def prompt_of(name="a"):
    return bench.Prompt(name, "file", [1, 2, 3])


def test_methods_that_emit_other_tokens_are_found():
    same, other = ([5, 6, 7], 30.0, 4, 2), ([5, 6, 8], 30.0, 4, 2)
    decoders = {"plain": Fake(same), "ngram": Fake(same), "suffix": Fake(same, other)}
    entry = bench.measure_prompt(prompt_of(), decoders, OPTIONS)
    assert entry["different"] == ["suffix"]


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("arguments", [[], ["--adversarial", "-md", "draft.gguf"]])
def test_the_exit_code_is_1_unless_all_methods_emit_the_same(monkeypatch, capsys, arguments, wrong):
    check_main(monkeypatch, capsys, arguments, wrong)


def check_main(monkeypatch, capsys, arguments, wrong):
    """Runs the script with decoders that are made up; `wrong`: one emits other tokens."""
    sd = types.ModuleType("specdec_native")
    sd.__version__ = "0"
    sd.info = lambda: {"cpu_isa": "none"}

    class Model:
        def __init__(self, path, n_threads):
            self.info = types.SimpleNamespace(path=str(path), quantisation="Q", size_bytes=1)

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

    sd.Model = Model
    monkeypatch.setitem(sys.modules, "specdec_native", sd)
    monkeypatch.setattr(bench, "read_prompts", lambda target, options: [prompt_of()])
    monkeypatch.setattr(bench, "shuffle_weights", lambda path, out: None)
    plain, other = ([5, 6], 20.0, 0, 0), ([5, 9], 10.0, 3, 1)
    monkeypatch.setattr(
        bench, "make_decoder",
        lambda sd, target, method, draft, options: Fake(
            plain if method == "plain" or not wrong else other
        ),
    )  # fmt: skip
    command = ["bench_speculation.py", "-m", "m.gguf", "--methods", "plain,ngram", *arguments]
    monkeypatch.setattr(sys, "argv", command)
    if wrong:
        with pytest.raises(SystemExit) as caught:
            bench.main()
        assert caught.value.code == 1
    else:
        bench.main()
    assert ("DIFFER" in capsys.readouterr().out) == wrong


def test_counts_are_those_of_all_rounds():
    runs = [([1, 2], 20.0, 5, 2), ([1, 2], 20.0, 7, 4)]
    decoders = {"plain": Fake(([1, 2], 20.0, 0, 0)), "ngram": Fake(*runs)}
    cell = bench.measure_prompt(prompt_of(), decoders, OPTIONS)["methods"]["ngram"]
    assert (cell["drafted"], cell["accepted"]) == (12, 6)


def test_counts_of_adversarial_runs_add_up(monkeypatch, capsys):
    check_main(monkeypatch, capsys, [], False)
    decoders = iter([Fake(([5], 10.0, 0, 0)), Fake(([5], 10.0, 3, 1)), Fake(([5], 10.0, 4, 2)),
                     Fake(([5], 10.0, 8, 5))])  # fmt: skip
    monkeypatch.setattr(bench, "make_decoder", lambda *given: next(decoders))
    options = argparse.Namespace(
        **{**vars(OPTIONS), "count": 4, "model_draft": "d.gguf", "threads": 1, "attacked": "auto",
           "methods": "plain", "peer_python": sys.executable},
    )  # fmt: skip
    model = types.SimpleNamespace(
        info=types.SimpleNamespace(path="m", quantisation="Q", size_bytes=1)
    )
    sd = sys.modules["specdec_native"]
    cases = bench.adversarial(sd, model, model, options)["cases"]
    # Four requests with the first decoder; then two with each of the other two.
    assert [(c["drafted"], c["accepted"]) for c in cases] == [(12, 4), (24, 14)]


def test_means_over_prompts_are_geometric():
    def cell(speedup, ms):
        return {
            "tokens_per_second": {"median": 10.0 * speedup},
            "decode_ms": {"median": ms},
            "speedup": {"median": speedup},
        }

    def prompt(name, n_tokens, speedup, plain_ms, ms):
        plain = cell(1.0, plain_ms)
        del plain["speedup"]
        return {"id": name, "n_tokens": n_tokens,
                "methods": {"plain": plain, "ngram": cell(speedup, ms)}}  # fmt: skip

    prompts = [prompt("a", 9, 2.0, 100.0, 50.0), prompt("b", 9, 8.0, 300.0, 50.0),
               prompt("empty", 0, 500.0, 1.0, 900.0)]  # fmt: skip
    summary = bench.summarise(prompts, ["plain", "ngram"])
    assert summary["ngram"] == {
        "tokens_per_second": pytest.approx(40.0), "geomean": pytest.approx(4.0), "min": 2.0,
        "max": 8.0, "total": pytest.approx(4.0), "slowest_prompt": "a",
    }  # fmt: skip
    assert summary["plain"]["geomean"] == 1.0
