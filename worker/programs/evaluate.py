"""An evaluation job: load the base model, with an adapter or without, or a merged one, and score
rows with it.

python -m worker.programs.evaluate JOB_DIR
"""

from __future__ import annotations

from pathlib import Path

from service.domain.errors import ProgramFailure
from service.domain.evaluation import EvaluationTask
from service.domain.events import Progress
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.launch import Program, launch


def main(program: Program) -> None:
    job, spec, reporter, ranks = program.job, program.job.spec, program.reporter, program.ranks
    task = job.task
    if not isinstance(task, EvaluationTask):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, "job.json does not say what to evaluate: `task`."
        )
    reporter.phase(Phase.LOADING)
    from worker.data.rows import read_rows, sample
    from worker.modeling.locate import locate

    all_rows = read_rows(program.directory / job.dataset)
    rows = sample([row for row in all_rows if row.split == task.split], task.max_samples)
    if not rows:
        raise ProgramFailure(
            FailureReason.INVALID_DATA, f"The dataset has no rows of the split {task.split}."
        )
    if job.merged is not None:
        directory = program.directory / job.merged
    else:
        directory = ranks.model or locate(spec.base_model, Path(job.models_dir))
    ranks.start(spec.resources.num_processes, directory)
    imports.load(directory, in_4bit=spec.quantization.load_in_4bit and job.merged is None)
    from worker.data.tokenize import Prompts, Tokens
    from worker.programs.load_model import adapted, load, load_merged
    from worker.runtime.distributed import join
    from worker.runtime.gpu import peak_gpu_memory
    from worker.scoring.evaluate import Scorer

    world = join(ranks, spec.resources.num_processes)
    base, accelerator = (load if job.merged is None else load_merged)(program, directory)
    model = base.model if job.adapter is None else adapted(program, base.model, job.adapter)
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
            gpu_memory_bytes=peak_gpu_memory(),
        )

    reporter.phase(Phase.EVALUATING)
    alive(None)
    prompts = Prompts(tokens, job.template, job.completions)
    scorer.evaluate(model, rows, prompts, task.target, task.step, alive, scored)
    ranks.dismiss()
    if not world.is_rank_zero:
        return
    done = len(rows)
    alive(None)
    reporter.phase(Phase.DONE)


if __name__ == "__main__":
    launch(main, __doc__ or "")
