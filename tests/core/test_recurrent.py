"""Recurrent layers go back: after any rollback the next rows have the bits of a fresh sequence."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import native
from tiny_models import TinyConfig

testing = native("model")

N_LOGGED = 64  # positions that a rollback reaches without help
N_LAYERS = 5
CONFIG = TinyConfig(arch="qwen35", n_layers=N_LAYERS, head_dim=32, n_rot=8, tied=True)
TEXT = [int(t) for t in np.random.default_rng(5).integers(0, 270, 700)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("recurrent") / "model.gguf"
    written = tiny_models.write_tiny(path, CONFIG, dtype="Q4_0", seed=9)
    return testing.Model(str(written), n_threads=1)


def bits(rows: np.ndarray) -> bytes:
    return np.ascontiguousarray(rows, dtype=np.float32).tobytes()


class Fresh:
    """Rows of TEXT in one pass each, and continuations of any prefix of it."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.sessions: dict[int, Any] = {}

    def after(self, n: int, tokens: list[int]) -> bytes:
        if n not in self.sessions:
            session = self.model.session(kv_type="f32")
            for at in range(0, n, 7):  # another cut than any test's
                session.forward(TEXT[at : min(n, at + 7)], output="none")
            self.sessions[n] = session
        return bits(self.sessions[n].fork().forward(tokens))


@pytest.fixture(scope="module")
def fresh(model: Any) -> Fresh:
    return Fresh(model)


def fed(model: Any, cuts: list[int], output: str = "logits") -> Any:
    session, at = model.session(kv_type="f32"), 0
    for n in cuts:
        session.forward(TEXT[at : at + n], output=output)
        at += n
    return session


# Ways to read 150 tokens: alone, in drafts, in one go, in a mixture.
WAYS = {
    "one by one": [1] * 150,
    "drafts": [7] * 20 + [10],
    "one pass": [150],
    "a text, then drafts": [100, 1, 9, 16, 1, 3, 20],
    "long drafts": [50, 63, 37],
}


@pytest.mark.parametrize("way", WAYS)
def test_rollbacks_of_every_length_equal_a_fresh_sequence(
    model: Any, fresh: Fresh, way: str
) -> None:
    session = fed(model, WAYS[way])
    n_far = 0
    for n in [*range(150, 110, -1), *range(110, -1, -7), 0]:
        back = session.fork()
        reached = back.reachable(n)
        assert 0 <= reached <= n
        n_far += reached < n
        back.truncate(reached)
        assert back.length == reached
        assert bits(back.forward([11, 12])) == fresh.after(reached, [11, 12]), n
    if way in ("one by one", "drafts"):  # the last draft can always be dropped, and more
        assert all(session.reachable(150 - n) == 150 - n for n in range(N_LOGGED // 2 - 10))
    if way == "one pass":  # whose outputs say that rows of it may be dropped
        assert n_far == 0


@pytest.mark.parametrize("n", [65, 200, 512, 690])
def test_a_long_text_is_gone_back_in_as_far_as_it_says(model: Any, fresh: Fresh, n: int) -> None:
    session = model.session(kv_type="f32")
    for at in range(0, n, 512):
        session.forward(TEXT[at : min(n, at + 512)], output="none")
    session.forward([3], output="none")
    assert session.reachable(n) == n  # where the last pass began
    for wanted in (n, n - 1, n - 40, n // 2, 1):
        back = session.fork()
        reached = back.reachable(wanted)
        if reached < wanted:
            with pytest.raises(testing.NativeError, match=rf"only to {reached}"):
                back.truncate(wanted)
            assert back.length == n + 1
        back.truncate(reached)
        assert bits(back.forward([11])) == fresh.after(reached, [11])
        back.forward(TEXT[reached : reached + 30], output="none")


@pytest.mark.parametrize("n_rows", [8, 100, 300])
def test_paths_of_trees_larger_than_what_is_usually_logged(
    model: Any, fresh: Fresh, n_rows: int
) -> None:
    rng = np.random.default_rng(n_rows)
    base = 70
    tree = fed(model, [base], "none")
    path = [3 * i for i in range(n_rows // 3)]  # every third row is the text's
    parents, tokens = [], []
    for row in range(n_rows):
        in_text = row in path
        parents.append(path[row // 3 - 1] if in_text and row >= 3 else -1)
        if not in_text:
            parents[-1] = int(rng.integers(-1, row))
        tokens.append(TEXT[base + row // 3] if in_text else int(rng.integers(0, 270)))
    tree.forward(tokens, parents=parents)
    for n in (len(path), 2, 1, 0):
        kept = tree.fork()
        kept.keep_path(base, path[:n])
        assert bits(kept.forward([11])) == fresh.after(base + n, [11])
        kept.truncate(base + n // 2)
        assert bits(kept.forward([11])) == fresh.after(base + n // 2, [11])


def test_forks_do_not_change_each_other(model: Any, fresh: Fresh) -> None:
    one = fed(model, [40, 1, 1])
    two = one.fork()
    one.forward(TEXT[42:80])
    two.forward([1, 2, 3])
    two.truncate(42)
    three = one.fork()
    three.truncate(50)
    assert bits(two.forward([11])) == fresh.after(42, [11])
    assert bits(one.forward([11])) == fresh.after(80, [11])
    assert bits(three.forward([11])) == fresh.after(50, [11])


BAD = 7  # a token after which the logits of `failing` are not finite


@pytest.fixture(scope="module")
def failing(tmp_path_factory: Any) -> Any:
    config = CONFIG
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    tensors = tiny_models.random_tensors(config, 9)
    embedding = np.array(tensors["token_embd.weight"])
    embedding[BAD] = np.inf
    tensors |= {"token_embd.weight": embedding, "output.weight": embedding.copy()}
    tensors["output.weight"][BAD] = 0
    path = tmp_path_factory.mktemp("failing") / "model.gguf"
    return testing.Model(str(tiny_models.write_gguf(path, keys, tensors)))


@pytest.mark.parametrize("base", [0, 5, 66, 200])
@pytest.mark.parametrize("n_rows", [1, 9, 64, 150])
def test_a_failed_pass_changes_nothing(failing: Any, base: int, n_rows: int) -> None:
    text = [t if t != BAD else 8 for t in TEXT]

    def read(n: int) -> Any:
        session = failing.session(kv_type="f32")
        if n:
            session.forward(text[:n], output="none")
        return session

    session = read(base)
    for output in ("logits", "none"):
        rows = [*text[300 : 300 + n_rows - 1], BAD]
        with pytest.raises(testing.NativeError, match="not finite"):
            session.forward(rows, first_output_row=n_rows - 1)
        if n_rows > 1:
            parents = [-1] * n_rows
            with pytest.raises(testing.NativeError, match="not finite"):
                session.forward(rows, parents=parents)
        with pytest.raises(testing.NativeError, match="cancel"):
            session.forward(rows, output=output, cancelled=True)
        assert session.length == base
    assert bits(session.forward(text[base : base + 3])) == bits(
        read(base).forward(text[base : base + 3])
    )


@pytest.mark.parametrize("n_layers", range(1, N_LAYERS))
@pytest.mark.parametrize("n_rows", [1, 5, 33, 100])
def test_a_pass_that_ended_in_some_layers_changes_nothing(
    model: Any, fresh: Fresh, n_layers: int, n_rows: int
) -> None:
    """As one that was cancelled there leaves the states of the layers."""
    for base in (0, 3, 90):
        session = fed(model, [base], "none") if base else model.session(kv_type="f32")
        for _ in range(2):
            session.forward([9] * n_rows, output="none", layers=(0, n_layers))
            session.truncate(base)
        assert bits(session.forward([11, 12])) == fresh.after(base, [11, 12])


@pytest.mark.parametrize("n_layers", [1, 3, 4])
def test_drafts_of_the_first_layers_are_continued_in_the_others(
    model: Any, fresh: Fresh, n_layers: int
) -> None:
    session, length = fed(model, [30], "none"), 30
    for n_draft, n_used in ((4, 4), (1, 1), (6, 2), (3, 0), (9, 9), (12, 5), (31, 31), (2, 1)):
        hidden = [
            session.forward([t], output="hidden", layers=(0, n_layers))
            for t in TEXT[length : length + n_draft]
        ]
        session.truncate(length + n_used)
        if n_used == 0:
            continue
        found = session.forward(
            TEXT[length : length + n_used],
            layers=(n_layers, -1),
            hidden=np.concatenate(hidden[:n_used]).ravel().tolist(),
            n_present=n_used,
        )
        expected = fed(model, [length], "none").forward(TEXT[length : length + n_used])
        assert bits(found) == bits(expected)
        length += n_used
        assert session.length == length
    assert bits(session.forward([11])) == fresh.after(length, [11])


def test_what_is_held_stays_bounded(model: Any) -> None:
    session = model.session(kv_type="f32", n_ctx=1024)
    assert session.cache_bytes == 0
    held = []
    for at in range(0, 690, 3):
        session.forward(TEXT[at : at + 3])
        pages = (session.length + 255) // 256
        held.append(session.cache_bytes - pages * 256 * model.kv_bytes_per_token("f32"))
    assert max(held) <= model.state_bytes
    assert held[-1] > 0.7 * model.state_bytes
    session.truncate(0)
    assert bits(session.forward(TEXT[:2])) == bits(model.session(kv_type="f32").forward(TEXT[:2]))


def test_states_count_in_the_budget_of_the_cache(model: Any) -> None:
    free = fed(model, [40], "none")
    session = model.session(kv_type="f32", budget_bytes=free.cache_bytes)
    session.forward(TEXT[:31])
    with pytest.raises(testing.NativeError, match="budget") as caught:
        session.forward(TEXT[31:160])
    assert caught.value.args[0] == "resource"
    assert session.length == 31
    assert bits(session.forward(TEXT[31:33])) == bits(fed(model, [31]).forward(TEXT[31:33]))


@pytest.mark.parametrize("dim", [16, 48, 64, 80, 128])
def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    dim: int, tmp_path: pathlib.Path
) -> None:
    config = TinyConfig(arch="qwen35", n_layers=4, head_dim=32, n_rot=8, recurrent_dim=dim)
    path = tiny_models.write_tiny(tmp_path / "model.gguf", config, dtype="F32", seed=dim)
    found = set()
    for isa in [*testing.cpu_isas(), "cpu"]:
        session = testing.Model(str(path), backend=isa, n_threads=1 + (isa == "cpu")).session()
        rows = [session.forward(TEXT[:20]), session.forward([1, 2, 3], parents=[-1, 0, 0])]
        found.add(bits(np.concatenate(rows)))
    assert len(found) == 1
    reference = testing.Model(str(path), backend="reference").session()
    expected = reference.forward(TEXT[:20])
    assert np.abs(rows[0] - expected).max() < 1e-4
    assert np.abs(rows[1] - reference.forward([1, 2, 3], parents=[-1, 0, 0])).max() < 1e-4


def test_blocks_that_predict_further_tokens_are_left_out(tmp_path: pathlib.Path) -> None:
    keys = tiny_models.metadata(CONFIG) | tiny_models.byte_tokenizer(CONFIG.vocab_size)
    tensors = tiny_models.random_tensors(CONFIG, 1)
    plain = tiny_models.write_gguf(tmp_path / "plain.gguf", keys, tensors)
    keys |= {"qwen35.block_count": N_LAYERS + 1, "qwen35.nextn_predict_layers": 1}
    more = {f"blk.{N_LAYERS}.nextn.eh_proj.weight": np.ones((64, 128), np.float32)}
    path = tiny_models.write_gguf(tmp_path / "more.gguf", keys, tensors | more)
    model = testing.Model(str(path))
    assert model.config["n_layers"] == N_LAYERS
    assert model.progress[-1][0] == model.progress[-1][1]
    expected = testing.Model(str(plain)).session().forward(TEXT[:9])
    assert bits(model.session().forward(TEXT[:9])) == bits(expected)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 1, 1, 0, 1]),
        ({"full_attention_interval": 2}, [1, 0, 1, 0, 1]),
        ({"full_attention_interval": 2, "attention.recurrent_layers": [0, 1, 1, 0, 0]}, None),
    ],
)
def test_which_layers_are_recurrent(
    keys: dict[str, Any], expected: list[int] | None, tmp_path: pathlib.Path
) -> None:
    tensors = tiny_models.random_tensors(CONFIG, 1)
    metadata = tiny_models.metadata(CONFIG) | {f"qwen35.{key}": v for key, v in keys.items()}
    wanted = [bool(v) for v in expected or keys["attention.recurrent_layers"]]
    of = {layer: [n for n in tensors if n.startswith(f"blk.{layer}.")] for layer in (0, 3)}
    renamed = {}
    for layer, is_recurrent in enumerate(wanted):
        for name in of[0 if is_recurrent else 3]:
            renamed[f"blk.{layer}.{name.split('.', 2)[2]}"] = tensors[name]
    rest = {name: t for name, t in tensors.items() if not name.startswith("blk.")}
    path = tiny_models.write_gguf(tmp_path / "model.gguf", metadata, rest | renamed)
    assert testing.read_config(str(path))[0]["recurrent"] == wanted


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ssm.state_size", 24, "ssm.state_size"),
        ("ssm.inner_size", 97, "ssm.inner_size"),
        ("ssm.group_count", 4, "ssm.time_step_rank"),
        ("ssm.conv_kernel", 9, "ssm.conv_kernel"),
        ("full_attention_interval", 100, "without a layer of attention"),
        ("rope.dimension_sections", [1, 1, 1, 0], "dimension_sections"),
        ("attention.recurrent_layers", [1, 0], "recurrent_layers"),
    ],
)
def test_odd_sizes_are_refused(key: str, value: Any, message: str, tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "model.gguf", CONFIG, extra={f"qwen35.{key}": value})
    with pytest.raises(testing.NativeError, match=message):
        testing.read_config(str(path))


def test_devices_without_recurrent_layers_refuse_them(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "model.gguf", CONFIG)
    with pytest.raises(testing.NativeError, match="device 'cpu'") as caught:
        testing.Model(str(path), backend="emulated", n_device_layers=2)
    assert caught.value.args[0] == "unsupported"
