"""Attention for scoring on a CPU: products and a softmax, a few rows at a time.

Queries of one key-value head go through one product, so that keys and values are not copied for
each head, as they are for PyTorch's fused attention, which is slow there where many keys stand
before few queries (docs/performance.md). The figures are those of transformers' eager attention.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface

NAME = "fairtune_scoring"

SCORES_AT_ONCE = 2**19
"""Scores of all heads held at a time: they stay in the caches."""

_NO_MATTER = frozenset(
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
"""What models pass on that the mask says already, or that has no bearing on one forward pass."""


class Unsuited(ValueError):
    """The model's attention has something that is not known here."""


def attend(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    s_aux: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Query (rows, heads, T, d), key and value (rows, kv heads, S, d) to (rows, T, heads, d).

    `attention_mask` is additive, (rows, 1, T, S). `s_aux`, (heads,), are the logits of attention
    sinks. Raises Unsuited without a mask, and for what it does not know, such as capped scores.
    """
    unknown = sorted(k for k, v in others.items() if v is not None and k not in _NO_MATTER)
    if attention_mask is None or attention_mask.dtype == torch.bool or dropout:
        unknown.append("no additive mask, or dropout")
    if unknown:
        raise Unsuited(f"its attention has what scoring does not know: {', '.join(unknown)}")
    assert attention_mask is not None
    rows, heads, length, size = query.shape
    kv, width = key.shape[1], key.shape[2]
    scaling = size**-0.5 if scaling is None else scaling
    out = query.new_empty(rows, length, heads, size)
    at_once = max(1, SCORES_AT_ONCE // (heads * length * width))
    for first in range(0, rows, at_once):
        some = slice(first, first + at_once)
        q = query[some].reshape(-1, heads // kv * length, size)
        k, v = (part[some].reshape(-1, width, size) for part in (key, value))
        scores = torch.baddbmm(q.new_empty(1, 1, 1), q, k.transpose(1, 2), beta=0, alpha=scaling)
        scores.view(-1, heads, length, width).add_(attention_mask[some])
        if s_aux is None:
            weights = torch.softmax(scores, -1)
        else:
            sinks = s_aux.to(q.dtype).view(1, kv, -1, 1).expand(len(q) // kv, -1, -1, length)
            scores = torch.cat([scores, sinks.reshape(len(q), -1, 1)], -1)
            weights = torch.softmax(scores, -1)[..., :-1].contiguous()
        put = torch.bmm(weights, v).view(-1, heads, length, size)
        out[some] = put.transpose(1, 2)
    return out, None


AttentionInterface.register(NAME, attend)


Attention = Callable[[Any, torch.device], AbstractContextManager[None]]
"""How a model on a device is to attend meanwhile."""


@contextmanager
def engaged(model: Any, device: torch.device) -> Iterator[None]:
    """By `attend`. Raises Unsuited for a device that is no CPU and a model that cannot."""
    if device.type != "cpu":
        raise Unsuited(f"a {device.type} device has faster attention of its own")
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = causal.config
    before = config._attn_implementation
    causal.set_attn_implementation(NAME)
    if config._attn_implementation != NAME:  # transformers only logs it
        raise Unsuited("its attention cannot be exchanged")
    try:
        yield
    finally:
        causal.set_attn_implementation(before)


def attend_as_it_does(_model: Any, _device: torch.device) -> AbstractContextManager[None]:
    return nullcontext()
