"""Construction of a program's scorer and trainer."""

from typing import Any

import torch

from worker.data.tokenize import Tokens
from worker.modeling.fused_layers import fuse_layers
from worker.modeling.load import add_adapter
from worker.programs.load_model import make_accelerator
from worker.programs.run_data import Examples
from worker.runtime.distributed import World
from worker.runtime.launch import Program
from worker.scoring.evaluate import Scorer
from worker.training.loop import Trainer
from worker.training.tensorboard import TensorBoardWriter


def make_scorer(
    program: Program, labels: list[str], tokens: Tokens, device: torch.device, world: World
) -> Scorer:
    """Return a scorer of the job's rows over `labels`."""
    return Scorer(
        job=program.job,
        directory=program.directory,
        labels=labels,
        pad=tokens.pad,
        device=device,
        reporter=program.reporter,
        stop=program.stop,
        space=program.space,
        world=world,
    )


def make_trainer(
    program: Program,
    model: Any,
    world: World,
    examples: Examples,
    pad: int,
    board: TensorBoardWriter | None,
) -> Trainer:
    """Add a new adapter to the base model and return the trainer of it.

    `board` is None on nonzero ranks.
    """
    spec = program.job.spec
    adapted = add_adapter(model, spec.lora, spec.seed, spec.base_model)
    fuse_layers(adapted)
    if spec.training.gradient_checkpointing:
        adapted.activation_checkpointing_enable({"use_reentrant": False})
    return Trainer(
        model=adapted,
        accelerator=make_accelerator(),
        world=world,
        examples=examples.train,
        validation=examples.validation,
        spec=spec,
        pad=pad,
        directory=program.directory,
        reporter=program.reporter,
        stop=program.stop,
        space=program.space,
        board=(lambda _values, _step: None) if board is None else board.write,
        train_batch_size=program.job.train_batch_size,
        eval_batch_size=program.job.eval_batch_size,
    )
