"""Attention over a packed row: each suffix attends to its group's prefix and to itself.

`attend` is registered with transformers under `NAME` and gets the row's layout as the extra keyword
`packed` of the model's forward pass. A group's suffixes are split into buckets of similar lengths;
a bucket is a batch of suffixes padded to the longest, with the keys of the prefix and their own. No
score between two samples is ever computed. A prefix itself is a bucket of one.

Attention is computed as matrix products and a softmax over blocks that fit the cache: on a CPU that
measured several times faster than PyTorch's fused attention, whose backward pass is slow
(benchmarks/results/profiling.md). The backward pass recomputes the scores instead of saving them.
"""

from typing import Any

import torch
from torch import nn

from worker.training.shared_prefix.packed_row import Bucket, PackedRow, QueryBlock

NAME = "fairtune_shared_prefix"

_IGNORED_OPTIONS = frozenset(
    {"cache_position", "output_attentions", "output_hidden_states", "position_ids", "use_cache"}
)
"""Options of models that do not affect training over a packed row."""


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
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Map query (1, heads, T, d), key and value (1, kv heads, T, d) to (1, T, heads, d).

    `s_aux`, (heads,), are the logits of attention sinks. Raises ValueError without a layout, and
    for unsupported options, such as dropout of attention weights.
    """
    if packed is None:
        raise ValueError("the layout of the packed row does not reach its attention")
    unsupported = sorted(
        k for k, v in options.items() if v is not None and k not in _IGNORED_OPTIONS
    )
    if dropout:
        unsupported.append(f"dropout {dropout} of attention weights")
    if is_causal is False:
        unsupported.append("bidirectional attention")
    if attention_mask is not None:
        unsupported.append("an attention mask")
    if unsupported:
        raise ValueError(
            f"packing does not support these features of its attention: {', '.join(unsupported)}"
        )
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
    """Map query (T, heads, d), key and value (T, kv heads, d) to (T, heads, d)."""

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
        ctx.options = scaling, window, sinks, packed
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
        for bucket in packed.buckets:
            q, k, v = _gather(bucket, query, key, value)
            output = torch.empty_like(q)
            for block in bucket.blocks:
                weights = _weights(block, q, k, scaling, window, sinks, packed)
                block_output = torch.bmm(weights, v[:, : block.keys])
                _block_queries(output, block).copy_(
                    block_output.view_as(_block_queries(output, block))
                )
            _scatter(out, bucket, output)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value = ctx.saved_tensors
        scaling, window, sinks, packed = ctx.options
        # Sums over many samples, in float32. Each column is written before anything is added to it:
        # a prefix's own bucket comes first.
        key_value_grads = [torch.empty_like(part, dtype=torch.float32) for part in (key, value)]
        grad_query = torch.empty_like(query)
        for bucket in packed.buckets:
            q, k, v = _gather(bucket, query, key, value)
            g = _queries(bucket, grad, key.shape[1], padded_with_zeros=True)
            grad_q = torch.empty_like(q)
            grad_k, grad_v = (torch.zeros_like(part, dtype=torch.float32) for part in (k, v))
            for block in bucket.blocks:
                weights = _weights(block, q, k, scaling, window, sinks, packed)
                block_k, block_v = k[:, : block.keys], v[:, : block.keys]
                block_g = _block_queries(g, block).reshape(len(g), -1, g.shape[-1])
                block_q = _block_queries(q, block).reshape(len(q), -1, q.shape[-1])
                grad_weights = torch.bmm(block_g, block_v.transpose(1, 2))
                # A sink has no value: it adds no gradient of its own to the softmax's.
                scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
                scores.mul_(scaling)
                _block_queries(grad_q, block).copy_(
                    torch.bmm(scores, block_k).view_as(_block_queries(grad_q, block))
                )
                grad_k[:, : block.keys] += torch.bmm(scores.transpose(1, 2), block_q)
                grad_v[:, : block.keys] += torch.bmm(weights.transpose(1, 2), block_g)
            _scatter(grad_query, bucket, grad_q)
            for total, part in zip(key_value_grads, (grad_k, grad_v), strict=True):
                _add_keys(total, bucket, part)
        return (
            grad_query,
            *(total.to(key.dtype) for total in key_value_grads),
            None,
            None,
            None,
            None,
        )


def _block_queries(queries: torch.Tensor, block: QueryBlock) -> torch.Tensor:
    return queries[:, :, block.first : block.first + block.queries]


def _gather(
    bucket: Bucket, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the bucket's queries, and its keys and values with those of the prefix in front.

    Shapes: (count x kv heads, repeat, length, d), twice (count x kv heads, prefix + length, d).
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
    gathered = query.index_select(0, bucket.rows)
    if padded_with_zeros and bucket.padding is not None:
        gathered.index_fill_(0, bucket.padding, 0)
    shaped = gathered.view(bucket.count, bucket.length, kv, heads // kv, size)
    return shaped.permute(0, 2, 3, 1, 4).reshape(bucket.count * kv, -1, bucket.length, size)


def _keys(bucket: Bucket, key: torch.Tensor) -> torch.Tensor:
    _, kv, size = key.shape
    width = bucket.prefix + bucket.length
    keys = key.new_empty(bucket.count, kv, width, size)
    prefix = key[bucket.start : bucket.start + bucket.prefix]
    keys[:, :, : bucket.prefix] = prefix.transpose(0, 1)
    suffixes = key.index_select(0, bucket.rows).view(bucket.count, bucket.length, kv, size)
    keys[:, :, bucket.prefix :] = suffixes.transpose(1, 2)
    return keys.view(bucket.count * kv, width, size)


def _weights(
    block: QueryBlock,
    q: torch.Tensor,
    k: torch.Tensor,
    scaling: float,
    window: int | None,
    sinks: torch.Tensor | None,
    packed: PackedRow,
) -> torch.Tensor:
    """Return attention weights, (count x kv heads, repeat x block.queries, block.keys)."""
    batch, repeat, _, size = q.shape
    queries = _block_queries(q, block).reshape(batch, -1, size)
    keys = k[:, : block.keys].transpose(1, 2)
    scores = torch.baddbmm(q.new_empty(1, 1, 1), queries, keys, beta=0, alpha=scaling)
    scores.view(batch, repeat, block.queries, block.keys).add_(packed.mask(block, window, q))
    if sinks is None:
        return torch.softmax(scores, -1)
    kv = len(sinks) // repeat
    sink = sinks.view(1, kv, repeat, 1).expand(batch // kv, -1, -1, block.queries)
    scores = torch.cat([scores, sink.reshape(batch, -1, 1)], -1)
    return torch.softmax(scores, -1)[..., :-1].contiguous()


def _scatter(out: torch.Tensor, bucket: Bucket, part: torch.Tensor) -> None:
    """Write a bucket's (count x kv heads, repeat, length, d) to its columns of (T, heads, d)."""
    _, heads, size = out.shape
    shaped = part.view(bucket.count, heads, bucket.length, size).transpose(1, 2)
    rows = shaped.reshape(-1, heads, size)
    out.index_copy_(0, bucket.columns, _without_padding(bucket, rows))


def _add_keys(total: torch.Tensor, bucket: Bucket, part: torch.Tensor) -> None:
    """Add the gradient of `_keys` to `total`; the gradient of padding is zero."""
    _, kv, size = total.shape
    shaped = part.float().view(bucket.count, kv, -1, size).transpose(1, 2)
    if bucket.prefix:
        prefix = total[bucket.start : bucket.start + bucket.prefix]
        prefix += shaped[:, : bucket.prefix].sum(0)
    suffixes = shaped[:, bucket.prefix :].reshape(-1, kv, size)
    total.index_copy_(0, bucket.columns, _without_padding(bucket, suffixes))


def _without_padding(bucket: Bucket, rows: torch.Tensor) -> torch.Tensor:
    return rows if bucket.real is None else rows.index_select(0, bucket.real)
