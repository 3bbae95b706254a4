"""Fields that evaluations, merges and predictions have in common."""

from datetime import datetime
from typing import Any, Self

from pydantic import Field

from service.api.schemas.base import Failure, View, percent
from service.domain.states import JobRequest, JobStatus
from service.store.tables import Job


class JobView(View):
    id: str = Field(description="Identifier.")
    job_id: str = Field(description="Identifier of the job, as in the run's events.")
    status: JobStatus = Field(description="State of the job.")
    phase: str = Field(description="Current activity of the job's program.")
    percent: float = Field(description="Progress, 0 to 100.")
    eta_seconds: float | None = Field(
        description="Estimated seconds until the end; null while unknown."
    )
    queue_position: int | None = Field(
        description="Position in the queue, 1 being next; 1,000 stands for every later one, too; "
        "null unless queued."
    )
    requested: JobRequest | None = Field(
        description="Pending request to a running job; null if there is none."
    )
    attempts: int = Field(
        description="Number of times that a worker has started the job; a stopped worker's attempt "
        "does not count."
    )
    eval_batch_size: int | None = Field(
        description="Rows per forward pass, if memory did not suffice for "
        "per_device_eval_batch_size; the results do not depend on it."
    )
    failure: Failure | None = Field(description="Reason why the job failed; null if it has not.")
    created_at: datetime = Field(description="Time of the request.")
    started_at: datetime | None = Field(description="Time of the first start; null before it.")
    finished_at: datetime | None = Field(description="Time of the end; null before it.")

    @classmethod
    def of_job(cls, view_id: str, job: Job, queue_position: int | None, **fields: Any) -> Self:
        """Build the view from `job`; `fields` are those of the job's kind."""
        return cls(
            id=view_id,
            job_id=job.id,
            status=JobStatus(job.status),
            phase=job.phase,
            percent=100.0 if job.status == JobStatus.SUCCEEDED else percent(job),
            eta_seconds=job.eta_seconds,
            queue_position=queue_position,
            requested=None if job.request is None else JobRequest(job.request),
            attempts=job.attempts,
            eval_batch_size=job.eval_batch_size,
            failure=Failure.of(job),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            **fields,
        )
