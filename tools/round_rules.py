"""Rules that say what is drafted, for tools/simulate_rounds.py: tried on recorded rounds."""

from __future__ import annotations

import dataclasses
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

LOOKUP_PRIOR = (0.3, 0.15, 0.3, 0.45, 0.6, 0.75, 0.87, 0.95)
MODEL_PRIOR = (0.08, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.96)
CONFIDENCE_EDGES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97)


@dataclasses.dataclass(frozen=True)
class Source:
    """What one drafter said behind one token."""

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    p: tuple[float, ...]  # of a model: what it gives each token; empty: a lookup
    strength: int  # of a lookup: length of the match
    ms: float  # what asking took

    @property
    def is_model(self) -> bool:
        return bool(self.p)


@dataclasses.dataclass(frozen=True)
class Place:
    """One token of a text, and what was said before it."""

    token: int
    sources: dict[str, Source]


class Costs:
    """Milliseconds by rows, between and beyond the measured ones in proportion."""

    def __init__(self, table: Sequence[Sequence[float]]) -> None:
        self.rows = [int(row) for row, _ in table]
        self.values = [float(ms) for _, ms in table]

    def ms(self, rows: int) -> float:
        if rows <= self.rows[0] or len(self.rows) == 1:
            return self.values[0]
        i = 1
        while i + 1 < len(self.rows) and self.rows[i] < rows:
            i += 1
        low, high = self.rows[i - 1], self.rows[i]
        slope = (self.values[i] - self.values[i - 1]) / (high - low)
        return self.values[i - 1] + slope * (rows - low)


class Calibration:
    """Hit rates by cell, each leaning on a coarser one and that on a guess."""

    KEEP = 0.97
    PRIOR_WEIGHT = 2.0
    PARENT_WEIGHT = 6.0

    def __init__(self) -> None:
        self.cells: dict[tuple[object, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])

    def rate(self, source: str, grade: int, depth: int, rank: int, prior: float) -> float:
        hits, n = self.cells[source, grade, min(rank, 1)]
        parent = (hits + self.PRIOR_WEIGHT * prior) / (n + self.PRIOR_WEIGHT)
        hits, n = self.cells[source, grade, min(rank, 1), min(depth, 15)]
        return (hits + self.PARENT_WEIGHT * parent) / (n + self.PARENT_WEIGHT)

    def observe(self, source: str, grade: int, depth: int, rank: int, hit: bool) -> None:
        for key in ((source, grade, min(rank, 1)), (source, grade, min(rank, 1), min(depth, 15))):
            cell = self.cells[key]
            cell[0] = cell[0] * self.KEEP + hit
            cell[1] = cell[1] * self.KEEP + 1

    def fade(self) -> None:
        for cell in self.cells.values():
            cell[0] *= 0.5
            cell[1] *= 0.5


@dataclasses.dataclass
class Bounds:
    """What a request may lose: shares of its own plain time and plain steps, as in credit.cc."""

    grown_share: float = 0.06
    steps: float = 0.3
    clear_share: float = 0.03
    unclear_share: float = 0.01
    unclear_steps: float = 0.1
    clear_gain: float = 1.25
    short_tokens: float = 48.0
    growth_tokens: float = 128.0


class Credit:
    """Plain steps won and lost in one request."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.earned = self.tokens = 0.0

    def allows(self, loss: float, speedup: float) -> bool:
        b = self.bounds
        clear = speedup >= b.clear_gain
        share = b.clear_share if clear else b.unclear_share
        steps = b.steps if clear else b.unclear_steps
        grown = min(max((self.tokens - b.short_tokens) / b.growth_tokens, 0.0), 1.0)
        share += grown * (b.grown_share - share)
        steps += grown * (b.steps - steps)
        return self.earned - loss >= -(share * self.tokens + steps)

    def note(self, emitted: int, steps: float) -> None:
        self.tokens += emitted
        self.earned += emitted - steps


def match_grade(length: int) -> int:
    return max(length, 0) if length <= 4 else 5 if length <= 8 else 6 if length <= 16 else 7


def confidence_grade(p: float) -> int:
    return sum(p >= edge for edge in CONFIDENCE_EDGES)


@dataclasses.dataclass
class Node:
    """Of a merged tree: a token behind its parent, and who said it."""

    token: int
    parent: int
    depth: int
    rate: float  # that it is right where its parent is
    reach: float
    said: list[tuple[str, int, int, float]]  # source, grade, rank, guess


def ranked(source: Source) -> Iterator[tuple[int, int, int, int]]:
    """(index, parent, depth, rank among its parent's children) of every token."""
    depths: list[int] = []
    children: dict[int, int] = defaultdict(int)
    for i, parent in enumerate(source.parents):
        depths.append(0 if parent < 0 else depths[parent] + 1)
        yield i, parent, depths[i], children[parent]
        children[parent] += 1


def grade_of(source: Source, i: int) -> tuple[int, float]:
    if source.is_model:
        grade = confidence_grade(source.p[i])
        return grade, MODEL_PRIOR[grade]
    grade = match_grade(source.strength)
    return grade, LOOKUP_PRIOR[grade]


class Trie:
    """Proposals of several sources with shared prefixes."""

    def __init__(self, calibration: Calibration) -> None:
        self.nodes: list[Node] = []
        self.at: dict[tuple[int, int], int] = {}
        self.calibration = calibration

    def add(self, name: str, source: Source, wanted: Callable[[int, int], bool]) -> None:
        """The tokens that wanted(depth, rank), with all that they follow."""
        places: dict[int, int] = {-1: -1}
        for i, parent, depth, rank in ranked(source):
            if parent not in places or not wanted(depth, rank):
                continue
            grade, prior = grade_of(source, i)
            rate = self.calibration.rate(name, grade, depth, rank, prior)
            key = places[parent], source.tokens[i]
            if key in self.at:
                self.nodes[self.at[key]].said.append((name, grade, rank, prior))
            else:
                self.at[key] = len(self.nodes)
                self.nodes.append(
                    Node(key[1], key[0], depth, rate, 0.0, [(name, grade, rank, prior)])
                )
            places[i] = self.at[key]

    def settle(self) -> None:
        """Reach of every node; what the children of one node promise together is at most 1."""
        self.rate_together()
        total: dict[int, float] = defaultdict(float)
        for node in self.nodes:
            total[node.parent] += node.rate
        for node in self.nodes:
            rate = node.rate / max(total[node.parent], 1.0)
            node.reach = rate * (1.0 if node.parent < 0 else self.nodes[node.parent].reach)

    def keys(self) -> Iterator[tuple[Node, str, int, int, float]]:
        """What each node is judged as: alone, together with others, or against others."""
        speakers: dict[int, set[str]] = defaultdict(set)
        for node in self.nodes:
            speakers[node.parent].update(said[0] for said in node.said)
        for node in self.nodes:
            names = sorted({said[0] for said in node.said})
            strongest = max(node.said, key=lambda said: said[3])
            against = "!" if len(speakers[node.parent]) > len(names) else ""
            yield node, "+".join(names) + against, strongest[1], strongest[2], strongest[3]

    def rate_together(self) -> None:
        for node, name, grade, rank, prior in self.keys():
            node.rate = self.calibration.rate(name, grade, node.depth, rank, prior)

    def best_first(self) -> list[int]:
        heap: list[tuple[float, int]] = []
        children: dict[int, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            children[node.parent].append(i)
        order: list[int] = []
        for i in children[-1]:
            heapq.heappush(heap, (-self.nodes[i].reach, i))
        while heap:
            _, i = heapq.heappop(heap)
            order.append(i)
            for child in children[i]:
                heapq.heappush(heap, (-self.nodes[child].reach, child))
        return order

    def judge(self, truth: Sequence[int]) -> None:
        """Every source learns of its tokens behind what was right."""
        at = -1
        keys = list(self.keys())
        for token in truth:
            hit = -1
            for i, (node, name, grade, rank, _) in enumerate(keys):
                if node.parent != at:
                    continue
                right = node.token == token
                hit = i if right else hit
                self.calibration.observe(name, grade, node.depth, rank, right)
            if hit < 0:
                return
            at = hit


@dataclasses.dataclass
class Drafted:
    """Nodes that the target's pass verifies, and what they cost before it."""

    trie: Trie
    chosen: list[int]
    draft_ms: float
    expected: float


def cut(
    trie: Trie,
    draft_ms: float,
    target: Costs,
    most: int,
    least: float,
    allows: Callable[[float, float], bool] = lambda loss, speedup: True,
) -> Drafted:
    """The first of the best that promise the most tokens a millisecond; none below `least`."""
    trie.settle()
    chosen: list[int] = []
    tokens = 1.0
    plain = target.ms(1)
    best, best_n = least, 0
    order = trie.best_first()[:most]
    for n, i in enumerate(order, 1):
        tokens += trie.nodes[i].reach
        speed = tokens * plain / (target.ms(n + 1) + draft_ms)
        if speed > best and allows((target.ms(n + 1) + draft_ms) / plain - 1, speed):
            best, best_n = speed, n
    chosen = order[:best_n]
    return Drafted(trie, chosen, draft_ms, best if best_n else 1.0)
