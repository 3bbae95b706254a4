"""Models and helpers shared by every resource."""

from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.domain.job_kinds import job_kind
from service.domain.states import FailureReason
from service.store.tables import Job


class _WithId(Protocol):
    @property
    def id(self) -> str: ...


Item = TypeVar("Item")
Identified = TypeVar("Identified", bound=_WithId)


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(View, Generic[Item]):
    """One page of a list, newest first."""

    data: list[Item] = Field(description="Items of this page, newest first.")
    has_more: bool = Field(description="True if older items follow.")
    next: str | None = Field(
        description="Value of `after` for the next page; null on the last page."
    )


def page(items: list[Identified], *, more: bool) -> "Page[Identified]":
    # The annotation is quoted because pydantic would build a model for a protocol.
    return Page(data=items, has_more=more, next=items[-1].id if more else None)


class Failure(View):
    """Reason why a job failed, with advice."""

    reason: FailureReason = Field(description="Stable identifier of the reason.")
    detail: str = Field(description="Description of this failure.")
    advice: str = Field(description="Suggested next step.")
    retryable: bool = Field(description="True if retrying the same job unchanged may succeed.")

    @classmethod
    def of(cls, job: Job) -> "Failure | None":
        """Return the job's failure; None if it has not failed."""
        if job.failure_reason is None:
            return None
        reason = FailureReason(job.failure_reason)
        advice = job_kind(job.kind).advice[reason]
        return cls(
            reason=reason,
            detail=job.failure_detail or "",
            advice=advice.text,
            retryable=advice.retryable,
        )


def percent(job: Job) -> float:
    """Return the progress of a job that is no training, by its counted steps."""
    return round(100 * job.step / job.total_steps, 1) if job.total_steps else 0.0
