"""What the API answers with."""

from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from service.datasets.findings import DatasetWarning
from service.datasets.problems import Dropped
from service.datasets.stats import DatasetStats
from service.domain.events import FileEntry
from service.domain.spec import RunSpec
from service.domain.states import FailureReason, JobKind, JobRequest, JobStatus, advice_on
from service.store.tables import Checkpoint, Dataset, Event, Job, Run
from service.usecases.runs import Plan

Item = TypeVar("Item")


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(View, Generic[Item]):
    """A list, newest first; `next` is the value of `after` for what follows."""

    data: list[Item]
    has_more: bool
    next: str | None


def page(items: list[Item], last_id: str | None, *, more: bool) -> Page[Item]:
    return Page(data=items, has_more=more, next=last_id if more else None)


class DatasetView(View):
    id: str
    name: str
    content_hash: str = Field(description="SHA-256 of the canonical rows (Parquet).")
    stats: DatasetStats
    warnings: list[DatasetWarning]
    dropped: Dropped
    created_at: datetime

    @classmethod
    def of(cls, row: Dataset) -> "DatasetView":
        return cls(
            id=row.id,
            name=row.name,
            content_hash=row.content_hash,
            stats=DatasetStats.model_validate(row.stats),
            warnings=[DatasetWarning.model_validate(warning) for warning in row.warnings],
            dropped=Dropped.model_validate(row.dropped),
            created_at=row.created_at,
        )


class Failure(View):
    reason: FailureReason
    detail: str
    advice: str
    retryable: bool = Field(description="Whether the same, tried again, may succeed.")

    @classmethod
    def of(cls, job: Job) -> "Failure | None":
        """Why a job failed; None where it has not."""
        if job.failure_reason is None:
            return None
        reason = FailureReason(job.failure_reason)
        advice = advice_on(reason, JobKind(job.kind))
        return cls(
            reason=reason,
            detail=job.failure_detail or "",
            advice=advice.text,
            retryable=advice.retryable,
        )


def percent(job: Job) -> float:
    """Of the steps of a training, or the rows of an evaluation."""
    return round(100 * job.step / job.total_steps, 1) if job.total_steps else 0.0


class RunView(View):
    id: str
    name: str
    status: JobStatus
    phase: str
    step: int
    total_steps: int
    percent: float = Field(description="Of the optimizer steps, 0 to 100.")
    epoch: float
    eta_seconds: float | None = Field(description="Until the report; null while unknown.")
    samples_per_second: float | None
    queue_position: int | None = Field(description="1 is next; null when not queued.")
    requested: JobRequest | None = Field(
        description="What was asked of a running run and has not happened yet."
    )
    attempts: int = Field(
        description="How often a worker took it up; one that was told to stop does not count."
    )
    train_batch_size: int | None = Field(
        description="Rows per forward pass where memory did not suffice for "
        "per_device_train_batch_size; the effective batch is the same."
    )
    eval_batch_size: int | None = Field(description="The same for evaluation.")
    metrics: dict[str, float] = Field(description="The latest value of each.")
    failure: Failure | None
    cloned_from: str | None = Field(description="The run that this one is a clone of.")
    created_by: str | None = Field(
        description="Name of the API key that made it; null where access was open."
    )
    promoted_as: list[str] = Field(description="The names that it has now, as name@stage.")
    spec: RunSpec
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(
        cls, run: Run, job: Job, queue_position: int | None, promoted_as: list[str]
    ) -> "RunView":
        return cls(
            id=run.id,
            name=run.name,
            status=JobStatus(job.status),
            phase=job.phase,
            step=job.step,
            total_steps=job.total_steps,
            percent=percent(job),
            epoch=round(job.epoch, 4),
            eta_seconds=job.eta_seconds,
            samples_per_second=job.samples_per_second,
            queue_position=queue_position,
            requested=None if job.request is None else JobRequest(job.request),
            attempts=job.attempts,
            train_batch_size=job.train_batch_size,
            eval_batch_size=job.eval_batch_size,
            metrics=job.metrics,
            failure=Failure.of(job),
            cloned_from=run.cloned_from,
            created_by=run.created_by,
            promoted_as=promoted_as,
            spec=RunSpec.model_validate(run.spec),
            created_at=run.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class PlanView(View):
    """What POST /v1/runs?dry_run=true answers: nothing is stored."""

    spec: RunSpec
    effective_batch_size: int = Field(
        description="Samples per optimizer step: per_device_train_batch_size * "
        "gradient_accumulation_steps * num_processes."
    )
    steps_per_epoch: int
    total_steps: int
    warnings: list[str]

    @classmethod
    def of(cls, plan: Plan) -> "PlanView":
        return cls(**plan._asdict())


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


class PresetView(View):
    name: str
    description: str
    values: dict[str, Any] = Field(description="What the preset sets.")
    spec: dict[str, Any] = Field(description="Every field's value under this preset.")


class ModelView(View):
    name: str = Field(description="What base_model takes.")
    source: str = Field(description="directory, or bundled (a package that holds the model)")


class _AsRunSpec:
    """A JSON object, documented as a RunSpec: it is validated after the preset is laid below."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema())

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(RunSpec.__pydantic_core_schema__)


class _AsChanges(_AsRunSpec):
    """The same with every field optional, and none with a default but what the run has."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(RunSpec.__pydantic_core_schema__))
        fields = {
            name: {key: value for key, value in field.items() if key != "default"}
            for name, field in whole["properties"].items()
            if name != "preset"
        }
        return {
            "type": "object",
            "title": "RunChanges",
            "properties": fields,
            "additionalProperties": False,
        }


RunRequest = Annotated[dict[str, Any], _AsRunSpec]
RunChanges = Annotated[dict[str, Any], _AsChanges]
