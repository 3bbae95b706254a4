"""What a step sees: its micro-batches, and the loss over their answers. Rows padded to one width.

The plain way, which every model can take and which shared-prefix packing is checked against.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import torch
from torch.nn.functional import cross_entropy

from worker.training.examples import Example

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


class Padded:
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
        """Micro-batches of at most `rows` samples, the same for any number of processes."""
        return list(micro_batches(samples, rows))

    def count(self, sample: Example) -> int:
        """Target tokens of the sample."""
        return target_count(sample, self._train_on)

    def losses(self, micro: Sequence[Example]) -> torch.Tensor:
        """The negative log-likelihood of each target token, row by row."""
        return losses(self._model, micro, self._train_on, self._pad, self._device)

    def loss_sum(self, micro: Sequence[Example]) -> torch.Tensor:
        return loss_sum(self._model, micro, self._train_on, self._pad, self._device)

    def engaged(self) -> AbstractContextManager[None]:
        return nullcontext()


def micro_batches(batch: Sequence[Example], size: int) -> Iterator[list[Example]]:
    """The batch in parts of `size`, like lengths together, so that little is padded."""
    ordered = sorted(batch, key=lambda example: len(example.ids))
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def target_count(example: Example, train_on: Literal["completion", "all"]) -> int:
    """Tokens that the loss is taken over. The first token of all has nothing to predict it."""
    return len(example.ids) - (max(example.start, 1) if train_on == "completion" else 1)


def loss_sum(
    model: Any,
    micro: Sequence[Example],
    train_on: Literal["completion", "all"],
    pad: int,
    device: torch.device,
) -> torch.Tensor:
    """Sum over all target tokens of the negative log-likelihood, in nats, float32, a scalar."""
    return losses(model, micro, train_on, pad, device).sum()


def losses(
    model: Any,
    micro: Sequence[Example],
    train_on: Literal["completion", "all"],
    pad: int,
    device: torch.device,
) -> torch.Tensor:
    """The negative log-likelihood of each target token, row by row.

    Rows are padded on the left: answers then end in the same column, and logits are only computed
    for the columns that hold a target.
    """
    width = max(len(example.ids) for example in micro)
    ids = torch.full((len(micro), width), pad)
    mask = torch.zeros((len(micro), width), dtype=torch.long)
    targets = torch.full((len(micro), width), IGNORE)
    for row, example in enumerate(micro):
        length, count = len(example.ids), target_count(example, train_on)
        ids[row, width - length :] = torch.tensor(example.ids)
        mask[row, width - length :] = 1
        targets[row, width - count :] = torch.tensor(example.ids[length - count :])
    columns = max(target_count(example, train_on) for example in micro)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=columns + 1,
        use_cache=False,
    ).logits[:, -columns - 1 : -1]
    wanted = targets[:, -columns:].to(device)
    chosen = wanted != IGNORE
    return cross_entropy(logits[chosen].float(), wanted[chosen], reduction="none")
