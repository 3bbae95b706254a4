"""Attention over a packed row: each rest against its group's beginning and itself.

`attend` is registered with transformers under `NAME` and gets the row's layout as the extra keyword
`packed` of the model's forward pass. A group's samples are taken in buckets of like lengths; a
bucket is a batch of rests whose keys are the beginning's and their own, padded to the longest. No
score between two samples is ever computed. The beginnings' own attention is a bucket of one.

Scores are matrix products and a softmax, a few samples at a time so that they stay in the cache: on
a CPU that measured several times faster than PyTorch's fused attention, whose backward pass is slow
(docs/performance.md). The backward pass computes the scores again rather than keep them.
"""

from typing import Any

import torch
from torch import nn

from worker.training.shared_prefix.packed_row import Bucket, PackedRow, Span

NAME = "fairtune_shared_prefix"

_NO_MATTER = frozenset(
    {"cache_position", "output_attentions", "output_hidden_states", "position_ids", "use_cache"}
)
"""What models pass on to attention functions that has no bearing on training over a packed row."""


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
            for span in bucket.spans:
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
            grad_k, grad_v = (torch.zeros_like(part, dtype=torch.float32) for part in (k, v))
            for span in bucket.spans:
                weights = _weights(span, q, k, scaling, window, sinks, packed)
                seen_k, seen_v = k[:, : span.keys], v[:, : span.keys]
                part_g = _cut(g, span).reshape(len(g), -1, g.shape[-1])
                part_q = _cut(q, span).reshape(len(q), -1, q.shape[-1])
                grad_weights = torch.bmm(part_g, seen_v.transpose(1, 2))
                # A sink has no value: it adds no gradient of its own to the softmax's.
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                scores.mul_(scaling)
                _cut(grad_q, span).copy_(torch.bmm(scores, seen_k).view_as(_cut(grad_q, span)))
                grad_k[:, : span.keys] += torch.bmm(scores.transpose(1, 2), part_q)
                grad_v[:, : span.keys] += torch.bmm(weights.transpose(1, 2), part_g)
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
    if padded_with_zeros and bucket.padding is not None:
        taken.index_fill_(0, bucket.padding, 0)
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
