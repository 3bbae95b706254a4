"""What a step sees: its micro-batches, and the loss over their answers. Rows padded to one width.

The plain way, which every model can take and which shared-prefix packing is checked against.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch.nn.functional import cross_entropy

from worker.data.tokenize import Example

IGNORE = -100


class Method(Protocol):
    """How the samples of a step are laid out and their loss computed."""

    def cut(self, samples: Sequence[Example], rows: int, parts: int = 1) -> list[Any]:
        """The samples in micro-batches; `rows` bounds the memory that one takes.

        They are for `parts` processes to share.
        """

    def loss_sum(self, micro: Any) -> torch.Tensor:
        """Sum over a micro-batch's target tokens of the negative log-likelihood.

        In nats, float32, a scalar.
        """

    def engaged(self) -> AbstractContextManager[None]:
        """The model set up for `loss_sum` and the backward pass from it."""


def target_count(example: Example, train_on: Literal["completion", "all"]) -> int:
    """Tokens that the loss is taken over. The first token of all has nothing to predict it."""
    return len(example.ids) - (max(example.start, 1) if train_on == "completion" else 1)


class Padded:
    """Rows as wide as the longest of their micro-batch."""

    def __init__(
        self,
        model: Any,
        train_on: Literal["completion", "all"],
        pad: int,
        device: torch.device,
    ) -> None:
        self._model, self._train_on, self._pad, self._device = model, train_on, pad, device

    def cut(
        self,
        samples: Sequence[Example],
        rows: int,
        parts: int = 1,  # noqa: ARG002  # slots, and so dropout, do not depend on it
    ) -> list[list[Example]]:
        """Micro-batches of at most `rows` samples, the same for any number of processes.

        Like lengths together, so that little is padded.
        """
        ordered = sorted(samples, key=lambda sample: len(sample.ids))
        return [ordered[start : start + rows] for start in range(0, len(ordered), rows)]

    def loss_sum(self, micro: Sequence[Example]) -> torch.Tensor:
        return self.losses(micro).sum()

    def engaged(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count(self, sample: Example) -> int:
        """Target tokens of the sample."""
        return target_count(sample, self._train_on)

    def losses(self, micro: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of each target token, row by row.

        Rows are padded on the left: answers then end in the same column, and logits are only
        computed for the columns that hold a target.
        """
        width = max(len(example.ids) for example in micro)
        ids = torch.full((len(micro), width), self._pad)
        mask = torch.zeros((len(micro), width), dtype=torch.long)
        targets = torch.full((len(micro), width), IGNORE)
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
        wanted = targets[:, -columns:].to(self._device)
        chosen = wanted != IGNORE
        return cross_entropy(logits[chosen].float(), wanted[chosen], reduction="none")
