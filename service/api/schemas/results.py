"""What a run produced: events, metrics, checkpoints, artifacts."""

from datetime import datetime
from typing import Any

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from service.api.schemas.base import View
from service.domain.events import FileEntry
from service.store.tables import Checkpoint, Event


class EventView(View):
    id: int = Field(description="Numbered from 1 within the run; what Last-Event-ID takes.")
    type: str
    job_id: str
    created_at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, row: Event) -> "EventView":
        return cls(
            id=row.number,
            type=row.type,
            job_id=row.job_id,
            created_at=row.created_at,
            data=row.data,
        )


class EventList(View):
    data: list[EventView]
    has_more: bool
    next: int | None = Field(description="Value of `after` for what follows.")


class MetricPoint(View):
    step: int
    epoch: float
    value: float


class MetricSeries(View):
    series: dict[str, list[MetricPoint]]


_CHECKPOINT: JsonDict = {
    "step": 90,
    "epoch": 2.0,
    "is_best": True,
    "metrics": {"eval_loss": 0.0542},
    "size": 3_712_904,
    "files": [
        {
            "path": "adapter_model.safetensors",
            "size": 3_712_904,
            "sha256": "4f2d8c0b7f1f4f3a8f0b0a9b5f6f8f7c6d1e2a3b4c5d6e7f8091a2b3c4d5e6f7",
        }
    ],
    "created_at": "2026-11-26T12:00:00Z",
}


class CheckpointView(View):
    model_config = ConfigDict(frozen=True, json_schema_extra={"example": _CHECKPOINT})

    step: int
    epoch: float
    is_best: bool
    metrics: dict[str, float]
    size: int = Field(description="bytes")
    files: list[FileEntry]
    created_at: datetime

    @classmethod
    def of(cls, row: Checkpoint) -> "CheckpointView":
        return cls(
            step=row.step,
            epoch=row.epoch,
            is_best=row.is_best,
            metrics=row.metrics,
            size=row.size,
            files=[FileEntry.model_validate(file) for file in row.files],
            created_at=row.created_at,
        )


class CheckpointList(View):
    data: list[CheckpointView]


class ArtifactView(View):
    path: str
    size: int = Field(description="bytes")
    sha256: str
    created_at: datetime


class ArtifactList(View):
    data: list[ArtifactView]
