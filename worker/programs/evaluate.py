"""An evaluation job: score rows with the base model, with an adapter, or with a merged model.

python -m worker.programs.evaluate JOB_DIR
"""

from service.domain.errors import ProgramFailure
from service.domain.evaluation import EvaluationTask
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.launch import Program, launch
from worker.runtime.progress import ProgressTracker


def main(program: Program) -> None:
    """Run the job, on every rank alike; rank 0 alone writes events and files."""
    job, spec, reporter, ranks = program.job, program.job.spec, program.reporter, program.ranks
    task = job.task
    if not isinstance(task, EvaluationTask):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC, "job.json does not say what to evaluate: `task`."
        )
    reporter.phase(Phase.LOADING)
    from worker.data.rows import read_rows, sample
    from worker.programs.locate_model import locate_model

    all_rows = read_rows(program.directory / job.dataset)
    rows = sample([row for row in all_rows if row.split == task.split], task.max_samples)
    if not rows:
        raise ProgramFailure(
            FailureReason.INVALID_DATA, f"The dataset has no rows of the split {task.split}."
        )
    model_directory = ranks.model or locate_model(job, program.directory)
    ranks.start(spec.resources.num_processes, model_directory)
    imports.load(model_directory, in_4bit=spec.quantization.load_in_4bit and job.merged is None)
    from worker.data.tokenize import Prompts, Tokens
    from worker.programs.build import make_scorer
    from worker.programs.load_model import load_scored_model
    from worker.runtime.distributed import join

    world = join(ranks, spec.resources.num_processes)
    model, tokenizer = load_scored_model(job, program.directory, model_directory, reporter)
    tokens = Tokens(tokenizer, spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    scorer = make_scorer(program, task.labels, tokens, model.device, world)

    reporter.phase(Phase.EVALUATING)
    progress = ProgressTracker(reporter, len(rows))
    progress.begin(len(rows), expected_seconds=None, seconds_after=0)
    scorer.evaluate(
        model,
        rows,
        prompts,
        task.target,
        task.step,
        heartbeat=lambda _left: progress.emit(),
        on_rows_done=progress.count,
    )
    ranks.dismiss()
    if not world.is_rank_zero:
        return
    progress.count(len(rows))
    progress.emit()
    reporter.phase(Phase.DONE)


if __name__ == "__main__":
    launch(main, __doc__ or "")
