"""Attention masks for rows with several labels' answers, and the KV cache of a shared prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from worker.data.prefixes import common_length

_ALL_COLUMNS, _NO_COLUMN = 2**31 - 1, -1


class Columns(NamedTuple):
    """Tokens in the order of attention's keys, cached ones first; all are (rows, columns)."""

    ids: torch.Tensor
    positions: torch.Tensor
    visible_until: torch.Tensor
    """The last column that attends to a token. In a tree in pre-order: its last descendant."""

    def extended(
        self, ids: torch.Tensor, positions: torch.Tensor, visible_until: torch.Tensor | None = None
    ) -> "Columns":
        """Append columns, by default visible to all later ones."""
        if visible_until is None:
            visible_until = torch.full_like(ids, _ALL_COLUMNS)
        pairs = zip(self, (ids, positions, visible_until), strict=True)
        return Columns(*(torch.cat([old, new.expand(len(old), -1)], 1) for old, new in pairs))

    def to(self, device: torch.device) -> "Columns":
        return Columns(*(part.to(device) for part in self))


def left_padded(sequences: Sequence[list[int]], start: int, pad: int) -> Columns:
    """Return left-padded sequences of which the first `start` tokens, common to all, are cached."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad)
    positions = torch.zeros_like(ids)
    visible_until = torch.full_like(ids, _ALL_COLUMNS)
    for row, sequence in enumerate(sequences):
        first = width - len(sequence) + start
        ids[row, :start] = torch.tensor(sequence[:start], dtype=torch.long)
        ids[row, first:] = torch.tensor(sequence[start:], dtype=torch.long)
        positions[row, :start] = torch.arange(start)
        positions[row, first:] = torch.arange(start, len(sequence))
        visible_until[row, start:first] = _NO_COLUMN
    return Columns(ids, positions, visible_until)


def masks(model: Any, columns: Columns, first_query: int = 0) -> Any:
    """Return additive attention masks, (rows, 1, queries, columns): 0 where a query sees a key.

    The columns from `first_query` on are the queries. A token is visible from its own column up to
    the one in `visible_until`. For models with sliding windows on some layers the result is a dict
    by layer type, as transformers takes it. Float masks, because some attention implementations add
    boolean masks as 0 and 1.
    """
    keys = torch.arange(columns.ids.shape[1], device=columns.ids.device)
    queries = keys[first_query:, None]
    visible = (keys <= queries) & (queries <= columns.visible_until[:, None])
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]

    distance = columns.positions[:, first_query:, None] - columns.positions[:, None]
    if "sliding_attention" in kinds:
        assert window is not None
        windowed = additive(visible & (distance < window))
        return {"full_attention": additive(visible), "sliding_attention": windowed}
    if not kinds and window is not None and getattr(config, "use_sliding_window", True):
        return additive(visible & (distance < window))
    return additive(visible)


class Prefix:
    """The common prefix of all rows, with its keys and values in every layer."""

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
        """Compute the prefix of `sequences`, of length 0 if they have none in common."""
        # At least one token stays with each row: its logits predict the row's next token.
        length = min(common_length(sequences), min(map(len, sequences)) - 1)
        if length <= 0:
            return cls(0, [])
        columns = left_padded([sequences[0][:length]], 0, 0).to(device)
        cache = DynamicCache()
        model(
            input_ids=columns.ids,
            attention_mask=masks(model, columns),
            position_ids=columns.positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cls(length, [(layer.keys, layer.values) for layer in cache.layers])

    def cache_for(self, rows: int, layer: type[DynamicLayer] = DynamicLayer) -> Cache:
        """Return a cache of the prefix expanded to `rows` rows, without copying its memory."""
        layers = [layer() for _ in self._layers]
        for cache_layer, (keys, values) in zip(layers, self._layers, strict=True):
            cache_layer.lazy_initialization(keys, values)
            cache_layer.keys, cache_layer.values = (
                part.expand(rows, -1, -1, -1) for part in (keys, values)
            )
        return Cache(layers=layers) if layers else DynamicCache()


class TransientLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """A layer's cache for one forward pass: the rows' own keys and values are not stored."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)
