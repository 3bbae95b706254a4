"""Evaluations of a run."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.states import JobStatus, Phase
from service.store.evaluations import StoredEvaluation
from service.store.tables import Evaluation, Job


class EvaluationView(JobView):
    """An evaluation: a model's predictions on a split, and the metrics computed from them."""

    job_id: str = Field(
        description="Identifier of the evaluation's own job; for an evaluation that the run made "
        "itself, of the run's job."
    )
    target: str = Field(description="Scored model: base, adapter, checkpoint or merged.")
    step: int | None = Field(
        description="Optimizer step of the scored weights; null for the base model."
    )
    merge_id: str | None = Field(
        description="Merge whose model was scored, if the target is merged."
    )
    dataset_id: str = Field(description="Dataset of the scored rows.")
    split: str = Field(description="Split of the scored rows: train, validation or test.")
    template: str = Field(description="Prompt template.")
    max_samples: int | None = Field(
        description="Maximum number of rows; null: all rows of the split."
    )
    percent: float = Field(description="Scored share of the rows, 0 to 100.")
    metrics: dict[str, float | None] = Field(
        description="Metrics by name; empty until the evaluation has succeeded, and if no row has "
        "a label."
    )
    superseded: bool = Field(
        description="True if the run was rewound past the scored weights: its metrics and "
        "predictions are deleted."
    )

    @classmethod
    def of(cls, evaluation: StoredEvaluation, queue_position: int | None) -> Self:
        if evaluation.task is None:
            assert evaluation.row is not None
            return cls._of_run(evaluation.row, evaluation.job)
        task = evaluation.task
        return cls.of_job(
            evaluation.id,
            evaluation.job,
            queue_position,
            target=task.target,
            step=task.step,
            merge_id=task.merge,
            dataset_id=task.dataset_id,
            split=task.split,
            template=task.template,
            max_samples=task.max_samples,
            metrics={} if evaluation.row is None else evaluation.row.metrics,
            superseded=evaluation.is_superseded,
        )

    @classmethod
    def _of_run(cls, row: Evaluation, job: Job) -> Self:
        """Return an evaluation that the run made itself; its row exists only once complete."""
        evaluation = cls.of_job(
            row.id,
            job,
            None,
            target=row.target,
            step=row.step,
            merge_id=None,
            dataset_id=row.dataset_id,
            split=row.split,
            template=row.template,
            max_samples=None,
            metrics=row.metrics,
            superseded=False,
        )
        ended = {
            "status": JobStatus.SUCCEEDED,
            "phase": Phase.DONE,
            "percent": 100.0,
            "eta_seconds": None,
            "requested": None,
            "failure": None,
            "created_at": row.created_at,
            "finished_at": row.created_at,
        }
        return evaluation.model_copy(update=ended)
