"""What a run chooses on its labelled validation rows: its weights, its threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import ProgramFailure
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from worker.data.rows import Row
from worker.training.selection import Selection, nothing_within_caps

if TYPE_CHECKING:
    from worker.data.tokenize import Prompts
    from worker.runtime.launch import Program
    from worker.scoring.evaluate import Scorer
    from worker.training.loop import Trainer


def check(spec: RunSpec, rows: dict[str, list[Row]], labels: list[str]) -> None:
    """Raise ProgramFailure(invalid_spec) where there is nothing to choose by.

    The service refuses such a run when it is submitted; but a job.json can be written by hand.
    """
    asked = []
    if spec.fairness.select == "best_f1_within_caps":
        asked.append("fairness.select best_f1_within_caps")
        if spec.training.eval_strategy == "no" or not spec.training.load_best_model_at_end:
            raise ProgramFailure(
                FailureReason.INVALID_SPEC,
                f"{asked[0]} needs training.eval_strategy epoch or steps, and "
                "training.load_best_model_at_end.",
            )
    if spec.evaluation.threshold == "fitted":
        asked.append("evaluation.threshold fitted")
    known = any(row.label is not None for row in rows.get("validation", []))
    if asked and not (labels and known):
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"{asked[0]} needs a validation split with labels, which the dataset has not.",
        )


def selection(
    spec: RunSpec, scorer: Scorer, prompts: Prompts, rows: dict[str, list[Row]]
) -> Selection | None:
    """How the best weights are chosen; None: by the lowest validation loss."""
    if spec.fairness.select == "best_metric":
        return None
    return Selection(
        spec.fairness,
        fitted=spec.evaluation.threshold == "fitted",
        score=scorer.validation_scorer(rows["validation"], prompts),
    )


def say_what_is_broken(program: Program, trainer: Trainer) -> None:
    """Warn where the weights chosen break a cap, or fall short of min_f1, on validation."""
    best, fairness = trainer.state.best_standing, program.job.spec.fairness
    if best is not None and not best.feasible:
        program.reporter.warn("nothing_within_caps", nothing_within_caps(best, fairness))
