"""What `specdec-native serve` makes of its arguments."""

from __future__ import annotations

import pytest

from fake_hub import FakeHub

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
pytest.importorskip("starlette", reason="the extra `server` is missing")

from specdec_native import cli  # noqa: E402
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


def test_keys_of_a_file_may_begin_with_a_mark_of_utf_8(tiny_path, tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n two \n")
    args = command.parser().parse_args([str(tiny_path), "--api-key-file", str(path)])
    assert command.settings_of(args).api_keys == {"one", "two"}


def test_keys_of_a_file_of_another_kind_are_refused_in_one_line(tiny_path, tmp_path, capfd):
    path = tmp_path / "keys"
    path.write_bytes("schlüssel".encode("latin-1"))
    assert cli.main(["serve", str(tiny_path), "--api-key-file", str(path)]) == 2
    told = capfd.readouterr().err.strip()
    assert len(told.splitlines()) == 1
    assert str(path) in told
