"""Micro-batches of padded rows, and the loss over their targets.

Almost every model supports padded rows; shared-prefix packing is checked against them. A recurrent
model or one with positions that count padding does not: its rows are computed one by one.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch.nn.functional import cross_entropy

from worker.data.tokenize import Example
from worker.modeling.model_failures import describe, is_of_machine

IGNORE_INDEX = -100

PADDING_TOLERANCE_NATS = {torch.float32: 1e-2, torch.bfloat16: 0.3, torch.float16: 0.1}
"""Root mean square difference per target token that is attributed to rounding."""


class Method(Protocol):
    """A layout of a step's samples in micro-batches, and the computation of their loss."""

    def micro_batches(self, samples: Sequence[Example], rows: int, processes: int = 1) -> list[Any]:
        """Split the samples into micro-batches, to be shared by `processes` processes.

        A micro-batch takes at most as much memory as `rows` rows of maximum length.
        """

    def loss_sum(self, micro: Any) -> torch.Tensor:
        """Return the negative log-likelihood summed over a micro-batch's target tokens.

        A scalar in nats, float32.
        """

    def activated(self) -> AbstractContextManager[None]:
        """Prepare the model for `loss_sum` and its backward pass."""


def target_count(example: Example, train_on: Literal["completion", "all"]) -> int:
    """Return the number of tokens in the loss. Nothing predicts the first token of a sample."""
    return len(example.ids) - (max(example.start, 1) if train_on == "completion" else 1)


class Padded:
    """Rows padded to the longest row of their micro-batch."""

    def __init__(
        self,
        model: Any,
        train_on: Literal["completion", "all"],
        pad: int,
        device: torch.device,
    ) -> None:
        self._model, self._train_on, self._pad, self._device = model, train_on, pad, device

    def micro_batches(
        self,
        samples: Sequence[Example],
        rows: int,
        processes: int = 1,  # noqa: ARG002  # slots, and so dropout, do not depend on it
    ) -> list[list[Example]]:
        """Return micro-batches of at most `rows` samples, the same for any number of processes.

        Samples are sorted by length, which keeps padding small.
        """
        ordered = sorted(samples, key=lambda sample: len(sample.ids))
        return [ordered[start : start + rows] for start in range(0, len(ordered), rows)]

    def loss_sum(self, micro: Sequence[Example]) -> torch.Tensor:
        return self.losses(micro).sum()

    def activated(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count(self, sample: Example) -> int:
        """Return the number of target tokens of the sample."""
        return target_count(sample, self._train_on)

    def losses(self, micro: Sequence[Example]) -> torch.Tensor:
        """Return the negative log-likelihood of each target token in nats, row by row, (targets,).

        Rows are padded on the left: answers then end in the same column, and logits are only
        computed for the columns that contain a target.
        """
        width = max(len(example.ids) for example in micro)
        ids = torch.full((len(micro), width), self._pad)
        mask = torch.zeros((len(micro), width), dtype=torch.long)
        targets = torch.full((len(micro), width), IGNORE_INDEX)
        for row, example in enumerate(micro):
            length, count = len(example.ids), self.count(example)
            ids[row, width - length :] = torch.tensor(example.ids)
            mask[row, width - length :] = 1
            targets[row, width - count :] = torch.tensor(example.ids[length - count :])
        columns = max(self.count(example) for example in micro)
        logits = self._model(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(self._device),
            logits_to_keep=columns + 1,
            use_cache=False,
        ).logits[:, -columns - 1 : -1]
        kept_targets = targets[:, -columns:].to(self._device)
        is_target = kept_targets != IGNORE_INDEX
        return cross_entropy(logits[is_target].float(), kept_targets[is_target], reduction="none")


class SingleRows(Padded):
    """Rows computed one by one, without padding and without an attention mask."""

    def losses(self, micro: Sequence[Example]) -> torch.Tensor:
        return torch.cat([self._row_losses(example) for example in micro])

    def _row_losses(self, example: Example) -> torch.Tensor:
        count = self.count(example)
        ids = torch.tensor([example.ids], device=self._device)
        logits = self._model(input_ids=ids, logits_to_keep=count + 1, use_cache=False).logits
        return cross_entropy(logits[0, -count - 1 : -1].float(), ids[0, -count:], reduction="none")


@torch.no_grad()
def padding_mismatch_reason(
    model: Any, padded: Padded, single: SingleRows, samples: Sequence[Example]
) -> str | None:
    """Return why the model cannot compute padded rows; None if it can.

    The longest of `samples` pads the shortest, or a shorter copy of it. `model` is in evaluation
    mode. Out-of-memory errors propagate.
    """
    ordered = sorted(samples, key=lambda sample: len(sample.ids))
    short, long = ordered[0], ordered[-1]
    if len(short.ids) == len(long.ids) and short.start > 1:
        cut = min(short.start - 1, max(1, short.start // 2))
        short = Example(short.ids[cut:], short.start - cut)
    expected = single.losses([short])
    try:
        actual = padded.losses([short, long])[: len(expected)]
    except Exception as error:
        # A model's own code may raise anything on masks that it was not written for.
        if is_of_machine(error):
            raise
        return f"it does not take their attention mask ({describe(error)})"
    difference = (actual - expected).square().mean().sqrt().item()
    if difference > PADDING_TOLERANCE_NATS.get(model.dtype, 0.3):
        return f"their losses differ by {difference:.2g} nats from those of single rows"
    return None
