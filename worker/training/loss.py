"""Cross entropy of hidden states at target positions, without the matrix of all logits.

The gradient of the hidden states is computed along with the loss, chunk by chunk, as in Liger's
fused linear cross entropy (Hsu et al. 2024, arXiv:2410.10989): the logits of a chunk are replaced
by their gradient in place.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

LOGITS_CHUNK_SIZE = 256
"""Targets whose logits are in memory at a time, over the whole vocabulary, in the model's dtype."""

SOFTMAX_CHUNK_SIZE = 16
"""Targets of a chunk whose logits are in float32 at a time: few enough for a CPU's cache."""


def chunked_cross_entropy(
    head: nn.Module, hidden: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the weighted sum of the negative log-likelihoods of `tokens`: nats, float32, scalar.

    `head` is the output layer; shapes are (targets, d) for `hidden`, and (targets,) for `tokens`
    and `weights`.
    """
    if type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters()):
        loss: torch.Tensor = _FrozenHeadCrossEntropy.apply(
            hidden, head.weight, head.bias, tokens, weights
        )  # type: ignore[no-untyped-call]  # of torch
        return loss
    # A head that is trained, or is not a plain matrix: logits of a chunk are computed twice.
    total = torch.zeros((), device=hidden.device)
    chunks = [part.split(LOGITS_CHUNK_SIZE) for part in (hidden, tokens, weights)]  # type: ignore[no-untyped-call]  # of torch
    for chunk in zip(*chunks, strict=True):
        total = total + checkpoint(_chunk_loss, head, *chunk, use_reentrant=False)
    return total


def _chunk_loss(
    head: nn.Module, hidden: torch.Tensor, tokens: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    losses = cross_entropy(head(hidden).float(), tokens, reduction="none")
    return (losses * weights).sum()


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """Loss and, in the forward pass, its gradient for the hidden states of a frozen head."""

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
        for first in range(0, len(hidden), LOGITS_CHUNK_SIZE):
            rows = slice(first, first + LOGITS_CHUNK_SIZE)
            logits = nn.functional.linear(hidden[rows], matrix, bias)
            for part, token, weight in zip(
                logits.split(SOFTMAX_CHUNK_SIZE),  # type: ignore[no-untyped-call]  # of torch
                tokens[rows].split(SOFTMAX_CHUNK_SIZE),  # type: ignore[no-untyped-call]  # of torch
                weights[rows].split(SOFTMAX_CHUNK_SIZE),  # type: ignore[no-untyped-call]  # of torch
                strict=True,
            ):
                log_probs = torch.log_softmax(part.float(), -1)
                target = token[:, None]
                total -= (log_probs.gather(1, target)[:, 0] * weight).sum()
                if grad is not None:
                    log_probs.exp_().scatter_add_(1, target, log_probs.new_full(target.shape, -1.0))
                    part.copy_(log_probs.mul_(weight[:, None]))
            if grad is not None:
                torch.mm(logits, matrix, out=grad[rows])
        if grad is not None:
            ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Any:
        [grad] = ctx.saved_tensors
        return grad * grad_loss, None, None, None, None
