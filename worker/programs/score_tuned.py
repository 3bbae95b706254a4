"""The chosen weights' scores, on each split that is to be scored with them, and free answers."""

from dataclasses import dataclass, field

from service.domain.evaluation import report_split
from service.domain.states import Phase
from service.fairness import Predictions
from service.fairness.schema import FormatSample
from worker.data.rows import Row
from worker.data.tokenize import Prompts
from worker.runtime.launch import Program
from worker.scoring.evaluate import Scorer
from worker.training.loop import Trainer


@dataclass(slots=True)
class Tuned:
    """By split. A split without labels has no predictions."""

    predictions: dict[str, Predictions] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    """Rows whose text was cut to fit."""
    format_sample: FormatSample | None = None


def score_tuned(
    program: Program,
    scorer: Scorer,
    trainer: Trainer,
    prompts: Prompts,
    rows: dict[str, list[Row]],
    splits: list[str],
) -> Tuned:
    """Score `splits` with the weights that the model holds.

    In another process than the first one of a run there are no predictions in what is returned.
    """
    program.reporter.phase(Phase.EVALUATING)
    tuned = Tuned()
    for split in splits:
        cut_before = prompts.truncated
        scored = scorer.evaluate(
            trainer.model,
            rows[split],
            prompts,
            "adapter",
            trainer.chosen_step,
            trainer.progress_after,
        )
        tuned.truncated[split] = prompts.truncated - cut_before
        if scored is not None:
            tuned.predictions[split] = scored
    return tuned


def sample_format(
    scorer: Scorer,
    trainer: Trainer,
    prompts: Prompts,
    rows: dict[str, list[Row]],
    splits: list[str],
    tuned: Tuned,
) -> None:
    """Have the tuned model write freely on some rows of the split that the report is about."""
    split = report_split(splits, tuned.predictions)
    if split is not None:
        tuned.format_sample = scorer.sample(
            trainer.model, rows[split], prompts, tuned.predictions[split], trainer.progress_after
        )


def with_validation(splits: list[str], rows: dict[str, list[Row]], labels: list[str]) -> list[str]:
    """What is scored with the tuned model: `splits`, and validation, where thresholds are fitted.

    The latter is left out where no row of it has a label, or nothing can be scored at all.
    """
    known = any(row.label is not None for row in rows.get("validation", []))
    return splits if not (labels and known) or "validation" in splits else [*splits, "validation"]
