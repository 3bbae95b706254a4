"""Scoring of the selected weights, and free answers of the tuned model for the format check."""

from dataclasses import dataclass, field

from service.domain.evaluation import report_split
from service.domain.states import Phase
from service.fairness import Predictions
from service.fairness.schema import FormatSample
from worker.data.tokenize import Prompts
from worker.programs.run_data import RunData
from worker.runtime.progress import PhaseRows
from worker.scoring.evaluate import Scorer
from worker.training.loop import Trainer


@dataclass(slots=True)
class TunedScores:
    """The tuned model's predictions by split; none for a split without labels."""

    predictions: dict[str, Predictions] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    """Rows whose text was truncated, by split."""
    format_sample: FormatSample | None = None


def score_tuned(scorer: Scorer, trainer: Trainer, prompts: Prompts, data: RunData) -> TunedScores:
    """Score the splits with the model's current weights; nonzero ranks get no predictions."""
    scorer.reporter.phase(Phase.EVALUATING)
    scores = TunedScores()
    phase = PhaseRows(sum(len(data.rows[split]) for split in data.tuned_splits))
    for split in data.tuned_splits:
        truncated_before = prompts.truncated
        predictions = scorer.evaluate(
            trainer.model,
            data.rows[split],
            prompts,
            "adapter",
            trainer.chosen_step,
            lambda left: trainer.progress_after(left, share=phase.share),
            phase.count,
        )
        phase.end_split(len(data.rows[split]))
        scores.truncated[split] = prompts.truncated - truncated_before
        if predictions is not None:
            scores.predictions[split] = predictions
    return scores


def sample_format(
    scorer: Scorer, trainer: Trainer, prompts: Prompts, data: RunData, scores: TunedScores
) -> None:
    """Let the tuned model answer freely on some rows of the reported split; set `format_sample`."""
    split = report_split(data.splits, scores.predictions)
    if split is not None:
        scores.format_sample = scorer.sample(
            trainer.model,
            data.rows[split],
            prompts,
            scores.predictions[split],
            lambda left: trainer.progress_after(left, share=1.0),
        )
