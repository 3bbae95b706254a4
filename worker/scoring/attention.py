"""Attention for scoring on a CPU: matrix products and a softmax over blocks of rows.

All queries of one key-value head go through one product, so that keys and values are not copied for
each head (grouped-query attention). PyTorch's fused attention makes those copies and is slow on a
CPU for few queries over many keys (benchmarks/results/profiling.md). Results equal those of
transformers' eager attention.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

NAME = "fairtune_scoring"

MAX_BLOCK_SCORES = 2**19
"""Attention scores of all heads computed at a time, so that they stay in the CPU's caches."""

_IGNORED_OPTIONS = frozenset(
    {
        "cache_position",
        "is_causal",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "sliding_window",
        "use_cache",
    }
)
"""Options of models that the mask expresses already, or that do not affect one forward pass."""


class UnsupportedAttention(ValueError):
    """The model's attention uses a feature that is not implemented here."""


def attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    s_aux: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Map query (rows, heads, T, d), key and value (rows, kv heads, S, d) to (rows, T, heads, d).

    `attention_mask` is additive, (rows, 1, T, S). `s_aux`, (heads,), are the logits of attention
    sinks. Raises UnsupportedAttention without such a mask, with dropout, and for any other option,
    such as soft-capped scores.
    """
    unsupported = sorted(
        k for k, v in options.items() if v is not None and k not in _IGNORED_OPTIONS
    )
    if attention_mask is None or attention_mask.dtype == torch.bool or dropout:
        unsupported.append("dropout, or no additive mask")
    if unsupported:
        raise UnsupportedAttention(
            f"scoring does not support these features of its attention: {', '.join(unsupported)}"
        )
    assert attention_mask is not None
    rows, heads, length, size = query.shape
    kv, width = key.shape[1], key.shape[2]
    scaling = size**-0.5 if scaling is None else scaling
    out = query.new_empty(rows, length, heads, size)
    rows_per_block = max(1, MAX_BLOCK_SCORES // (heads * length * width))
    for first in range(0, rows, rows_per_block):
        block = slice(first, first + rows_per_block)
        q = query[block].reshape(-1, heads // kv * length, size)
        k, v = (part[block].reshape(-1, width, size) for part in (key, value))
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scaling)
        scores.view(-1, heads, length, width).add_(attention_mask[block])
        if s_aux is None:
            weights = torch.softmax(scores, -1)
        else:
            sinks = s_aux.to(q.dtype).view(1, kv, -1, 1).expand(len(q) // kv, -1, -1, length)
            scores = torch.cat([scores, sinks.reshape(len(q), -1, 1)], -1)
            weights = torch.softmax(scores, -1)[..., :-1].contiguous()
        output = torch.bmm(weights, v).view(-1, heads, length, size)
        out[block] = output.transpose(1, 2)
    return out, None


AttentionInterface.register(NAME, attend)


AttentionContext = Callable[[Any, torch.device], AbstractContextManager[None]]
"""Context in which a model on a device uses a certain attention implementation."""


@contextmanager
def scoring_attention(model: Any, device: torch.device) -> Iterator[None]:
    """Let the model use `attend`.

    Raises UnsupportedAttention for a device other than a CPU, and for a model whose attention
    cannot be replaced.
    """
    if device.type != "cpu":
        raise UnsupportedAttention(f"a {device.type} device has a faster attention of its own")
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config
    original = config._attn_implementation
    causal.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:  # transformers only logs it
        raise UnsupportedAttention("its attention cannot be replaced")
    try:
        yield
    finally:
        causal.set_attn_implementation(original)


def default_attention(_model: Any, _device: torch.device) -> AbstractContextManager[None]:
    """Leave the model's own attention implementation in place."""
    return nullcontext()
