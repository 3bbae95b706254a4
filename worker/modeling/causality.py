"""Check that a model is causal: no position sees the tokens behind it.

Encoders such as BERT load as causal language models, but every position attends to all others: the
model would read the answer that it is to predict, and its losses and scores would mean nothing.
"""

from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.modeling.model_failures import WEIGHTS, reading

_EQUAL_TOKENS, _CHANGED_TOKENS = 6, 6

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-3, torch.float16: 1e-3}
"""Difference that is attributed to rounding, as a share of that where the tokens differ."""

_NOISE_FACTOR = 8
"""Difference that is attributed to rounding, as a multiple of that between two equal rows. Rows go
through the same operations: both differences are exactly 0 in most decoders, and 5e-3 to 0.2 in
encoders with random weights."""


@torch.no_grad()
def check_causality(model: Any, name: str) -> None:
    """Compute two rows that differ in their last tokens only, and compare the logits before them.

    A third row, which equals the first, shows the rounding. `model` is in evaluation mode. Raises
    ProgramFailure: invalid_spec if the logits differ, model_unavailable if the forward pass fails.
    """
    size = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(
        0, size, (3, _EQUAL_TOKENS + _CHANGED_TOKENS), generator=generator, dtype=torch.long
    )
    ids[1, :_EQUAL_TOKENS] = ids[0, :_EQUAL_TOKENS]
    ids[2] = ids[0]
    # Different in any vocabulary of two tokens or more.
    ids[1, _EQUAL_TOKENS:] = (ids[0, _EQUAL_TOKENS:] + 1 + size // 3) % size
    with reading(name, WEIGHTS):
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits.float()
    difference = (logits[0] - logits[1]).abs().amax(-1)
    before, behind = difference[:_EQUAL_TOKENS].max(), difference[_EQUAL_TOKENS:].max()
    # Not a number for broken weights, which scoring and training report as diverged.
    noise = (logits[0] - logits[2]).abs().max()
    if before > max(_TOLERANCE.get(model.dtype, 3e-3) * behind, _NOISE_FACTOR * noise):
        kind = model.config.model_type
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"base_model: {name} ({kind}) is not a causal language model: a token changes the "
            "logits of the tokens before it, so it would see the answer that it is to predict. "
            "Encoders such as BERT and RoBERTa cannot be trained or scored this way; use a "
            "decoder, such as GPT-2, Llama, Qwen or SmolLM2.",
        )
