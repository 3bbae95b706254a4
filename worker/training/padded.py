"""Micro-batches of padded rows, and the loss over their targets.

Every model supports padded rows; shared-prefix packing is checked against them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch.nn.functional import cross_entropy

from worker.data.tokenize import Example

IGNORE_INDEX = -100


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
