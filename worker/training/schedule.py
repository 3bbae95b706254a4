"""Order of the rows, seeds of a step's random numbers, optimizer and learning rate schedule."""

import random
from typing import Any

import numpy
import torch

from service.domain.steps import StepPlan
from service.domain.training_spec import TrainingSection


def epoch_order(samples: int, seed: int, epoch: int) -> list[int]:
    """Return the order of rows in an epoch, a permutation that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    return torch.randperm(samples, generator=generator).tolist()


def mix(*numbers: int) -> int:
    """Hash several numbers to a seed below 2**63 (FNV-1a over their 64-bit words)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        value = ((value ^ number) * 0x100000001B3) % 2**64
        value ^= value >> 32
    return value % 2**63


def seed_generators(seed: int, step: int, slot: int) -> None:
    """Seed every generator that a forward pass may draw from, by these three numbers alone.

    Called before each micro-batch, `slot` being its number in the step. The generators are
    python's, numpy's legacy one, and torch's for the CPU and all devices.
    """
    value = mix(seed, step, slot)
    random.seed(value)
    numpy.random.seed(value % 2**32)
    torch.manual_seed(value)


def make_optimizer(model: Any, training: TrainingSection) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    # Biases are not decayed, as in transformers' Trainer.
    groups = [
        {
            "params": [p for p in trained if p.dim() >= 2],
            "weight_decay": training.weight_decay,
        },
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=training.learning_rate
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, training: TrainingSection, plan: StepPlan
) -> Any:
    from transformers import get_scheduler

    return get_scheduler(
        training.lr_scheduler_type,
        optimizer,
        num_warmup_steps=plan.warmup_steps,
        num_training_steps=plan.total_steps,
    )
