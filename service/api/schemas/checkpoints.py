"""Checkpoints of a run."""

from datetime import datetime

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from service.api.schemas.base import View
from service.domain.events import FileEntry
from service.store.tables import Checkpoint

_EXAMPLE: JsonDict = {
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
    """A stored checkpoint, which peft can open as an adapter."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"example": _EXAMPLE})

    step: int = Field(description="Optimizer step.")
    epoch: float = Field(description="Completed epochs.")
    is_best: bool = Field(description="True for the best checkpoint so far.")
    metrics: dict[str, float] = Field(description="Validation metrics at this step.")
    size: int = Field(description="Total size of the files in bytes.")
    files: list[FileEntry] = Field(description="Files of the checkpoint.")
    created_at: datetime = Field(description="Time at which the checkpoint was stored.")

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
    """Stored checkpoints of a run."""

    data: list[CheckpointView] = Field(description="Checkpoints by ascending step.")
