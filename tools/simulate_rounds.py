#!/usr/bin/env python3
"""Tries rules for drafts on recorded rounds, without a model.

Record with $SPECDEC_ROUND_TRACE set to a file: every request of a `Decoder` (or of `specdec
generate`) that adapts is decoded plainly, and what each of its drafters would have said behind
every token is appended to the file. Then `python tools/simulate_rounds.py FILE...` walks each rule
over the same texts and prints what its rounds would have brought: tokens a pass (tau), rows a pass,
the speed-up over plain decoding by the recorded times, and those of the texts that gain least and
most.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from round_rules import (
    Bounds,
    Calibration,
    Costs,
    Credit,
    Drafted,
    Place,
    Source,
    Trie,
    cut,
    ranked,
)


@dataclasses.dataclass
class Request:
    """One recorded text."""

    temperature: float
    target: Costs
    drafts: dict[str, Costs]
    places: list[Place]


def read(path: Path) -> list[Request]:
    requests: list[Request] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
            if "request" in entry:
                head = entry["request"]
                drafts = {k: Costs(v) for k, v in head["draft_ms"].items() if v}
                requests.append(Request(head["temperature"], Costs(head["target_ms"]), drafts, []))
                continue
            sources = {name: to_source(said) for name, said in entry["sources"].items()}
            requests[-1].places.append(Place(entry["next"][0], sources) if entry["next"] else None)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SystemExit(f"{path}:{number}: not a line of a round trace: {error!r}") from error
        if requests[-1].places[-1] is None:  # the text's end, of which no token is known
            requests[-1].places.pop()
    for request in requests:
        scale_drafts(request)
    return [request for request in requests if request.places]


def scale_drafts(request: Request) -> None:
    """Steps cost what they took, choosing the candidates included."""
    for name, costs in request.drafts.items():
        taken = expected = 0.0
        for place in request.places[1:]:  # the first one reads the prompt
            source = place.sources.get(name)
            if source is None or not source.tokens:
                continue
            fed, rows = 0, [0] * 6
            parents = set(source.parents)
            for i, _, depth, _ in ranked(source):
                rows[depth] += i in parents
            expected += costs.ms(1)
            for n in rows:
                fed += n
                expected += costs.ms(fed) if n else 0.0
            taken += source.ms
        if expected > 0:
            costs.values = [ms * taken / expected for ms in costs.values]


def to_source(said: dict[str, object]) -> Source:
    tokens = tuple(said["tokens"])
    parents = tuple(said.get("parents") or range(-1, len(tokens) - 1))
    return Source(tokens, parents, tuple(said.get("p", ())), said.get("strength", 0), said["ms"])


@dataclasses.dataclass
class Rule:
    """Who may draft, and in which shape."""

    sources: Sequence[str] = ("ngram", "suffix")
    width: int = 1  # nodes of a level that a model goes on from
    candidates: int = 1  # of a model behind each
    merged: bool = False  # all in one tree; else the best one alone
    most: int = 15  # rows besides the first
    least: float = 1.02  # expected speed-up below which a pass is plain
    bounds: Bounds | None = dataclasses.field(
        default_factory=Bounds
    )  # None: a request may lose what it likes


class Walk:
    """One rule over one text."""

    def __init__(self, rule: Rule, calibration: Calibration, pace: dict[str, float]) -> None:
        self.rule, self.calibration, self.pace = rule, calibration, pace
        self.passes = self.rows = 0
        self.ms = 0.0
        self.credit = Credit(rule.bounds) if rule.bounds else None

    def allows(self, loss: float, speedup: float) -> bool:
        return self.credit is None or self.credit.allows(loss, speedup)

    def run(self, request: Request) -> float:
        plain = request.target.ms(1)
        at, behind = 0, 1
        while at < len(request.places):
            place = request.places[at]
            left = len(request.places) - at
            drafted = self.draft(request, place, left - 1, behind)
            truth = [p.token for p in request.places[at : at + left]]
            emitted = 1 + self.accepted(drafted, truth)
            emitted = min(emitted, left)
            ms = drafted.draft_ms + request.target.ms(1 + len(drafted.chosen))
            ms += sum(s.ms for s in place.sources.values() if not s.is_model)
            self.passes += 1
            self.rows += 1 + len(drafted.chosen)
            self.ms += ms
            drafted.trie.judge(truth)
            if self.credit:
                free = 0.02 if not drafted.chosen else 0.0
                self.credit.note(emitted, max(ms - free, plain) / plain)
            self.learn_pace(drafted, emitted * plain / ms)
            at += emitted
            behind = emitted if any(s.is_model for s in place.sources.values()) else 1
        return plain * len(request.places) / self.ms

    def learn_pace(self, drafted: Drafted, gained: float) -> None:
        if drafted.draft_ms > 0:
            self.pace["model"] += 0.1 * (gained - self.pace["model"])

    @staticmethod
    def accepted(drafted: Drafted, truth: Sequence[int]) -> int:
        chosen = set(drafted.chosen)
        at, n = -1, 0
        for token in truth:
            hit = drafted.trie.at.get((at, token), -1)
            if hit not in chosen:
                return n
            at, n = hit, n + 1
        return n

    def draft(self, request: Request, place: Place, most: int, behind: int) -> Drafted:
        rule = self.rule
        lookups = {n: s for n, s in place.sources.items() if n in rule.sources and not s.is_model}
        models = {n: s for n, s in place.sources.items() if n in rule.sources and s.is_model}
        most = min(most, rule.most)

        def tree_of(names: dict[str, Source]) -> Trie:
            trie = Trie(self.calibration)
            for name, source in names.items():
                trie.add(name, source, lambda depth, rank: depth < most)
            return trie

        if rule.merged:
            best = cut(tree_of(lookups), 0.0, request.target, most, rule.least, self.allows)
        else:
            tries = [tree_of({n: s}) for n, s in lookups.items()] or [tree_of({})]
            best = max(
                (cut(t, 0.0, request.target, most, rule.least, self.allows) for t in tries),
                key=lambda d: d.expected,
            )
        for name, source in models.items():
            # Before a model is asked nothing is known but what it brought of late.
            usual = self.pace["model"]
            costs = request.drafts.get(name)
            if most < 1 or costs is None or usual < max(best.expected, rule.least):
                self.pace["model"] += 0.002 * (1.3 - self.pace["model"])  # a look again some day
                continue
            loss = costs.ms(behind) + request.target.ms(2) - request.target.ms(1)
            if not self.allows(loss / request.target.ms(1), usual):
                continue
            best = self.grow(request, lookups if rule.merged else {}, name, source, most, behind)
        return best

    def grow(
        self,
        request: Request,
        lookups: dict[str, Source],
        name: str,
        source: Source,
        most: int,
        behind: int,
    ) -> Drafted:
        """Level by level, as long as the next one is expected to pay."""
        rule, costs = self.rule, request.drafts[name]
        ms = costs.ms(behind)
        best: Drafted | None = None
        plain = request.target.ms(1)
        keep = self.within(source)
        fed = 0
        for depth in range(1, 6):
            trie = Trie(self.calibration)
            for other, said in lookups.items():
                trie.add(other, said, lambda d, rank: d < most)
            part = dataclasses.replace(source, **self.part(source, keep, depth))
            trie.add(name, part, lambda d, rank: d < most)
            drafted = cut(trie, ms, request.target, most, 0.0, self.allows)
            if best is not None and drafted.expected < best.expected:
                # What was drafted is paid for, also where it is not used.
                best.draft_ms = ms
                return best
            best = drafted
            level = [i for i in keep if keep[i] == depth - 1]
            reach = sum(
                n.reach for n in trie.nodes if n.depth == depth - 1 and self.was_fed(n, name)
            )
            fed += min(len(level), rule.width)
            # The second rule: what the next level is expected to bring against what it costs.
            lam = max(self.pace["model"], 1.0)
            rows = 1 + len(drafted.chosen)
            step = costs.ms(fed) + request.target.ms(rows + 1) - request.target.ms(rows)
            loss = (ms + costs.ms(fed) + request.target.ms(rows + 1)) / plain - 1
            if reach * self.mean_rate(name) * plain < lam * step or depth == most:
                return best
            if not self.allows(loss, lam):
                return best
            ms += costs.ms(fed)
        assert best is not None
        return best

    def was_fed(self, node: object, name: str) -> bool:
        return any(said[0] == name for said in node.said)

    def mean_rate(self, name: str) -> float:
        hits, n = 0.0, 0.0
        for key, cell in self.calibration.cells.items():
            if key[0] == name and len(key) == 3 and key[2] == 0:
                hits += cell[0]
                n += cell[1]
        return (hits + 1.0) / (n + 2.0)

    def within(self, source: Source) -> dict[int, int]:
        """Tokens of a tree of the rule's shape, by depth."""
        rule = self.rule
        reach: dict[int, float] = {-1: 1.0}
        for i, parent in enumerate(source.parents):
            reach[i] = reach[parent] * source.p[i]
        open_nodes = {-1}
        kept: dict[int, int] = {}
        entries = list(ranked(source))
        for depth in range(6):
            level = [
                (i, rank)
                for i, parent, d, rank in entries
                if d == depth and parent in open_nodes and rank < rule.candidates
            ]
            for i, _ in level:
                kept[i] = depth
            if rule.width == 1:
                open_nodes = {i for i, rank in level if rank == 0}
            else:
                best = sorted(level, key=lambda e: -reach[e[0]])[: rule.width]
                open_nodes = {i for i, _ in best}
        return kept

    def part(self, source: Source, keep: dict[int, int], depth: int) -> dict[str, object]:
        index: dict[int, int] = {-1: -1}
        tokens, parents, p = [], [], []
        for i in sorted(keep):
            if keep[i] >= depth or source.parents[i] not in index:
                continue
            index[i] = len(tokens)
            tokens.append(source.tokens[i])
            parents.append(index[source.parents[i]])
            p.append(source.p[i])
        return {"tokens": tuple(tokens), "parents": tuple(parents), "p": tuple(p)}


LOOKUPS = ("ngram", "suffix")


def rules_of(models: Sequence[str]) -> dict[str, Rule]:
    rules = {
        "lookups, the best one": Rule(LOOKUPS),
        "  a request may lose 2 %": Rule(LOOKUPS, bounds=Bounds(0.02, 0.3, 0.02, 0.01)),
        "  a request may lose all": Rule(LOOKUPS, bounds=None),
        "lookups merged": Rule(LOOKUPS, merged=True),
        "and recycling's chain or tree": Rule((*LOOKUPS, "recycling")),
        "and recycling, merged": Rule((*LOOKUPS, "recycling"), merged=True),
    }
    for model in models:
        every = (*LOOKUPS, model)
        rules[f"{model} chain"] = Rule(every)
        rules[f"{model} chain, leaves"] = Rule(every, candidates=4)
        rules[f"{model} tree, width 2"] = Rule(every, candidates=4, width=2)
        rules[f"{model} tree, width 4"] = Rule(every, candidates=4, width=4)
        rules[f"{model} chain, merged"] = Rule(every, merged=True)
        rules[f"{model} chain, leaves, merged"] = Rule(every, candidates=4, merged=True)
        rules[f"{model} tree, width 2, merged"] = Rule(every, candidates=4, width=2, merged=True)
        rules[f"{model} all, width 1, merged"] = Rule(
            (*every, "recycling"), candidates=4, merged=True
        )
        rules[f"{model} all, width 2, merged, 63 rows"] = Rule(
            (*every, "recycling"), candidates=4, width=2, merged=True, most=63
        )
    return rules


def simulate(rule: Rule, requests: Sequence[Request]) -> tuple[float, float, list[float]]:
    """(tokens a pass, rows a pass, speed-up of each request)."""
    calibration, pace = Calibration(), {"model": 1.3}
    tokens = passes = rows = 0
    gains: list[float] = []
    for request in requests:
        calibration.fade()
        walk = Walk(rule, calibration, pace)
        gains.append(walk.run(request))
        tokens += len(request.places)
        passes += walk.passes
        rows += walk.rows
    return tokens / passes, rows / passes, gains


def oracle(requests: Sequence[Request]) -> tuple[float, list[float]]:
    """(tokens a pass, speed-ups) of who knows which of all that is said is right: a ceiling."""
    tokens = passes = 0
    gains: list[float] = []
    for request in requests:
        at, ms = 0, 0.0
        while at < len(request.places):
            place = request.places[at]
            best = 0
            for source in place.sources.values():
                paths = {-1: 0}
                for i, parent, depth, _ in ranked(source):
                    ahead = at + depth
                    if parent not in paths or ahead + 1 >= len(request.places):
                        continue
                    if request.places[ahead].token == source.tokens[i]:
                        paths[i] = depth + 1
                best = max(best, *paths.values())
            ms += request.target.ms(best + 1)
            at += best + 1
            passes += 1
        tokens += len(request.places)
        gains.append(request.target.ms(1) * len(request.places) / ms)
    return tokens / passes, gains


def mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--tokens", type=int, help="of each text only so many")
    parser.add_argument("--target-ms", help="instead of the recorded ones: 1:2.4,2:2.5,8:4.1")
    arguments = parser.parse_args(argv)
    for path in arguments.traces:
        requests = read(path)
        if not any(request.places for request in requests):
            raise SystemExit(f"{path}: has no rounds; write it with SPECDEC_ROUND_TRACE")
        if arguments.tokens:
            for request in requests:
                del request.places[arguments.tokens :]
        if arguments.target_ms:
            table = [list(map(float, e.split(":"))) for e in arguments.target_ms.split(",")]
            for request in requests:
                request.target = Costs(table)
        models = sorted(
            {n for r in requests for p in r.places for n, s in p.sources.items() if s.p}
        )
        target = requests[0].target
        shape = " ".join(f"{n}:{target.ms(n) / target.ms(1):.2f}" for n in (2, 4, 8, 16, 32, 64))
        print(f"{path.name}: {len(requests)} texts, {sum(len(r.places) for r in requests)} tokens")
        print(
            f"  v {shape}; "
            + "; ".join(
                f"{m} {requests[0].drafts[m].ms(1) / target.ms(1):.3f} of a plain step"
                for m in models
                if m in requests[0].drafts
            )
        )
        print(f"  {'rule':38} {'tau':>5} {'rows':>5} {'x plain':>8} {'least':>6} {'most':>6}")
        tau, gains = oracle(requests)
        print(
            f"  {'what is right, and nothing else':38} {tau:5.2f} {tau:5.2f} {mean(gains):8.3f} "
            f"{min(gains):6.2f} {max(gains):6.2f}"
        )
        for name, rule in rules_of(models).items():
            tau, rows, gains = simulate(rule, requests)
            print(
                f"  {name:38} {tau:5.2f} {rows:5.2f} {mean(gains):8.3f} "
                f"{min(gains):6.2f} {max(gains):6.2f}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
