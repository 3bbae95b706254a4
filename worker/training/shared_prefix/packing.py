"""Shared-prefix packing: the common prefixes of a step's samples are computed once.

A classifier's prompts have a common prefix. Samples that share a prefix form a group; a pack is one
row of tokens, with each group's prefix once, followed by the suffix of each of its samples:

    prefix A · suffix A1 · suffix A2 · … · prefix B · suffix B1 · …

A suffix attends to its prefix and to itself only, and its positions continue those of the prefix.
Every sample therefore attends to the same tokens as in a row of its own, and the loss of a pack is
the sum of its samples' losses; only repeated work is avoided. LoRA dropout is the one difference:
the activations of a prefix exist once, so the samples of a pack share one dropout mask for them,
drawn anew for each pack, while their suffixes have masks of their own. The distribution of masks
for a single sample is the same as without packing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from worker.data.prefixes import common_length
from worker.data.tokenize import Example

MAX_GROUPING_SAMPLES = 512
"""Number of samples that are grouped at a time; the time for it grows with the square."""


@dataclass(frozen=True, slots=True)
class Group:
    """Samples with a common prefix of `prefix` tokens, all longer than that, shortest first."""

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
    """Return the grouping with the fewest tokens, in an order that depends on the samples alone.

    Samples sorted by their ids have common prefixes with their neighbours, so an optimal grouping
    splits the sorted list into intervals; dynamic programming over their ends finds it. Groups have
    one level: a prefix is not itself composed of prefixes.
    """
    ordered = sorted(samples, key=lambda sample: (sample.ids, sample.start))
    groups: list[Group] = []
    for first in range(0, len(ordered), MAX_GROUPING_SAMPLES):
        groups += _optimal_groups(ordered[first : first + MAX_GROUPING_SAMPLES])
    return groups


def _optimal_groups(ordered: list[Example]) -> list[Group]:
    shared = [common_length([a.ids, b.ids]) for a, b in pairwise(ordered)]
    saved = [0] * (len(ordered) + 1)  # maximum of saved tokens among the first n
    begins = list(range(-1, len(ordered)))  # start of the last group of the first n
    for end in range(1, len(ordered) + 1):
        length = len(ordered[end - 1].ids) - 1  # at least one token of each sample remains
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


def pack_samples(samples: Sequence[Example], budget: int, min_packs: int = 1) -> list[Pack]:
    """Return the samples in packs of about equal width.

    A pack has at most `budget` tokens, but at least one sample. The number of packs is the smallest
    possible, but at least `min_packs` if there are as many samples.
    """
    if not samples:
        return []
    groups = find_groups(samples)
    count = max(len(list(_fill(groups, budget))), min_packs)
    too_narrow, wide_enough = 0, max(budget, max(len(sample.ids) for sample in samples))
    while (
        wide_enough - too_narrow > 1
    ):  # bisect for the smallest width at which `count` packs suffice
        middle = (too_narrow + wide_enough) // 2
        if len(list(_fill(groups, middle))) <= count:
            wide_enough = middle
        else:
            too_narrow = middle
    return list(_fill(groups, wide_enough))


def _fill(groups: Sequence[Group], budget: int) -> Iterator[Pack]:
    pack: Pack = []
    used = 0
    for group in groups:
        open_samples: list[Example] = []
        for sample in group.samples:
            suffix_length = len(sample.ids) - group.prefix
            needed = suffix_length if open_samples else suffix_length + group.prefix
            if used and used + needed > budget:
                if open_samples:
                    pack.append(Group(group.prefix, open_samples))
                yield pack
                pack, used, open_samples = [], 0, []
                needed = suffix_length + group.prefix
            open_samples.append(sample)
            used += needed
        pack.append(Group(group.prefix, open_samples))
    if pack:
        yield pack


@dataclass(frozen=True, slots=True)
class Targets:
    """Target tokens, the hidden states that predict them, and the number of samples they count for.

    A target within a prefix counts once for each sample of the group that trains on it.
    """

    columns: list[int]
    tokens: list[int]
    weights: list[int]
    origins: list[tuple[Example, int]]
    """For each target a sample that contains it, and its index in the sample's ids."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Columns of a group: `start` and length of its prefix, (first column, length) of its suffixes.

    The shortest suffix comes first.
    """

    start: int
    prefix: int
    suffixes: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A pack as one row of `ids` with their `positions`."""

    ids: list[int]
    positions: list[int]
    segments: list[Segment]
    targets: Targets


def build_layout(pack: Pack, train_on: Literal["completion", "all"]) -> Layout:
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    targets = Targets([], [], [], [])
    for group in pack:
        start, prefix = len(ids), group.prefix
        ids += group.samples[0].ids[:prefix]
        positions += range(prefix)
        suffixes = []
        first_targets = [max(s.start, 1) if train_on == "completion" else 1 for s in group.samples]
        # The sample whose answer starts first: all targets within the prefix are among its targets.
        earliest = group.samples[first_targets.index(min(first_targets))]
        for index in range(1, prefix):
            if weight := sum(first_target <= index for first_target in first_targets):
                targets.columns.append(start + index - 1)
                targets.tokens.append(ids[start + index])
                targets.weights.append(weight)
                targets.origins.append((earliest, index))
        for sample, first_target in zip(group.samples, first_targets, strict=True):
            begin = len(ids)
            suffixes.append((begin, len(sample.ids) - prefix))
            ids += sample.ids[prefix:]
            positions += range(prefix, len(sample.ids))
            for index in range(max(first_target, prefix), len(sample.ids)):
                # The last hidden state of the prefix predicts the first token of a suffix.
                column = begin + index - 1 - prefix if index > prefix else start + prefix - 1
                targets.columns.append(column)
                targets.tokens.append(sample.ids[index])
                targets.weights.append(1)
                targets.origins.append((sample, index))
        segments.append(Segment(start, prefix, suffixes))
    return Layout(ids, positions, segments, targets)
