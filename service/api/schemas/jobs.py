"""What the answers about all jobs beside a run's training have in common."""

from datetime import datetime
from typing import Any, Self

from pydantic import Field

from service.api.problems import WRITES
from service.api.schemas.base import Failure, View, percent
from service.domain.states import JobRequest, JobStatus
from service.store.tables import Job


class JobView(View):
    id: str
    job_id: str
    status: JobStatus
    phase: str
    percent: float = Field(description="Of what there is to do, 0 to 100.")
    eta_seconds: float | None = Field(description="Until its end; null while unknown.")
    queue_position: int | None = Field(description="1 is next; null when not queued.")
    requested: JobRequest | None = Field(
        description="What was asked of a running one and has not happened yet."
    )
    attempts: int = Field(
        description="How often a worker took it up; one that was told to stop does not count."
    )
    eval_batch_size: int | None = Field(
        description="Rows per forward pass where memory did not suffice for "
        "per_device_eval_batch_size; the figures do not depend on it."
    )
    failure: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of_job(cls, made: str, job: Job, queue_position: int | None, **fields: Any) -> Self:
        """`made` is the id of what the job makes; `fields` are those that are its kind's own."""
        return cls(
            id=made,
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


def makes(view: type[JobView], queued: str, known: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that queues a job: it is new, or `known`."""
    location = {"Location": {"schema": {"type": "string"}}}
    return {
        **WRITES,
        201: {"model": view, "description": f"{queued}, queued.", "headers": location},
        200: {"model": view, "description": known},
    }
