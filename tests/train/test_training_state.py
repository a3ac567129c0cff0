"""What trainings save: the file first, then the state to go on from; damaged states are named."""

from __future__ import annotations

import importlib.util
import pathlib
import signal

import pytest

pytest.importorskip("specdec_native", reason="the package is not installed")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
TARGET = {"vocabulary_sha256": "1", "sha256": "2"}


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


def keep(folder, monkeypatch, *, file_fits, state_fits, interrupted=False):
    """Lets `keep_training` save as it does every three minutes and at the end; what it said."""
    import torch

    import training_job
    from training_safety import NotSaved

    class Training:
        module = torch.nn.Linear(2, 2)
        n_steps, epoch = 7, 0.5

        def run(self, say, save, stopped):
            save()
            if interrupted:
                signal.raise_signal(signal.SIGINT)

        def state(self):
            return {"shape": {}}

    def save(path, fits):
        if not fits:
            raise NotSaved(f"{path.name}: no room")
        path.write_bytes(b"whole")

    monkeypatch.setattr(training_job, "save_torch", lambda path, _: save(path, state_fits))
    said = []
    monkeypatch.setattr(training_job, "say", said.append)
    write = [folder / "x.gguf", file_fits]
    training_job.keep_training(
        Training(), folder / "x.state", TARGET, lambda: save(*write), lambda: "well"
    )
    return said


def test_a_disk_without_room_for_the_state_has_the_file(tmp_path, monkeypatch):
    said = keep(tmp_path, monkeypatch, file_fits=True, state_fits=False)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]
    assert "x.state: no room; goes on all the same" in said
    assert "x.state: no room; --resume cannot go on from here; the file itself is written" in said


def test_an_end_on_request_without_a_state_is_no_promise_to_go_on(tmp_path, monkeypatch):
    from training_safety import NotSaved

    with pytest.raises(NotSaved, match=r"x\.state: no room; the file itself is written"):
        keep(tmp_path, monkeypatch, file_fits=True, state_fits=False, interrupted=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("state_fits", [True, False])
def test_a_disk_without_room_for_the_file_says_what_there_is(tmp_path, monkeypatch, state_fits):
    from training_safety import NotSaved

    text = r"the training is saved as .*x\.state" if state_fits else r"x\.state: no room"
    with pytest.raises(NotSaved, match=rf"^x\.gguf: no room; {text}$"):
        keep(tmp_path, monkeypatch, file_fits=False, state_fits=state_fits)
    assert (tmp_path / "x.state").exists() == state_fits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spent_s", "long"), ("spent_s", float("nan")), ("spent_s", -1.0), ("spent_s", None),
        ("epoch", float("inf")), ("epoch", [1]), ("n_steps", 1.5), ("n_steps", -1),
        ("n_tokens", "9"), ("n_tokens", True),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_named(tmp_path, name, value):
    training = small_training()
    state = training.state() | {name: value}
    message = refused(training, state, tmp_path)
    assert f"{name} is " in message
    assert training.n_steps == 0


def test_an_optimizer_of_other_sizes_is_named(tmp_path):
    import torch

    training = small_training()
    training.n_steps = 1
    for p in training.module.parameters():
        p.grad = torch.ones_like(p)
    training.optimizer.step()
    state = training.state()
    small_training().restore(state)
    state["optimizer"]["state"][0]["exp_avg"] = torch.zeros(9)
    assert "exp_avg has other sizes" in refused(small_training(), state, tmp_path)


def small_training():
    import torch

    from training_loop import Training, adamw

    class Limits:
        minutes, epochs, learning_rate, seed = 1.0, 1.0, 1e-3, 0

    module = torch.nn.Linear(2, 3)
    optimizer = adamw([], 0.1, [module.bias], module.weight, 1.0)
    return Training(module, optimizer, Limits(), 10)


def refused(training, state, folder):
    from training_job import begin
    from training_safety import ToolError

    with pytest.raises(ToolError) as found:
        begin(training, folder / "x.state", state)
    message = str(found.value)
    assert message.startswith(f"{folder}/x.state: is damaged (")
    assert message.endswith("; train without --resume")
    assert len(message.splitlines()) == 1
    return message
