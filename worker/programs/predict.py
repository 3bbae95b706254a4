"""A prediction job: score the texts of a request.

python -m worker.programs.predict JOB_DIR
"""

from service.domain.errors import ProgramFailure
from service.domain.events import PredictionsEvent
from service.domain.prediction import PREDICTIONS_FILE, PredictionTask, Scores
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.events import file_entry
from worker.runtime.launch import Program, launch
from worker.runtime.progress import ProgressTracker


def main(program: Program) -> None:
    """Run the job."""
    job, spec, reporter = program.job, program.job.spec, program.reporter
    task = job.task
    if not isinstance(task, PredictionTask) or (job.adapter is None and job.merged is None):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            "job.json does not say what to predict, or with which weights: `task`, and `adapter` "
            "or `merged`.",
        )
    reporter.phase(Phase.LOADING)
    from worker.programs.locate_model import locate_model

    model_directory = locate_model(job, program.directory)
    imports.load(model_directory, in_4bit=spec.quantization.load_in_4bit and job.merged is None)
    from worker.data.rows import Row
    from worker.data.tokenize import Prompts, Tokens
    from worker.modeling.load import set_training
    from worker.programs.load_model import load_scored_model
    from worker.runtime.out_of_memory import detect_out_of_memory
    from worker.scoring.labels import Item, score

    model, tokenizer = load_scored_model(job, program.directory, model_directory, reporter)
    tokens = Tokens(tokenizer, spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    items, truncated = [], []
    contents: list[tuple[str | None, list[dict[str, str]] | None]]
    contents = [(text, None) for text in task.texts] or [(None, chat) for chat in task.messages]
    for number, (text, chat) in enumerate(contents):
        row = Row(str(number), text, chat, None, None, None, None, "test")
        truncated_before = prompts.truncated
        encoded = prompts.encode(row, task.labels)
        items.append(Item(encoded.prompt, encoded.answers))
        truncated.append(prompts.truncated > truncated_before)

    reporter.phase(Phase.EVALUATING)
    progress = ProgressTracker(reporter, len(items))
    progress.begin(len(items), expected_seconds=None, seconds_after=0)
    size = job.eval_batch_size or spec.training.per_device_eval_batch_size
    with detect_out_of_memory("eval", size):
        set_training(model, training=False)
        probabilities = score(
            model,
            items,
            pad=tokens.pad,
            token_budget=size * spec.training.max_seq_length,
            device=model.device,
            tick=progress.update,
            on_fallback=lambda reason: reporter.warn("slow_scoring", reason),
        )

    scores = Scores(probabilities=probabilities, truncated=truncated)
    path = program.directory / PREDICTIONS_FILE
    program.space.write_with_retry(
        path.name, lambda: path.write_text(scores.model_dump_json(), "utf-8")
    )
    reporter.emit(PredictionsEvent, texts=len(items), file=file_entry(path, program.directory))
    reporter.phase(Phase.DONE)


if __name__ == "__main__":
    launch(main, __doc__ or "")
