"""The files that a train job leaves: adapter, result files, bias report, model card."""

from service.domain.evaluation import report_split
from service.domain.events import ArtifactEvent
from service.domain.job import (
    ADAPTER_FILES,
    BIAS_REPORT_FILE,
    CARD_FILE,
    EVALUATIONS_DIR,
    TENSORBOARD_DIR,
    Job,
)
from service.domain.states import Phase
from service.domain.template import Template
from service.fairness import BiasReport
from service.fairness.html import render_report
from service.fairness.schema import Shown
from service.fairness.tables import bias_csv, performance_csv
from worker.data.rows import Row
from worker.programs.run_data import RunData
from worker.programs.score_base import BaseScores
from worker.programs.score_tuned import TunedScores
from worker.runtime.events import file_entry
from worker.scoring.evaluate import Scorer
from worker.training import checkpoints, model_card, results
from worker.training.loop import Trainer
from worker.training.tensorboard import TensorBoardWriter

_RESULT_FILES = frozenset(
    {
        BIAS_REPORT_FILE,
        CARD_FILE,
        "all_results.json",
        "bias_metrics.csv",
        "bias_report.html",
        "eval_results.json",
        "performance_metrics.csv",
        "train_results.json",
        "trainer_state.json",
        "training_args.json",
    }
)


def store_adapter(trainer: Trainer, scorer: Scorer) -> None:
    """Write and announce the adapter before it is scored, so that no later failure loses it.

    Waits while the disk is full.
    """
    directory = scorer.directory
    scorer.space.write_with_retry(
        "the adapter", lambda: checkpoints.save_adapter(trainer.model, directory)
    )
    for name in sorted(ADAPTER_FILES):
        scorer.reporter.emit(ArtifactEvent, file=file_entry(directory / name, directory))


def write_results(
    trainer: Trainer,
    board: TensorBoardWriter,
    scorer: Scorer,
    data: RunData,
    base_scores: BaseScores,
    tuned_scores: TunedScores,
    prompt_notes: list[str],
) -> None:
    """Write the files beside the adapter and announce them. Waits while the disk is full.

    `prompt_notes` are sentences for the model card on how to send the trained prompt.
    """
    directory, reporter, space = scorer.directory, scorer.reporter, scorer.space
    reporter.phase(Phase.SAVING)
    trainer.progress_after(None, saving=True)

    reporter.phase(Phase.REPORTING)
    report = _build_report(scorer, data, base_scores, tuned_scores)
    train_results, eval_results = _training_results(trainer, report)
    documents = {
        "trainer_state.json": trainer.trainer_state(),
        "training_args.json": scorer.job.spec.model_dump(mode="json"),
        "train_results.json": train_results,
        "eval_results.json": eval_results,
        "all_results.json": train_results | eval_results,
    }
    texts = {} if report is None else _report_texts(report, data)
    texts[CARD_FILE] = _model_card(trainer, scorer.job, data, eval_results, report, prompt_notes)

    def write() -> None:
        for name, content in documents.items():
            results.write_json(directory / name, content)
        for name, text in texts.items():
            (directory / name).write_text(text, "utf-8", newline="")

    space.write_with_retry("the results", write)
    space.write_with_retry("TensorBoard's file", board.flush)
    paths = [path for path in sorted(directory.iterdir()) if path.name in _RESULT_FILES]
    paths += sorted((directory / EVALUATIONS_DIR).glob("*.parquet"))
    paths += sorted((directory / TENSORBOARD_DIR).iterdir())
    for path in paths:
        reporter.emit(ArtifactEvent, file=file_entry(path, directory))


def _build_report(
    scorer: Scorer, data: RunData, base_scores: BaseScores, tuned_scores: TunedScores
) -> BiasReport | None:
    """Return the bias report; None if no split can be reported on."""
    split = report_split(data.splits, tuned_scores.predictions)
    if split is None:
        return None
    job, rows = scorer.job, data.rows[split]
    base_shown = None
    if split in base_scores.predictions:
        base_shown = _shown(
            job.baseline_template or job.template, rows, scorer.truncated("base", rows)
        )
    return scorer.report(
        tuned_scores.predictions[split],
        base_scores.predictions.get(split),
        tuned_scores.predictions.get("validation"),
        data.rows,
        shown=_shown(job.template, rows, tuned_scores.truncated[split]),
        base_shown=base_shown,
        without_label=len(rows) - len(tuned_scores.predictions[split]),
        format_sample=tuned_scores.format_sample,
    )


def _training_results(
    trainer: Trainer, report: BiasReport | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Return train_results.json and eval_results.json."""
    state = trainer.state
    return results.results(
        trainer.trainer_state(),
        trainer.chosen_step,
        len(trainer.examples),
        state.seconds,
        state.total_loss / max(state.step, 1),
        report,
    )


def _model_card(
    trainer: Trainer,
    job: Job,
    data: RunData,
    eval_results: dict[str, float],
    report: BiasReport | None,
    prompt_notes: list[str],
) -> str:
    return model_card.model_card(
        job,
        {split: len(rows) for split, rows in data.rows.items()},
        data.labels,
        trainer.state.step,
        trainer.chosen_step,
        sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        eval_results,
        report,
        prompt_notes,
    )


def _report_texts(report: BiasReport, data: RunData) -> dict[str, str]:
    """Return the report in each format by its file name."""
    mistakes = {mistake.id for mistake in report.worst_mistakes}
    rows = data.rows[report.meta.split]
    mistake_texts = {row.id: _classified_text(row) for row in rows if row.id in mistakes}
    return {
        BIAS_REPORT_FILE: report.model_dump_json(indent=2) + "\n",
        "bias_report.html": render_report(report, mistake_texts),
        "performance_metrics.csv": performance_csv(report),
        "bias_metrics.csv": bias_csv(report),
    }


def _shown(template: Template, rows: list[Row], truncated: int | None) -> Shown:
    """Return what a model was given to read; a chat has its own turns, not the template's."""
    is_chat = any(row.messages is not None for row in rows)
    return Shown(
        system=None if is_chat else template.system,
        user=None if is_chat else template.user,
        completion=None if is_chat else template.completion,
        group=not is_chat and template.shows_group,
        truncated=truncated,
    )


def _classified_text(row: Row) -> str:
    """Return the text that was classified; in a chat, the last user message."""
    if row.messages is None:
        return row.text or ""
    messages = [turn["content"] for turn in row.messages if turn["role"] == "user"]
    return messages[-1] if messages else ""
