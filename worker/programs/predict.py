"""A prediction job: score the texts that were asked about.

python -m worker.programs.predict JOB_DIR
"""

from pathlib import Path

from service.domain.errors import ProgramFailure
from service.domain.events import PredictionsEvent
from service.domain.prediction import PREDICTIONS_FILE, Scores
from service.domain.states import FailureReason, Phase
from worker.runtime import imports
from worker.runtime.events import file_entry
from worker.runtime.launch import Program, launch
from worker.runtime.progress import ProgressTracker


def main(program: Program) -> None:
    job, spec, reporter = program.job, program.job.spec, program.reporter
    task = job.prediction
    if task is None or (job.adapter is None and job.merged is None):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            "job.json does not say what to predict, or with which weights: `prediction`, and "
            "`adapter` or `merged`.",
        )
    reporter.phase(Phase.LOADING)
    from worker.modeling.locate import locate

    if job.merged is not None:
        directory = program.directory / job.merged
    else:
        directory = locate(spec.base_model, Path(job.models_dir))
    imports.load(directory, in_4bit=spec.quantization.load_in_4bit and job.merged is None)
    from worker.data.rows import Row
    from worker.data.tokenize import Prompts, Tokens
    from worker.modeling.load import set_training
    from worker.programs.load_model import adapted, load, load_merged
    from worker.runtime.out_of_memory import detect_out_of_memory
    from worker.scoring.labels import Item, score

    base, accelerator = (load if job.merged is None else load_merged)(program, directory)
    model = base.model if job.adapter is None else adapted(program, base.model, job.adapter)
    tokens = Tokens(base.tokenizer, spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    items, truncated = [], []
    for number, text in enumerate(task.texts):
        row = Row(str(number), text, None, None, None, None, None, "test")
        before = prompts.truncated
        answers = prompts.label_answers(row, task.labels)
        items.append(Item(prompts.fit_prompt(row, answers), answers))
        truncated.append(prompts.truncated > before)
    steps = ProgressTracker(reporter, len(items))
    reporter.phase(Phase.EVALUATING)
    steps.part(len(items), expected=None, after=0)
    size = job.eval_batch_size or spec.training.per_device_eval_batch_size
    with detect_out_of_memory("eval", size):
        set_training(model, training=False)
        probabilities = score(
            model,
            items,
            pad=tokens.pad,
            token_budget=size * spec.training.max_seq_length,
            device=accelerator.device,
            tick=steps.at,
            on_fallback=lambda why: reporter.warn("slow_scoring", why),
        )
    found = Scores(probabilities=probabilities, truncated=truncated)
    path = program.directory / PREDICTIONS_FILE

    def written() -> None:
        path.write_text(found.model_dump_json(), "utf-8")

    program.space.write_with_retry(path.name, written)
    reporter.emit(PredictionsEvent, texts=len(items), file=file_entry(path, program.directory))
    reporter.phase(Phase.DONE)


if __name__ == "__main__":
    launch(main, __doc__ or "")
