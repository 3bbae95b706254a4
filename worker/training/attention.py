"""Attention over a packed row: each rest against its group's beginning and itself.

`attend` is registered with transformers under `NAME` and gets the row's layout as the extra keyword
`packed` of the model's forward pass. A group's samples are taken in buckets of like lengths; a
bucket is a batch of rests whose keys are the beginning's and their own, padded to the longest. No
score between two samples is ever computed. The beginnings' own attention is a bucket of one.

Scores are matrix products and a softmax, a few samples at a time so that they stay in the cache: on
a CPU that measured several times faster than PyTorch's fused attention, whose backward pass is slow
(docs/performance.md). The backward pass computes the scores again rather than keep them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from worker.training.packing import Layout

NAME = "fairtune_shared_prefix"

WASTE = 0.2
"""The share of a bucket that may be padding."""

SCORES_AT_ONCE = 2**17
"""Scores held at a time for each head, or those of 16 tokens."""

_NO_MATTER = frozenset(
    {"cache_position", "output_attentions", "output_hidden_states", "position_ids", "use_cache"}
)
"""What models pass on to attention functions that has no bearing on training over a packed row."""


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
    kept: torch.Tensor | None
    """Which of `rows` are no padding; None where all are."""
    columns: torch.Tensor
    """The packed row's columns that `kept` stands for."""


@dataclass(slots=True)
class PackedRow:
    """A layout as attention needs it, on one device."""

    buckets: list[Bucket]
    calls: int = 0
    """How often attention was computed over it: once for each layer that has any."""
    windows: int = 0
    """How often with a sliding window."""
    masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, device: torch.device) -> "PackedRow":
        buckets = []
        for segment in layout.segments:
            if segment.prefix:
                buckets.append(_bucket(0, 0, [(segment.start, segment.prefix)], device))
            rests = sorted(segment.rests, key=lambda rest: rest[1])
            buckets += (
                _bucket(segment.start, segment.prefix, alike, device)
                for alike in _alike(rests, segment.prefix)
            )
        return cls(buckets)

    def mask(self, span: "Span", window: int | None, like: torch.Tensor) -> torch.Tensor:
        """Additive, (last - first, span.keys): 0 where a rest's token sees a key.

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


def _spans(bucket: Bucket) -> list[Span]:
    """Pieces of a bucket with few scores each. Causality: later keys need not be looked at."""
    spans = []
    first = 0
    while first < bucket.length:
        room = SCORES_AT_ONCE // (bucket.count * (bucket.prefix + bucket.length))
        queries = min(max(room, 16), bucket.length - first)
        spans.append(Span(first, queries, bucket.prefix + first + queries))
        first += queries
    return spans


def _alike(rests: Sequence[tuple[int, int]], prefix: int) -> list[list[tuple[int, int]]]:
    """Stretches of the sorted rests with few scores and at most the share WASTE of padding."""
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
    rows = [begin + min(i, length - 1) for begin, length in rests for i in range(longest)]
    kept = [n * longest + i for n, (_, length) in enumerate(rests) for i in range(length)]
    columns = [begin + i for begin, length in rests for i in range(length)]
    return Bucket(
        start,
        prefix,
        len(rests),
        longest,
        torch.tensor(rows, device=device),
        torch.tensor(kept, device=device) if len(kept) < len(rows) else None,
        torch.tensor(columns, device=device),
    )


def attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    packed: PackedRow | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Query (1, heads, T, d), key and value (1, kv heads, T, d) to (1, T, heads, d).

    `s_aux`, (heads,), are the logits of attention sinks. Raises ValueError without a layout, and
    for what it cannot do, such as dropout of attention weights and whatever it does not know.
    """
    if packed is None:
        raise ValueError("attention gets no layout of the packed row")
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _NO_MATTER)
    if dropout:
        unknown.append(f"dropout {dropout} of attention weights")
    if is_causal is False:
        unknown.append("attention to what follows")
    if attention_mask is not None:
        unknown.append("an attention mask")
    if unknown:
        raise ValueError(f"its attention has what packing does not know: {', '.join(unknown)}")
    packed.calls += 1
    packed.windows += sliding_window is not None
    out: torch.Tensor = _Attend.apply(  # type: ignore[no-untyped-call]  # of torch
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window,
        None if s_aux is None else s_aux.detach().to(query.dtype),
        packed,
    )
    return out[None], None


class _Attend(torch.autograd.Function):
    """(T, heads, d) from (T, heads, d) and twice (T, kv heads, d)."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float,
        window: int | None,
        sinks: torch.Tensor | None,
        packed: PackedRow,
    ) -> torch.Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.rest = scaling, window, sinks, packed
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        for bucket in packed.buckets:
            q, k, v = _gather(bucket, query, key, value)
            got = torch.empty_like(q)
            for span in _spans(bucket):
                weights = _weights(span, q, k, scaling, window, sinks, packed)
                put = torch.bmm(weights, v[:, : span.keys])
                _cut(got, span).copy_(put.view_as(_cut(got, span)))
            _put(out, bucket, got)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value = ctx.saved_tensors
        scaling, window, sinks, packed = ctx.rest
        # Sums over many samples, in float32. Each column is written before anything is added to it.
        into = [torch.empty_like(part, dtype=torch.float32) for part in (key, value)]
        grad_query = torch.empty_like(query)
        for bucket in packed.buckets:
            q, k, v = _gather(bucket, query, key, value)
            g = _queries(bucket, grad, key.shape[1], padded_with_zeros=True)
            grad_q = torch.empty_like(q)
            spans = _spans(bucket)
            several = len(spans) > 1
            grad_k, grad_v = (
                torch.zeros_like(part, dtype=torch.float32) if several else torch.empty_like(part)
                for part in (k, v)
            )
            for span in spans:
                weights = _weights(span, q, k, scaling, window, sinks, packed)
                seen_k, seen_v = k[:, : span.keys], v[:, : span.keys]
                part_g = _cut(g, span).reshape(len(g), -1, g.shape[-1])
                part_q = _cut(q, span).reshape(len(q), -1, q.shape[-1])
                grad_weights = torch.bmm(part_g, seen_v.transpose(1, 2))
                # A sink has no value: it adds no gradient of its own to the softmax's.
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                scores.mul_(scaling)
                _cut(grad_q, span).copy_(torch.bmm(scores, seen_k).view_as(_cut(grad_q, span)))
                for total, left, right in ((grad_k, scores, part_q), (grad_v, weights, part_g)):
                    part = torch.bmm(left.transpose(1, 2), right)
                    if several:
                        total[:, : span.keys] += part
                    else:
                        total.copy_(part)
            _put(grad_query, bucket, grad_q)
            for total, part in zip(into, (grad_k, grad_v), strict=True):
                _add_keys(total, bucket, part)
        return grad_query, *(total.to(key.dtype) for total in into), None, None, None, None


def _cut(queries: torch.Tensor, span: Span) -> torch.Tensor:
    return queries[:, :, span.first : span.first + span.queries]


def _gather(
    bucket: Bucket, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The bucket's queries and, behind the beginning's, keys and values.

    (count x kv heads, repeat, length, d), twice (count x kv heads, prefix + length, d).
    """
    return (
        _queries(bucket, query, key.shape[1]),
        _keys(bucket, key),
        _keys(bucket, value),
    )


def _queries(
    bucket: Bucket, query: torch.Tensor, kv: int, *, padded_with_zeros: bool = False
) -> torch.Tensor:
    _, heads, size = query.shape
    taken = query.index_select(0, bucket.rows)
    if padded_with_zeros and bucket.kept is not None:
        padding = torch.ones(len(bucket.rows), dtype=torch.bool, device=query.device)
        padding[bucket.kept] = False
        taken[padding] = 0
    shaped = taken.view(bucket.count, bucket.length, kv, heads // kv, size)
    return shaped.permute(0, 2, 3, 1, 4).reshape(bucket.count * kv, -1, bucket.length, size)


def _keys(bucket: Bucket, key: torch.Tensor) -> torch.Tensor:
    _, kv, size = key.shape
    width = bucket.prefix + bucket.length
    keys = key.new_empty(bucket.count, kv, width, size)
    begin = key[bucket.start : bucket.start + bucket.prefix]
    keys[:, :, : bucket.prefix] = begin.transpose(0, 1)
    rests = key.index_select(0, bucket.rows).view(bucket.count, bucket.length, kv, size)
    keys[:, :, bucket.prefix :] = rests.transpose(1, 2)
    return keys.view(bucket.count * kv, width, size)


def _weights(
    span: Span,
    q: torch.Tensor,
    k: torch.Tensor,
    scaling: float,
    window: int | None,
    sinks: torch.Tensor | None,
    packed: PackedRow,
) -> torch.Tensor:
    """(count x kv heads, repeat x span.queries, span.keys)."""
    batch, repeat, _, size = q.shape
    queries = _cut(q, span).reshape(batch, -1, size)
    keys = k[:, : span.keys].transpose(1, 2)
    scores = torch.baddbmm(q.new_empty(1, 1, 1), queries, keys, beta=0, alpha=scaling)
    scores.view(batch, repeat, span.queries, span.keys).add_(packed.mask(span, window, q))
    if sinks is None:
        return torch.softmax(scores, -1)
    kv = len(sinks) // repeat
    sink = sinks.view(1, kv, repeat, 1).expand(batch // kv, -1, -1, span.queries)
    scores = torch.cat([scores, sink.reshape(batch, -1, 1)], -1)
    return torch.softmax(scores, -1)[..., :-1].contiguous()


def _put(out: torch.Tensor, bucket: Bucket, part: torch.Tensor) -> None:
    """Write a bucket's (count x kv heads, repeat, length, d) to its columns of (T, heads, d)."""
    _, heads, size = out.shape
    shaped = part.view(bucket.count, heads, bucket.length, size).transpose(1, 2)
    rows = shaped.reshape(-1, heads, size)
    out.index_copy_(0, bucket.columns, _kept(bucket, rows))


def _add_keys(total: torch.Tensor, bucket: Bucket, part: torch.Tensor) -> None:
    """Add the gradient of `_keys`; what padding would add is zero."""
    _, kv, size = total.shape
    shaped = part.float().view(bucket.count, kv, -1, size).transpose(1, 2)
    if bucket.prefix:
        begin = total[bucket.start : bucket.start + bucket.prefix]
        begin += shaped[:, : bucket.prefix].sum(0)
    rests = shaped[:, bucket.prefix :].reshape(-1, kv, size)
    total.index_copy_(0, bucket.columns, _kept(bucket, rests))


def _kept(bucket: Bucket, rows: torch.Tensor) -> torch.Tensor:
    return rows if bucket.kept is None else rows.index_select(0, bucket.kept)
