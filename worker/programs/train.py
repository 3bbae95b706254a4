"""A train job: load, score the base model, train, score the chosen weights, report, leave files.

python -m worker.programs.train JOB_DIR
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason, Phase
from service.domain.steps import StepPlan
from worker.runtime import imports
from worker.runtime.launch import Program, launch

if TYPE_CHECKING:  # torch and what is on it take seconds; `starting` is said before
    from worker.data.rows import Row
    from worker.data.tokenize import Example, Prompts, Tokens
    from worker.runtime.distributed import World
    from worker.scoring.evaluate import Scorer
    from worker.training.loop import Trainer
    from worker.training.tensorboard import Board


def main(program: Program) -> None:
    job, spec, reporter, ranks = program.job, program.job.spec, program.reporter, program.ranks
    reporter.phase(Phase.LOADING)
    from worker.data.rows import read_rows
    from worker.modeling.locate import locate
    from worker.programs import choosing

    rows = _by_split(read_rows(program.directory / job.dataset))
    labels = _labels(rows, program)
    choosing.check(spec, rows, labels)
    directory = ranks.model or locate(spec.base_model, Path(job.models_dir))
    ranks.start(spec.resources.num_processes, directory)
    imports.load(directory, in_4bit=spec.quantization.load_in_4bit)
    from worker.data.tokenize import Prompts, Tokens
    from worker.modeling.lora_targets import check_targets
    from worker.programs.load_model import load
    from worker.programs.resume import resume
    from worker.programs.score_base import score_base
    from worker.programs.score_tuned import sample_format, score_tuned, with_validation
    from worker.programs.write_results import finish
    from worker.runtime.distributed import join
    from worker.training import checkpoints
    from worker.training.tensorboard import Board

    if ranks.is_rank_zero:
        checkpoints.tidy(program.directory / "checkpoints")
    world = join(ranks, spec.resources.num_processes)
    base, accelerator = load(program, directory)
    check_targets(base.model, spec.lora, spec.base_model)
    tokens = Tokens(base.tokenizer, spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    train = _examples(program, prompts, rows, "train", labels)
    validation = _examples(program, prompts, rows, "validation", labels)
    _check_data(program, train, validation)

    scorer = _scorer(program, labels, tokens, accelerator.device, world)
    splits = _splits_to_score(program, rows, labels)
    later = with_validation(splits, rows, labels)
    total = StepPlan.of(spec.training, len(train), world.size).total_steps
    before, seconds = score_base(program, scorer, base.model, tokens, rows, splits, later, total)

    board = Board(program.directory / "tensorboard") if ranks.is_rank_zero else None
    trainer = _trainer(program, base, accelerator, world, train, validation, tokens.pad, board)
    trainer.seconds_after = seconds
    trainer.selection = choosing.selection(spec, scorer, prompts, rows)
    resume(program, trainer, board)
    reporter.phase(Phase.TRAINING)
    trainer.run()
    choosing.say_what_is_broken(program, trainer)

    program.stop.check()
    tuned = score_tuned(program, scorer, trainer, prompts, rows, later)
    ranks.dismiss()
    if board is None:
        return
    sample_format(scorer, trainer, prompts, rows, splits, tuned)
    with program.stop.deferred():  # nothing is left that would be worth coming back for
        finish(program, trainer, board, scorer, rows, labels, splits, before, tuned)
        reporter.phase(Phase.DONE)


def _by_split(rows: list[Row]) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.split, []).append(row)
    return splits


def _labels(rows: dict[str, list[Row]], program: Program) -> list[str]:
    """The labels to score: those of the training rows, sorted. Empty: nothing can be evaluated."""
    if not rows.get("train"):
        raise ProgramFailure(FailureReason.INVALID_DATA, "The dataset has no rows to train on.")
    labels = sorted({row.label for row in rows["train"] if row.label is not None})
    if not labels:
        program.reporter.warn(
            "no_labels",
            "The training rows have no labels: the model is trained, but neither evaluated nor "
            "reported on.",
        )
        return []
    positive = program.job.spec.fairness.positive_label
    if positive not in labels:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"fairness.positive_label is {positive!r}, but the training rows' labels are "
            f"{', '.join(map(repr, labels))}.",
        )
    return labels


def _examples(
    program: Program, prompts: Prompts, rows: dict[str, list[Row]], split: str, labels: list[str]
) -> list[Example]:
    limit, given = program.job.spec.training.max_seq_length, rows.get(split, [])
    prompts.truncated = 0
    examples = [one for row in given if (one := prompts.example(row, labels))]
    if prompts.truncated:
        program.reporter.warn(
            "rows_truncated",
            f"{prompts.truncated} of {len(given)} rows of the {split} split are longer than "
            f"max_seq_length {limit} tokens; the ends of their texts were cut off.",
        )
    if left := len(given) - len(examples):
        program.reporter.warn(
            "rows_without_answer",
            f"{left} of {len(given)} rows of the {split} split have no label and were left out.",
        )
    return examples


def _check_data(program: Program, train: list[Example], validation: list[Example]) -> None:
    training = program.job.spec.training
    if not train:
        raise ProgramFailure(
            FailureReason.INVALID_DATA, "No training row has an answer to learn: all lack a label."
        )
    if not validation and training.eval_strategy != "no":
        program.reporter.warn(
            "no_validation",
            "The dataset has no validation split: no evaluation while training, no early stopping, "
            "and the last checkpoint is the one taken.",
        )
    world = program.job.spec.resources.num_processes
    if text := StepPlan.of(training, len(train), world).warmup_warning():
        program.reporter.warn("long_warmup", text)


def _scorer(
    program: Program, labels: list[str], tokens: Tokens, device: Any, world: World
) -> Scorer:
    from worker.scoring.evaluate import Scorer

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


def _splits_to_score(program: Program, rows: dict[str, list[Row]], labels: list[str]) -> list[str]:
    wanted = list(program.job.spec.evaluation.splits) if labels else []
    for split in wanted:
        if not rows.get(split):
            program.reporter.warn(
                "no_rows", f"The dataset has no {split} split, so it is not evaluated."
            )
    return [split for split in wanted if rows.get(split)]


def _trainer(
    program: Program,
    base: Any,
    accelerator: Any,
    world: World,
    train: list[Example],
    validation: list[Example],
    pad: int,
    board: Board | None,
) -> Trainer:
    from worker.modeling.fused_layers import fuse_layers
    from worker.modeling.load import add_adapter
    from worker.training.loop import Trainer

    spec = program.job.spec
    model = add_adapter(base.model, spec.lora, spec.seed, spec.base_model)
    fuse_layers(model)
    if spec.training.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    return Trainer(
        model=model,
        accelerator=accelerator,
        world=world,
        examples=train,
        validation=validation,
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


if __name__ == "__main__":
    launch(main, __doc__ or "")
