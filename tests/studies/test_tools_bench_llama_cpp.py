"""tools/bench_llama_cpp.py, to the letter, with stand-ins for both engines."""

from __future__ import annotations

import argparse
import json
import pathlib
import random
import sys
import types

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import bench_llama_cpp as bench


class Peer(types.ModuleType):
    """Stands in for the module llama_cpp: remembers what it was asked for."""

    N_VOCAB = 97

    def __init__(self, offload=False, model="handle", context="context", code=0):
        super().__init__("llama_cpp")
        self.offload, self.model, self.context, self.code = offload, model, context, code
        self.model_params = types.SimpleNamespace(n_gpu_layers=-7)
        self.params = types.SimpleNamespace()
        self.log, self.passes, self.removed, self.calls = None, [], [], []

    def llama_log_callback(self, function):
        assert function(1, b"text", None) is None
        return "silent"

    def llama_log_set(self, callback, data):
        self.log = (callback, data.value)

    def llama_backend_init(self):
        self.calls.append("init")

    def llama_model_default_params(self):
        return self.model_params

    def llama_supports_gpu_offload(self):
        return self.offload

    def llama_model_load_from_file(self, name, params):
        assert params is self.model_params
        self.calls.append(name)
        return self.model

    def llama_context_default_params(self):
        return self.params

    def llama_init_from_model(self, handle, params):
        assert (handle, params) == (self.model, self.params)
        return self.context

    def llama_model_get_vocab(self, handle):
        assert handle == self.model
        return "vocab"

    def llama_vocab_n_tokens(self, vocab):
        assert vocab == "vocab"
        return self.N_VOCAB

    def llama_batch_init(self, n, embd, n_seq):
        self.calls.append((n, embd, n_seq))
        return types.SimpleNamespace(
            token=[None] * n, pos=[None] * n, n_seq_id=[None] * n, logits=[None] * n,
            seq_id=[[None] for _ in range(n)],
        )  # fmt: skip

    def llama_get_memory(self, context):
        assert context == self.context
        return "memory"

    def llama_decode(self, context, batch):
        assert context == self.context
        n = batch.n_tokens
        assert batch.n_seq_id[:n] == [1] * n
        assert batch.seq_id[:n] == [[0]] * n
        assert batch.pos[:n] == list(range(batch.pos[0], batch.pos[0] + n))
        wanted = [i for i in range(n) if batch.logits[i]]
        assert wanted == list(range(wanted[0], n))
        self.passes.append((n, batch.pos[0], wanted[0], list(batch.token[:n])))
        return self.code

    def llama_synchronize(self, context):
        self.calls.append(("synchronize", context))

    def llama_memory_seq_rm(self, *arguments):
        self.removed.append(arguments)


@pytest.fixture
def clock(monkeypatch):
    """Goes on by a quarter of a second with each look."""
    looks = [0]

    def look():
        looks[0] += 1
        return looks[0] / 4

    monkeypatch.setattr(bench.time, "perf_counter", look)


def measured(monkeypatch, peer, rows, *, n_ctx=300, n_rounds=2, n_gpu_layers=0):
    monkeypatch.setitem(sys.modules, "llama_cpp", peer)
    return bench.measure_peer("ä.gguf", rows, n_ctx, 3, n_rounds, n_gpu_layers)


def test_the_peer_does_the_same_passes(monkeypatch, clock):
    peer, rows = Peer(), [1, 16, 17]
    times = measured(monkeypatch, peer, rows)
    assert times == {"1": [250.0] * 2, "16": [250.0] * 2, "17": [250.0] * 2}
    draw = random.Random(1)
    tokens = [draw.randrange(Peer.N_VOCAB) for _ in range(512)]
    prompt = [(256, 0, 255), (44, 256, 43)]
    passes = [(1, 300, 0), (16, 300, 0), (17, 300, 16)] * 3  # the first round is not counted
    assert peer.passes == [(*entry, tokens[: entry[0]]) for entry in [*prompt, *passes]]
    assert peer.removed == [("memory", 0, 300, -1)] * 9
    assert peer.log == ("silent", None)
    synchronized = [("synchronize", "context")] * 11
    assert peer.calls == ["init", "ä.gguf".encode(), (512, 0, 1), *synchronized]
    assert peer.model_params.n_gpu_layers == 0
    assert vars(peer.params) == {
        "n_ctx": 300 + 17 + 8, "n_batch": 512, "n_ubatch": 512, "n_threads": 3,
        "n_threads_batch": 3, "no_perf": True,
    }  # fmt: skip


def test_the_peer_has_room_for_long_passes_and_takes_layers(monkeypatch, clock):
    peer = Peer(offload=True)
    times = measured(monkeypatch, peer, [600], n_ctx=256, n_rounds=1, n_gpu_layers=1)
    assert times == {"600": [250.0]}
    assert [entry[:3] for entry in peer.passes] == [(256, 0, 255), *[(600, 256, 599)] * 2]
    assert (peer.params.n_ctx, peer.params.n_batch, peer.params.n_ubatch) == (864, 600, 600)
    assert peer.calls[2] == (600, 0, 1)
    assert peer.model_params.n_gpu_layers == 1


@pytest.mark.parametrize(
    ("peer", "layers", "says"),
    [
        (None, 0, "llama-cpp-python is not installed here.\n\nThe peer is llama.cpp through"),
        (Peer(), 1, "this llama-cpp-python was built without CUDA: it cannot take -ngl"),
        (Peer(model=None), 0, "llama.cpp cannot load ä.gguf"),
        (Peer(context=None), 0, "llama.cpp cannot make a context of 309 for ä.gguf"),
        (Peer(code=1), 0, "llama_decode failed"),
        (Peer(code=-1), 0, "llama_decode failed"),
    ],
)
def test_what_the_peer_cannot_do_ends_the_script(monkeypatch, peer, layers, says):
    with pytest.raises(SystemExit) as raised:
        measured(monkeypatch, peer, [1], n_gpu_layers=layers)
    assert str(raised.value.code).startswith(says)


# ---------------------------------------------------------------- figures


def spread(*values):
    middle = sorted(values)[len(values) // 2]
    return {"median": middle, "range": [min(values), max(values)], "values": list(values)}


OURS = [{"2": 4.0, "8": 6.0}, {"2": 8.0, "8": 16.0}, {"2": 5.0, "8": 20.0}]
PEER = [{"2": 2.0, "8": 12.0}, {"2": 8.0, "8": 64.0}, {"2": 10.0, "8": 10.0}]


def test_ratios_are_taken_within_a_round():
    plain = [
        {"rows": 2, "ours_ms": spread(4.0, 8.0, 5.0), "ours_over_first": spread(1.0, 1.0, 1.0)},
        {"rows": 8, "ours_ms": spread(6.0, 16.0, 20.0), "ours_over_first": spread(1.5, 2.0, 4.0)},
    ]
    assert bench.table_of([2, 8], OURS, []) == plain
    peer = [
        {"peer_ms": spread(2.0, 8.0, 10.0), "peer_over_first": spread(1.0, 1.0, 1.0),
         "ours_over_peer": spread(2.0, 1.0, 0.5)},
        {"peer_ms": spread(12.0, 64.0, 10.0), "peer_over_first": spread(6.0, 8.0, 1.0),
         "ours_over_peer": spread(0.5, 0.25, 2.0)},
    ]  # fmt: skip
    assert bench.table_of([2, 8], OURS, PEER) == [
        {**a, **b} for a, b in zip(plain, peer, strict=True)
    ]
    with pytest.raises(ValueError, match="zip"):
        bench.table_of([2], OURS, PEER[:2])


def test_times_are_rounded_for_the_file():
    assert bench.rounded({"1": [1.23456, 2.0]}) == {"1": [1.235, 2.0]}


def report(peer="llama-cpp-python 1", **more):
    return {
        "versions": {"specdec": "1", "peer": peer},
        "model": {"file": "m.gguf", "quantisation": "Q4_K"},
        "machine": {"n_threads": 3},
        "isa": "avx2",
        "ctx": 256,
        "table": bench.table_of([2, 8], OURS, PEER if peer else []),
        "placement": [],
        "device_ms": {},
        "device": "cpu",
        "n_gpu_layers": 0,
        "read_gb_s": spread(40.04),
        "bandwidth_share": spread(0.0),
        **more,
    }


HEAD = "m.gguf (Q4_K), avx2, 3 threads, context 256\n"
OUR_TABLE = """\
| rows | ours ms | ours T(M)/T(1) |
|---|---|---|
| 2 | 5.0 | 1.00 |
| 8 | 16.0 | 2.00 |
"""
BOTH_TABLE = """\
| rows | ours ms | ours T(M)/T(1) | peer ms | peer T(M)/T(1) | ours / peer (range) |
|---|---|---|---|---|---|
| 2 | 5.0 | 1.00 | 8.0 | 1.00 | 1.00 (0.50-2.00) |
| 8 | 16.0 | 2.00 | 12.0 | 6.00 | 0.50 (0.25-2.00) |
"""


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (report(None), f"{HEAD}{OUR_TABLE}\n"),
        (report(), f"{HEAD}{BOTH_TABLE}\n"),
        (report(None, bandwidth_share=spread(0.904)),
         f"{HEAD}{OUR_TABLE}memory reads 40.0 GB/s; one row reads weights at 90% of it\n\n"),
        (report(None, bandwidth_share=spread(0.904), n_gpu_layers=1, placement=["a", "b"],
                device="GPU 0", device_ms={"1": spread(2.0), "8": spread(3.456)}),
         f"{HEAD}{OUR_TABLE}a\nb\nGPU 0; ms by the GPU's clock for rows 1: 2.00, 8: 3.46\n"
         "GPU copies 40.0 GB/s; one row reads weights at 90% of it\n\n"),
    ],
    ids="ours both memory gpu".split(),
)  # fmt: skip
def test_reports_are_printed_as_tables(capsys, given, says):
    bench.print_report(given)
    assert capsys.readouterr().out == says


# ---------------------------------------------------------------- a model


def options(**more):
    given = {"rows": "2,8", "ctx": "16,64", "isa": None, "rounds": 2, "passes": 4, "threads": 3,
             "n_gpu_layers": 0, "specdec": "specdec-x", "no_peer": False, "peer_python": "py",
             "our_version": "1.2", "their_version": "peer 3"}  # fmt: skip
    return argparse.Namespace(**{**given, **more})


class Engines:
    """Stands in for `run_json`: keeps its arguments, and answers for each engine."""

    def __init__(self, device_ms=None):
        self.calls = []
        self._more = {} if device_ms is None else {"device_ms": device_ms}

    def __call__(self, command, environment=None):
        self.calls.append((command, environment))
        n = len(self.calls)
        if "--only-peer" in command:
            return {"2": [2.0 * n, 3.0 * n, 40.0 * n], "8": [8.00001 * n] * 3}
        return {
            "n_threads": 3, "quantisation": "Q4_K", "weight_gb": 0.123456, "isa": "avx2",
            "t_ms": {"2": 1.0 * n, "8": 4.0 * n}, "read_gb_s": 10.0 * n,
            "bandwidth_share": 0.1 * n, "load_ms": 100.0 * n, "device": "cpu", "n_gpu_layers": 0,
            "gpu_bytes": 5, "placement": ["here"],
            "times_ms": {"2": [1.00001 * n], "8": [4.0 * n]}, **self._more,
        }  # fmt: skip


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "machine", lambda n_threads: {"n_threads": n_threads})
    made = tmp_path / "m.gguf"
    with made.open("wb") as file:
        file.truncate(1_234_567_890)  # without blocks
    return made


def test_engines_are_run_in_turn(monkeypatch, path, capsys):
    engines = Engines()
    monkeypatch.setattr(bench, "run_json", engines)
    bench.measure_model(str(path), options(isa="avx2"))
    expected = []
    for ctx in ["16", "64"] * 2:
        shared = ["-m", str(path), "--rows", "2,8", "--ctx", ctx, "-t", "3", "-ngl", "0"]
        ours = ["specdec-x", "bench", *shared, "--rounds", "4", "--json", "--quiet"]
        peer = ["py", bench.__file__, *shared, "--only-peer", "--passes", "4"]
        expected += [(ours, {"SPECDEC_CPU_ISA": "avx2"}), (peer, None)]
    assert engines.calls == expected
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in said] == [
        "m.gguf: round 1 of 2 done", "m.gguf: round 2 of 2 done",
    ]  # fmt: skip


def test_a_report_holds_what_was_measured(monkeypatch, path):
    monkeypatch.setattr(bench, "run_json", Engines())
    first, second = bench.measure_model(str(path), options())
    # Ours are the calls 1 and 5 of the first context, the peer's 2 and 6.
    assert first == {
        "kind": "forward",
        "machine": {"n_threads": 3},
        "versions": {"specdec": "1.2", "peer": "peer 3"},
        "model": {"file": "m.gguf", "quantisation": "Q4_K", "file_gb": 1.235, "weight_gb": 0.1235},
        "isa": "avx2",
        "ctx": 16,
        "passes": 4,
        "table": bench.table_of(
            [2, 8],
            [{"2": 1.0, "8": 4.0}, {"2": 5.0, "8": 20.0}],
            [{"2": 6.0, "8": 16.00002}, {"2": 18.0, "8": 48.00006}],
        ),
        "read_gb_s": {"median": 30.0, "range": [10.0, 50.0], "values": [10.0, 50.0]},
        "bandwidth_share": {"median": 0.3, "range": [0.1, 0.5], "values": [0.1, 0.5]},
        "load_ms": {"median": 300.0, "range": [100.0, 500.0], "values": [100.0, 500.0]},
        "device": "cpu",
        "n_gpu_layers": 0,
        "gpu_bytes": 5,
        "placement": ["here"],
        "device_ms": {},
        "ours_times_ms": [{"2": [1.0], "8": [4.0]}, {"2": [5.0], "8": [20.0]}],
        "peer_times_ms": [
            {"2": [4.0, 6.0, 80.0], "8": [16.0] * 3},
            {"2": [12.0, 18.0, 240.0], "8": [48.0] * 3},
        ],
    }
    assert second["ctx"] == 64
    assert second["read_gb_s"]["values"] == [30.0, 70.0]


def test_a_report_without_a_peer_and_with_a_gpu(monkeypatch, path):
    engines = Engines(device_ms={"2": 0.5})
    monkeypatch.setattr(bench, "run_json", engines)
    (made,) = bench.measure_model(str(path), options(no_peer=True, ctx="16", n_gpu_layers=99))
    assert [call[1] for call in engines.calls] == [{}, {}]
    assert engines.calls[0][0][10:12] == ["-ngl", "99"]
    assert made["device_ms"] == {"2": spread(0.5, 0.5)}
    assert made["peer_times_ms"] == []
    assert "peer_ms" not in made["table"][0]


def test_one_round_is_enough(monkeypatch, path):
    monkeypatch.setattr(bench, "run_json", Engines(device_ms={"2": 0.5}))
    (made,) = bench.measure_model(str(path), options(ctx="16", rounds=1))
    facts = ("isa", "device", "n_gpu_layers", "gpu_bytes", "placement")
    assert [made[name] for name in facts] == ["avx2", "cpu", 0, 5, ["here"]]
    assert made["device_ms"] == {"2": spread(0.5)}
    assert made["model"]["weight_gb"] == 0.1235


def test_another_number_of_threads_than_asked_for_is_refused(monkeypatch, path):
    monkeypatch.setattr(bench, "run_json", Engines())
    with pytest.raises(SystemExit) as raised:
        bench.measure_model(str(path), options(threads=2))
    assert raised.value.code == "specdec used another number of threads than asked for"


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch):
    """Runs the command; what it would measure and write is kept instead."""
    done = types.SimpleNamespace(measured=[], printed=[], written=[], peers=[], asked=[])

    def measure(model, given):
        done.measured.append((model, given))
        return [f"{model} 1", f"{model} 2"]

    def peer(*arguments):
        done.peers.append(arguments)
        return {"1": [2.0]}

    def version(kind):
        return lambda program: done.asked.append((kind, program)) or f"{kind} of {program}"

    monkeypatch.setattr(bench, "measure_model", measure)
    monkeypatch.setattr(bench, "measure_peer", peer)
    monkeypatch.setattr(bench, "print_report", done.printed.append)
    monkeypatch.setattr(bench, "write_report", lambda *given: done.written.append(given))
    monkeypatch.setattr(bench, "specdec_version", version("ours"))
    monkeypatch.setattr(bench, "peer_version", version("theirs"))
    monkeypatch.setattr(bench.shutil, "which", {"specdec": "/b/specdec"}.get)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench_llama_cpp.py", *arguments])
        bench.main()
        return done

    return run


def test_what_is_not_said_has_its_default(command):
    done = command("-m", "a.gguf", "--model", "b.gguf")
    assert [model for model, _ in done.measured] == ["a.gguf", "b.gguf"]
    assert done.printed == ["a.gguf 1", "a.gguf 2", "b.gguf 1", "b.gguf 2"]
    assert done.written == []
    assert vars(done.measured[0][1]) == {
        "model": ["a.gguf", "b.gguf"], "rows": "1,2,3,4,6,8,12,16,32,512", "ctx": "256",
        "threads": 2, "rounds": 3, "passes": 5, "n_gpu_layers": 0, "isa": None,
        "specdec": "/b/specdec", "peer_python": sys.executable, "no_peer": False, "json": None,
        "only_peer": False, "our_version": "ours of /b/specdec",
        "their_version": f"theirs of {sys.executable}",
    }  # fmt: skip


def test_what_is_said_is_taken(command, tmp_path):
    out = tmp_path / "o.json"
    done = command("-m", "a", "--rows", "1", "--ctx", "8", "-t", "5", "--rounds", "1", "--passes",
                   "7", "-ngl", "9", "--isa", "avx2", "--specdec", "s", "--peer-python", "p",
                   "--no-peer", "--json", str(out))  # fmt: skip
    given = vars(done.measured[0][1])
    assert given == {
        "model": ["a"], "rows": "1", "ctx": "8", "threads": 5, "rounds": 1, "passes": 7,
        "n_gpu_layers": 9, "isa": "avx2", "specdec": "s", "peer_python": "p", "no_peer": True,
        "json": out, "only_peer": False, "our_version": "ours of s", "their_version": None,
    }  # fmt: skip
    assert done.asked == [("ours", "s")]
    assert done.written == [(out, ["a 1", "a 2"])]


def test_the_other_engine_s_process_prints_its_times(command, capsys):
    done = command("-m", "a", "-m", "b", "--rows", "1,4", "--ctx", "8", "--threads", "5",
                   "--passes", "7", "--n-gpu-layers", "9", "--only-peer")  # fmt: skip
    assert done.peers == [("a", [1, 4], 8, 5, 7, 9)]
    assert json.loads(capsys.readouterr().out) == {"1": [2.0]}
    assert (done.asked, done.measured) == ([], [])


def test_a_model_is_asked_for_and_a_missing_program_is_named(command, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command()
    assert "required: -m/--model" in capsys.readouterr().err
    monkeypatch.setattr(bench.shutil, "which", lambda name: None)
    assert command("-m", "a").measured[0][1].specdec == "specdec"


def test_help_begins_with_what_the_script_is_for(command, capsys):
    with pytest.raises(SystemExit):
        command("--help")
    text = capsys.readouterr().out
    assert "\n    python tools/bench_llama_cpp.py -m MODEL.gguf [-m OTHER.gguf] [--ctx" in text
    assert "--only-peer" not in text
    told = " ".join(text.split()) + " "
    for words in (
        "one context or several, with commas", "alternations of the two engines",
        "passes per row count in each", "layers on the GPU, in both engines",
        "ours only: scalar, avx2, avx512_vnni, ...", "write all figures here",
    ):  # fmt: skip
        assert f"{words} " in told
