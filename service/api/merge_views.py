"""What the API answers with about merged models."""

from datetime import datetime

from pydantic import Field

from service.api.schemas import Failure, View, percent
from service.domain.events import FileEntry
from service.domain.merge import BaseWeights, MergeComparison, MergedDtype, merged_path
from service.domain.states import JobRequest, JobStatus
from service.store.merges import FoundMerge


class MergeView(View):
    id: str
    job_id: str
    target: str = Field(description="Which weights are merged: adapter or checkpoint")
    step: int = Field(description="Optimizer step of those weights.")
    dtype: MergedDtype
    base_weights: BaseWeights = Field(description="What they are merged into.")
    max_shard_bytes: int = Field(description="Largest weight file.")
    status: JobStatus
    phase: str = Field(description="evaluating, merging, evaluating, saving, in this order.")
    percent: float = Field(description="Of the weights to write and rows to compare, 0 to 100.")
    eta_seconds: float | None
    queue_position: int | None = Field(description="1 is next; null when not queued.")
    requested: JobRequest | None = Field(
        description="What was asked of a running merge and has not happened yet."
    )
    attempts: int = Field(
        description="How often a worker took it up; one that was told to stop does not count."
    )
    eval_batch_size: int | None = Field(
        description="Rows per forward pass of the comparison where memory did not suffice for "
        "per_device_eval_batch_size."
    )
    comparison: MergeComparison | None = Field(
        description="What differs from the adapter; null before it is known."
    )
    files: list[FileEntry] = Field(
        description="Of the merged model, each at GET …/artifacts/merged/{id}/{path} too; none "
        "before it has succeeded."
    )
    size: int | None = Field(description="Bytes of the files together.")
    superseded: bool = Field(
        description="Whether the run has gone back past the weights that were merged: they are no "
        "longer its own, and the model is gone."
    )
    failure: Failure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, found: FoundMerge, queue_position: int | None) -> "MergeView":
        job, task = found.job, found.task
        files = found.files if found.is_published else []
        start = len(merged_path(found.id))
        return cls(
            id=found.id,
            job_id=job.id,
            target=task.target,
            step=task.step,
            dtype=task.dtype,
            base_weights=task.base_weights,
            max_shard_bytes=task.max_shard_bytes,
            status=JobStatus(job.status),
            phase=job.phase,
            percent=percent(job),
            eta_seconds=job.eta_seconds,
            queue_position=queue_position,
            requested=None if job.request is None else JobRequest(job.request),
            attempts=job.attempts,
            eval_batch_size=job.eval_batch_size,
            comparison=MergeComparison.of_figures(job.metrics, task.split) if files else None,
            files=[
                FileEntry(path=row.path[start:], size=row.size, sha256=row.sha256) for row in files
            ],
            size=sum(row.size for row in files) if files else None,
            superseded=found.is_superseded,
            failure=Failure.of(job),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )
