"""tools/make_draft.py on a small random target: what it writes, refuses and goes on with."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest

import tiny_models
from helpers import model_path
from in_process import run_script

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "make_draft.py"
SMALL = [
    *("--tokens", 3000, "--answer-tokens", 24, "--minutes", 1, "--epochs", 6, "--threads", 1),
    *("--hidden-size", 32, "--layers", 1, "--heads", 2, "--intermediate", 64),
    *("--batch-tokens", 512, "--learning-rate", 0.01, "--eval-count", 3, "--eval-tokens", 24),
]


def tool(*arguments, code=0):
    done = run_script(TOOL, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write_target(path, arch="llama", chat=True):
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}<a>"
    config = tiny_models.TinyConfig(arch=arch, context_length=1024, n_kv_heads=4, tied=True)
    keys = {"tokenizer.chat_template": template} if chat else {}
    return tiny_models.write_tiny(path, config, dtype="Q8_0", seed=1, extra=keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A draft of a chat model, and what the tool reported."""
    folder = tmp_path_factory.mktemp("draft")
    target, out = write_target(folder / "target.gguf"), folder / "draft.gguf"
    prompts = folder / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"prompt": "the inner"}) + "\n" + json.dumps({"turns": ["in the", "b"]}) + "\n"
    )
    report = folder / "report.json"
    done = tool(target, out, *SMALL, "--eval", prompts, "--report", report)
    return target, out, done, json.loads(report.read_text())


@needs_torch
def test_the_draft_loads_for_its_target_and_has_its_tokenizer(made):
    target, out, _, _ = made
    assert sd.check_pair(sd.Model(target), sd.Model(out)).identical
    ours, theirs = (sd.inspect(path, max_array=10**6).metadata for path in (out, target))
    names = {key for key in theirs if key.startswith("tokenizer.")}
    assert {key: ours.get(key) for key in names} == {key: theirs[key] for key in names}
    info = sd.Model(out).info
    assert (info.hidden_size, info.n_layers, info.ffn_size, info.tied_head) == (32, 1, 64, True)
    assert "Q8_0" in info.quantisation


@needs_torch
def test_the_draft_learnt_something_and_the_text_stays(made):
    _, _, done, report = made
    assert report["after"]["loss"] < report["before"]["loss"] - 0.1
    assert report["after"]["agreement"] > report["before"]["agreement"]
    assert report["after"]["tokens"] > 100
    assert set(report["prompts"]) == {"held-out texts", "prompts.jsonl"}
    for found in report["prompts"].values():
        assert set(found) == {"n_prompts", "n-gram", "untrained", "trained", "speed"}
        for name in ("n-gram", "untrained", "trained"):
            assert 0 <= found[name]["acceptance"] <= 1
    assert "tokens per pass" in done.stdout


@needs_torch
def test_torch_and_the_engine_say_the_same(made, monkeypatch):
    """The file holds what was trained: same layout of heads, same norms, same head."""
    import torch

    target, out, _, _ = made
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_gguf
    import draft_net

    state = torch.load(out.with_name("draft.gguf.state"), weights_only=True)
    draft = draft_net.Draft(draft_net.DraftShape(**state["shape"]))
    draft.load_state_dict(state["draft"])
    exact = out.with_name("exact.gguf")
    draft_gguf.write_draft(draft, draft_gguf.Target(target), exact, "f32", "exact")
    model = sd.Model(exact, kv_type="f32")
    prompt = model.tokenize("the cat in the hat, the inner winner")
    with sd.Decoder(model, drafter=None) as decoder:
        result = decoder.generate(prompt, max_tokens=8, logprobs=20)
    assert len(result.token_ids) > 0
    with torch.no_grad():
        laws = draft.logits(torch.tensor([prompt + list(result.token_ids)])).log_softmax(-1)[0]
    for i, position in enumerate(result.logprobs):
        for entry in position.top:
            ours = float(laws[len(prompt) + i - 1, entry.token_id])
            assert entry.logprob == pytest.approx(ours, abs=1e-3)


@needs_torch
def test_text_is_kept_and_training_goes_on(made, tmp_path):
    target, out, _, report = made
    data = out.with_name("draft.gguf.data")
    before = {path.name: path.stat().st_mtime_ns for path in data.iterdir()}
    again = out.with_name("again.gguf")
    out.with_name("again.gguf.state").write_bytes(out.with_name("draft.gguf.state").read_bytes())
    second = out.with_name("again.json")
    changed = [*SMALL[: SMALL.index("--epochs")], "--epochs", 8]
    changed += SMALL[SMALL.index("--epochs") + 2 :]
    tool(target, again, *changed, "--data", data, "--resume", "--report", second)
    assert {path.name: path.stat().st_mtime_ns for path in data.iterdir()} == before
    epochs = json.loads(second.read_text())["epochs"]
    assert epochs >= 8 > report["epochs"] - 1
    assert not list(out.parent.glob("*.tmp"))


@needs_torch
def test_a_base_model_of_another_architecture(tmp_path):
    target = write_target(tmp_path / "neox.gguf", arch="gptneox", chat=False)
    out = tmp_path / "draft.gguf"
    tool(target, out, *SMALL, "--outtype", "f16", "--head-tokens", 64)
    target, draft = sd.Model(target), sd.Model(out)
    assert sd.check_pair(target, draft).compatible
    assert draft.metadata["specdec.draft.head_tokens"] == 64
    # The engine takes that for what may be drafted, unless told otherwise.
    drafted = {}
    for head in (None, 0):
        drafter = sd.DraftModel(draft, gamma=4, head_tokens=head)
        with sd.Decoder(target, drafter=drafter) as decoder:
            seen = drafted.setdefault(head, set())
            result = decoder.generate(
                [1, 2, 3],
                max_tokens=48,
                ignore_eos=True,
                on_round=lambda r, s=seen: s.update(r.drafted),
            )
    text_blocks = {token // 16 for token in (1, 2, 3, *result.token_ids, target.eos_token_id)}
    assert all(token < 64 or token // 16 in text_blocks for token in drafted[None])
    assert len(drafted[0]) > 0


@needs_torch
def test_state_and_data_of_others_are_refused(made, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_data
    import draft_job
    import draft_net
    import target_fingerprint
    from training_safety import ToolError

    target, out, _, _ = made
    ours = target_fingerprint.fingerprint(target)
    state = out.with_name("draft.gguf.state")
    shape = draft_net.DraftShape(272, 32, 1, 2, 64)
    assert draft_job.load_state(state, shape)["n_steps"] > 0
    with pytest.raises(ToolError, match="give the same sizes"):
        draft_job.load_state(state, draft_net.DraftShape(272, 64, 1, 2, 64))
    broken = tmp_path / "broken.state"
    broken.write_bytes(b"not a state")
    with pytest.raises(ToolError, match=r"broken\.state: cannot be read"):
        draft_job.load_state(broken, shape)
    assert draft_job.load_state(tmp_path / "none.state", shape) is None
    with pytest.raises(ToolError, match="a target with another vocabulary"):
        draft_job.load_state(state, shape, {**ours, "vocabulary_sha256": "of another"})

    data, settings = out.with_name("draft.gguf.data"), {"seed": 0, "answer_tokens": 24}
    assert draft_data.Store(data, ours, settings).n_written() >= 3000
    other = target_fingerprint.fingerprint(write_target(tmp_path / "other.gguf", arch="gptneox"))
    for wrong in ((other, settings), (ours, {**settings, "seed": 1})):
        with pytest.raises(ToolError, match="another --data"):
            draft_data.Store(data, *wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(ToolError, match="is not empty"):
        draft_data.Store(tmp_path / "full", ours, settings)
    half = tmp_path / "half"
    store = draft_data.Store(half, ours, settings)
    (half / "round-00000.npz").write_bytes(b"PK")
    with pytest.raises(ToolError, match=r"round-00000\.npz: cannot be read"):
        list(store.load())


@needs_torch
def test_loops_are_cut_and_other_text_is_not(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_data

    assert draft_data.loop_end(list(range(100))) == 100
    assert draft_data.loop_end([1, 2, 3] + [4, 5] * 40) == 3 + 4
    assert draft_data.loop_end([1, 2, 3] + [7] * 30) == 3 + 2
    assert draft_data.loop_end([1, 2] * 5) == 10  # short repeats are left
    assert draft_data.loop_end([]) == 0


@needs_torch
def test_the_loss_is_cross_entropy_and_so_are_its_gradients(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import torch

    import draft_train

    torch.manual_seed(0)
    hidden, rows = torch.randn(600, 16), torch.randn(50, 16)
    ids, correction = torch.randint(0, 50, (600, 8)), torch.randn(50)
    weights = torch.rand(600, 8)
    weights /= weights.sum(-1, keepdim=True)
    found = []
    for ours in (True, False):
        h, r = hidden.clone().requires_grad_(), rows.clone().requires_grad_()
        if ours:
            loss = draft_train.HeadLoss.apply(h, r, correction, ids, weights, False)
        else:
            laws = (h @ r.T + correction).log_softmax(-1)
            loss = -(weights * laws.gather(1, ids)).sum(-1).mean()
        (2 * loss).backward()
        found.append((loss.detach(), h.grad, r.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--hidden-size", 100, "--heads", 3], "times an even number"),
        (["--hidden-size", 72, "--heads", 4], "multiples of 32"),
        (["--layers", 0], "--layers must be 1 to 64"),
        (["--minutes", 0], "--minutes must be above 0"),
        (["--outtype", "q3_k"], "invalid choice"),
        (["--head-tokens", -1], "--head-tokens must be 0 to"),
        (["--eval", "nowhere.jsonl"], "there is no such file"),
        (["--prompts", "nowhere.jsonl"], "--prompts nowhere.jsonl: there is no such file"),
        (["--prompts", TOOL, "--eval", TOOL], "--prompts and --eval are both"),
        (["--threads", -3], "--threads must be 1 to 1024, got -3"),
        (["--threads", 0], "--threads must be 1 to 1024, got 0"),
        (["--learning-rate", "inf"], "--learning-rate must be above 0 and at most 1, got inf"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0 and at most 1, got nan"),
        (["--learning-rate", -0.1], "--learning-rate must be above 0"),
        (["--minutes", "inf"], "--minutes must be above 0 and at most 1000000, got inf"),
        (["--text-minutes", "nan"], "--text-minutes must be above 0"),
        (["--epochs=-inf"], "--epochs must be above 0"),
        (["--dropout", "nan"], "--dropout must be 0 to less than 1, got nan"),
        (["--data", TOOL], "--data .*make_draft.py: is no folder"),
        (["--report", "no/where.json"], "--report: no: there is no such folder"),
        (["--report", TOOL.parent], "--report: .* is there and is no file"),
        (["--report", "x.gguf"], "--report and the draft are both x.gguf"),
        (["--report", "x.gguf.state"], "--report and its state are both x.gguf.state"),
        (["--report", "target.gguf"], "--report and the target are both target.gguf"),
        (["--name", "\udcff"], "--name is not Unicode"),
    ],
)
def test_bad_options_are_named(tmp_path, arguments, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool("target.gguf", "x.gguf", *arguments, code=2)
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_torch
def test_prompts_and_tokens_per_pass_are_measured_as_they_are(tmp_path, monkeypatch):
    """U+2028 is no end of a line in JSON; the token that ends an answer is one that a pass gave."""
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_measure
    import draft_prompts

    class Ends(contextlib.nullcontext):
        def __init__(self, model, **options):
            super().__init__(self)

        def reset(self):
            pass

        def generate(self, prompt, max_tokens):
            stats = types.SimpleNamespace(
                drafted=0,
                accepted=0,
                rounds=0,
                plain_steps=4,
                emitted=3,
                drafted_per_position=(),
                accepted_per_position=(),
            )
            return types.SimpleNamespace(stats=stats, token_ids=(1, 2, 3), finish_reason="stop")

    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a\u2028b"}\n{"prompt": "import os\\n"}\n')
    with sd.Model(sd.embedded().target) as model:
        prompts = draft_prompts.file_prompts(model, path)
        assert sorted(prompts) == sorted(map(model.tokenize, ("a\u2028b", "import os\n")))
        monkeypatch.setattr(draft_measure.sd, "Decoder", Ends)
        figures, _ = draft_measure.acceptance(model, prompts, None, 8)
    assert figures["tokens_per_pass"] == 1


@needs_torch
def test_own_prompts_are_answered_once_in_half_of_the_texts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_data

    target = write_target(tmp_path / "target.gguf")
    with sd.Model(target) as model:
        own = [model.tokenize(f"the inner {i}") for i in range(40)]
        settings = {"seed": 1, "n_parallel": 16, "answer_tokens": 8}
        writer = draft_data.Writer(model, **settings, prompts=own)
        rounds = [[built.text() for built in writer.round(index)] for index in range(3)]
        without = [built.text() for built in draft_data.Writer(model, **settings).round(2)]
    found = []
    for texts in rounds:
        assert len(texts) <= draft_data.CONVERSATIONS
        given = [text.tokens[text.part == draft_data.FRAME].tolist() for text in texts]
        found.append([tokens for tokens in given if tokens in own])
    assert found == [own[:32], own[32:], []]
    answered = next(text for text in rounds[0] if text.tokens[: len(own[0])].tolist() == own[0])
    assert (answered.part[len(own[0]) :] == draft_data.ANSWER).all()
    assert answered.part[-1] == 2
    assert [t.tokens.tolist() for t in rounds[2]] == [t.tokens.tolist() for t in without]


@needs_torch
def test_a_folder_of_texts_remembers_the_prompts(tmp_path):
    target, prompts = write_target(tmp_path / "target.gguf"), tmp_path / "prompts.jsonl"
    longest = {"prompt": "the " * 4000}
    prompts.write_text("".join(json.dumps(p) + "\n" for p in ({"prompt": "the inner"}, longest)))
    only = ("--tokens", 1, "--text-only")
    done = tool(target, tmp_path / "x.gguf", *only, "--prompts", prompts)
    assert (
        "--prompts: 1 of 2 prompts; the others are empty or of more than 824 tokens" in done.stderr
    )
    again = tool(target, tmp_path / "x.gguf", *only, code=1)
    assert "prompts is" in again.stderr
    assert "give another --data" in again.stderr
    prompts.write_text(json.dumps(longest))
    none = tool(target, tmp_path / "y.gguf", *only, "--prompts", prompts, code=1)
    assert "none has 1 to 824 tokens" in none.stderr
    text = tmp_path / "prompts.txt"
    text.write_text("the inner")
    for path, more, message in (
        (text, (), "expected JSON lines"),
        (prompts, ("--answer-tokens", 1024), "leaves no room for --prompts"),
    ):
        refused = tool(target, tmp_path / "y.gguf", *only, "--prompts", path, *more, code=1)
        assert message in refused.stderr


@needs_torch
def test_what_lies_far_before_an_answer_is_left_out(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_data
    import draft_train

    def text(n_frame, n_answer):
        n = n_frame + n_answer
        part = np.repeat([draft_data.FRAME, draft_data.ANSWER], [n_frame, n_answer])
        top = np.zeros((n, draft_data.N_TOP))
        tokens = np.arange(n, dtype=np.int32)
        return draft_data.Text(tokens, part.astype(np.uint8), top.astype(np.int32), top)

    texts = [text(500, 40), text(10, 200), text(300, 0)]
    assert draft_train.n_learnt_from(texts, 64) == 64 + 40 + 210
    for seed in range(5):
        rng = np.random.default_rng(seed)
        found = [piece for group in draft_train.pieces(texts, 64, 256, rng) for piece in group]
        assert all(end <= len(text.tokens) for text, _, end in found)
        assert min(begin for text, begin, _ in found if text is texts[0]) >= 436
        assert not any(text is texts[2] for text, _, _ in found)
        seen = {i for text, begin, end in found if text is texts[0] for i in range(begin, end)}
        assert set(range(500, 540)) <= seen


@needs_torch
def test_bad_files_are_named(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    assert "broken.gguf" in tool(broken, tmp_path / "x.gguf", code=1).stderr
    target = write_target(tmp_path / "target.gguf")
    assert "no such folder" in tool(target, tmp_path / "no" / "x.gguf", code=2).stderr
    assert "overwrite its target" in tool(target, target, code=2).stderr
    assert not (tmp_path / "x.gguf").exists()


class Interrupting(io.StringIO):
    """Standard error of whom Ctrl-C is pressed for when the training has begun."""

    def write(self, text):
        n = super().write(text)
        if "training:" in text:
            signal.raise_signal(signal.SIGINT)
        return n


def terminated(*arguments):
    """The same with SIGTERM to a process of its own: exit code, what it said before, and after."""
    process = subprocess.Popen(
        [sys.executable, TOOL, *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "training:" in line:
            process.terminate()
            break
    try:
        rest = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    return process.returncode, lines, rest


LONG = ["--epochs", 10**5, "--minutes", 60]  # the last of an option counts


@needs_torch
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_training_is_saved_at_once(made, tmp_path, number):
    import torch

    target, first, _, _ = made
    data, out = first.with_name("draft.gguf.data"), tmp_path / "x.gguf"
    state = tmp_path / "x.gguf.state"
    steps = []
    # The first time there is nothing to resume; the second time it goes on.
    for _ in range(2 if number == signal.SIGINT else 1):
        arguments = (target, out, *SMALL, *LONG, "--data", data, "--resume")
        if number == signal.SIGINT:
            done = run_script(TOOL, *arguments, errors=Interrupting())
            code, lines, rest = done.returncode, done.stderr.splitlines(), done.stderr
        else:
            code, lines, rest = terminated(*arguments)
        assert code == 128 + number, rest
        assert "Traceback" not in rest
        assert "saved as" in rest
        assert rest.splitlines()[-1].startswith("make_draft.py: ")
        assert rest.splitlines()[-1].endswith("the same command with --resume goes on")
        assert any("nothing was saved yet, begins afresh" in line for line in lines) != bool(steps)
        steps.append(torch.load(state, weights_only=True)["n_steps"])
        assert sd.Model(out).info.hidden_size == 32
        assert {path.name for path in tmp_path.iterdir()} == {"x.gguf", "x.gguf.state"}
    assert 0 < steps[0] <= steps[-1]
    assert len(steps) == 1 or steps[0] < steps[1]


@needs_torch
def test_a_full_disk_is_one_message_and_spoils_nothing(made, tmp_path):
    target, first, _, _ = made
    for name, begin, what in (
        ("state", ["--data", first.with_name("draft.gguf.data")], "x.gguf.state"),
        ("texts", ["--data", tmp_path / "texts"], "round-00000.npz"),
    ):
        (tmp_path / "x.gguf").write_bytes(b"older")
        (tmp_path / "x.gguf.state").write_bytes(b"older")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            done = run_script(TOOL, target, tmp_path / "x.gguf", *SMALL, *begin)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert done.returncode == 1, name
        last = done.stderr.splitlines()[-1]
        assert last.startswith("make_draft.py: ")
        assert f"{what}: cannot be written: File too large" in last
        assert (tmp_path / "x.gguf").read_bytes() == b"older"
        assert (tmp_path / "x.gguf.state").read_bytes() == b"older"
        assert not list(tmp_path.rglob("*.partial"))


@needs_torch
def test_a_disk_that_has_room_for_the_draft_only_gets_it(made, tmp_path):
    target, first, _, _ = made
    out, state = tmp_path / "x.gguf", tmp_path / "x.gguf.state"
    state.write_bytes(b"older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = 2 * first.stat().st_size
    assert room < first.with_name("draft.gguf.state").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        data = ("--data", first.with_name("draft.gguf.data"), "--epochs", 0.5)
        done = tool(target, out, *SMALL, *data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = r"x\.gguf\.state: cannot be written: File too large.*; the file itself is written"
    assert re.search(text, done.stderr)
    assert "tokens per pass" in done.stdout
    assert sd.Model(out).info.hidden_size == 32
    assert state.read_bytes() == b"older"


@needs_torch
@pytest.mark.parametrize("part", [0.4, 0.7, 0.95, 0.999])
def test_a_draft_that_does_not_fit_is_never_cut_off(made, tmp_path, monkeypatch, part):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import torch

    import draft_gguf
    import draft_net
    from training_safety import NotSaved

    target, first, _, _ = made
    state = torch.load(first.with_name("draft.gguf.state"), weights_only=True)
    draft = draft_net.Draft(draft_net.DraftShape(**state["shape"]))
    draft.load_state_dict(state["draft"])
    path, parts = tmp_path / "x.gguf", (draft_gguf.Target(target), "q8_0", "draft")

    def write():
        draft_gguf.write_draft(draft, parts[0], path, *parts[1:])

    write()
    whole = path.read_bytes()
    path.write_bytes(b"older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(part * len(whole)), limits[1]))
    try:
        with pytest.raises(NotSaved, match=r"x\.gguf: cannot be written: File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@needs_torch
def test_a_damaged_round_is_named_and_written_again(made, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import numpy as np

    import draft_data
    import target_fingerprint
    from training_safety import ToolError

    target, first, _, _ = made
    data = tmp_path / "data"
    shutil.copytree(first.with_name("draft.gguf.data"), data)
    settings = {"seed": 0, "answer_tokens": 24}
    store = draft_data.Store(data, target_fingerprint.fingerprint(target), settings)
    path = data / "round-00000.npz"
    whole = path.read_bytes()
    for n_bytes in [0, 1, 30, *range(100, len(whole), len(whole) // 12), len(whole) - 1]:
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(ToolError, match=r"round-00000\.npz: cannot be read .* delete it"):
            list(store.load())
    path.write_bytes(whole)
    with np.load(path) as file:
        parts = {name: file[name] for name in file.files}
    for name, wrong in (
        ("tokens", parts["tokens"] + 10**6),
        ("top_ids", parts["top_ids"][:, :3]),
        ("lengths", parts["lengths"] + 1),
        ("part", parts["part"] + 7),
    ):
        np.savez_compressed(path, **parts | {name: wrong})
        with pytest.raises(ToolError, match="do not fit together"):
            list(store.load())
    path.unlink()
    assert store.next_round() == 0
    tool(target, tmp_path / "x.gguf", *SMALL, "--data", data, "--text-only")
    with np.load(path) as file:
        assert all(np.array_equal(file[name], parts[name]) for name in parts)


@needs_torch
def test_a_training_that_diverges_keeps_the_last_good_state(made, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import torch

    import draft_data
    import draft_job
    import draft_net
    import draft_train
    import target_fingerprint
    from training_safety import ToolError, check_finite

    target, first, _, _ = made
    settings = {"seed": 0, "answer_tokens": 24}
    data = first.with_name("draft.gguf.data")
    store = draft_data.Store(data, target_fingerprint.fingerprint(target), settings)
    texts = [text for _, text in store.load()]
    shape = draft_net.DraftShape(272, 32, 1, 2, 64)
    options = draft_train.TrainOptions(1, 1, n_common=64)
    trainer = draft_train.Trainer(draft_net.Draft(shape), texts, options)
    with torch.no_grad():
        trainer.draft.embedding[3] = float("nan")
    saved = []
    with pytest.raises(ToolError, match="diverged in step 1: the loss is nan"):
        trainer.run(lambda _: None, lambda: saved.append(1))
    assert not saved
    with pytest.raises(ToolError, match="no longer numbers"):
        check_finite(iter(trainer.draft.parameters()), "it")

    state = torch.load(first.with_name("draft.gguf.state"), weights_only=True)
    path = tmp_path / "x.state"
    for change in (
        lambda s: s.pop("optimizer"),
        lambda s: s["draft"].pop("embedding"),
        lambda s: s["draft"].update(embedding=torch.full((272, 32), float("nan"))),
        lambda s: s.update(n_steps="many"),
        lambda s: s.update(optimizer=[1]),
    ):
        broken = {**state, "draft": dict(state["draft"])}
        change(broken)
        torch.save(broken, path)
        trainer = draft_train.Trainer(draft_net.Draft(shape), texts, options)
        with pytest.raises(ToolError, match=r"is damaged|has diverged"):
            draft_job.begin(trainer, path, draft_job.load_state(path, shape))
    raw = first.with_name("draft.gguf.state").read_bytes()
    for n_bytes in (0, 10, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:n_bytes])
        with pytest.raises(ToolError, match=r"cannot be read .* train without --resume"):
            draft_job.load_state(path, shape)


SHIPPED = TOOL.parent.parent / "models" / "smollm2-135m-draft.q8_0.gguf"


@pytest.mark.skipif(not SHIPPED.exists(), reason="models/ is not there")
def test_the_shipped_draft_is_small_and_says_what_it_drafts():
    found = sd.inspect(SHIPPED)
    assert found.supported
    assert found.size_bytes <= 9e6
    assert found.metadata["general.license"] == "apache-2.0"
    assert found.metadata["specdec.draft.head_tokens"] == 16384


@pytest.mark.skipif(not SHIPPED.exists(), reason="models/ is not there")
def test_the_shipped_draft_drafts_for_smollm2():
    target = sd.Model(model_path("SmolLM2-135M-Instruct.Q4_1.gguf"))
    draft = sd.Model(SHIPPED)
    assert sd.check_pair(target, draft).identical
    questions = (
        "What are the advantages of reading books?",
        "Write a short story about a lost dog.",
        "Explain how photosynthesis works.",
    )
    drafted = accepted = 0
    for question in questions:
        messages = [{"role": "user", "content": question}]
        results = []
        for drafter in (None, sd.DraftModel(draft, gamma=2)):
            with sd.Decoder(target, drafter=drafter, n_ctx=512) as decoder:
                results.append(decoder.chat(messages, max_tokens=64))
        assert results[0].token_ids == results[1].token_ids
        drafted += results[1].stats.drafted_per_position[0]
        accepted += results[1].stats.accepted_per_position[0]
    # An untrained draft, or a damaged file, gets 0.000 right.
    assert accepted > 0.1 * drafted
