"""What the API answers with."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from service.api.schemas.base import Failure, View, percent
from service.domain.spec import RunSpec
from service.domain.states import JobRequest, JobStatus
from service.store.tables import Job, Run
from service.usecases.runs import Plan


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
