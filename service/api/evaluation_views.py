"""What the API answers with about evaluations."""

from datetime import datetime

from pydantic import Field

from service.api.schemas import Failure, View, percent
from service.domain.states import JobRequest, JobStatus, Phase
from service.store.evaluations import Found
from service.store.tables import Evaluation, Job


class EvaluationView(View):
    id: str
    job_id: str = Field(description="Its own job; or the run's, for what the run scored itself.")
    target: str = Field(description="base, adapter, checkpoint or merged")
    step: int | None = Field(description="Of the weights; null: the base model's.")
    merge_id: str | None = Field(description="The merge whose model it is, for the target merged.")
    dataset_id: str
    split: str
    template: str
    max_samples: int | None = Field(description="Rows at most; null: all of the split.")
    status: JobStatus
    phase: str
    percent: float = Field(description="Of the rows, 0 to 100.")
    eta_seconds: float | None
    queue_position: int | None = Field(description="1 is next; null when not queued.")
    requested: JobRequest | None = Field(
        description="What was asked of a running evaluation and has not happened yet."
    )
    attempts: int = Field(
        description="How often a worker took it up; one that was told to stop does not count."
    )
    eval_batch_size: int | None = Field(
        description="Rows per forward pass where memory did not suffice for "
        "per_device_eval_batch_size; the figures do not depend on it."
    )
    metrics: dict[str, float | None] = Field(
        description="Empty until they are there, and where no row has a label."
    )
    superseded: bool = Field(
        description="Whether the run has gone back past the weights that were scored: they are no "
        "longer its own, and figures and predictions are gone."
    )
    failure: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, found: Found, queue_position: int | None) -> "EvaluationView":
        if found.task is None:
            assert found.row is not None
            return cls._of_run(found.row, found.job)
        job, task = found.job, found.task
        return cls(
            id=found.id,
            job_id=job.id,
            target=task.target,
            step=task.step,
            merge_id=task.merge,
            dataset_id=task.dataset_id,
            split=task.split,
            template=task.template,
            max_samples=task.max_samples,
            status=JobStatus(job.status),
            phase=job.phase,
            percent=percent(job),
            eta_seconds=job.eta_seconds,
            queue_position=queue_position,
            requested=None if job.request is None else JobRequest(job.request),
            attempts=job.attempts,
            eval_batch_size=job.eval_batch_size,
            metrics={} if found.row is None else found.row.metrics,
            superseded=found.is_superseded,
            failure=Failure.of(job),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )

    @classmethod
    def _of_run(cls, row: Evaluation, job: Job) -> "EvaluationView":
        """One that the run made on its way; its row is there since it is complete."""
        return cls(
            id=row.id,
            job_id=job.id,
            target=row.target,
            step=row.step,
            merge_id=None,
            dataset_id=row.dataset_id,
            split=row.split,
            template=row.template,
            max_samples=None,
            status=JobStatus.SUCCEEDED,
            phase=Phase.DONE,
            percent=100.0,
            eta_seconds=None,
            queue_position=None,
            requested=None,
            attempts=job.attempts,
            eval_batch_size=job.eval_batch_size,
            metrics=row.metrics,
            superseded=False,
            failure=None,
            created_at=row.created_at,
            started_at=job.started_at,
            finished_at=row.created_at,
        )
