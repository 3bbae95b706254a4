"""Attention layout of a packed row.

Suffixes are in length buckets, and these are split into query blocks that fit the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from worker.training.shared_prefix.packing import Layout

MAX_PADDING_SHARE = 0.2
"""Share of a bucket's tokens that may be padding."""

MAX_BLOCK_SCORES = 2**17
"""Attention scores per head computed at a time; a block has at least 16 queries."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """`count` suffixes of at most `length` tokens of the prefix at columns start..start+prefix.

    Padding repeats a suffix's last column; it is to the right of every real query, so that
    causality masks it.
    """

    start: int
    prefix: int
    count: int
    length: int
    rows: torch.Tensor
    """(count x length,): columns of the packed row, padding included."""
    padding: torch.Tensor | None
    """Indices of `rows` that are padding; None if there is no padding."""
    real: torch.Tensor | None
    """Indices of `rows` that are not padding; None if there is no padding."""
    columns: torch.Tensor
    """The packed row's columns at `real`."""
    blocks: "list[QueryBlock]"
    """The queries of the suffixes in order, in blocks with few scores each."""


@dataclass(slots=True)
class PackedRow:
    """A layout as attention needs it, on one device."""

    buckets: list[Bucket]
    calls: int = 0
    """Number of attention calls over the row: one for each layer with attention."""
    windows: int = 0
    """Number of these calls that had a sliding window."""
    masks: dict[tuple["QueryBlock", int | None], torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "PackedRow":
        buckets = []
        for segment in layout.segments:
            if segment.prefix:
                buckets.append(_bucket(0, 0, [(segment.start, segment.prefix)], device))
            buckets += (
                _bucket(segment.start, segment.prefix, suffixes, device)
                for suffixes in _split_by_length(segment.suffixes, segment.prefix)
            )
        return cls(buckets)

    def mask(self, block: "QueryBlock", window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Return the additive mask, (block.queries, block.keys): 0 where a query sees a key.

        Queries and keys count by position, so that other samples do not shift a sliding window.
        """
        if window is not None and window >= block.keys:
            window = None
        key = (block, window)
        if (cached := self.masks.get(key)) is not None:
            return cached
        query = torch.arange(block.keys - block.queries, block.keys, device=like.device)[:, None]
        keys = torch.arange(block.keys, device=like.device)[None]
        masked = keys > query
        if window is not None:
            masked |= query - keys >= window
        mask = torch.zeros(masked.shape, dtype=like.dtype, device=like.device)
        mask.masked_fill_(masked, float("-inf"))
        if mask.numel() <= MAX_BLOCK_SCORES:  # reused by all layers; larger ones are recomputed
            self.masks[key] = mask
        return mask


@dataclass(frozen=True, slots=True)
class QueryBlock:
    """`queries` tokens of a bucket's suffixes from `first` on, and the `keys` that they see."""

    first: int
    queries: int
    keys: int


def _query_blocks(count: int, prefix: int, length: int) -> list[QueryBlock]:
    """Split a bucket's queries; by causality a block needs no keys behind its last query."""
    queries = max(MAX_BLOCK_SCORES // (count * (prefix + length)), 16)
    return [
        QueryBlock(first, min(queries, length - first), prefix + min(first + queries, length))
        for first in range(0, length, queries)
    ]


def _split_by_length(
    suffixes: Sequence[tuple[int, int]], prefix: int
) -> list[list[tuple[int, int]]]:
    """Split suffixes, shortest first, into buckets with few scores and little padding."""
    buckets: list[list[tuple[int, int]]] = []
    tokens = 0
    for suffix in suffixes:
        tokens += suffix[1]
        width = suffix[1] * (len(buckets[-1]) + 1) if buckets else 0
        fits = (
            width * (1 - MAX_PADDING_SHARE) <= tokens
            and width * (prefix + suffix[1]) <= MAX_BLOCK_SCORES
        )
        if buckets and fits:
            buckets[-1].append(suffix)
        else:
            buckets.append([suffix])
            tokens = suffix[1]
    return buckets


def _bucket(
    start: int, prefix: int, suffixes: Sequence[tuple[int, int]], device: torch.device
) -> Bucket:
    longest = suffixes[-1][1]
    offsets = torch.arange(longest, device=device)
    starts, lengths = torch.tensor(suffixes, device=device).T[:, :, None]
    rows = (starts + offsets.minimum(lengths - 1)).flatten()
    is_real = (offsets < lengths).flatten()
    unpadded = bool(is_real.all())
    return Bucket(
        start,
        prefix,
        len(suffixes),
        longest,
        rows,
        None if unpadded else (~is_real).nonzero()[:, 0],
        None if unpadded else is_real.nonzero()[:, 0],
        rows[is_real],
        _query_blocks(len(suffixes), prefix, longest),
    )
