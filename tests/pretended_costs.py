"""Costs of passes as a test wants them, in the file that the controller reads them from."""

from __future__ import annotations

import specdec_native as sd


def pretend(monkeypatch, folder, target, drafter, n_ctx, costs):
    """For decoders with `target` and `drafter` from now on. `costs`: what follows the file's header
    line: target, draft, layers and credit, a line each."""
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(folder))
    with sd.Decoder(target, drafter=drafter, n_ctx=n_ctx) as decoder:
        decoder.generate("abc", max_tokens=2)
    (file,) = folder.iterdir()
    header = file.read_text().splitlines()[0]
    file.write_text(f"{header}\n{costs}")
