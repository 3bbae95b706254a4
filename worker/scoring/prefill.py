"""Who attends to whom when a row carries several labels' answers; the cache of a shared prefix."""

from collections.abc import Sequence
from typing import Any

import torch

MAIN, PADDING = 0, -1
"""Branches of a token: MAIN is what every label shares; 1, 2, … are the labels' ends."""


def common_length(sequences: Sequence[list[int]]) -> int:
    """Length of the longest common beginning."""
    first, last = min(sequences), max(sequences)
    for place, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return place
    return min(len(first), len(last))


def cannot(model: Any) -> str | None:
    """Why the model cannot take masks made here; None if, as far as its config says, it can."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    if unknown := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"the model has layers of the kind {unknown[0]}"
    return None


def masks(
    model: Any,
    query: tuple[torch.Tensor, torch.Tensor],
    key: tuple[torch.Tensor, torch.Tensor],
) -> Any:
    """Additive attention masks, (batch, 1, queries, keys): 0 where a query sees a key.

    `query` and `key` are branches and positions, (batch, length) each. A float mask means the same
    to every attention implementation; a boolean one is added as 0 and 1 by some.
    """
    branch_q, position_q = (part[:, :, None] for part in query)
    branch_k, position_k = (part[:, None, :] for part in key)
    seen = (branch_k == MAIN) | ((branch_k == branch_q) & (branch_q != PADDING))
    seen &= position_k <= position_q
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]

    if "sliding_attention" in kinds:
        assert window is not None
        return {
            "full_attention": additive(seen),
            "sliding_attention": additive(seen & (position_q - position_k < window)),
        }
    if not kinds and window is not None and getattr(config, "use_sliding_window", True):
        return additive(seen & (position_q - position_k < window))
    return additive(seen)


class Prefix:
    """What all laid-out rows begin with, and its keys and values in every layer."""

    def __init__(self, length: int, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        self.length = length
        self._layers = layers

    @classmethod
    def of(
        cls,
        model: Any,
        sequences: Sequence[list[int]],
        device: torch.device,
    ) -> "Prefix":
        from transformers import DynamicCache

        # A token at least stays with each row: its logits say how the ends begin.
        length = min(common_length(sequences), min(map(len, sequences)) - 1)
        if length <= 0:
            return cls(0, [])
        ids = torch.tensor([sequences[0][:length]], device=device)
        place = (torch.zeros_like(ids), torch.arange(length, device=device)[None])
        cache = DynamicCache()
        model(
            input_ids=ids,
            attention_mask=masks(model, place, place),
            position_ids=place[1],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cls(length, [(layer.keys, layer.values) for layer in cache.layers])

    def lend(self, rows: int) -> Any:
        """A cache of the prefix for `rows` rows, which share its memory until they add to it."""
        from transformers import DynamicCache

        return DynamicCache(
            [(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in self._layers]
        )
