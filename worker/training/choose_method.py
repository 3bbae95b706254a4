"""How the samples of a step are laid out: packed, where that is asked for and the model can."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from service.domain.spec import TrainingSection
from worker.data.tokenize import Example
from worker.runtime.distributed import World
from worker.training.padded import Method, Padded
from worker.training.shared_prefix.equivalence_check import why_not
from worker.training.shared_prefix.method import SharedPrefix


def choose_method(
    model: Any,
    training: TrainingSection,
    pad: int,
    device: torch.device,
    world: World,
    *,
    settled: str | None,
    step: Sequence[Example],
    rows: int,
    fell_back: Callable[[str], None],
) -> tuple[Method, str]:
    """The method and the packing that it stands for: what the specification asks for, or ``none``.

    `settled` is what the run decided before it was interrupted; it keeps that. Otherwise a trial
    over the samples of an optimizer step decides, `rows` as in Method.cut; `fell_back` gets the
    reason.
    """
    padded = Padded(model, training.train_on, pad, device)
    wanted = settled or training.packing
    if wanted == "none":
        return padded, wanted
    packed = SharedPrefix(model, training.train_on, training.max_seq_length, device)
    if settled is None:
        reason = why_not(model, packed, padded, step, rows)
        if world.broadcast_flag(reason is not None):  # one decision for all processes
            fell_back(reason or "the first process cannot pack")
            return padded, "none"
    return packed, wanted
