"""What a train job leaves: adapter, result files, bias report, model card."""

from collections import Counter
from pathlib import Path

from service.domain.evaluation import report_split
from service.domain.events import ArtifactEvent
from service.domain.job import BIAS_REPORT_FILE
from service.domain.states import Phase
from service.domain.template import Template
from service.fairness import BiasReport, Predictions
from service.fairness.html import render_report
from service.fairness.schema import Shown
from service.fairness.tables import bias_csv, performance_csv
from worker.data.rows import Row
from worker.programs.score_tuned import Tuned
from worker.runtime.events import file_entry
from worker.runtime.launch import Program
from worker.scoring.evaluate import Scorer
from worker.training import checkpoints, model_card, results
from worker.training.loop import Trainer
from worker.training.tensorboard import TensorBoardWriter

RESULT_FILES = frozenset(
    {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "all_results.json",
        "bias_metrics.csv",
        "bias_report.html",
        BIAS_REPORT_FILE,
        "eval_results.json",
        "performance_metrics.csv",
        "train_results.json",
        "trainer_state.json",
        "training_args.json",
    }
)


def finish(
    program: Program,
    trainer: Trainer,
    board: TensorBoardWriter,
    scorer: Scorer,
    rows: dict[str, list[Row]],
    labels: list[str],
    splits: list[str],
    before: dict[str, Predictions],
    tuned: Tuned,
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
    split = report_split(splits, tuned.predictions)
    report, forms = None, dict[str, str]()
    if split is not None:
        report = scorer.report(
            tuned.predictions[split],
            before.get(split),
            tuned.predictions.get("validation"),
            rows["train"],
            shown=_shown(scorer.job.template, rows[split], tuned.truncated[split]),
            base_shown=_shown(
                scorer.job.baseline_template or scorer.job.template,
                rows[split],
                scorer.truncated("base", rows[split]),
            )
            if split in before
            else None,
            without_label=len(rows[split]) - len(tuned.predictions[split]),
            format_sample=tuned.format_sample,
        )
        forms = _forms(report, rows[split])
    train, evaluated = results.results(
        trained,
        trainer.chosen_step,
        len(trainer.examples),
        state.seconds,
        state.total_loss / max(state.step, 1),
        report,
    )
    readme = model_card.model_card(
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
        for name, text in forms.items():
            _write_text(directory / name, text)
        results.write_json(directory / "train_results.json", train)
        results.write_json(directory / "eval_results.json", evaluated)
        results.write_json(directory / "all_results.json", train | evaluated)
        _write_text(directory / "README.md", readme)

    space.insist("the results", write)
    space.insist("TensorBoard's file", board.flush)
    kept = [path for path in sorted(directory.iterdir()) if path.name in RESULT_FILES]
    kept += sorted((directory / "evaluations").glob("*.parquet"))
    kept += sorted((directory / "tensorboard").iterdir())
    for path in kept:
        reporter.emit(ArtifactEvent, file=file_entry(path, directory))


def _shown(template: Template, rows: list[Row], truncated: int | None) -> Shown:
    """What a model was given to read; a chat has its own turns, whatever the template."""
    chats = any(row.messages is not None for row in rows)
    return Shown(
        system=None if chats else template.system,
        user=None if chats else template.user,
        completion=None if chats else template.completion,
        group=not chats and template.shows_group,
        truncated=truncated,
    )


def _forms(report: BiasReport, rows: list[Row]) -> dict[str, str]:
    """The report in each of its forms, by the name of the file."""
    wrong = {mistake.id for mistake in report.worst_mistakes}
    texts = {row.id: _text(row) for row in rows if row.id in wrong}
    return {
        BIAS_REPORT_FILE: report.model_dump_json(indent=2) + "\n",
        "bias_report.html": render_report(report, texts),
        "performance_metrics.csv": performance_csv(report),
        "bias_metrics.csv": bias_csv(report),
    }


def _text(row: Row) -> str:
    """The text that was judged; of a chat, what the user said last."""
    if row.messages is None:
        return row.text or ""
    said = [turn["content"] for turn in row.messages if turn["role"] == "user"]
    return said[-1] if said else ""


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, "utf-8", newline="")
