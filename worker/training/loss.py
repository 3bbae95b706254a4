"""Hidden states at target positions to their loss, without the matrix of all logits.

The gradient for the hidden states is computed along with the loss, chunk by chunk, as Liger's fused
linear cross entropy does it (Hsu et al. 2024, arXiv:2410.10989): logits of a chunk are turned into
their gradient where they stand.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 256
"""Targets whose logits are held at a time, over the whole vocabulary, in the model's type."""

SOFTMAX_AT_ONCE = 16
"""Of these, targets whose logits are held in float32: few enough to stay in a CPU's cache."""


def answer_loss(
    head: nn.Module, hidden: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """The weighted sum of the negative log-likelihoods of `tokens`, in nats, float32, a scalar.

    `head` is the output layer, `hidden` (targets, d), `tokens` and `weights` (targets,).
    """
    if type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters()):
        loss: torch.Tensor = _FrozenHead.apply(hidden, head.weight, head.bias, tokens, weights)  # type: ignore[no-untyped-call]  # of torch
        return loss
    # A head that learns, or is not a plain matrix: logits of a chunk are computed twice.
    total = torch.zeros((), device=hidden.device)
    chunks = [part.split(LOGITS_AT_ONCE) for part in (hidden, tokens, weights)]  # type: ignore[no-untyped-call]  # of torch
    for chunk in zip(*chunks, strict=True):
        total = total + checkpoint(_plain, head, *chunk, use_reentrant=False)
    return total


def _plain(
    head: nn.Module, hidden: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    losses = cross_entropy(head(hidden).float(), tokens, reduction="none")
    return (losses * weights).sum()


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor | None,
        tokens: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        total = torch.zeros((), device=hidden.device)
        grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for first in range(0, len(hidden), LOGITS_AT_ONCE):
            rows = slice(first, first + LOGITS_AT_ONCE)
            logits = nn.functional.linear(hidden[rows], matrix, bias)
            for part, token, weight in zip(
                logits.split(SOFTMAX_AT_ONCE),  # type: ignore[no-untyped-call]  # of torch
                tokens[rows].split(SOFTMAX_AT_ONCE),  # type: ignore[no-untyped-call]  # of torch
                weights[rows].split(SOFTMAX_AT_ONCE),  # type: ignore[no-untyped-call]  # of torch
                strict=True,
            ):
                likely = torch.log_softmax(part.float(), -1)
                wanted = token[:, None]
                total -= (likely.gather(1, wanted)[:, 0] * weight).sum()
                if grad is not None:
                    likely.exp_().scatter_add_(1, wanted, likely.new_full(wanted.shape, -1.0))
                    part.copy_(likely.mul_(weight[:, None]))
            if grad is not None:
                torch.mm(logits, matrix, out=grad[rows])
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Any:
        [grad] = ctx.saved_tensors
        return grad * grad_loss, None, None, None, None
