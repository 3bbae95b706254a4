"""Shared-prefix packing: the samples of a step with what they have in common written once.

A classifier's prompts begin alike. Samples that share a beginning form a group; a pack is one row
of tokens, each group's beginning once and then the rest of each of its samples:

    beginning A · rest A1 · rest A2 · … · beginning B · rest B1 · …

A rest attends to its beginning and to itself alone, and its positions go on from the beginning's.
Every sample thus sees what it would see in a row of its own, and the loss over a pack is the sum of
its samples' losses; only work done twice is left out. LoRA dropout is the one difference: the
beginning's activations are there once, so a pack's samples share one mask for them, drawn anew for
each pack, while their rests have masks of their own. A sample by itself meets the same distribution
of masks as without packing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from worker.data.prefixes import common_length
from worker.data.tokenize import Example

MOST_AT_ONCE = 512
"""Samples among which groups are sought; the search takes time that grows with its square."""


@dataclass(frozen=True, slots=True)
class Group:
    """Samples that begin with the same `prefix` tokens, each longer than that, shortest first."""

    prefix: int
    samples: list[Example]

    @property
    def width(self) -> int:
        """Tokens that the group takes in a pack."""
        return self.prefix + sum(len(sample.ids) - self.prefix for sample in self.samples)


Pack = list[Group]


def width(pack: Pack) -> int:
    """Tokens in the pack's row."""
    return sum(group.width for group in pack)


def find_groups(samples: Sequence[Example]) -> list[Group]:
    """The grouping that stores the fewest tokens, in an order that depends on the samples alone.

    Sorted by their ids, samples that share a beginning stand together, so an optimal grouping cuts
    the sorted list into stretches; dynamic programming over its ends finds it. Groups are one level
    deep: a beginning is not itself built from a beginning.
    """
    ordered = sorted(samples, key=lambda sample: (sample.ids, sample.start))
    groups: list[Group] = []
    for first in range(0, len(ordered), MOST_AT_ONCE):
        groups += _best_cut(ordered[first : first + MOST_AT_ONCE])
    return groups


def _best_cut(ordered: list[Example]) -> list[Group]:
    shared = [common_length([a.ids, b.ids]) for a, b in pairwise(ordered)]
    saved = [0] * (len(ordered) + 1)  # at most, among the first n
    begins = list(range(-1, len(ordered)))  # where the last group of the first n begins
    for end in range(1, len(ordered) + 1):
        length = len(ordered[end - 1].ids) - 1  # a token at least stays with each sample
        best, begin = saved[end - 1], end - 1
        for start in range(end - 2, -1, -1):
            length = min(length, shared[start], len(ordered[start].ids) - 1)
            if length == 0:
                break
            if saved[start] + length * (end - start - 1) >= best:
                best, begin = saved[start] + length * (end - start - 1), start
        saved[end], begins[end] = best, begin
    groups: list[Group] = []
    end = len(ordered)
    while end:
        members = ordered[begins[end] : end]
        prefix = 0
        if len(members) > 1:
            shared_by_all = common_length([members[0].ids, members[-1].ids])
            prefix = min(shared_by_all, min(len(member.ids) for member in members) - 1)
        groups.append(Group(prefix, sorted(members, key=lambda member: len(member.ids))))
        end = begins[end]
    return groups[::-1]


def cut(samples: Sequence[Example], budget: int, parts: int = 1) -> list[Pack]:
    """The samples in packs of about equal width.

    A pack takes at most `budget` tokens, one sample at least; there are as few packs as that
    allows, but at least `parts` where there are so many samples.
    """
    if not samples:
        return []
    groups = find_groups(samples)
    count = max(len(list(_fill(groups, budget))), parts)
    least, most = 0, max(budget, max(len(sample.ids) for sample in samples))
    while most - least > 1:  # the narrowest packs of which `count` suffice
        middle = (least + most) // 2
        if len(list(_fill(groups, middle))) <= count:
            most = middle
        else:
            least = middle
    return list(_fill(groups, most))


def _fill(groups: Sequence[Group], budget: int) -> Iterator[Pack]:
    pack: Pack = []
    used = 0
    for group in groups:
        open_samples: list[Example] = []
        for sample in group.samples:
            rest = len(sample.ids) - group.prefix
            needed = rest if open_samples else rest + group.prefix
            if used and used + needed > budget:
                if open_samples:
                    pack.append(Group(group.prefix, open_samples))
                yield pack
                pack, used, open_samples = [], 0, []
                needed = rest + group.prefix
            open_samples.append(sample)
            used += needed
        pack.append(Group(group.prefix, open_samples))
    if pack:
        yield pack


@dataclass(frozen=True, slots=True)
class Targets:
    """Which hidden state predicts which token, and for how many samples.

    A beginning's own targets count once for each sample that has it.
    """

    places: list[int]
    tokens: list[int]
    weights: list[int]
    origins: list[tuple[Example, int]]
    """A sample that has the target, and where in its ids."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Where a group lies in the row: its beginning, then (first column, length) of each rest.

    The shortest rest comes first.
    """

    start: int
    prefix: int
    rests: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A pack written out as one row of `ids` with their `positions`."""

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    targets: Targets


def lay_out(pack: Pack, train_on: Literal["completion", "all"]) -> Layout:
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    targets = Targets([], [], [], [])
    for group in pack:
        start, prefix = len(ids), group.prefix
        ids += group.samples[0].ids[:prefix]
        positions += range(prefix)
        rests = []
        firsts = [max(s.start, 1) if train_on == "completion" else 1 for s in group.samples]
        # The one whose answer begins first: what is a target of any in the beginning is one of its.
        early = group.samples[firsts.index(min(firsts))]
        for place in range(1, prefix):
            if weight := sum(first <= place for first in firsts):
                targets.places.append(start + place - 1)
                targets.tokens.append(ids[start + place])
                targets.weights.append(weight)
                targets.origins.append((early, place))
        for sample, first in zip(group.samples, firsts, strict=True):
            begin = len(ids)
            rests.append((begin, len(sample.ids) - prefix))
            ids += sample.ids[prefix:]
            positions += range(prefix, len(sample.ids))
            for place in range(max(first, prefix), len(sample.ids)):
                # What the first token of a rest is predicted by ends the beginning.
                before = begin + place - 1 - prefix if place > prefix else start + prefix - 1
                targets.places.append(before)
                targets.tokens.append(sample.ids[place])
                targets.weights.append(1)
                targets.origins.append((sample, place))
        segments.append(Segment(start, prefix, rests))
    return Layout(ids, positions, segments, targets)
