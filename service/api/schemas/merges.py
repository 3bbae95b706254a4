"""What the API answers with about merged models."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.events import FileEntry
from service.domain.merge import BaseWeights, MergeComparison, MergedDtype, merged_path
from service.store.merges import FoundMerge


class MergeView(JobView):
    target: str = Field(description="Which weights are merged: adapter or checkpoint")
    step: int = Field(description="Optimizer step of those weights.")
    dtype: MergedDtype
    base_weights: BaseWeights = Field(description="What they are merged into.")
    max_shard_bytes: int = Field(description="Largest weight file.")
    phase: str = Field(description="evaluating, merging, evaluating, saving, in this order.")
    percent: float = Field(description="Of the weights to write and rows to compare, 0 to 100.")
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

    @classmethod
    def of(cls, found: FoundMerge, queue_position: int | None) -> Self:
        job, task = found.job, found.task
        files = found.files if found.is_published else []
        start = len(merged_path(found.id))
        return cls.of_job(
            found.id,
            job,
            queue_position,
            target=task.target,
            step=task.step,
            dtype=task.dtype,
            base_weights=task.base_weights,
            max_shard_bytes=task.max_shard_bytes,
            comparison=MergeComparison.of_figures(job.metrics, task.split) if files else None,
            files=[
                FileEntry(path=row.path[start:], size=row.size, sha256=row.sha256) for row in files
            ],
            size=sum(row.size for row in files) if files else None,
            superseded=found.is_superseded,
        )
