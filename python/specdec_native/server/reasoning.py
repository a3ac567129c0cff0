"""What a model thinks before it answers: ``<think>...</think>`` at the beginning of its text."""

from __future__ import annotations

BEGIN, END = "<think>", "</think>"


def thinks(template: str) -> bool:
    """Whether models of this chat template write their thoughts so."""
    return BEGIN in template or END in template


def begins_in_thought(prompt: str) -> bool:
    """Whether a prompt has opened the thought that the text goes on with."""
    return prompt.rstrip().endswith(BEGIN)


class ThoughtReader:
    """Takes thoughts and answer apart as the text arrives. Space around both is nobody's.

    Args:
        is_open: the prompt has opened the thought already.
    """

    def __init__(self, *, is_open: bool) -> None:
        self._state = "thought" if is_open else "before"
        self._held = ""  # not yet known what it belongs to
        self._gave = False  # some of the thought, or of the answer behind it

    def feed(self, text: str) -> tuple[str, str]:
        """What is certainly thought, and what is certainly answer."""
        if self._state == "answer":
            return "", text
        self._held += text
        if self._state == "before":
            begun = self._held.lstrip()
            if begun.startswith(BEGIN):
                self._state, self._held = "thought", begun[len(BEGIN) :]
            elif BEGIN.startswith(begun):
                return "", ""
            else:
                self._state = "answer"
                return "", self._rest()
        thought = self._thought() if self._state == "thought" else ""
        answer = self._behind() if self._state == "behind" else ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """What is left when the text has ended; a thought may not have."""
        held = self._rest()
        if self._state == "thought":
            return self._trimmed(held).rstrip(), ""
        return "", "" if self._state == "behind" else held

    def _rest(self) -> str:
        held, self._held = self._held, ""
        return held

    def _trimmed(self, text: str) -> str:
        text = text if self._gave else text.lstrip()
        self._gave = self._gave or bool(text)
        return text

    def _thought(self) -> str:
        at = self._held.find(END)
        if at >= 0:
            thought = self._trimmed(self._held[:at]).rstrip()
            self._held = self._held[at + len(END) :]
            self._state = "behind"
            return thought
        size = len(self._held)
        for n in range(min(size, len(END) - 1), 0, -1):
            if END.startswith(self._held[-n:]):
                size -= n
                break
        size = len(self._held[:size].rstrip())  # it may be the space before the end
        thought, self._held = self._trimmed(self._held[:size]), self._held[size:]
        return thought

    def _behind(self) -> str:
        self._held = self._held.lstrip()
        if not self._held:
            return ""
        self._state = "answer"
        return self._rest()
