"""Choice of a run's weights and threshold on its labelled validation rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import ProgramFailure
from service.domain.spec import FairnessSection, RunSpec
from service.domain.states import FailureReason
from worker.training.selection import Selection, infeasible_detail

if TYPE_CHECKING:
    from service.fairness.selection import CheckpointScore
    from worker.data.rows import Row
    from worker.data.tokenize import Prompts
    from worker.runtime.events import Reporter
    from worker.scoring.evaluate import Scorer


def check_validation_rows(spec: RunSpec, validation: list[Row], labels: list[str]) -> None:
    """Raise ProgramFailure(invalid_spec) if the spec needs labelled validation rows, but has none.

    The service refuses such a run when it is submitted, but a job.json can be written by hand.
    """
    requirements = []
    if spec.fairness.select == "best_f1_within_caps":
        requirements.append("fairness.select best_f1_within_caps")
        if spec.training.eval_strategy == "no" or not spec.training.load_best_model_at_end:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"{requirements[0]} needs training.eval_strategy epoch or steps, and "
                "training.load_best_model_at_end.",
            )
    if spec.evaluation.threshold == "fitted":
        requirements.append("evaluation.threshold fitted")
    has_labels = any(row.label is not None for row in validation)
    if requirements and not (labels and has_labels):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"{requirements[0]} needs a validation split with labels, which the dataset lacks.",
        )


def make_selection(
    spec: RunSpec, scorer: Scorer, prompts: Prompts, rows: dict[str, list[Row]]
) -> Selection | None:
    """Return the rule that selects the best weights; None: the lowest validation loss."""
    if spec.fairness.select == "best_metric":
        return None
    return Selection(
        spec.fairness,
        fitted=spec.evaluation.threshold == "fitted",
        score=scorer.validation_scorer(rows["validation"], prompts),
    )


def warn_if_infeasible(
    best: CheckpointScore | None, fairness: FairnessSection, reporter: Reporter
) -> None:
    """Warn if the selected weights violate a cap or min_f1 on the validation rows."""
    if best is not None and not best.feasible:
        reporter.warn("nothing_within_caps", infeasible_detail(best, fairness))
