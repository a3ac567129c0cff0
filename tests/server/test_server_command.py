"""What `specdec-native serve` makes of its arguments."""

from __future__ import annotations

import pytest

from fake_hub import FakeHub

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytest.importorskip("starlette", reason="the extra `server` is missing")

from specdec_native.server import command  # noqa: E402


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["hf:org/Tiny-2.5-0.5B"], "tiny-2.5.Q8_0"),
        (["hf:org/Tiny-2.5-0.5B/tiny-2.5.Q8_0.gguf"], "tiny-2.5.Q8_0"),
        (["hf:org/Tiny-2.5-0.5B", "--alias", "mine"], "mine"),
        (["pycode"], "pycode"),
    ],
)
def test_a_model_is_called_as_its_file(arguments, name, tiny_path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    for variable in ("SPECDEC_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    with FakeHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.files["org/Tiny-2.5-0.5B"] = {"tiny-2.5.Q8_0.gguf": tiny_path.read_bytes()}
        args = command.parser().parse_args([*arguments, "-c", "256", "-t", "1"])
        settings = command.settings_of(args)
        with command.make_engine(args, settings) as engine:
            assert command.named(settings, args, engine).model_id == name
