"""The library's half of a soak: does a round of mixed calls for every line of standard input, and
answers each with a line of JSON: calls so far, bytes of memory, what went wrong."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import random
import sys
import tempfile
from typing import Any

import specdec_native as sd

WORDS = ["the", "cat", "in", "hat", "a", "dog", "on", "mat", "number", "bird", "é", "12", "\n"]


def rss() -> int:
    pages = pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE")


class Caller:
    """Mixed calls, chosen by a seed; `run` raises what should not have happened."""

    def __init__(self, target: pathlib.Path, draft: pathlib.Path, folder: pathlib.Path) -> None:
        self._paths = (target, draft)
        self._kept = folder / "kept"
        self._target = sd.Model(target, n_threads=1)
        self._draft = sd.Model(draft, n_threads=1)
        options: dict[str, Any] = {"n_ctx": 512}
        self._decoders = [
            sd.Decoder(self._target, draft=self._draft, **options),
            sd.Decoder(self._target, drafter=None, **options),
            sd.Decoder(self._target, drafter=sd.SuffixAutomaton(), **options),
        ]

    def run(self, rng: random.Random) -> None:
        names = [name for name in dir(self) if name.startswith("call_")]
        getattr(self, rng.choice(names))(rng, rng.choice(self._decoders))

    @staticmethod
    def prompt(rng: random.Random) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))

    def options(self, rng: random.Random) -> dict[str, Any]:
        found: dict[str, Any] = {"max_tokens": rng.randint(1, 40), "seed": rng.randrange(1000)}
        found["temperature"] = rng.choice([0.0, 0.7, 1.0])
        if rng.random() < 0.3:
            found["stop"] = ["e", "zz"]
        if rng.random() < 0.3:
            found["logprobs"] = 3
        if rng.random() < 0.2:
            found["logit_bias"] = {5: 2.0, 7: float("-inf")}
        return found

    def call_generate(self, rng: random.Random, decoder: sd.Decoder) -> None:
        decoder.generate(self.prompt(rng), **self.options(rng))

    def call_checked(self, rng: random.Random, decoder: sd.Decoder) -> None:
        options = self.options(rng) | {"temperature": 0.0}
        decoder.generate(self.prompt(rng), verify_output=True, **options)

    def call_stream(self, rng: random.Random, decoder: sd.Decoder) -> None:
        with decoder.stream(self.prompt(rng), **self.options(rng)) as stream:
            for i, _ in enumerate(stream):
                if i == rng.randint(1, 30):
                    break  # closed half read

    def call_chat(self, rng: random.Random, decoder: sd.Decoder) -> None:
        messages = [{"role": "user", "content": self.prompt(rng)}]
        decoder.chat(messages, template="chatml", **self.options(rng))

    def call_stopped(self, rng: random.Random, decoder: sd.Decoder) -> None:
        decoder.generate(self.prompt(rng), max_tokens=30, on_token=lambda chunk: False)

    def call_raises(self, rng: random.Random, decoder: sd.Decoder) -> None:
        def fail(chunk: object) -> None:
            raise KeyError("mine")

        try:
            decoder.generate(self.prompt(rng), max_tokens=5, ignore_eos=True, on_token=fail)
        except KeyError:
            return
        raise AssertionError("an exception of a callback got lost")

    def call_wrong(self, rng: random.Random, decoder: sd.Decoder) -> None:
        wrong: dict[str, Any] = rng.choice(
            [{"top_p": 2.0}, {"max_tokens": -1}, {"schema": "{"}, {"stop": [1]}]
        )
        try:
            decoder.generate("a", **wrong)
        except (sd.SpecdecError, ImportError):
            return
        raise AssertionError(f"{wrong} was taken")

    def call_too_long(self, rng: random.Random, decoder: sd.Decoder) -> None:
        try:
            decoder.generate("a b " * 600)
        except sd.ContextFullError:
            return
        raise AssertionError("a prompt longer than the context was taken")

    def call_fork(self, rng: random.Random, decoder: sd.Decoder) -> None:
        decoder.generate(self.prompt(rng), max_tokens=4)
        with decoder.fork() as other:
            other.generate(self.prompt(rng), max_tokens=8)

    def call_keep(self, rng: random.Random, decoder: sd.Decoder) -> None:
        decoder.generate(self.prompt(rng), max_tokens=4)
        decoder.save(self._kept)
        with sd.Decoder.load(self._kept, decoder.target, drafter=None) as other:
            other.generate(self.prompt(rng), max_tokens=4)

    def call_load(self, rng: random.Random, decoder: sd.Decoder) -> None:
        target, draft = (sd.Model(path, n_threads=1) for path in self._paths)
        with sd.Decoder(target, draft=draft, n_ctx=256) as other:
            other.generate(self.prompt(rng), max_tokens=8)

    def call_many(self, rng: random.Random, decoder: sd.Decoder) -> None:
        prompts = [self.prompt(rng) for _ in range(5)]
        sd.generate_many(self._target, prompts, max_tokens=8, n_parallel=3, n_ctx=256)

    def call_tokenize(self, rng: random.Random, decoder: sd.Decoder) -> None:
        ids = self._target.tokenize(self.prompt(rng) * 20)
        self._target.detokenize(ids)

    def call_inspect(self, rng: random.Random, decoder: sd.Decoder) -> None:
        sd.inspect(self._paths[0])
        decoder.reset()


def main() -> None:
    target, draft = (pathlib.Path(name) for name in sys.argv[1:3])
    rng = random.Random(int(sys.argv[3]))
    n_calls = 0
    with tempfile.TemporaryDirectory() as folder:
        caller = Caller(target, draft, pathlib.Path(folder))
        for line in sys.stdin:
            wrong = ""
            try:
                for _ in range(int(line)):
                    caller.run(rng)
                    n_calls += 1
            except Exception as error:
                wrong = f"{type(error).__name__}: {error}"
            gc.collect()
            print(json.dumps({"calls": n_calls, "rss": rss(), "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
