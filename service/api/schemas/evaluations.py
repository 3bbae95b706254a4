"""What the API answers with about evaluations."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.states import JobStatus, Phase
from service.store.evaluations import Found
from service.store.tables import Evaluation, Job


class EvaluationView(JobView):
    job_id: str = Field(description="Its own job; or the run's, for what the run scored itself.")
    target: str = Field(description="base, adapter, checkpoint or merged")
    step: int | None = Field(description="Of the weights; null: the base model's.")
    merge_id: str | None = Field(description="The merge whose model it is, for the target merged.")
    dataset_id: str
    split: str
    template: str
    max_samples: int | None = Field(description="Rows at most; null: all of the split.")
    percent: float = Field(description="Of the rows, 0 to 100.")
    metrics: dict[str, float | None] = Field(
        description="Empty until they are there, and where no row has a label."
    )
    superseded: bool = Field(
        description="Whether the run has gone back past the weights that were scored: they are no "
        "longer its own, and figures and predictions are gone."
    )

    @classmethod
    def of(cls, found: Found, queue_position: int | None) -> Self:
        if found.task is None:
            assert found.row is not None
            return cls._of_run(found.row, found.job)
        task = found.task
        return cls.of_job(
            found.id,
            found.job,
            queue_position,
            target=task.target,
            step=task.step,
            merge_id=task.merge,
            dataset_id=task.dataset_id,
            split=task.split,
            template=task.template,
            max_samples=task.max_samples,
            metrics={} if found.row is None else found.row.metrics,
            superseded=found.is_superseded,
        )

    @classmethod
    def _of_run(cls, row: Evaluation, job: Job) -> Self:
        """One that the run made on its way; its row is there since it is complete."""
        made = cls.of_job(
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
        return made.model_copy(update=ended)
