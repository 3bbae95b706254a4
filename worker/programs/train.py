"""A train job: load, score the base model, train, score the tuned model, report, leave files.

python -m worker.programs.train JOB_DIR
"""

from pathlib import Path

from service.domain.job import CHECKPOINTS_DIR, TENSORBOARD_DIR
from service.domain.states import Phase
from worker.runtime import imports
from worker.runtime.launch import Program, launch


def main(program: Program) -> None:
    """Run the job, on every rank alike; rank 0 alone writes events and files."""
    job, spec, reporter, ranks = program.job, program.job.spec, program.reporter, program.ranks

    # Read the data, start the other ranks, and only then import torch, which takes seconds.
    reporter.phase(Phase.LOADING)
    from worker.programs.locate_model import locate_model
    from worker.programs.run_data import compare_prompts, read_run_data, tokenize_run
    from worker.programs.weight_selection import check_validation_rows

    data = read_run_data(program.directory / job.dataset, spec, reporter)
    check_validation_rows(spec, data.validation, data.labels)
    model_directory = ranks.model or locate_model(job, program.directory)
    ranks.start(spec.resources.num_processes, model_directory)
    imports.load(model_directory, in_4bit=spec.quantization.load_in_4bit)
    from worker.data.tokenize import Prompts, Tokens
    from worker.modeling.lora_targets import check_targets
    from worker.programs.build import make_scorer, make_trainer
    from worker.programs.load_model import load_base
    from worker.programs.resume import resume
    from worker.programs.score_base import score_base
    from worker.programs.score_tuned import sample_format, score_tuned
    from worker.programs.weight_selection import make_selection, warn_if_infeasible
    from worker.programs.write_results import store_adapter, write_results
    from worker.runtime.distributed import join
    from worker.training import checkpoints
    from worker.training.tensorboard import TensorBoardWriter

    # Load the base model and tokenize the rows.
    if ranks.is_rank_zero:
        checkpoints.remove_leftovers(program.directory / CHECKPOINTS_DIR)
    world = join(ranks, spec.resources.num_processes)
    base = load_base(model_directory, spec, Path(job.models_dir), reporter)
    check_targets(base.model, spec.lora, spec.base_model)
    tokens = Tokens(base.tokenizer, spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    examples = tokenize_run(data, prompts, spec, reporter)
    prompt_notes = compare_prompts(data, prompts, reporter)

    # Score the base model, before an adapter is added to it.
    scorer = make_scorer(program, data.labels, tokens, base.model.device, world)
    base_scores = score_base(scorer, base.model, tokens, data, len(examples.train))

    # Train, from the newest checkpoint if there is one.
    board = TensorBoardWriter(program.directory / TENSORBOARD_DIR) if ranks.is_rank_zero else None
    trainer = make_trainer(program, base.model, world, examples, tokens.pad, board)
    trainer.seconds_after = base_scores.expected_seconds
    trainer.selection = make_selection(spec, scorer, prompts, data.rows)
    resume(job, trainer, board)
    reporter.phase(Phase.TRAINING)
    trainer.run()
    warn_if_infeasible(trainer.state.best_standing, spec.fairness, reporter)

    # Store the adapter and score the tuned model; nonzero ranks are done then.
    program.stop.check()
    if ranks.is_rank_zero:
        store_adapter(trainer, scorer)
    tuned_scores = score_tuned(scorer, trainer, prompts, data)
    ranks.dismiss()
    if board is None:
        return
    sample_format(scorer, trainer, prompts, data, tuned_scores)

    # Write report, model card and results. Stopping now would save nothing, so TERM is deferred.
    with program.stop.deferred():
        write_results(trainer, board, scorer, data, base_scores, tuned_scores, prompt_notes)
        reporter.phase(Phase.DONE)


if __name__ == "__main__":
    launch(main, __doc__ or "")
