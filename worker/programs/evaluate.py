"""An evaluation job: load the base model, with an adapter or without, and score rows with it.

python -m worker.programs.evaluate JOB_DIR
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.domain.errors import ProgramFailure
from service.domain.events import Progress
from service.domain.states import FailureReason, Phase
from worker.programs import libraries
from worker.programs.program import Program, launch

if TYPE_CHECKING:  # torch and what is on it take seconds; `starting` is said before
    from worker.training.rows import Row


def main(program: Program) -> None:
    job, spec, reporter, ranks = program.job, program.job.spec, program.reporter, program.ranks
    task = job.evaluation
    if task is None:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, "job.json does not say what to evaluate: `evaluation`."
        )
    reporter.phase(Phase.LOADING)
    from worker.training.locate import locate
    from worker.training.rows import read_rows

    all_rows = read_rows(program.directory / job.dataset)
    rows = sample([row for row in all_rows if row.split == task.split], task.max_samples)
    if not rows:
        raise ProgramFailure(
            FailureReason.INVALID_DATA, f"The dataset has no rows of the split {task.split}."
        )
    directory = ranks.model or locate(spec.base_model, Path(job.models_dir))
    ranks.start(spec.resources.num_processes, directory)
    libraries.load(directory, in_4bit=spec.quantization.load_in_4bit)
    from worker.programs.loading import load
    from worker.scoring.evaluate import Scorer
    from worker.training.examples import Prompts, Tokens
    from worker.training.gpu import memory_held
    from worker.training.world import join

    world = join(ranks, spec.resources.num_processes)
    base, accelerator = load(program, directory)
    model = base.model if job.adapter is None else _adapted(program, base.model, job.adapter)
    tokens = Tokens(base.tokenizer, spec.training.max_seq_length)
    scorer = Scorer(
        job=job,
        directory=program.directory,
        labels=task.labels,
        pad=tokens.pad,
        device=accelerator.device,
        reporter=reporter,
        stop=program.stop,
        space=program.space,
        world=world,
    )
    done = 0

    def scored(rows_done: int) -> None:
        nonlocal done
        done = rows_done

    def alive(left: float | None) -> None:
        reporter.emit(
            Progress,
            step=done,
            total_steps=len(rows),
            epoch=0,
            eta_seconds=left,
            gpu_memory_bytes=memory_held(),
        )

    reporter.phase(Phase.EVALUATING)
    alive(None)
    prompts = Prompts(tokens, job.template, job.completions)
    scorer.evaluate(model, rows, prompts, task.target, task.step, alive, scored)
    ranks.dismiss()
    if not world.leads:
        return
    done = len(rows)
    alive(None)
    reporter.phase(Phase.DONE)


def sample(rows: Sequence[Row], most: int | None) -> list[Row]:
    """At most so many of `rows`, in their order: those whose ids have the smallest SHA-256.

    So the sample depends on the rows alone and is the same one for every run and target, which can
    be compared on it row by row; a smaller sample lies in a larger one.
    """
    if most is None or most >= len(rows):
        return list(rows)
    ranked = sorted(rows, key=lambda row: hashlib.sha256(row.id.encode()).digest())
    chosen = {row.id for row in ranked[:most]}
    return [row for row in rows if row.id in chosen]


def _adapted(program: Program, base: Any, place: str) -> Any:
    """`base` with the adapter in the directory `place`, as it was when the run scored with it.

    Raises ProgramFailure(crashed) for one that is not the run's: another attempt gets it anew.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from worker.training.checkpoints import BrokenCheckpoint, load_adapter
    from worker.training.lean import make_lean
    from worker.training.models import add_adapter

    spec = program.job.spec
    model = add_adapter(base, spec.lora, spec.seed, spec.base_model)
    make_lean(model)
    try:
        load_adapter(model, load_file(program.directory / place / "adapter_model.safetensors"))
    except (OSError, SafetensorError, BrokenCheckpoint) as error:
        raise ProgramFailure(
            FailureReason.CRASHED, f"The adapter cannot be loaded: {error}."
        ) from error
    return model


if __name__ == "__main__":
    launch(main, __doc__ or "")
