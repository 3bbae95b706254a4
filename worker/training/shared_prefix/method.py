"""The loss over packed rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import AttentionInterface

from worker.data.tokenize import Example
from worker.training.loss import answer_loss
from worker.training.shared_prefix import attention
from worker.training.shared_prefix.packed_row import PackedRow
from worker.training.shared_prefix.packing import Pack, Targets, cut, lay_out

AttentionInterface.register(attention.NAME, attention.attend)


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
        self.causal = model.get_base_model()
        self._train_on, self._limit, self._device = train_on, limit, device

    def cut(self, samples: Sequence[Example], rows: int, parts: int = 1) -> list[Pack]:
        """Packs of about equal width, at least one for each of `parts` processes."""
        return cut(samples, rows * self._limit, parts)

    @property
    def decoder(self) -> Any:
        """The model without its output layer."""
        return self.causal.get_decoder()

    @contextmanager
    def engaged(self) -> Iterator[None]:
        """Raises ValueError for a model whose attention cannot be another."""
        # The backward pass, too: with gradient checkpointing it runs the attention again.
        config = self.causal.config
        before = config._attn_implementation
        self.causal.set_attn_implementation(attention.NAME)
        if config._attn_implementation != attention.NAME:  # transformers only logs it
            raise ValueError("its attention cannot be exchanged")
        try:
            yield
        finally:
            self.causal.set_attn_implementation(before)

    def loss_sum(self, micro: Pack) -> torch.Tensor:
        hidden, targets, _ = self.states(micro)
        tokens = torch.tensor(targets.tokens, device=self._device)
        weights = torch.tensor(targets.weights, device=self._device, dtype=torch.float32)
        return answer_loss(self.causal.get_output_embeddings(), hidden, tokens, weights)

    def states(self, micro: Pack) -> tuple[torch.Tensor, Targets, PackedRow]:
        """The hidden states, (targets, d), from which the targets of a pack are predicted."""
        layout = lay_out(micro, self._train_on)
        row = PackedRow.of(layout, self._device)
        states = self.decoder(
            input_ids=torch.tensor([layout.ids], device=self._device),
            position_ids=torch.tensor([layout.positions], device=self._device),
            use_cache=False,
            packed=row,
        ).last_hidden_state[0]
        places = torch.tensor(layout.targets.places, dtype=torch.long, device=self._device)
        return states[places], layout.targets, row
