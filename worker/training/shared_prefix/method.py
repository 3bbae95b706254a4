"""Training on packed rows, and the loss over their targets."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import AttentionInterface

from worker.data.tokenize import Example
from worker.training.loss import chunked_cross_entropy
from worker.training.shared_prefix import attention
from worker.training.shared_prefix.packed_row import PackedRow
from worker.training.shared_prefix.packing import Pack, Targets, build_layout, pack_samples

AttentionInterface.register(attention.NAME, attention.attend)


class SharedPrefix:
    """Packs of at most `rows` x `limit` tokens, the size of `rows` rows of full length."""

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

    def micro_batches(
        self, samples: Sequence[Example], rows: int, processes: int = 1
    ) -> list[Pack]:
        """Return packs of about equal width, at least one for each of `processes` processes."""
        return pack_samples(samples, rows * self._limit, processes)

    @property
    def decoder(self) -> Any:
        """The model without its output layer."""
        return self.causal.get_decoder()

    @contextmanager
    def activated(self) -> Iterator[None]:
        """Let the model use attention over packed rows.

        Raises ValueError for a model whose attention implementation cannot be replaced.
        """
        # Active in the backward pass, too: gradient checkpointing runs the attention again.
        config = self.causal.config
        original = config._attn_implementation
        self.causal.set_attn_implementation(attention.NAME)
        if config._attn_implementation != attention.NAME:  # transformers only logs it
            raise ValueError("its attention cannot be replaced")
        try:
            yield
        finally:
            self.causal.set_attn_implementation(original)

    def loss_sum(self, micro: Pack) -> torch.Tensor:
        hidden, targets, _ = self.states(micro)
        tokens = torch.tensor(targets.tokens, device=self._device)
        weights = torch.tensor(targets.weights, device=self._device, dtype=torch.float32)
        return chunked_cross_entropy(self.causal.get_output_embeddings(), hidden, tokens, weights)

    def states(self, micro: Pack) -> tuple[torch.Tensor, Targets, PackedRow]:
        """Return the hidden states that predict a pack's targets, (targets, d), and the targets."""
        layout = build_layout(micro, self._train_on)
        row = PackedRow.of(layout, self._device)
        states = self.decoder(
            input_ids=torch.tensor([layout.ids], device=self._device),
            position_ids=torch.tensor([layout.positions], device=self._device),
            use_cache=False,
            packed=row,
        ).last_hidden_state[0]
        columns = torch.tensor(layout.targets.columns, dtype=torch.long, device=self._device)
        return states[columns], layout.targets, row
