"""Who attends to whom when a row carries several labels' answers; the cache of a shared prefix."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from worker.data.prefixes import common_length

_ALWAYS, _NEVER = 2**31 - 1, -1


class Columns(NamedTuple):
    """Tokens as attention has them, those in the cache first; (rows, columns) each."""

    ids: torch.Tensor
    positions: torch.Tensor
    seen_until: torch.Tensor
    """The last column that sees a token. In a tree in pre-order: the last one below it."""

    def extended(
        self, ids: torch.Tensor, positions: torch.Tensor, seen_until: torch.Tensor | None = None
    ) -> "Columns":
        """With more columns behind, which all later ones see unless it is said."""
        if seen_until is None:
            seen_until = torch.full_like(ids, _ALWAYS)
        pairs = zip(self, (ids, positions, seen_until), strict=True)
        return Columns(*(torch.cat([old, new.expand(len(old), -1)], 1) for old, new in pairs))

    def to(self, device: torch.device) -> "Columns":
        return Columns(*(part.to(device) for part in self))


def left_padded(sequences: Sequence[list[int]], start: int, pad: int) -> Columns:
    """Sequences that end together. The first `start` tokens of each are in the cache."""
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad)
    positions = torch.zeros_like(ids)
    seen_until = torch.full_like(ids, _ALWAYS)
    for row, sequence in enumerate(sequences):
        first = width - len(sequence) + start
        ids[row, :start] = torch.tensor(sequence[:start], dtype=torch.long)
        ids[row, first:] = torch.tensor(sequence[start:], dtype=torch.long)
        positions[row, :start] = torch.arange(start)
        positions[row, first:] = torch.arange(start, len(sequence))
        seen_until[row, start:first] = _NEVER
    return Columns(ids, positions, seen_until)


def masks(model: Any, columns: Columns, asked_from: int = 0) -> Any:
    """Additive attention masks, (rows, 1, queries, columns): 0 where a query sees a key.

    The columns from `asked_from` on are the queries. A token is seen from its own column up to the
    one in `seen_until`. A float mask means the same to every attention implementation; a boolean
    one is added as 0 and 1 by some.
    """
    keys = torch.arange(columns.ids.shape[1], device=columns.ids.device)
    queries = keys[asked_from:, None]
    seen = (keys <= queries) & (queries <= columns.seen_until[:, None])
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [])

    def additive(allowed: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=allowed.device)
        return mask.masked_fill_(~allowed, torch.finfo(model.dtype).min)[:, None]

    apart = columns.positions[:, asked_from:, None] - columns.positions[:, None]
    if "sliding_attention" in kinds:
        assert window is not None
        near = additive(seen & (apart < window))
        return {"full_attention": additive(seen), "sliding_attention": near}
    if not kinds and window is not None and getattr(config, "use_sliding_window", True):
        return additive(seen & (apart < window))
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
        # A token at least stays with each row: its logits say how the ends begin.
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

    def lend(self, rows: int, layer: type[DynamicLayer] = DynamicLayer) -> Cache:
        """A cache of the prefix for `rows` rows, which share its memory until they add to it."""
        lent = [layer() for _ in self._layers]
        for one, (keys, values) in zip(lent, self._layers, strict=True):
            one.lazy_initialization(keys, values)
            one.keys, one.values = (part.expand(rows, -1, -1, -1) for part in (keys, values))
        return Cache(layers=lent) if lent else DynamicCache()


class Passing(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """A layer's cache for one forward pass: what the rows add to it is not kept."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)
