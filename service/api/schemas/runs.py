"""Runs and plans of runs."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from service.api.schemas.base import Failure, View
from service.domain.progress import run_percent
from service.domain.spec import RunSpec
from service.domain.states import JobRequest, JobStatus
from service.store.tables import Job, Run
from service.usecases.run_plan import Plan


class RunView(View):
    """A fine-tuning run and its progress."""

    id: str = Field(description="Identifier of the run.")
    name: str = Field(description="Name from the request, or a generated one.")
    status: JobStatus = Field(description="State of the run.")
    phase: str = Field(
        description="Current activity: starting, loading, baseline, training, evaluating, saving, "
        "reporting or done."
    )
    step: int = Field(description="Completed optimizer steps.")
    total_steps: int = Field(description="Planned optimizer steps.")
    percent: float = Field(
        description="Progress over all phases, 0 to 100: loading the model and scoring the base "
        "model end at 10, training at 90, and 100 means that the run has succeeded."
    )
    epoch: float = Field(description="Completed epochs.")
    eta_seconds: float | None = Field(
        description="Estimated seconds until the report; null while unknown."
    )
    samples_per_second: float | None = Field(
        description="Current training speed; null while unknown."
    )
    queue_position: int | None = Field(
        description="Position in the queue, 1 being next; 1,000 stands for every later one, too; "
        "null unless queued."
    )
    requested: JobRequest | None = Field(
        description="Pending request to a running run; null if there is none."
    )
    attempts: int = Field(
        description="Number of times that a worker has started the run; a stopped worker's attempt "
        "does not count."
    )
    train_batch_size: int | None = Field(
        description="Rows per forward pass, if memory did not suffice for "
        "per_device_train_batch_size; the effective batch size is the same."
    )
    eval_batch_size: int | None = Field(
        description="Rows per forward pass of evaluations, if memory did not suffice for "
        "per_device_eval_batch_size; the results do not depend on it."
    )
    metrics: dict[str, float] = Field(description="Latest value of each metric.")
    failure: Failure | None = Field(description="Reason why the run failed; null if it has not.")
    origin: Literal["trained", "imported"] = Field(
        "trained",
        description="trained: by this service. imported: its adapter was uploaded, see GET "
        "/v1/adapters/{id}; no training took place.",
    )
    cloned_from: str | None = Field(description="Run that this run was cloned from.")
    created_by: str | None = Field(
        description="Name of the API key of the request; null without authentication."
    )
    promoted_as: list[str] = Field(description="Current release names, as name@stage.")
    spec: RunSpec = Field(description="Resolved specification.")
    created_at: datetime = Field(description="Time of the request.")
    started_at: datetime | None = Field(description="Time of the first start; null before it.")
    finished_at: datetime | None = Field(description="Time of the end; null before it.")

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
            percent=run_percent(job.status, job.phase, job.step, job.total_steps, job.phase_share),
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
            origin="trained" if run.imported is None else "imported",
            cloned_from=run.cloned_from,
            created_by=run.created_by,
            promoted_as=promoted_as,
            spec=RunSpec.model_validate(run.spec),
            created_at=run.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class PlanWarningView(View):
    """A warning of a plan."""

    code: str = Field(description="Stable identifier of the warning, such as long_warmup.")
    detail: str = Field(description="The warning as a sentence.")


class PlanView(View):
    """The plan that a dry run returns."""

    spec: RunSpec = Field(description="Resolved specification.")
    effective_batch_size: int = Field(
        description="Samples per optimizer step: per_device_train_batch_size * "
        "gradient_accumulation_steps * num_processes."
    )
    steps_per_epoch: int = Field(description="Optimizer steps per epoch.")
    total_steps: int = Field(description="Planned optimizer steps.")
    warnings: list[str] = Field(
        description="Settings that are likely mistakes, such as a warm-up longer than a third of "
        "the training."
    )
    coded_warnings: list[PlanWarningView] = Field(
        [], description="The same warnings, each with a stable code."
    )

    @classmethod
    def of(cls, plan: Plan) -> "PlanView":
        return cls(
            spec=plan.spec,
            effective_batch_size=plan.effective_batch_size,
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=plan.total_steps,
            warnings=[warning.detail for warning in plan.warnings],
            coded_warnings=[
                PlanWarningView(code=warning.code, detail=warning.detail)
                for warning in plan.warnings
            ],
        )
