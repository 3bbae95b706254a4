"""A packed row as attention over it goes: buckets of rests, and pieces of them with few scores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from worker.training.shared_prefix.packing import Layout

WASTE = 0.2
"""The share of a bucket that may be padding."""

SCORES_AT_ONCE = 2**17
"""Scores held at a time for each head, or those of 16 tokens."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`count` rests of at most `length` tokens behind the beginning at columns start..start+prefix.

    Padding repeats a rest's last column; it stands to the right of every query that counts, so that
    causality hides it.
    """

    start: int
    prefix: int
    count: int
    length: int
    rows: torch.Tensor
    """(count x length): the columns of the packed row, padding included."""
    padding: torch.Tensor | None
    """Which of `rows` are padding; None where none is."""
    kept: torch.Tensor | None
    """Which are not; None where all are."""
    columns: torch.Tensor
    """The packed row's columns that `kept` stands for."""
    spans: "list[Span]"
    """Pieces of the rests with few scores each, in order."""


@dataclass(slots=True)
class PackedRow:
    """A layout as attention needs it, on one device."""

    buckets: list[Bucket]
    calls: int = 0
    """How often attention was computed over it: once for each layer that has any."""
    windows: int = 0
    """How often with a sliding window."""
    masks: dict[tuple["Span", int | None], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "PackedRow":
        buckets = []
        for segment in layout.segments:
            if segment.prefix:
                buckets.append(_bucket(0, 0, [(segment.start, segment.prefix)], device))
            buckets += (
                _bucket(segment.start, segment.prefix, alike, device)
                for alike in _alike(segment.rests, segment.prefix)
            )
        return cls(buckets)

    def mask(self, span: "Span", window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Additive, (span.queries, span.keys): 0 where a rest's token sees a key.

        Both count by position, so that a sliding window is not shifted by the other samples.
        """
        if window is not None and window >= span.keys:
            window = None
        key = (span, window)
        if (known := self.masks.get(key)) is not None:
            return known
        query = torch.arange(span.keys - span.queries, span.keys, device=like.device)[:, None]
        seen = torch.arange(span.keys, device=like.device)[None]
        hidden = seen > query
        if window is not None:
            hidden |= query - seen >= window
        mask = torch.zeros(hidden.shape, dtype=like.dtype, device=like.device)
        mask.masked_fill_(hidden, float("-inf"))
        if mask.numel() <= SCORES_AT_ONCE:  # all layers need it; larger ones are made anew
            self.masks[key] = mask
        return mask


@dataclass(frozen=True, slots=True)
class Span:
    """`queries` tokens of a bucket's rests from `first` on, and the `keys` up to their last one."""

    first: int
    queries: int
    keys: int


def _spans(count: int, prefix: int, length: int) -> list[Span]:
    """Causality: keys behind a piece's last query need not be looked at."""
    queries = max(SCORES_AT_ONCE // (count * (prefix + length)), 16)
    return [
        Span(first, min(queries, length - first), prefix + min(first + queries, length))
        for first in range(0, length, queries)
    ]


def _alike(rests: Sequence[tuple[int, int]], prefix: int) -> list[list[tuple[int, int]]]:
    """Stretches of the rests with few scores and at most the share WASTE of padding.

    The shortest rest comes first.
    """
    stretches: list[list[tuple[int, int]]] = []
    tokens = 0
    for rest in rests:
        tokens += rest[1]
        width = rest[1] * (len(stretches[-1]) + 1) if stretches else 0
        alike = width * (1 - WASTE) <= tokens and width * (prefix + rest[1]) <= SCORES_AT_ONCE
        if stretches and alike:
            stretches[-1].append(rest)
        else:
            stretches.append([rest])
            tokens = rest[1]
    return stretches


def _bucket(
    start: int, prefix: int, rests: Sequence[tuple[int, int]], device: torch.device
) -> Bucket:
    longest = rests[-1][1]
    places = torch.arange(longest, device=device)
    begins, lengths = torch.tensor(rests, device=device).T[:, :, None]
    rows = (begins + places.minimum(lengths - 1)).flatten()
    is_kept = (places < lengths).flatten()
    whole = bool(is_kept.all())
    return Bucket(
        start,
        prefix,
        len(rests),
        longest,
        rows,
        None if whole else (~is_kept).nonzero()[:, 0],
        None if whole else is_kept.nonzero()[:, 0],
        rows[is_kept],
        _spans(len(rests), prefix, longest),
    )
