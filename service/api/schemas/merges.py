"""Merged models."""

from typing import Self

from pydantic import Field

from service.api.schemas.jobs import JobView
from service.domain.events import FileEntry
from service.domain.merge import BaseWeights, MergeComparison, MergedDtype, merged_path
from service.store.merges import StoredMerge


class MergeView(JobView):
    """A merge: adapter weights added to the base model's weights."""

    target: str = Field(description="Merged weights: adapter or checkpoint.")
    step: int = Field(description="Optimizer step of the merged weights.")
    dtype: MergedDtype = Field(description="Number format of the merged weights.")
    base_weights: BaseWeights = Field(
        description="Base weights that the adapter is merged into: the original ones, or those "
        "that training used after 4-bit quantization."
    )
    max_shard_bytes: int = Field(description="Maximum size of a weight file in bytes.")
    phase: str = Field(description="evaluating, merging, evaluating and saving, in this order.")
    percent: float = Field(
        description="Completed share of the weights to write and the rows to compare, 0 to 100."
    )
    comparison: MergeComparison | None = Field(
        description="Difference from the adapter's scores; null until the merge has succeeded."
    )
    files: list[FileEntry] = Field(
        description="Files of the merged model, each also at GET …/artifacts/merged/{id}/{path}; "
        "empty until the merge has succeeded."
    )
    size: int | None = Field(description="Total size of the files in bytes; null without files.")
    superseded: bool = Field(
        description="True if the run was rewound past the merged weights: the model is deleted."
    )

    @classmethod
    def of(cls, merge: StoredMerge, queue_position: int | None) -> Self:
        job, task = merge.job, merge.task
        files = merge.files if merge.is_published else []
        start = len(merged_path(merge.id))
        return cls.of_job(
            merge.id,
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
            superseded=merge.is_superseded,
        )
