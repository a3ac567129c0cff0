"""Which layers go to a GPU, and the parts of its memory: arithmetic, no device needed."""

from __future__ import annotations

import random
from typing import Any

import pytest

from helpers import native

engine = native("engine")

GIB = 1 << 30
MIB = 1 << 20


def model(name: str, n_layers: int, layer: int, **more: int) -> dict[str, Any]:
    sizes = {"head": 100, "embedding": 0, "kv": 10, "work": 50, "n": -1, **more}
    return {"name": name, "layers": [layer] * n_layers, **sizes}


def plan(models: list[dict[str, Any]], budget: int, **room: int) -> Any:
    return engine.plan(models, free_bytes=8 * GIB, budget_bytes=budget, **room)


def layers(placement: Any) -> list[int]:
    return [m.n_gpu_layers for m in placement.models]


def test_draft_first_then_as_many_target_layers_as_fit():
    draft, target = model("draft", 2, 100), model("target", 10, 1000, work=200)
    whole = (2 * 110 + 100) + (10 * 1010 + 100) + 200
    assert layers(plan([draft, target], whole)) == [2, 10]
    assert layers(plan([draft, target], whole - 1)) == [2, 9]
    only_draft = 2 * 110 + 100 + 50
    assert layers(plan([draft, target], only_draft)) == [2, 0]
    assert layers(plan([draft, target], only_draft - 1)) == [1, 0]
    assert layers(plan([draft, target], 10)) == [0, 0]


def test_a_plan_never_exceeds_its_room_and_could_not_hold_one_layer_more():
    draw = random.Random(1)
    for _ in range(300):
        models = []
        for name in ("draft", "target"):
            m = model(name, draw.randint(1, 12), 0, head=draw.randint(0, 500),
                      kv=draw.randint(0, 100), work=draw.randint(0, 300))  # fmt: skip
            m["layers"] = [draw.randint(1, 400) for _ in m["layers"]]
            models.append(m)
        budget = draw.randint(1, 6000)
        used = draw.randint(0, 2000)
        used_work = draw.randint(0, used)
        found = plan(models, budget, used_bytes=used, used_work_bytes=used_work)
        assert found.room_bytes == max(budget - used, 0)
        assert found.total_bytes <= found.room_bytes
        for i, m in enumerate(models):
            n = found.models[i].n_gpu_layers
            if n == len(m["layers"]):
                continue
            bigger = [dict(x, n=found.models[j].n_gpu_layers) for j, x in enumerate(models[:i])]
            with pytest.raises(engine.Error, match="would fit"):
                plan([*bigger, dict(m, n=n + 1)], budget, used_bytes=used,
                     used_work_bytes=used_work)  # fmt: skip


def test_the_embedding_goes_with_all_layers_where_it_takes_little_of_what_is_left():
    draft, target = model("draft", 2, 100, embedding=40), model("target", 2, 300, embedding=70)
    draft_bytes, target_bytes = 2 * 110 + 100, 2 * 310 + 100
    both = draft_bytes + target_bytes + 50
    for budget, n_target, embeddings in (
        (both + 40 + 16 * 70, 2, [True, True]),
        (both + 40 + 16 * 70 - 1, 2, [True, False]),
        (both + 40, 2, [True, False]),
        (draft_bytes + 50 + 16 * 40 - 1, 1, [False, False]),
        (draft_bytes + 50 + 40, 0, [False, False]),
    ):
        found = plan([draft, target], budget)
        assert layers(found) == [2, n_target], budget
        assert [m.embedding for m in found.models] == embeddings
        assert found.total_bytes <= budget
    found = plan([draft], GIB)
    assert found.models[0].weight_bytes == 2 * 100 + 100 + 40
    assert "all 2 layers, the embedding and the head" in found.lines[0]
    # Asked for by number, layers need not leave room for it.
    assert not plan([dict(draft, n=2)], draft_bytes + 50).models[0].embedding
    # One that is the head costs nothing.
    assert plan([dict(draft, embedding=0)], draft_bytes + 50).models[0].embedding


def test_the_last_layers_and_the_head_are_what_goes():
    m = model("m", 3, 0, head=7, kv=0, work=0)
    m["layers"] = [1000, 20, 3]
    found = plan([m], 40).models[0]
    assert (found.n_gpu_layers, found.weight_bytes) == (2, 30)
    assert "layers 1 to 2 of 3" in plan([m], 40).lines[0]


def test_work_space_is_shared_and_counted_once():
    found = plan([model("a", 1, 10, work=300), model("b", 1, 10, work=200)], GIB)
    assert found.work_bytes == 300
    found = plan([model("a", 1, 10, work=300)], GIB, used_bytes=250, used_work_bytes=250)
    assert found.work_bytes == 50


def test_a_number_that_does_not_fit_is_refused_with_what_would():
    with pytest.raises(engine.Error, match=r"target: 5 of 10 layers .* 3 would fit") as caught:
        plan([model("target", 10, 100, n=5)], 3 * 110 + 100 + 50)
    assert caught.value.code == "resource"
    assert layers(plan([model("target", 10, 100, n=99)], GIB)) == [10]


def test_some_of_the_memory_is_left_to_others():
    margin = engine.device_margin_bytes(8 * GIB)
    assert 256 * MIB <= margin < GIB
    assert engine.plan([model("m", 1, 1)], free_bytes=8 * GIB).room_bytes == 8 * GIB - margin
    assert engine.device_margin_bytes(10) == 10
    assert layers(engine.plan([model("m", 1, 1)], free_bytes=0)) == [0]
    huge = 1 << 62
    with pytest.raises(engine.Error, match="cannot be placed"):
        engine.plan([model("m", 8, huge, n=8)], free_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("4GiB", 4 * GIB), ("1.5 G", GIB * 3 // 2), ("800MB", 800_000_000), ("12", 12), ("1kib", 1024),
     ("2T", 2 << 40), ("7 B", 7)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text, n_bytes):
    assert engine.parse_bytes("--vram-budget", text) == n_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "4 apples", "-1G", "0", "1e3", "4GiBs", "9999999T", "nan"]
)
def test_other_texts_are_refused_with_the_option(text):
    with pytest.raises(engine.Error, match="vram_budget"):
        engine.parse_bytes("vram_budget", text)


def test_parts_of_a_slab_never_overlap_and_merge_when_they_come_back():
    slab = engine.Slab()
    base = [(1 << 20, 64 * 256), ((1 << 20) + 64 * 256, 32 * 256)]  # side by side
    for at, n in base:
        slab.add(at, n)
    draw = random.Random(2)
    held: dict[int, int] = {}
    for _ in range(2000):
        if held and draw.random() < 0.5:
            at = draw.choice(list(held))
            slab.give_back(at, held.pop(at))
        else:
            n = draw.randint(1, 3000)
            at = slab.take(n)
            if at == 0:
                assert slab.largest_free < (n + 255) // 256 * 256
                continue
            assert at % 256 == 0
            end = at + (n + 255) // 256 * 256
            assert any(b <= at and end <= b + size for b, size in base)
            for other, size in held.items():
                assert end <= other or other + (size + 255) // 256 * 256 <= at
            held[at] = n
        used = sum((n + 255) // 256 * 256 for n in held.values())
        assert slab.free_bytes == 96 * 256 - used
    if held:
        assert not all(slab.remove(at, n) for at, n in base)
    for at, n in held.items():
        slab.give_back(at, n)
    assert slab.largest_free == 64 * 256
    assert all(slab.remove(at, n) for at, n in base)
    assert slab.free_bytes == 0
