"""kill -9 at random moments of everything that writes: afterwards a file is the old or the new one.

Half of the moments are drawn from the time that a whole run takes; the others come a random moment
after the first change in the folder, that is, while it writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

LONGEST_SECONDS = 600


@dataclass
class Writer:
    """Something that writes files.

    Attributes:
        name: of the command.
        command: what to run, in a folder of its own.
        finals: the files that it makes, in that folder; the first one stands for the set.
        others: what may be there besides, as glob patterns: temporary files.
        same_bytes: every run gives the same files.
        is_whole: for files that are not the same each time: whether one can be used.
        goes_on: a killed run is gone on from; run again, it ends with the new file.
        before: run once in the folder before the old files are taken, for those that change files.
    """

    name: str
    command: list[str]
    finals: list[str]
    others: tuple[str, ...] = ()
    same_bytes: bool = True
    is_whole: Callable[[pathlib.Path], bool] | None = None
    goes_on: bool = False
    env: dict[str, str] = field(default_factory=dict)
    before: list[str] | None = None
    given: dict[str, pathlib.Path] = field(default_factory=dict)  # copied into the folder


@dataclass
class Outcome:
    name: str
    n_runs: int = 0
    hours: float = 0.0
    n_killed: int = 0
    n_writing: int = 0  # of these: a file had begun
    n_old: int = 0
    n_new: int = 0
    findings: list[str] = field(default_factory=list)


def _content(folder: pathlib.Path, names: list[str]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def _listing(folder: pathlib.Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found


class Trial:
    """One writer in one folder."""

    def __init__(self, writer: Writer, folder: pathlib.Path, rng: random.Random) -> None:
        self._writer = writer
        self._folder = folder
        self._rng = rng
        self.outcome = Outcome(writer.name)
        self._clear()
        if writer.before is not None:
            self._complete(writer.before)
        self._old = _content(folder, writer.finals)
        start = time.monotonic()
        self._complete(writer.command)
        self._seconds = time.monotonic() - start
        self._new = _content(folder, writer.finals)
        if set(self._new) != set(writer.finals):
            raise RuntimeError(f"{writer.name} made {sorted(self._new)}, not {writer.finals}")

    def _clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        for name, path in self._writer.given.items():
            shutil.copy(path, self._folder / name)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **self._writer.env},
            start_new_session=True,
        )

    def _complete(self, command: list[str]) -> None:
        process = self._start(command)
        _, errors = process.communicate(timeout=LONGEST_SECONDS)
        if process.returncode != 0:
            raise RuntimeError(f"{command} ended with {process.returncode}: {errors.decode()}")

    def _has_begun(self, pid: int, before: dict[str, tuple[int, int]]) -> bool:
        """Whether it writes: also to a file that has no name yet."""
        if _listing(self._folder) != before:
            return True
        with contextlib.suppress(OSError):
            for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(link.readlink()).startswith(f"{self._folder}/#"):
                        return True
        return False

    def once(self, number: int) -> None:
        self._clear()
        for name, content in self._old.items():
            path = self._folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        before = _listing(self._folder)
        process = self._start(self._writer.command)
        if number % 2 == 0:
            deadline = time.monotonic() + self._rng.uniform(0, 1.05 * self._seconds)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
        else:
            while process.poll() is None and not self._has_begun(process.pid, before):
                time.sleep(0.001)
            time.sleep(self._rng.expovariate(1 / (0.05 * self._seconds)))
        has_begun = self._has_begun(process.pid, before)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stderr is not None
        process.stderr.close()
        self.outcome.n_runs += 1
        if process.returncode == -signal.SIGKILL:
            self.outcome.n_killed += 1
            self.outcome.n_writing += has_begun
        self._check(process.returncode)
        if number % 4 == 1 or self._writer.goes_on:
            self._check_again()

    def _check(self, code: int) -> None:
        found = _content(self._folder, self._writer.finals)
        if code == 0 and set(found) != set(self._new):
            self._finding(f"it ended well and left {sorted(found)}")
        if found == self._old:
            self.outcome.n_old += 1
        elif self._is_new(found):
            self.outcome.n_new += 1
        elif self._writer.finals[0] in found or len(self._writer.finals) == 1:
            sizes = {name: len(content) for name, content in found.items()}
            self._finding(f"neither the old nor the new file: {sizes}")
        # Else the file that stands for the set is not there, and nobody takes the others for one.
        allowed = {self._folder / name for name in (*self._writer.finals, *self._writer.given)}
        for pattern in self._writer.others:
            allowed |= set(self._folder.glob(pattern))
        for path in self._folder.rglob("*"):
            if path.is_file() and path not in allowed:
                self._finding(f"it leaves {path.name}")

    def _is_new(self, found: dict[str, bytes]) -> bool:
        if set(found) != set(self._new):
            return False
        if self._writer.same_bytes:
            return found == self._new
        whole = self._writer.is_whole
        assert whole is not None
        return all(
            content == self._old.get(name) or whole(self._folder / name)
            for name, content in found.items()
        )

    def _check_again(self) -> None:
        """What a killed run left is in nobody's way."""
        try:
            self._complete(self._writer.command)
        except RuntimeError as error:
            self._finding(f"after a killed run: {error}")
            return
        if not self._is_new(_content(self._folder, self._writer.finals)):
            self._finding("after a killed run another one does not end with the new file")

    def _finding(self, text: str) -> None:
        self.outcome.findings.append(text)


# ---------------------------------------------------------------- the writers


def _python(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def _tiny(folder: pathlib.Path) -> pathlib.Path:
    import tiny_models

    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}<a>"
    config = tiny_models.TinyConfig(context_length=4096, n_kv_heads=4, tied=True)
    extra = {"tokenizer.chat_template": template}
    return tiny_models.write_tiny(folder / "tiny.gguf", config, dtype="Q8_0", seed=1, extra=extra)


def _converters(made: pathlib.Path) -> Iterator[Writer]:
    import hf_checkpoints as hf
    import tiny_models
    from helpers import specdec_binary

    config = hf.llama_config(hidden_size=256, intermediate_size=1024, num_hidden_layers=8)
    hf.write_checkpoint(made / "checkpoint", config)
    command = _python(hf.SCRIPT, made / "checkpoint", "out.gguf", "--quiet", "--name", "x")
    yield Writer(
        "convert",
        [*command, "--outtype", "f16"],
        ["out.gguf"],
        ("out.gguf.*.partial",),
        before=[*command, "--outtype", "q8_0"],
    )
    wide = tiny_models.TinyConfig(
        n_layers=1, hidden_size=1024, n_heads=8, n_kv_heads=8, head_dim=128, intermediate_size=4096
    )
    big = tiny_models.write_tiny(made / "big.gguf", wide, seed=5)
    command = [specdec_binary(), "quantize", str(big), "out.gguf"]
    yield Writer(
        "quantize",
        [*command, "Q4_K_M", "-t", "1", "--force"],
        ["out.gguf"],
        ("*out.gguf*",),
        before=[*command, "Q8_0", "-t", "1"],
    )


def _keeps_a_prompt(model: pathlib.Path) -> Callable[[pathlib.Path], bool]:
    def check(path: pathlib.Path) -> bool:
        from helpers import specdec_binary

        command = [specdec_binary(), "generate", "-m", str(model), "-p", "the cat in", "-n", "1"]
        command += ["-q", "--prompt-cache", str(path), "--prompt-cache-ro", "--drafter", "none"]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        return done.returncode == 0 and b"cache" not in done.stderr

    return check


def _is_calibration(path: pathlib.Path) -> bool:
    lines = path.read_text("ascii").split("\n")
    return lines[-1] == "" and len(lines) >= 4 and len(lines[-2].split()) >= 2


def _engine(made: pathlib.Path) -> Iterator[Writer]:
    from helpers import specdec_binary

    model = _tiny(made)
    text = made / "long.txt"
    text.write_text("the cat in the hat " * 150, encoding="utf-8")
    command = [specdec_binary(), "generate", "-m", str(model), "--drafter", "none", "-n", "2"]
    command += ["-t", "1", "-q", "--prompt-cache", "kept", "-c", "4096"]
    yield Writer(
        "prompt cache",
        [*command, "-f", str(text)],
        ["kept"],
        ("*kept*",),
        same_bytes=False,
        is_whole=_keeps_a_prompt(model),
        before=[*command, "-p", "another text"],
    )
    command = [specdec_binary(), "generate", "-m", str(model), "--drafter", "none", "-n", "2"]
    command += ["-t", "1", "-q", "-c", "4096", "--memory", "texts.memory"]
    yield Writer(
        "memory",
        [*command, "-f", str(text)],
        ["texts.memory"],
        (".specdec-*.tmp",),
        before=[*command, "-p", "another text"],
    )
    script = (
        "import specdec_native as sd\n"
        f"d = sd.Decoder(sd.Model({str(model)!r}, n_threads=1), drafter='ngram,suffix')\n"
        "d.generate('the cat in the cat in the', max_tokens=40)\n"
        "sd.Decoder(d.target).generate('the cat in the cat in', max_tokens=40)\n"
        "d.close()\n"
    )
    env = {"SPECDEC_CALIBRATION": "."}
    folder = made / "calibration"
    folder.mkdir()
    done = subprocess.run(
        _python("-c", script), cwd=folder, env={**os.environ, **env}, check=True, timeout=120
    )
    del done
    names = sorted(path.name for path in folder.iterdir())
    if names:
        yield Writer(
            "calibration",
            _python("-c", script),
            names,
            tuple(f"{name}.*" for name in names),
            same_bytes=False,
            is_whole=_is_calibration,
            env=env,
        )


def _batch(made: pathlib.Path) -> Iterator[Writer]:
    model = _tiny(made)
    lines = [{"prompt": f"the cat number {i}", "max_tokens": 12, "seed": i} for i in range(60)]
    source = made / "in.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    command = _python("-m", "specdec_native", "batch", model, source, "out.jsonl", "-c", "512")
    yield Writer(
        "batch",
        [*command, "-q", "--max-requests", "1"],
        ["out.jsonl"],
        ("out.jsonl.partial*",),
        goes_on=True,
    )


def _pull(made: pathlib.Path) -> Iterator[Writer]:
    from fake_hub import FakeHub

    class QuietHub(FakeHub):
        def _send(self, call: Any, data: bytes) -> None:
            with contextlib.suppress(ConnectionError):  # killed
                super()._send(call, data)

    with QuietHub() as hub:
        data = b"GGUF" + random.Random(1).randbytes(40 << 20)
        hub.files["org/repo"] = {"model.gguf": data}
        yield Writer(
            "pull",
            _python("-m", "specdec_native", "pull", "hf:org/repo/model.gguf"),
            ["models/org--repo/model.gguf"],
            ("models/org--repo/.model.gguf.*.partial",),
            env={"HF_ENDPOINT": hub.url, "SPECDEC_MODELS": "models", "NO_PROXY": "127.0.0.1"},
            goes_on=True,
        )


TRAIN = """
import pathlib, sys, torch
sys.path.insert(0, sys.argv[1])
from training import loop
class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = torch.nn.ModuleList([torch.nn.Linear(512, 512)])
        self.stack = torch.nn.ModuleDict({"layers": layers})
    layers = property(lambda self: self.stack["layers"])
torch.set_num_threads(1)
loop.SAVE_SECONDS = 0.0
loop.train(Small(), lambda are_long, seed: iter(lambda: torch.zeros(2, 513), None),
           lambda model, batch: model.layers[0](batch[:, :512]).square().mean(),
           checkpoint=pathlib.Path("x.pt"), log=print, evaluate=lambda: 0.0,
           rates=(0.01, 0.01), minutes=5.0, max_steps=int(sys.argv[2]), label="x")
"""


def _is_checkpoint(path: pathlib.Path) -> bool:
    import torch

    return int(torch.load(path, weights_only=True)["state"]["step"]) > 0


def _is_draft(path: pathlib.Path) -> bool:
    import torch

    import specdec_native

    if path.suffix == ".gguf":
        return specdec_native.inspect(path).supported
    if path.suffix == ".state":
        return "draft" in torch.load(path, weights_only=True)
    return path.stat().st_size > 0


def _training(made: pathlib.Path) -> Iterator[Writer]:
    yield Writer(
        "train",
        _python("-c", TRAIN, TOOLS, "30"),
        ["x.pt"],
        ("x.pt.*.partial",),
        same_bytes=False,
        is_whole=_is_checkpoint,
        before=_python("-c", TRAIN, TOOLS, "3"),
    )
    model = _tiny(made)
    small = "--tokens 1500 --answer-tokens 24 --minutes 1 --epochs 2 --threads 1 --hidden-size 32"
    small += " --layers 1 --heads 2 --intermediate 64 --batch-tokens 512 --eval-count 1"
    prompts = made / "prompts.jsonl"
    prompts.write_text('{"prompt": "the inner"}\n{"prompt": "in the"}\n', encoding="utf-8")
    command = _python(TOOLS / "make_draft.py", model, "draft.gguf", *small.split())
    command += ["--eval", str(prompts), "--eval-tokens", "16"]
    yield Writer(
        "make_draft",
        command,
        ["draft.gguf", "draft.gguf.state"],
        ("draft.gguf*", "draft.gguf*/*"),
        same_bytes=False,
        is_whole=_is_draft,
    )


GROUPS = {
    "convert": _converters,
    "engine": _engine,
    "batch": _batch,
    "pull": _pull,
    "train": _training,
}


def run(
    minutes: float,
    *,
    seed: int = 1,
    groups: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Each group of writers gets an equal part of the time, and each writer one kill at least."""
    outcomes = []
    chosen = groups or list(GROUPS)
    for group in chosen:
        with tempfile.TemporaryDirectory(prefix="killed-") as name:
            made = pathlib.Path(name, "made")
            made.mkdir()
            with contextlib.closing(GROUPS[group](made)) as writers:
                for writer in writers:
                    outcome = _one(writer, pathlib.Path(name), 30 * minutes / len(chosen), seed)
                    say(f"{outcome}")
                    outcomes.append(outcome)
    return outcomes


def _one(writer: Writer, folder: pathlib.Path, seconds: float, seed: int) -> Outcome:
    rng = random.Random(f"{seed} {writer.name}")
    start = time.monotonic()
    trial = Trial(writer, folder / re.sub(r"\W", "_", writer.name), rng)
    deadline = time.monotonic() + seconds
    number = 0
    while number < 2 or time.monotonic() < deadline:
        trial.once(number)
        number += 1
    trial.outcome.hours = (time.monotonic() - start) / 3600
    return trial.outcome
