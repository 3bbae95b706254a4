"""How many floating-point operations a training step needs, counted from shapes alone.

One definition for every system: the operations of the exact shared-prefix computation, in which
the tokens that all samples of an optimizer step begin with are computed once. Whatever a system
does beyond that (padding, repeated prefixes, logits that no loss looks at, recomputed activations)
is time without needed operations, and lowers its utilisation.

Counted are matrix products only, two operations a multiply-add:

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
    """A decoder as its matrix products see it."""

    matrices: tuple[Matrix, ...]
    """Linear layers, the output layer not among them."""
    adapted: tuple[Matrix, ...]
    """Those of them that carry an adapter."""
    head: tuple[int, int]
    """Hidden size, vocabulary."""
    layers: int
    attention_channels: int
    """Heads times channels of a head."""


@dataclass(frozen=True, slots=True)
class StepTokens:
    """An optimizer step's samples as the shared-prefix computation sees them, in tokens."""

    prefix: int
    rests: tuple[int, ...]
    """Needed tokens of each sample behind the prefix."""
    targets: int
    real: int
    """Tokens of all samples, prefixes repeated, without padding."""

    @property
    def needed(self) -> int:
        return self.prefix + sum(self.rests)


def shared_prefix(rows: Sequence[Sequence[int]]) -> int:
    """Length of what all rows begin with."""
    # Whatever the least and the greatest share, all between them share, too.
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    return length


def step_tokens(samples: Sequence[tuple[Sequence[int], int]]) -> StepTokens:
    """`samples`: the ids of each with the place where its answer begins, at least 1."""
    # The first target's prediction is made at the token before it: that far a prompt goes.
    most = min(start - 1 for _, start in samples)
    prefix = min(shared_prefix([ids for ids, _ in samples]), most)
    return StepTokens(
        prefix=prefix,
        rests=tuple(len(ids) - 1 - prefix for ids, _ in samples),
        targets=sum(len(ids) - start for ids, start in samples),
        real=sum(len(ids) for ids, _ in samples),
    )


def attended_pairs(tokens: StepTokens) -> int:
    """Pairs of a query and a key that it may see, itself included."""
    prefix = tokens.prefix
    own = sum(rest * (rest + 1) // 2 + rest * prefix for rest in tokens.rests)
    return prefix * (prefix + 1) // 2 + own


def weights(matrices: Sequence[Matrix]) -> int:
    return sum(inputs * outputs * count for inputs, outputs, count in matrices)


def needed_operations(shape: Shape, rank: int, tokens: StepTokens) -> int:
    """Floating-point operations of one optimizer step, forward and backward."""
    factors = rank * sum((inputs + outputs) * count for inputs, outputs, count in shape.adapted)
    hidden, vocabulary = shape.head
    return (
        4 * weights(shape.matrices) * tokens.needed
        + 6 * factors * tokens.needed
        + 12 * shape.layers * shape.attention_channels * attended_pairs(tokens)
        + 4 * hidden * vocabulary * tokens.targets
    )
