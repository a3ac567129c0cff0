"""A file that several memories share: nothing is lost that nobody cleared, nothing comes back, and
nothing is written again that has not changed."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import struct
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from helpers import examples

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROLOGUE = 32
MOST = 3  # memories at once
# No two of them have a token in common, so each is kept whole.
TEXTS = [tuple(range(first, first + 40)) for first in range(0, 240, 40)]
WHICH = st.integers(0, MOST - 1)


def texts_of(path: pathlib.Path) -> list[tuple[int, ...]]:
    """Of the file of a memory."""
    content = path.read_bytes()
    at = PROLOGUE + 12
    for _ in range(2):  # version, model
        at += 4 + struct.unpack_from("<I", content, at)[0]
    (n_texts,) = struct.unpack_from("<Q", content, at)
    at += 8
    found = []
    for _ in range(n_texts):
        n = struct.unpack_from("<QI", content, at)[1]
        found.append(struct.unpack_from(f"<{n}i", content, at + 12))
        at += 12 + 4 * n
    return found


@dataclasses.dataclass
class Model:
    """What a memory is meant to know."""

    texts: set[tuple[int, ...]]
    seen: bytes = b""  # the file as it last read or wrote it
    is_bound: bool = False
    is_cleared: bool = False  # since it last wrote the file
    is_changed: bool = False


class Memories(RuleBasedStateMachine):
    """Some memories of one file."""

    model: Any

    @initialize()
    def begin(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.path = self.folder / "texts.memory"
        self.content: bytes | None = None  # of the file
        self.copy = b""
        self.memories = [(sd.Memory(self.path), Model(set()))]

    def at(self, which: int) -> tuple[Any, Model]:
        return self.memories[which % len(self.memories)]

    def written(self) -> Any:
        """When the file was."""
        if not self.path.exists():
            return None
        stat = self.path.stat()
        return stat.st_ino, stat.st_mtime_ns

    def is_damaged(self) -> bool:
        return self.content is not None and not self.content.startswith(b"SPECMEMO")

    def note_save(self, known: Model) -> None:
        """The file was written."""
        if self.content is not None and self.content != known.seen and not known.is_cleared:
            known.texts |= set(self.file_texts)
        self.content = known.seen = self.path.read_bytes()
        known.is_changed = known.is_cleared = False
        found = texts_of(self.path)
        assert set(found) == known.texts
        assert len(found) == len(known.texts)

    @property
    def file_texts(self) -> list[tuple[int, ...]]:
        """Of the file before it was written."""
        path = self.folder / "before"
        path.write_bytes(self.content or b"")
        found = texts_of(path)
        path.unlink()
        return found

    def maybe_saved(self, known: Model) -> None:
        """It may have been due."""
        now = self.path.read_bytes() if self.path.exists() else None
        if now != self.content:
            assert known.is_changed
            self.note_save(known)

    def bind(self, which: int) -> tuple[Any, Model]:
        memory, known = self.at(which)
        if known.is_bound:
            return memory, known
        if self.is_damaged():
            with pytest.raises(sd.ModelFormatError, match="is not a memory"):
                memory.use(self.model)
            return memory, known
        memory.use(self.model)
        known.is_bound = True
        if self.content is not None:
            known.seen = self.content
            if not known.is_cleared:
                known.texts = set(self.file_texts)
        known.is_changed = known.is_cleared
        return memory, known

    @rule(which=WHICH)
    def use(self, which: int) -> None:
        self.bind(which)

    @rule(which=WHICH, n=st.integers(0, len(TEXTS) - 1))
    def add(self, which: int, n: int) -> None:
        memory, known = self.bind(which)
        text = TEXTS[n]
        if not known.is_bound:
            return
        with sd.Decoder(self.model, drafter=None, memory=memory) as decoder:
            decoder.generate(list(text), max_tokens=0)
        known.is_changed |= text not in known.texts
        known.texts.add(text)
        self.maybe_saved(known)

    @rule(which=WHICH)
    def save(self, which: int) -> None:
        memory, known = self.at(which)
        before = self.written()
        if known.is_cleared and not known.is_bound:
            self.save_unbound(memory, known)
            return
        if known.is_changed and self.is_damaged():
            with pytest.raises(sd.ModelFormatError, match="is not a memory"):
                memory.save()
            assert self.path.read_bytes() == self.content
            return
        memory.save()
        if known.is_changed:
            self.note_save(known)
        else:
            assert self.written() == before, "nothing has changed"

    def save_unbound(self, memory: Any, known: Model) -> None:
        """Cleared before a model came: whatever the file holds goes."""
        if self.is_damaged():
            with pytest.raises(sd.ModelFormatError, match="is not a memory"):
                memory.save()
            return
        memory.save()
        known.is_cleared = False
        self.note_emptied()

    def note_emptied(self) -> None:
        if self.content is not None:
            self.content = self.path.read_bytes()
            assert texts_of(self.path) == []

    @rule(which=WHICH)
    def clear(self, which: int) -> None:
        memory, known = self.at(which)
        memory.clear()
        known.texts.clear()
        known.is_cleared = True
        known.is_changed = known.is_bound

    @precondition(lambda self: len(self.memories) < MOST)
    @rule()
    def open(self) -> None:
        self.memories.append((sd.Memory(self.path), Model(set())))

    @precondition(lambda self: len(self.memories) > 1)
    @rule(which=WHICH)
    def close(self, which: int) -> None:
        at = which % len(self.memories)
        known = self.memories.pop(at)[1]
        if self.is_damaged():
            return
        if known.is_cleared and not known.is_bound:
            self.note_emptied()
        elif known.is_changed:
            self.note_save(known)

    @rule(how=st.sampled_from(["remove", "damage", "copy", "put back"]))
    def somebody_else(self, how: str) -> None:
        if how == "copy":
            self.copy = b"" if self.is_damaged() else self.content or b""
            return
        if how == "remove" or (how == "put back" and not self.copy):
            self.path.unlink(missing_ok=True)
            self.content = None
            return
        self.content = self.copy if how == "put back" else b"something else"
        self.path.write_bytes(self.content)

    @invariant()
    def they_know_what_they_were_told(self) -> None:
        for memory, known in self.memories:
            assert memory.n_texts == len(known.texts)
            assert memory.n_tokens == 40 * len(known.texts)
        assert (self.path.read_bytes() if self.path.exists() else None) == self.content
        assert len(list(self.folder.iterdir())) == (self.content is not None)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.memories.clear()
            shutil.rmtree(self.folder)


@pytest.mark.hypothesis
def test_memories_of_one_file_agree_with_sets_of_texts(tiny: Any) -> None:
    class Bound(Memories):
        model = tiny

    some = settings(max_examples=examples(20), stateful_step_count=25)
    run_state_machine_as_test(Bound, settings=some)
