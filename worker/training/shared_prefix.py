"""The loss over packed rows, and the check that a model computes it as it does over padded ones."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import AttentionInterface

from worker.programs.memory import is_out_of_memory
from worker.training import attention
from worker.training.answer_loss import answer_loss
from worker.training.attention import PackedRow
from worker.training.batches import Padded
from worker.training.examples import Example
from worker.training.models import set_training
from worker.training.packing import Pack, cut, lay_out

AttentionInterface.register(attention.NAME, attention.attend)

AGREE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""By how much the loss may differ from the padded one, relative, for the rounding of the weights'
type. A sample that sees another, or loses its beginning, is off by more."""


class SharedPrefix:
    """Packs of at most rows x `limit` tokens: no more than so many rows of full length take."""

    def __init__(
        self,
        model: Any,
        train_on: Literal["completion", "all"],
        limit: int,
        device: torch.device,
    ) -> None:
        """`model` is a PEFT model over one of transformers' causal language models."""
        self._causal = model.get_base_model()
        self._decoder = self._causal.get_decoder()
        self._train_on, self._limit, self._device = train_on, limit, device

    def cut(self, samples: Sequence[Example], rows: int, parts: int = 1) -> list[Pack]:
        """Packs of about equal width, at least one for each of `parts` processes."""
        return cut(samples, rows * self._limit, parts)

    @contextmanager
    def engaged(self) -> Iterator[None]:
        # The backward pass, too: with gradient checkpointing it runs the attention again.
        before = self._causal.config._attn_implementation
        self._causal.set_attn_implementation(attention.NAME)
        try:
            yield
        finally:
            self._causal.set_attn_implementation(before)

    def loss_sum(self, micro: Pack) -> torch.Tensor:
        layout = lay_out(micro, self._train_on)
        hidden = self._decoder(
            input_ids=torch.tensor([layout.ids], device=self._device),
            position_ids=torch.tensor([layout.positions], device=self._device),
            use_cache=False,
            packed=PackedRow.of(layout, self._device),
        ).last_hidden_state[0]
        targets = layout.targets
        places = torch.tensor(targets.places, device=self._device)
        tokens = torch.tensor(targets.tokens, device=self._device)
        weights = torch.tensor(targets.weights, device=self._device, dtype=torch.float32)
        return answer_loss(self._causal.get_output_embeddings(), hidden[places], tokens, weights)


def difference(
    model: Any, packed: SharedPrefix, padded: Padded, samples: Sequence[Example]
) -> str | None:
    """Why the model cannot be trained on packed rows; None when both losses over `samples` agree.

    Neither way draws from a generator, since dropout is off. Leaves the model in evaluation mode.
    """
    set_training(model, training=False)
    [row] = packed.cut(samples, len(samples))
    [rows] = padded.cut(samples, len(samples))
    with torch.no_grad():
        expected = padded.loss_sum(rows).item()
        try:
            with packed.engaged():
                found = packed.loss_sum(row).item()
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            if is_out_of_memory(error):
                raise
            return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    if not abs(found - expected) <= AGREE[model.get_base_model().dtype] * expected:
        return f"the loss would be {found:.6g} instead of {expected:.6g} nats"
    return None
