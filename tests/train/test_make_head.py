"""tools/make_head.py on a small random target: what it writes, refuses and goes on with."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import re
import shlex

import numpy as np
import pytest

import eagle_reference
import tiny_models
from in_process import run_script

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "make_head.py"
SMALL = [
    *("--tokens", 3000, "--answer-tokens", 24, "--minutes", 1, "--epochs", 8, "--threads", 1),
    *("--batch-tokens", 512, "--learning-rate", 0.003, "--depth", 3, "--draft-tokens", 160),
]
OF_A_HEAD = SMALL[:-2]  # with --init, whose head says how many


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))


def tool(*arguments, code=0):
    done = run_script(TOOL, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write_target(path, n_layers=4, **changes):
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}<a>"
    config = tiny_models.TinyConfig(context_length=1024, n_layers=n_layers, **changes)
    keys = {"tokenizer.chat_template": template}
    return tiny_models.write_tiny(path, config, dtype="Q8_0", seed=1, extra=keys)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A head for a chat model, and what the tool reported."""
    folder = tmp_path_factory.mktemp("head")
    target, out = write_target(folder / "target.gguf"), folder / "head.gguf"
    report, prompts = folder / "report.json", folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "the inner"}\n{"turns": ["in the", "b"]}\n')
    measured = ["--report", report, "--eval", prompts, "--eval-tokens", 24, "--eval-count", 3]
    done = tool(target, out, *SMALL, "--output-type", "q4_0", *measured)
    return target, out, done, json.loads(report.read_text())


def small_shape():
    import head_net

    return head_net.HeadShape((1, 2, 3), 64, 4, 2, 16, 96, 160)


def reference_of(head, ids, embedding):
    """The NumPy head with the same weights."""
    shape = head.shape
    config = eagle_reference.EagleConfig(
        shape.target_layers,
        draft_vocab_size=shape.n_draft,
        rope_theta=shape.rope_theta,
        norm_epsilon=shape.epsilon,
    )
    tensors = {name: t.detach().numpy() for name, t in head.tensors().items()}
    target = {"token_embd.weight": embedding.numpy()}
    return eagle_reference.Head(config, tensors | {"d2t": ids.numpy()}, target)


@needs_torch
def test_the_unrolled_pass_is_what_drafting_computes():
    """Row t of step s: the prompt's rows to t with the target's taps, then s of its own."""
    import torch

    import head_net

    torch.manual_seed(0)
    shape = small_shape()
    head = head_net.Head(shape)
    with torch.no_grad():
        head.tap_scale.uniform_(0.5, 4)
    embedding, ids = torch.randn(272, 64), torch.arange(50, 210)
    reference = reference_of(head, ids, embedding)
    n, n_steps = 7, 4
    tokens = torch.randint(0, 272, (1, n + n_steps - 1))
    taps = 2 * torch.randn(1, n, 3 * 64)
    with torch.no_grad():
        steps = head.unroll(embedding[tokens], taps, n_steps)
    for t in range(n):
        cache = eagle_reference.Cache(reference.config)
        out, laws = reference.ingest(cache, tokens[0, : t + 1].numpy(), taps[0, : t + 1].numpy())
        for step in range(n_steps):
            if step > 0:
                out, laws = reference.rows(
                    cache, tokens[0, t + step : t + step + 1].numpy(), out[-1:], [t + step]
                )
            ours = (steps[step][0, t] @ head.output.T).detach().numpy()
            assert np.abs(ours - laws[-1]).max() < 1e-4, (t, step)


@needs_torch
def test_rows_that_nobody_reads_are_left_out_and_change_nothing():
    import torch

    import head_net

    torch.manual_seed(0)
    head = head_net.Head(small_shape())
    n, n_steps = 9, 3
    embedded, taps = torch.randn(2, n + n_steps - 1, 64), torch.randn(2, n, 3 * 64)
    wanted = torch.tensor([4, 5, 8, 9 + 3])
    found = []
    for rows in (None, wanted):
        head.zero_grad()
        steps = head.unroll(embedded, taps, n_steps, rows)
        read = torch.stack([step.flatten(0, 1)[wanted] for step in steps])
        (read**2).sum().backward()
        grads = {name: p.grad.clone() for name, p in head.named_parameters() if name != "output"}
        found.append((read.detach(), grads))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
    for name, whole in found[0][1].items():
        assert whole.norm() > 0, name
        assert (whole - found[1][1][name]).norm() <= 1e-4 * whole.norm(), name


@needs_torch
def test_a_narrower_head_begins_with_the_strongest_part_of_the_target(tmp_path):
    import torch

    import head_train

    gate, up, down = (torch.ones(6, 4), torch.ones(6, 4), torch.ones(4, 6))
    gate[1] *= 9
    up[4] *= 5
    down[:, 5] *= 0.1
    found = head_train.strongest(gate * torch.arange(1, 5), up, down, 2)
    assert [part.shape for part in found] == [(2, 4), (2, 4), (4, 2)]
    assert found[0][0, 0] == 9
    assert found[1][1, 0] == 5
    assert head_train.strongest(gate, up, down, 9)[0].shape == (6, 4)


@needs_torch
def test_only_rows_with_something_to_learn_are_wanted():
    import head_data
    import head_train

    part = np.array([0, 0, 0, 0, 0, 2, 2, 0, 0, 0], np.uint8)
    text = head_data.TappedText(
        np.arange(10, dtype=np.int32),
        part,
        np.tile(np.arange(8, dtype=np.int32), (10, 1)),
        np.full((10, 8), -2, np.float16),
        taps=np.zeros((10, 6), np.int16),
    )
    batch = head_train.HeadBatch([(text, 0, 10)], 3, np.random.default_rng(0))
    # Position 5 is drafted by rows 3, 2 and 1, position 6 by 4, 3 and 2.
    assert batch.wanted().tolist() == [1, 2, 3, 4]


@needs_torch
def test_windows_of_which_the_head_can_say_nothing_are_left_out():
    import torch

    import head_data
    import head_net
    import head_train
    from training_safety import ToolError

    def text(best):
        return head_data.TappedText(
            np.arange(10, dtype=np.int32),
            np.full(10, head_train.ANSWER, np.uint8),
            np.full((10, 8), best, np.int32),
            np.full((10, 8), -2, np.float16),
            taps=np.ones((10, 3 * 64), np.int16),
        )

    def trainer(*texts):
        head = head_net.Head(small_shape())
        options = head_train.HeadOptions(1, 2, batch_tokens=12, n_steps=2, n_common=16)
        ids = torch.arange(160)
        return head_train.HeadTrainer(head, torch.ones(400, 64), ids, texts, options)

    both = trainer(text(300), text(3))
    assert [batch.top_ids[0, 0].item() for batch in both.batches()] == [3]
    both.run(lambda line: None, lambda: None)
    assert both.n_steps > 0
    with pytest.raises(ToolError, match="nothing that can be learnt"):
        trainer(text(300)).run(lambda line: None, lambda: None)


@needs_torch
def test_the_file_has_the_layout_of_heads(made):
    import gguf

    target, out, _, _ = made
    reader = gguf.GGUFReader(out)
    kinds = {t.name: (t.tensor_type.name, t.shape.tolist()) for t in reader.tensors}
    config = eagle_reference.EagleConfig((1, 2, 3))
    tiny = tiny_models.TinyConfig(n_layers=4)
    example = eagle_reference.write_eagle3(out.with_name("example.gguf"), config, tiny)
    assert {t.name: t.shape.tolist() for t in gguf.GGUFReader(example).tensors} == {
        name: shape for name, (_, shape) in kinds.items()
    }
    assert kinds["output.weight"][0] == "Q4_0"
    assert kinds["fc.weight"][0] == kinds["blk.0.ffn_down.weight"][0] == "Q8_0"
    assert kinds["d2t"] == ("I64", [160])
    assert kinds["blk.0.attn_norm_2.weight"][0] == "F32"
    values = {name: field.contents() for name, field in reader.fields.items()}
    for key, value in eagle_reference.metadata(config).items():
        if not key.startswith("general."):
            assert values[key] == pytest.approx(value), key
    theirs = gguf.GGUFReader(target).fields
    for name in [name for name in theirs if name.startswith("tokenizer.")]:
        assert values[name] == theirs[name].contents()


@needs_torch
def test_the_head_learnt_something(made):
    _, out, done, report = made
    before, after = report["before"], report["after"]
    assert after["loss"] < before["loss"] - 0.1
    assert after["agreement"] > before["agreement"] + 0.05
    assert after["rounds"] > 50
    assert sorted(after["accepted"], reverse=True) == after["accepted"]
    assert after["tokens_per_pass"] == pytest.approx(1 + sum(after["accepted"]))
    assert "accepted at position 3" in done.stdout
    assert set(report["prompts"]) == {"held-out texts", "prompts.jsonl"}
    for found in report["prompts"].values():
        assert set(found) == {"n_prompts", "n-gram", "untrained", "trained", "speed"}
        assert len(found["trained"]["by_position"]) == 4
    assert "auto without the draft" in done.stdout
    card = out.with_suffix(".md").read_text()
    assert (
        f"| accepted at position 1 | {before['accepted'][0]:.3f} | {after['accepted'][0]:.3f} |"
        in card
    )


@needs_torch
def test_the_command_of_the_card_has_all_that_makes_the_head(made):
    import make_head

    target, out, _, report = made
    (command,) = re.findall(
        r"^python tools/make_head\.py (.*)$", out.with_suffix(".md").read_text(), re.MULTILINE
    )
    parse = make_head.make_parser().parse_args
    told, given = parse(shlex.split(command)), parse(["t", "o", *map(str, SMALL)])
    assert (told.target.name, told.out.name) == (target.name, out.name)
    assert told.tokens == report["written_tokens"]
    assert (told.minutes, told.output_type, told.threads) == (1, "q4_0", None)
    made_of = vars(given).keys() - {"target", "out", "tokens", "minutes", "output_type", "threads"}
    assert {name: getattr(told, name) for name in made_of} == {
        name: getattr(given, name) for name in made_of
    }


@needs_torch
@pytest.mark.parametrize(
    "options",
    [
        ["--layers", "0", "2", "4", "--seed", "7", "--name", "a head"],
        ["--context", "99", "--vocab-subset", "50", "--epochs", "2.5", "--precision", "f32"],
        ["--prompts", "mine.jsonl", "--text-minutes", "9", "--parallel", "3"],
        ["--intermediate", "64", "--learning-rate", "8e-4", "--batch-tokens", "1024"],
        [],
    ],
)
def test_options_that_are_not_the_default_are_in_the_command(options):
    import head_card
    import make_head

    parse = make_head.make_parser().parse_args
    given = parse(["t.gguf", "o.gguf", "--output-type", "q4_0", *options])
    report = {"written_tokens": given.tokens, "training_minutes": given.minutes}
    shape = small_shape()
    given.draft_tokens = shape.n_draft
    command = head_card._command(report, given, shape).partition("make_head.py ")[2]
    assert vars(parse(shlex.split(command))) == vars(given)
    named = {word for word in command.split() if word.startswith("--")}
    assert len(named) == 7 + sum(word.startswith("--") for word in options)


@needs_torch
def test_acceptance_is_what_greedy_decoding_with_the_head_would_have(made):
    """Counted one round at a time with the NumPy head and the target's own text."""
    import gguf
    import torch

    import draft_data
    import draft_train
    import head_data
    import head_net
    import head_train
    import target_fingerprint

    target, out, _, _ = made
    state = torch.load(out.with_name("head.gguf.state"), weights_only=True)
    shape = head_net.HeadShape(**state["shape"])
    head = head_net.Head(shape)
    head.load_state_dict(state["head"])
    model = sd.Model(target)
    data = out.with_name("head.gguf.data")
    store = draft_data.Store(
        data, target_fingerprint.fingerprint(target), {"seed": 0, "answer_tokens": 24}
    )
    _, held_out = draft_train.split(head_data.Taps(model, store, (1, 2, 3)).load(print))
    table = next(t for t in gguf.GGUFReader(target).tensors if t.name == "token_embd.weight")
    embedding = torch.from_numpy(gguf.quants.dequantize(table.data, table.tensor_type))
    texts = [text for text in held_out if len(text.tokens) < 200][:3]
    found = head_train.evaluate(head, embedding, state["ids"], texts, n_steps=3, max_rounds=10**9)

    reference = reference_of(head, state["ids"], embedding)
    counts, n = np.zeros(3), 0
    for text in texts:
        best = text.top_ids[:, 0]
        taps = head_data.from_bits(np.array(text.taps)).numpy()
        p = 2
        while p < len(text.tokens) - 2:
            said = (best[p : p + 2] == text.tokens[p : p + 2]).all()
            if not said or (text.part[p : p + 3] != draft_data.ANSWER).any():
                p += 1
                continue
            cache = eagle_reference.Cache(reference.config)
            hidden, laws = reference.ingest(cache, text.tokens[1:p], taps[: p - 1])
            ids, _ = reference.chain(cache, hidden[-1], laws[-1], 3)
            right = np.cumprod(np.array(ids) == best[p : p + 3])
            counts += right
            n += 1
            p += 1 + right.sum()
    assert n == found["rounds"] > 10
    assert found["accepted"] == pytest.approx((counts / n).tolist(), abs=1e-6)


@needs_torch
def test_training_goes_on_with_the_same_ids(made, tmp_path):
    import torch

    target, first, _, report = made
    data, out = first.with_name("head.gguf.data"), tmp_path / "again.gguf"
    (tmp_path / "again.gguf.state").write_bytes(first.with_name("head.gguf.state").read_bytes())
    longer = [*SMALL, "--epochs", 9, "--data", data, "--resume", "--report", tmp_path / "r.json"]
    done = tool(target, out, *longer)
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["epochs"] >= report["epochs"]
    assert "taps: round" not in done.stderr  # those that are there are used
    states = [
        torch.load(path.with_name(path.name + ".state"), weights_only=True) for path in (first, out)
    ]
    assert torch.equal(states[0]["ids"], states[1]["ids"])
    wrong = tool(target, out, *SMALL, "--draft-tokens", 128, "--data", data, "--resume", code=1)
    assert "give the same sizes, or do not --resume" in wrong.stderr


@needs_torch
@pytest.mark.parametrize(
    "wrong", ["two", "few", "many", "float", "beyond", "twice", "list", "none"]
)
def test_states_with_other_ids_are_refused(made, tmp_path, wrong):
    import torch

    target, first, _, _ = made
    out, data = tmp_path / "x.gguf", first.with_name("head.gguf.data")
    state = torch.load(first.with_name("head.gguf.state"), weights_only=True)
    ids = state["ids"]
    state["ids"] = {
        "two": ids[None],
        "few": ids[:-1],
        "many": torch.cat((ids, ids[-1:] + 1)),
        "float": ids.float(),
        "beyond": ids + 272,
        "twice": torch.cat((ids[:1], ids[:-1])),
        "list": ids.tolist(),
    }.get(wrong)
    torch.save(state, tmp_path / "x.gguf.state")
    done = tool(target, out, *SMALL, "--data", data, "--resume", code=1)
    last = done.stderr.splitlines()[-1]
    assert re.search(r"x\.gguf\.state: is damaged .*ids are not 160 of 272, ascending", last)
    assert not out.exists()


@needs_torch
def test_layers_that_the_target_has_not_are_refused_before_text_is_written(tmp_path):
    target = write_target(tmp_path / "target.gguf")
    done = tool(target, tmp_path / "head.gguf", *SMALL, "--layers", 1, 2, 5, code=1)
    assert re.search(r"--layers 1 2 5: .*target\.gguf has 4 layers, .* up to 4, got 5", done.stderr)
    assert list(tmp_path.iterdir()) == [target]


@needs_torch
@pytest.mark.parametrize("at_once", [None, 1])
def test_taps_of_writing_are_those_of_reading(made, tmp_path, monkeypatch, at_once):
    import draft_data
    import head_data
    import target_fingerprint

    target = made[0]
    if at_once is not None:
        monkeypatch.setattr(draft_data, "STATES_AT_ONCE", at_once)
    with sd.Model(target) as model:
        settings = {"seed": 3, "answer_tokens": 24}
        store = draft_data.Store(
            tmp_path / "data", target_fingerprint.fingerprint(target), settings
        )
        written = head_data.Taps(model, store, (1, 2, 3))
        writer = draft_data.Writer(model, n_parallel=4, layers=written.layers, **settings)
        arguments = {"n_tokens": 1, "deadline": 0.0, "progress": print}
        draft_data.generate(writer, store, **arguments, keep_states=written.keep)
        before = written.load(pytest.fail)  # reads nothing anew
        (written.folder / "round-00000.npy").unlink()
        after = written.load(print)
        fresh = draft_data.Writer(model, n_parallel=16, **settings).round(0)
    assert len(before) == len(after) == len(fresh) > 10
    for (_, kept), (_, read), built in zip(before, after, fresh, strict=True):
        assert built.tokens == kept.tokens.tolist()
        assert built.states is None
        np.testing.assert_array_equal(kept.taps[:-1], read.taps[:-1])
        assert read.taps.any()


@needs_torch
def test_taps_are_read_in_the_context_that_the_text_was_written_in(tmp_path):
    """Longrope tells contexts apart in which the same short text may stand."""
    import draft_data
    import head_data
    import target_fingerprint

    config = tiny_models.TinyConfig(arch="phi3", n_rot=12, n_layers=4)  # 64 at first
    target = tiny_models.write_tiny(tmp_path / "target.gguf", config)
    with sd.Model(target) as model:
        settings = {"seed": 3, "answer_tokens": 24}
        made_for = target_fingerprint.fingerprint(target)
        store = draft_data.Store(tmp_path / "data", made_for, settings)
        taps = head_data.Taps(model, store, (1, 2, 3))
        writer = draft_data.Writer(model, n_parallel=4, layers=taps.layers, **settings)
        draft_data.generate(writer, store, n_tokens=1, deadline=0.0, progress=print)
        assert store.n_ctx == writer.n_ctx > 64
        text = np.arange(97, 117)
        expected = model.hidden_states(text.tolist(), taps.layers, n_ctx=writer.n_ctx)
        found = taps.of_text(text)
        store.n_ctx = 64
        assert not np.array_equal(taps.of_text(text), found)
    numbers = np.asarray(expected).reshape(len(text), -1)
    np.testing.assert_array_equal(draft_data.bfloat16_bits(numbers), found)


def test_bfloat16_bits_are_those_of_torch(monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import draft_data

    values = np.random.default_rng(0).standard_normal(10000).astype(np.float32) * 1e3
    values[:4] = [0.0, -0.0, 1.00390625, 1.01171875]  # the last two lie in the middle
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    np.testing.assert_array_equal(draft_data.bfloat16_bits(values), expected)


@needs_torch
def test_damaged_taps_are_named(made, tmp_path):
    import draft_data
    import head_data
    import target_fingerprint
    from training_safety import ToolError

    target, out, _, _ = made
    model = sd.Model(target)
    store = draft_data.Store(
        out.with_name("head.gguf.data"),
        target_fingerprint.fingerprint(target),
        {"seed": 0, "answer_tokens": 24},
    )
    taps = head_data.Taps(model, store, (1, 2, 3))
    whole = (taps.folder / "round-00000.npy").read_bytes()
    n = len(np.load(taps.folder / "round-00000.npy"))
    path = tmp_path / "round-00000.npy"
    for content in (b"", b"nonsense", whole[: len(whole) // 2], whole[:100]):
        path.write_bytes(content)
        with pytest.raises(ToolError, match=r"round-00000\.npy: cannot be read .* delete it"):
            taps.read(path, n)
    path.write_bytes(whole)
    with pytest.raises(ToolError, match="expected int16"):
        taps.read(path, n + 1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--layers", 3, 2, 9], "three ascending numbers from 0, got 3 2 9"),
        (["--draft-tokens", 3], "--draft-tokens must be 16 to"),
        (["--depth", 0], "--depth must be 1 to 16, got 0"),
        (["--intermediate", 3], "--intermediate must be 16 to"),
        (["--outtype", "q3_k"], "invalid choice"),
        (["--report", "x.md"], "--report and its card are both|its card and --report are both"),
        (["--learning-rate", "nan"], "--learning-rate must be above 0"),
    ],
)
def test_bad_options_are_named(tmp_path, arguments, text, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tool("target.gguf", "x.gguf", *arguments, code=2)
    assert re.search(text, done.stderr.replace("\n", " ")), done.stderr
    assert list(tmp_path.iterdir()) == []


@needs_torch
def test_targets_without_three_layers_are_refused(tmp_path):
    target = write_target(tmp_path / "target.gguf", n_layers=2)
    done = tool(target, tmp_path / "x.gguf", *SMALL, code=1)
    assert "the target has 2 layers: a head needs three" in done.stderr


def write_state_of_other_ids(head, path):
    import torch

    state = torch.load(head.with_name(head.name + ".state"), weights_only=True)
    whole = torch.arange(272)
    others = whole[~torch.isin(whole, state["ids"])]
    state["ids"] = torch.cat((state["ids"][1:], others[:1])).sort().values
    torch.save(state, path)
    return path


@needs_torch
def test_begins_with_a_head_that_exists(made, tmp_path):
    import head_init
    from draft_gguf import Target

    target, old, _, _ = made
    data = old.with_name(old.name + ".data")
    new = tmp_path / "new.gguf"
    still = ["--data", data, "--minutes", 1, "--epochs", 0.01, "--learning-rate", 1e-9]
    still += ["--report", tmp_path / "report.json"]
    tool(target, new, "--init", old, *OF_A_HEAD, *still, "--output-type", "q4_0")
    report = json.loads((tmp_path / "report.json").read_text())
    # What is compared with is the head that it began with, which has learnt something.
    assert report["before"]["loss"] == pytest.approx(report["after"]["loss"], rel=1e-4)
    assert report["before"]["loss"] < made[3]["before"]["loss"] - 0.1
    assert report["prompts"]["held-out texts"]["untrained"]["acceptance"] > 0
    other_ids = write_state_of_other_ids(old, tmp_path / "other.gguf.state")
    done = tool(
        target, tmp_path / "other.gguf", "--init", old, *OF_A_HEAD, *still, "--resume", code=1
    )
    assert f"{other_ids}: drafts other ids than --init {old}" in done.stderr
    assert "--draft-tokens" not in new.with_suffix(".md").read_text()
    before, after = Target(old), Target(new)
    assert set(before.tensors) == set(after.tensors)
    for name in before.tensors:
        if name != "d2t":  # q4_0 of q4_0 is not always the same
            rtol = 0.3 if name == "output.weight" else 0.02
            was, now = before.tensor(name), after.tensor(name)
            assert (was - now).abs().max() <= rtol * was.abs().max(), name
    assert np.array_equal(before.tensors["d2t"].data, after.tensors["d2t"].data)
    other = Target(write_target(tmp_path / "wide.gguf", hidden_size=96, n_heads=6))
    with pytest.raises(head_init.ToolError, match=r"has width 64.*expected 96"):
        head_init.FirstHead(old, other)
    with pytest.raises(head_init.ToolError, match="architecture 'llama', expected 'eagle3'"):
        head_init.FirstHead(target, Target(target))
    for option in (["--layers", 0, 1, 2], ["--draft-tokens", 99], ["--intermediate", 96]):
        done = tool(target, new, "--init", old, *option, code=2)
        assert f"{option[0]} is of --init's head" in done.stderr
    done = tool(target, old, "--init", old, code=2)
    assert "are both" in done.stderr


def test_as_many_ids_as_documented_are_drafted_unless_one_says_otherwise():
    import make_head

    parser = make_head.make_parser()
    assert "it drafts; default: 16384" in " ".join(parser.format_help().split())
    for given, n in (([], 16384), (["--draft-tokens", "99"], 99)):
        args = parser.parse_args(["t.gguf", "o.gguf", *given])
        make_head.check(parser, args)
        assert args.draft_tokens == n


def test_a_head_reads_three_layers_ascending():
    from training_options import are_head_layers

    assert are_head_layers([0, 1, 2])
    assert are_head_layers((2, 15, 29))
    for layers in ([], [1, 2], [1, 2, 3, 4], [-1, 2, 3], [2, 2, 3], [1, 3, 2]):
        assert not are_head_layers(layers)


BAD_HEADS = {
    "beyond the target": ({"target_layers": (1, 2, 5)}, {}, "layers 1 2 5; .* up to 4"),
    "descending": ({"target_layers": (3, 2, 1)}, {}, "layers 3 2 1; .* ascending"),
    "missing": ({}, {"blk.0.ffn_up.weight": None}, "has no tensor blk.0.ffn_up.weight"),
    "shape": (
        {},
        {"fc.weight": np.zeros((64, 64), np.float32)},
        r"tensor fc.weight of \[64, 64\], expected \[64, 192\]",
    ),
    "no number": (
        {},
        {"output_norm.weight": np.full(64, np.nan, np.float32)},
        "has weights that are no numbers",
    ),
}


@needs_torch
@pytest.mark.parametrize(("changes", "tensors", "text"), BAD_HEADS.values(), ids=BAD_HEADS)
def test_heads_that_do_not_fit_are_refused_before_text_is_written(tmp_path, changes, tensors, text):
    tiny = tiny_models.TinyConfig(n_layers=4)
    config = eagle_reference.EagleConfig(**{"target_layers": (1, 2, 3), **changes})
    changed = eagle_reference.random_tensors(config) | tensors
    whole = {name: values for name, values in changed.items() if values is not None}
    old = eagle_reference.write_eagle3(tmp_path / "old.gguf", config, tiny, tensors=whole)
    target = write_target(tmp_path / "target.gguf")
    before = sorted(tmp_path.iterdir())
    done = tool(target, tmp_path / "new.gguf", "--init", old, *OF_A_HEAD, code=1)
    assert re.search(f"--init .*old.gguf: .*{text}", done.stderr), done.stderr
    assert sorted(tmp_path.iterdir()) == before
