"""`specdec bench` with a tiny model: what it reports, not how fast it is."""

from __future__ import annotations

import json
import subprocess

import pytest

import tiny_models
from helpers import specdec_binary

BINARY = specdec_binary()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.write_tiny(tmp_path_factory.mktemp("bench") / "tiny.gguf", seed=1)


def bench(*arguments, code=0):
    done = subprocess.run(
        [BINARY, "bench", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def test_json_has_a_time_for_every_row_count(model):
    arguments = ["--rows", "1,2,8,40", "--ctx", "20", "--rounds", "2", "--json"]
    result = json.loads(bench("-m", model, *arguments, "-md", model).stdout)
    for part in (result, result["draft"]):
        assert list(part["t_ms"]) == ["1", "2", "8", "40"]
        assert all(time > 0 for time in part["t_ms"].values())
        assert all(part["t_min_ms"][m] <= part["t_ms"][m] for m in part["t_ms"])
        assert all(len(times) == 2 for times in part["times_ms"].values())
        assert all(min(part["times_ms"][m]) == part["t_min_ms"][m] for m in part["t_ms"])
        assert part["ratio"]["8"] == pytest.approx(part["t_ms"]["8"] / part["t_ms"]["1"])
        assert all(max(part["times_ms"][m]) == part["t_max_ms"][m] for m in part["t_ms"])
        assert part["read_gb_s"] > 0
        assert 0 <= part["cache_share"] <= 1
        assert 0 <= part["stolen_share"] <= 1
        assert part["noisy"] == (part["spread"] > 0.10 or part["stolen_share"] > 0.02)
        assert 0 < part["weight_gb"] < 0.01
        share = part["weight_gb"] / (part["t_ms"]["1"] / 1000) / part["read_gb_s"]
        assert part["bandwidth_share"] == pytest.approx(share)
        assert (part["ctx"], part["rounds"]) == (20, 2)


def test_the_table_is_on_stdout(model):
    done = bench("-m", model, "--rows", "1,4", "--ctx", "4", "--rounds", "1", "--quiet")
    assert "T(M)/T(first)" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("rows", ["", "0", "513", "1,", "1,,2", "x", "1 2"])
def test_wrong_row_counts_are_usage_errors(model, rows):
    assert "--rows" in bench("-m", model, "--rows", rows, code=2).stderr
