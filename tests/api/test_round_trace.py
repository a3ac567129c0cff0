"""What $SPECDEC_ROUND_TRACE writes down, and what tools/simulate_rounds.py makes of it."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))

PROMPT = "the cat in the hat the cat in the hat the cat in the "


def record(path, monkeypatch, tiny, draft, n_texts=1, **options):
    monkeypatch.setenv("SPECDEC_ROUND_TRACE", str(path))
    with sd.Decoder(
        tiny, draft=draft, drafter="ngram,suffix,recycling,model", n_ctx=1024
    ) as decoder:
        for _ in range(n_texts):
            result = decoder.generate(PROMPT, max_tokens=40, ignore_eos=False, **options)
    monkeypatch.delenv("SPECDEC_ROUND_TRACE")
    return result


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "seed": 3}], ids=["greedy", "0.8"])
def test_a_trace_asks_every_drafter_behind_every_token(
    tiny, tiny_draft, tmp_path, monkeypatch, sampling
):
    path = tmp_path / "trace.jsonl"
    result = record(path, monkeypatch, tiny, tiny_draft, n_texts=2, **sampling)
    with sd.Decoder(tiny, drafter=None, n_ctx=1024) as decoder:
        plain = decoder.generate(PROMPT, max_tokens=40, **sampling)
    assert result.token_ids == plain.token_ids
    assert result.stats.rounds == 0

    lines = lines_of(path)
    heads = [i for i, line in enumerate(lines) if "request" in line]
    assert len(heads) == 2
    assert heads[0] == 0
    head = lines[0]["request"]
    assert head["temperature"] == pytest.approx(sampling.get("temperature", 0.0))
    assert head["target_ms"][0][0] == 1
    assert set(head["draft_ms"]) == {"model"}
    passes = lines[heads[1] + 1 :]
    assert [t for p in passes for t in p["next"]] == list(plain.token_ids)
    assert [p["n"] for p in passes] == list(range(head["n_prompt"], head["n_prompt"] + len(passes)))
    for p in passes:
        assert set(p["sources"]) == {"ngram", "suffix", "recycling", "model"}
        assert p["ms"] > 0


def test_a_trees_nodes_are_what_the_draft_says_behind_their_path(
    tiny, tiny_draft, tmp_path, monkeypatch
):
    """Rows of a tree see their own path only: each node's children against the draft alone."""
    path = tmp_path / "trace.jsonl"
    result = record(path, monkeypatch, tiny, tiny_draft)
    prompt = tiny.tokenize(PROMPT)
    # A draft model begins with the last 16 tokens of a prompt.
    text = [*prompt, *result.token_ids]
    start = max(0, len(prompt) - 16)
    passes = lines_of(path)[1:]
    n_checked = 0
    with sd.Decoder(tiny_draft, drafter=None, n_ctx=1024) as draft:
        for p in (passes[3], passes[20]):
            tree = p["sources"]["model"]
            children = {}
            for i, parent in enumerate(tree["parents"]):
                children.setdefault(parent, []).append(i)
            assert max(map(len, children.values())) == 4
            for parent, nodes in children.items():
                behind = []
                while parent >= 0:
                    behind.insert(0, tree["tokens"][parent])
                    parent = tree["parents"][parent]
                alone = draft.generate(
                    [*text[start : p["n"]], *behind], max_tokens=1, logprobs=4, temperature=0.0,
                    ignore_eos=False,
                )  # fmt: skip
                best = alone.logprobs[0].top
                assert [tree["tokens"][i] for i in nodes] == [t.token_id for t in best]
                n_checked += len(nodes)
    assert n_checked > 20


def place(token, **sources):
    return {"n": 1, "sources": sources, "next": [token], "ms": 1.0}


def lookup(*tokens):
    return {"ms": 0.0, "strength": 4, "tokens": list(tokens)}


def trace(tmp_path, places, target_ms=((1, 1.0), (2, 1.0), (8, 4.0)), draft_ms=None):
    path = tmp_path / "made.jsonl"
    head = {
        "n_prompt": 1, "temperature": 0.0, "target_ms": target_ms, "draft_ms": draft_ms or {},
    }  # fmt: skip
    path.write_text("\n".join(map(json.dumps, [{"request": head}, *places])) + "\n")
    return path


def test_the_simulator_counts_as_one_does_by_hand(tmp_path):
    import simulate_rounds as tool

    # A lookup of one token that is always right, and a second row that costs nothing.
    places = [place(5, ngram=lookup(5)) for _ in range(40)]
    requests = tool.read(trace(tmp_path, places))
    tau, rows, gains = tool.simulate(tool.Rule(("ngram",), bounds=None), requests)
    assert tau == pytest.approx(2.0)
    assert rows == pytest.approx(2.0)
    assert gains == [pytest.approx(2.0)]
    # Always wrong: after a few tries nobody drafts any more, and what was tried cost a row.
    dear = ((1, 1.0), (2, 1.5), (8, 4.0))
    places = [place(5, ngram=lookup(6)) for _ in range(200)]
    requests = tool.read(trace(tmp_path, places, dear))
    tau, rows, gains = tool.simulate(tool.Rule(("ngram",), bounds=None), requests)
    assert tau == 1.0
    assert 1.0 < rows < 1.1
    assert gains == [pytest.approx(1 / (1 + 0.5 * (rows - 1)), rel=1e-6)]
    # And not even that where a request may lose only a little.
    _, bounded, gains = tool.simulate(tool.Rule(("ngram",)), requests)
    assert bounded < rows
    assert gains[0] > 0.97


def test_merging_finds_what_either_source_knows(tmp_path):
    import simulate_rounds as tool

    # Each is right half of the time, never both; rows cost next to nothing.
    free = ((1, 1.0), (64, 1.01))
    places = [
        place(5, ngram=lookup(5 if i % 4 < 2 else 6), suffix=lookup(6 if i % 4 < 2 else 5))
        for i in range(80)
    ]
    requests = tool.read(trace(tmp_path, places, free))
    alone, _, _ = tool.simulate(tool.Rule(("ngram", "suffix"), bounds=None), requests)
    merged, _, gains = tool.simulate(
        tool.Rule(("ngram", "suffix"), merged=True, bounds=None), requests
    )
    assert alone < 1.9
    assert merged == pytest.approx(2.0, rel=0.03)
    assert gains[0] > 1.9
    ceiling, _ = tool.oracle(requests)
    assert ceiling == pytest.approx(2.0)


def test_a_file_that_is_no_trace_is_refused_with_its_line(tmp_path):
    import simulate_rounds as tool

    path = tmp_path / "other.jsonl"
    path.write_text('{"n": 3}\n')
    with pytest.raises(SystemExit, match=r"other\.jsonl:1: not a line of a round trace"):
        tool.read(path)
    path.write_text("")
    with pytest.raises(SystemExit, match=r"other\.jsonl: has no rounds"):
        tool.main([str(path)])


def test_the_table_has_a_line_for_every_rule(tiny, tiny_draft, tmp_path, monkeypatch, capsys):
    import simulate_rounds as tool

    path = tmp_path / "trace.jsonl"
    record(path, monkeypatch, tiny, tiny_draft, n_texts=2)
    assert tool.main([str(path)]) == 0
    printed = capsys.readouterr().out
    for name in tool.rules_of(["model"]):
        assert name in printed
