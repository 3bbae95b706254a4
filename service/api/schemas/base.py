"""What the models of every resource share."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from service.domain.job_kinds import job_kind
from service.domain.states import FailureReason
from service.store.tables import Job

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
        advice = job_kind(job.kind).advice[reason]
        return cls(
            reason=reason,
            detail=job.failure_detail or "",
            advice=advice.text,
            retryable=advice.retryable,
        )


def percent(job: Job) -> float:
    """Of the steps of a training, or the rows of an evaluation."""
    return round(100 * job.step / job.total_steps, 1) if job.total_steps else 0.0
