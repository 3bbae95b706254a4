"""What a train job leaves: adapter, result files, bias report, model card."""

from collections import Counter

from service.domain.events import ArtifactEvent
from service.domain.states import Phase
from service.fairness import Predictions
from worker.programs.program import Program
from worker.programs.reporter import file_entry
from worker.scoring.evaluate import Scorer
from worker.training import checkpoints, results
from worker.training.board import Board
from worker.training.loop import Trainer
from worker.training.rows import Row

RESULT_FILES = frozenset(
    {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "all_results.json",
        "bias_report.json",
        "eval_results.json",
        "train_results.json",
        "trainer_state.json",
        "training_args.json",
    }
)


def finish(
    program: Program,
    trainer: Trainer,
    board: Board,
    scorer: Scorer,
    rows: dict[str, list[Row]],
    labels: list[str],
    before: dict[str, Predictions],
    after: dict[str, Predictions],
) -> None:
    """Write the files and announce them. Waits where the disk is full."""
    job, directory, reporter, space = (
        program.job,
        program.directory,
        program.reporter,
        program.space,
    )
    reporter.phase(Phase.SAVING)
    trainer.progress_after(None, saving=True)
    model = trainer.model
    state, trained = trainer.state, trainer.trainer_state()
    space.insist("the adapter", lambda: checkpoints.save_adapter(model, directory))

    reporter.phase(Phase.REPORTING)
    report = None
    if after:
        split = next(one for one in ("test", "validation", "train") if one in after)
        report = scorer.report(after[split], before.get(split), rows["train"], trainer.chosen_step)
    train, evaluated = results.results(
        trained,
        trainer.chosen_step,
        len(trainer.examples),
        state.seconds,
        state.total_loss / max(state.step, 1),
        report,
    )
    card = results.model_card(
        job,
        dict(Counter(row.split for split in rows.values() for row in split)),
        labels,
        state.step,
        trainer.chosen_step,
        sum(p.numel() for p in model.parameters() if p.requires_grad),
        evaluated,
        report,
    )

    def write() -> None:
        results.write_json(directory / "trainer_state.json", trained)
        results.write_json(directory / "training_args.json", job.spec.model_dump(mode="json"))
        if report is not None:
            (directory / "bias_report.json").write_text(report.model_dump_json(indent=2) + "\n")
        results.write_json(directory / "train_results.json", train)
        results.write_json(directory / "eval_results.json", evaluated)
        results.write_json(directory / "all_results.json", train | evaluated)
        (directory / "README.md").write_text(card)

    space.insist("the results", write)
    space.insist("TensorBoard's file", board.flush)
    kept = [path for path in sorted(directory.iterdir()) if path.name in RESULT_FILES]
    kept += sorted((directory / "evaluations").glob("*.parquet"))
    kept += sorted((directory / "tensorboard").iterdir())
    for path in kept:
        reporter.emit(ArtifactEvent, file=file_entry(path, directory))
