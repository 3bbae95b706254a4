"""Choice between packed, padded and single rows, by specification and the model's abilities."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from service.domain.training_spec import TrainingSection
from worker.data.tokenize import Example
from worker.modeling.load import set_training
from worker.runtime.distributed import World
from worker.training.padded import Method, Padded, SingleRows, padding_mismatch_reason
from worker.training.shared_prefix.equivalence_check import unsupported_packing_reason
from worker.training.shared_prefix.method import SharedPrefix


def choose_method(
    model: Any,
    training: TrainingSection,
    pad: int,
    device: torch.device,
    world: World,
    *,
    previous_packing: str | None,
    step_samples: Sequence[Example],
    rows: int,
    on_fallback: Callable[[str], None],
    on_single_rows: Callable[[str], None] = lambda _why: None,
) -> tuple[Method, str]:
    """Return the method and its packing: that of the specification, or ``none``.

    `previous_packing` is the choice that the run made before it was interrupted; it is repeated.
    Otherwise packed and padded rows are compared on `step_samples`, the samples of an optimizer
    step, with `rows` as in Method.micro_batches, and `on_fallback` gets the reason for ``none``.
    `on_single_rows` gets the reason why a model is not even trained on padded rows.
    """
    padded = Padded(model, training.train_on, pad, device)
    packing = previous_packing or training.packing
    if previous_packing in (None, "none"):
        single = SingleRows(model, training.train_on, pad, device)
        set_training(model, training=False)
        reason = padding_mismatch_reason(model, padded, single, step_samples)
        if world.broadcast_flag(reason is not None):
            on_single_rows(reason or "rank 0 does not support padded rows")
            return single, "none"
    if packing == "none":
        return padded, packing
    packed = SharedPrefix(model, training.train_on, training.max_seq_length, device)
    if previous_packing is None:
        reason = unsupported_packing_reason(model, packed, padded, step_samples, rows)
        if world.broadcast_flag(reason is not None):  # one decision for all processes
            on_fallback(reason or "rank 0 does not support packing")
            return padded, "none"
    return packed, packing
