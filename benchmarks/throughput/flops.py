"""Number of floating-point operations that a training step needs, computed from shapes.

The definition is the same for every system: the operations of the exact shared-prefix computation,
in which the common prefix of an optimizer step's samples is computed once. All other work of a
system (padding, repeated prefixes, logits without a loss, recomputed activations) is not counted,
and so lowers its utilisation.

Only matrix products are counted, with two operations per multiply-add:

- the frozen matrices of the layers: forward 2, backward 2 (towards the input; frozen weights have
  no gradient) for each weight and needed token,
- LoRA's two factors: forward 2, backward 4,
- attention: forward 4, backward 8 for each causal pair of positions and attention channel,
- the output layer: forward 2, backward 2 for each weight and target position.

A needed token is one that another token's prediction depends on: all of a sample but its last. All
layers are counted at all needed tokens: that the last layer's outputs matter at target positions
alone, and that nothing below the first adapter has a gradient, is not subtracted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Matrix = tuple[int, int, int]
"""Inputs, outputs, and how many such matrices the model has."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a decoder's matrix products."""

    matrices: tuple[Matrix, ...]
    """Linear layers without the output layer."""
    adapted: tuple[Matrix, ...]
    """Linear layers with an adapter."""
    head: tuple[int, int]
    """Hidden size and vocabulary size."""
    layers: int
    attention_channels: int
    """Number of heads times channels per head."""


@dataclass(frozen=True, slots=True)
class StepTokens:
    """Token counts of an optimizer step's samples in the shared-prefix computation."""

    prefix: int
    suffixes: tuple[int, ...]
    """Needed tokens of each sample after the prefix."""
    targets: int
    real: int
    """Tokens of all samples, prefixes repeated, without padding."""

    @property
    def needed(self) -> int:
        return self.prefix + sum(self.suffixes)


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Return the length of the common prefix of all rows."""
    # In lexicographic order all rows share the common prefix of the first and the last one.
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    length = 0
    for token, last_token in zip(first, last, strict=False):
        if token != last_token:
            break
        length += 1
    return length


def step_tokens(samples: Sequence[tuple[Sequence[int], int]]) -> StepTokens:
    """Return the counts for samples given as (ids, start of the answer), with start >= 1."""
    # The token before the first target predicts it, and so belongs to the suffix.
    max_prefix = min(start - 1 for _, start in samples)
    prefix = min(shared_prefix([ids for ids, _ in samples]), max_prefix)
    return StepTokens(
        prefix=prefix,
        suffixes=tuple(len(ids) - 1 - prefix for ids, _ in samples),
        targets=sum(len(ids) - start for ids, start in samples),
        real=sum(len(ids) for ids, _ in samples),
    )


def attended_pairs(tokens: StepTokens) -> int:
    """Return the number of (query, key) pairs under the causal mask, including equal positions."""
    prefix = tokens.prefix
    own = sum(suffix * (suffix + 1) // 2 + suffix * prefix for suffix in tokens.suffixes)
    return prefix * (prefix + 1) // 2 + own


def weights(matrices: Sequence[Matrix]) -> int:
    return sum(inputs * outputs * count for inputs, outputs, count in matrices)


def needed_operations(shape: Shape, rank: int, tokens: StepTokens) -> int:
    """Return the floating-point operations of one optimizer step, forward and backward."""
    factors = rank * sum((inputs + outputs) * count for inputs, outputs, count in shape.adapted)
    hidden, vocabulary = shape.head
    return (
        4 * weights(shape.matrices) * tokens.needed
        + 6 * factors * tokens.needed
        + 12 * shape.layers * shape.attention_channels * attended_pairs(tokens)
        + 4 * hidden * vocabulary * tokens.targets
    )
