"""What an engine's draft model reads and what is kept of it: no more than is of use."""

from __future__ import annotations

import pytest

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
import pretended_costs  # noqa: E402

N_CTX = 1024
PROMPT = [97 + (7 * i + i * i // 11) % 26 for i in range(400)]


def used(model, drafter=None, draft=None, n=20, **options):
    """Bytes of what is kept after a request, and the request's result."""
    with sd.Engine(model, n_ctx=N_CTX, drafter=drafter, draft=draft) as engine:
        result = engine.submit(PROMPT, max_tokens=n, ignore_eos=True, **options).result(60)
        return engine.stats().kv_used_bytes, result


def test_the_draft_model_reads_nothing_of_requests_that_do_without(tiny, tiny_draft):
    plain, expected = used(tiny)
    for gamma, speculate in ((4, False), (0, True)):
        drafter = sd.DraftModel(tiny_draft, gamma=gamma)
        kept, result = used(tiny, drafter, speculate=speculate)
        assert result.token_ids == expected.token_ids
        assert kept == plain
    kept, result = used(tiny, sd.DraftModel(tiny_draft, gamma=4))
    assert result.token_ids == expected.token_ids
    assert kept > plain


def test_the_end_of_a_text_that_a_draft_model_has_read_is_not_kept(
    tiny, tiny_draft, tmp_path, monkeypatch
):
    """It began with the last tokens of the prompt, which are no beginning of anything."""
    drafter = [sd.DraftModel(tiny_draft)]
    # Drafts look free, and reading the whole prompt does not.
    costs = "2 1 50 64 50.5\n3 1 0.01 16 0.02 64 500\n0 0\n0 1e6\n"
    pretended_costs.pretend(monkeypatch, tmp_path, tiny, drafter, 256, costs)
    plain, expected = used(tiny)
    kept, result = used(tiny, drafter)
    assert result.token_ids == expected.token_ids
    assert result.stats.drafted > 0
    assert kept == plain


def test_a_beginning_that_the_draft_model_lacks_is_read_in_turns(tiny, tiny_draft):
    """Longer than a pass: the target has it from an earlier request, the draft model does not."""
    long = PROMPT * 2
    options = {"max_tokens": 20, "ignore_eos": True}
    with sd.Decoder(tiny, drafter=None, n_ctx=N_CTX) as decoder:
        expected = decoder.generate([*long, *PROMPT[:30]], **options).token_ids
    with sd.Engine(tiny, n_ctx=N_CTX, drafter=sd.DraftModel(tiny_draft, gamma=4)) as engine:
        engine.submit(long, speculate=False, **options).result(60)
        result = engine.submit([*long, *PROMPT[:30]], **options).result(60)
    assert result.token_ids == expected
    assert result.stats.drafted > 0
