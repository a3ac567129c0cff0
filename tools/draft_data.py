"""Text that a model writes by itself, with what it thought of every next token: training data.

A chat model first writes the user's turn after the header of its own chat template (half of the
turns begin with an opening of draft_topics.py), then answers it. A base model continues from the
beginning of a text, or from a random token. Rounds are numbered and seeded: a run that was ended
goes on where it stopped and gives the same data.
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import draft_topics
import specdec_native as sd
from target_fingerprint import difference
from training_safety import ToolError, save_bytes

N_TOP = 8  # alternatives kept per token
CONVERSATIONS = 64  # of a round
OWN_PROMPTS = 32  # of them begin with the user's own prompts, while there are any
TURN_TOKENS = {"summarise": 160, "code": 80, "rewrite": 80}  # longest user turn; others:
DEFAULT_TURN_TOKENS = 48
GREEDY_ROUNDS = 3  # of 4; in the others answers are sampled
FRAME, TURN, ANSWER = 0, 1, 2  # given; the model as user; the model's answer
STATES_AT_ONCE = 1 << 30  # bytes of hidden states that a call may bring
MARK = "\x00user-turn\x00"


@dataclasses.dataclass
class Text:
    """One text: tokens, and for those that the model wrote its best tokens at that position.

    Attributes:
        tokens: int32 [n].
        part: uint8 [n], who wrote it: FRAME, TURN or ANSWER.
        top_ids: int32 [n, N_TOP], -1 where there is none.
        top_logprobs: float16 [n, N_TOP].
    """

    tokens: np.ndarray
    part: np.ndarray
    top_ids: np.ndarray
    top_logprobs: np.ndarray


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """int16, the bits of float32 numbers rounded to the nearest, ties to even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.int16)


class Builder:
    """A text, part by part.

    Attributes:
        states: int16 [n, layers * hidden_size], bfloat16 bits of what the answering model's layers
            said of its tokens, if they were asked; of the last one perhaps nothing, then zeros.
    """

    def __init__(self) -> None:
        self.states: np.ndarray | None = None
        self.tokens: list[int] = []
        self.part: list[int] = []
        self.ids: list[list[int]] = []
        self.logprobs: list[list[float]] = []

    def add(
        self,
        tokens: Sequence[int],
        part: int = FRAME,
        positions: Sequence[sd.PositionLogprobs] = (),
    ) -> None:
        self.tokens += tokens
        self.part += [part] * len(tokens)
        for i in range(len(tokens)):
            top = positions[i].top[:N_TOP] if positions else ()
            missing = N_TOP - len(top)
            self.ids.append([entry.token_id for entry in top] + [-1] * missing)
            self.logprobs.append([entry.logprob for entry in top] + [-65504.0] * missing)

    def set_states(self, values: memoryview) -> None:
        """After the last part, of all tokens and perhaps of more that were not kept."""
        read = np.asarray(values).reshape(values.shape[0], -1)[: len(self.tokens)]
        self.states = np.zeros((len(self.tokens), read.shape[1]), np.int16)
        self.states[: len(read)] = bfloat16_bits(read)

    def text(self) -> Text:
        return Text(
            np.array(self.tokens, np.int32),
            np.array(self.part, np.uint8),
            np.array(self.ids, np.int32).reshape(-1, N_TOP),
            np.maximum(np.array(self.logprobs), -65504.0).astype(np.float16).reshape(-1, N_TOP),
        )


def loop_end(tokens: Sequence[int], longest: int = 64, repeats: int = 24) -> int:
    """How many tokens to keep of a text that may end in a loop: two rounds of it are enough."""
    n = len(tokens)
    for period in range(1, min(longest, n // 2) + 1):
        same = 0
        while same + period < n and tokens[n - 1 - same] == tokens[n - 1 - same - period]:
            same += 1
        if same >= max(repeats, 2 * period):
            return n - same + period
    return n


class Writer:
    """Lets a model write texts, a round of conversations at a time.

    Args:
        prompts: of the user; each is answered once.
        layers: of the model, whose hidden states are kept with the texts.
    """

    def __init__(
        self,
        model: sd.Model,
        *,
        seed: int,
        n_parallel: int,
        answer_tokens: int,
        prompts: Sequence[Sequence[int]] = (),
        layers: Sequence[int] = (),
    ) -> None:
        self.model = model
        self.layers = layers
        self.seed = seed
        self.n_parallel = n_parallel
        self.answer_tokens = answer_tokens
        longest_turn = max(*TURN_TOKENS.values(), DEFAULT_TURN_TOKENS)
        longest = max(longest_turn + 256, *(len(prompt) for prompt in prompts), 0)
        self.n_ctx = min(model.info.context_length, longest + answer_tokens)
        self.prompts = prompts

    def _continue(
        self,
        texts: list[Builder],
        max_tokens: int | list[int],
        temperature: float,
        seed: int,
        part: int,
    ) -> None:
        results = sd.generate_many(
            self.model,
            [text.tokens for text in texts],
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=0 if temperature == 0 else min(100, self.model.info.vocab_size - 1),
            seeds=[seed + i for i in range(len(texts))],
            keep_eos=part == ANSWER,  # what ends a turn belongs to the frame
            logprobs=N_TOP,
            n_parallel=self.n_parallel,
            n_ctx=self.n_ctx,
            layers=self.layers or None if part == ANSWER else None,
        )
        for text, result in zip(texts, results, strict=True):
            assert result.logprobs is not None
            n = loop_end(result.token_ids)
            text.add(list(result.token_ids[:n]), part, result.logprobs[:n])
            if result.hidden_states is not None:
                text.set_states(result.hidden_states)

    def _portions(self, texts: list[Builder]) -> Iterator[list[Builder]]:
        """Those to answer at once, so that their hidden states fit the memory."""
        of_token = len(self.layers) * self.model.info.hidden_size * 4
        portion: list[Builder] = []
        n_bytes = 0
        for text in texts:
            more = (len(text.tokens) + self.answer_tokens) * of_token
            if portion and n_bytes + more > STATES_AT_ONCE:
                yield portion
                portion, n_bytes = [], 0
            portion.append(text)
            n_bytes += more
        yield portion

    def round(self, index: int) -> list[Builder]:
        rng = random.Random(f"{self.seed}/{index}")
        answers = 0.0 if index % 4 < GREEDY_ROUNDS else 0.8
        seed = rng.getrandbits(62)
        own = self.prompts[index * OWN_PROMPTS : (index + 1) * OWN_PROMPTS]
        if self.model.chat_template is None:
            texts = self._beginnings(rng, seed, CONVERSATIONS - len(own))
        else:
            texts = self._turns(rng, seed, CONVERSATIONS - len(own))
        for prompt in own:
            texts.append(Builder())
            texts[-1].add(prompt)
        texts = [t for t in texts if len(t.tokens) < self.n_ctx]
        seed += CONVERSATIONS
        for portion in self._portions(texts):
            self._continue(portion, self.answer_tokens, answers, seed, ANSWER)
            seed += len(portion)
        return texts

    def _beginnings(self, rng: random.Random, seed: int, n: int) -> list[Builder]:
        texts = [Builder() for _ in range(n)]
        bos = self.model.bos_token_id
        for i, text in enumerate(texts):
            random_token = rng.randrange(self.model.info.vocab_size)
            text.add([random_token if bos is None or i % 2 else bos])
        self._continue(texts, 12, 1.0, seed, TURN)
        return texts

    def _turns(self, rng: random.Random, seed: int, n: int) -> list[Builder]:
        turns: list[Builder] = []
        limits: list[int] = []
        ends: list[str] = []
        for _ in range(n):
            kind, opening = draft_topics.opening(rng)
            system = rng.choice((None, *draft_topics.SYSTEMS[:2], *draft_topics.SYSTEMS))
            before, between = self._frame(system)
            turns.append(Builder())
            turns[-1].add(self.model.tokenize(before + opening, add_special=False))
            complete = opening.endswith((".", "?"))
            limits.append(0 if complete else TURN_TOKENS.get(kind, DEFAULT_TURN_TOKENS))
            ends.append(between)
        self._continue(turns, limits, 1.0, seed, TURN)
        for text, between in zip(turns, ends, strict=True):
            text.add(self.model.tokenize(between, add_special=False))
        return turns

    def _frame(self, system: str | None) -> tuple[str, str]:
        """What the chat template writes before and after the user's words."""
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": MARK})
        try:
            whole = self.model.apply_chat_template(messages)
        except sd.TemplateError:
            if system is None:
                raise
            return self._frame(None)
        before, _, between = whole.partition(MARK)
        if not between:
            raise ToolError("the chat template leaves the user's words out")
        return before, between


class Store:
    """A folder of numbered rounds."""

    def __init__(self, folder: pathlib.Path, target: dict[str, Any], settings: dict[str, Any]):
        self.folder = folder
        self.n_ids = int(target["n_tokens"])
        self.n_ctx: int | None = None  # of who writes its texts
        meta = folder / "data.json"
        wanted = {"target": target, **settings}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = [p for p in folder.iterdir() if p.suffix not in (".partial", ".tmp")]
        except OSError as error:
            raise ToolError(f"--data {folder}: {error.strerror}; give another --data") from None
        if not meta.exists():
            if there:
                raise ToolError(f"{folder}: is not empty, without data.json: give another --data")
            save_bytes(meta, json.dumps(wanted, indent=1).encode())
            return
        try:
            found = dict(json.loads(meta.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ToolError(f"{meta}: cannot be read ({error}); give another --data") from None
        wrong = [difference(found.get("target"), target)]
        for key, value in settings.items():
            if found.get(key) != value:
                wrong.append(f"{key} is {found.get(key)!r}, expected {value!r}")
        if any(wrong):
            raise ToolError(
                f"{meta}: {next(filter(None, wrong))}: this data was made by another target or "
                "with other options; give another --data"
            )

    def rounds(self) -> list[int]:
        names = [path.stem[6:] for path in self.folder.glob("round-*.npz")]
        return sorted(int(name) for name in names if name.isdecimal())

    def next_round(self) -> int:
        """The first that is not there: one that was deleted is written again, the same."""
        there = set(self.rounds())
        return next(index for index in range(len(there) + 1) if index not in there)

    def save(self, index: int, texts: Sequence[Text]) -> None:
        parts = {
            field.name: np.concatenate([getattr(text, field.name) for text in texts])
            for field in dataclasses.fields(Text)
        }
        lengths = np.array([len(text.tokens) for text in texts], np.int32)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, lengths=lengths, **parts)
        save_bytes(self.folder / f"round-{index:05d}.npz", buffer.getvalue())

    def load(self) -> Iterator[tuple[int, Text]]:
        for index in self.rounds():
            path = self.folder / f"round-{index:05d}.npz"
            try:
                texts = self._read(path)
            except (MemoryError, KeyboardInterrupt):
                raise
            except Exception as error:  # a damaged archive raises whatever its bytes lead to
                raise ToolError(
                    f"{path}: cannot be read ({error!r}); delete it, the same command writes it "
                    "again"
                ) from None
            for text in texts:
                yield index, text

    def _read(self, path: pathlib.Path) -> list[Text]:
        with np.load(path, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        lengths = parts.pop("lengths")
        columns = [parts[field.name] for field in dataclasses.fields(Text)]
        ids = parts["top_ids"]
        n = len(parts["tokens"])
        if (
            lengths.ndim != 1
            or (lengths < 0).any()
            or lengths.sum() != n
            or ids.shape != (n, N_TOP)
            or parts["top_logprobs"].shape != (n, N_TOP)
            or parts["part"].shape != (n,)
            or parts["part"].max(initial=0) > ANSWER
            or not 0
            <= parts["tokens"].min(initial=0)
            <= parts["tokens"].max(initial=0)
            < self.n_ids
            or not -1 <= ids.min(initial=0) <= ids.max(initial=0) < self.n_ids
        ):
            raise ValueError("its parts do not fit together or hold ids of another vocabulary")
        pieces = zip(*(np.split(c, np.cumsum(lengths)[:-1]) for c in columns), strict=True)
        return [Text(*piece) for piece in pieces]

    def n_written(self) -> int:
        return sum(int((text.part != FRAME).sum()) for _, text in self.load())


KeepStates = Callable[[int, Sequence[Builder]], object]


def generate(
    writer: Writer,
    store: Store,
    *,
    n_tokens: int,
    deadline: float,
    progress: Callable[[str], None],
    keep_states: KeepStates | None = None,
) -> int:
    """Writes rounds until there are n_tokens or time is over. At least one; returns the tokens.

    Args:
        keep_states: called with the number of a round and its texts, if they have states.
    """
    store.n_ctx = writer.n_ctx
    done = store.n_written()
    index = store.next_round()
    start, begun_with = time.monotonic(), done
    while done < n_tokens and (index == 0 or time.monotonic() < deadline):
        built = writer.round(index)
        if keep_states is not None:  # before the texts, without which they are written again
            keep_states(index, built)
        texts = [text.text() for text in built]
        store.save(index, texts)
        done += sum(int((text.part != FRAME).sum()) for text in texts)
        index = store.next_round()
        rate = (done - begun_with) / (time.monotonic() - start)
        progress(f"text: {done} of {n_tokens} tokens, {rate:.0f} a second")
    return done
