"""tools/make_draft.py on a small random target: what it writes, refuses and goes on with."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

import tiny_models
from helpers import model_path

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOL = pathlib.Path(__file__).resolve().parent.parent / "tools" / "make_draft.py"
SMALL = [
    *("--tokens", 3000, "--answer-tokens", 24, "--minutes", 1, "--epochs", 6, "--threads", 1),
    *("--hidden-size", 32, "--layers", 1, "--heads", 2, "--intermediate", 64),
    *("--batch-tokens", 512, "--learning-rate", 0.01, "--eval-count", 3, "--eval-tokens", 24),
]


def tool(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, TOOL, *map(str, arguments)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
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

    target, out, _, _ = made
    state = out.with_name("draft.gguf.state")
    shape = draft_net.DraftShape(272, 32, 1, 2, 64)
    assert draft_job.load_state(state, shape)["n_steps"] > 0
    with pytest.raises(SystemExit, match="give the same sizes"):
        draft_job.load_state(state, draft_net.DraftShape(272, 64, 1, 2, 64))
    broken = tmp_path / "broken.state"
    broken.write_bytes(b"not a state")
    with pytest.raises(SystemExit, match=r"broken\.state: cannot be read"):
        draft_job.load_state(broken, shape)
    with pytest.raises(SystemExit, match="nothing to resume"):
        draft_job.load_state(tmp_path / "none.state", shape)

    data, settings = out.with_name("draft.gguf.data"), {"seed": 0, "answer_tokens": 24}
    ours = draft_data.fingerprint(target)
    assert draft_data.Store(data, ours, settings).n_written() >= 3000
    other = draft_data.fingerprint(write_target(tmp_path / "other.gguf", arch="gptneox"))
    for wrong in ((other, settings), (ours, {**settings, "seed": 1})):
        with pytest.raises(SystemExit, match="another --data"):
            draft_data.Store(data, *wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(SystemExit, match="is not empty"):
        draft_data.Store(tmp_path / "full", ours, settings)
    half = tmp_path / "half"
    store = draft_data.Store(half, ours, settings)
    (half / "round-00000.npz").write_bytes(b"PK")
    with pytest.raises(SystemExit, match=r"round-00000\.npz: cannot be read"):
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
    ],
)
def test_bad_options_are_named(tmp_path, arguments, text):
    done = tool(tmp_path / "target.gguf", tmp_path / "x.gguf", *arguments, code=2)
    assert text in done.stderr


@needs_torch
def test_bad_files_are_named(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    assert "broken.gguf" in tool(broken, tmp_path / "x.gguf", code=1).stderr
    target = write_target(tmp_path / "target.gguf")
    assert "no such folder" in tool(target, tmp_path / "no" / "x.gguf", code=2).stderr
    assert "overwrite its target" in tool(target, target, code=2).stderr
    assert not (tmp_path / "x.gguf").exists()


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
