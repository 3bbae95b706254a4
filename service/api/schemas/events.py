"""Events of a run."""

from datetime import datetime
from typing import Any

from pydantic import Field

from service.api.schemas.base import View
from service.store.tables import Event


class EventView(View):
    """An event of a run."""

    id: int = Field(description="Number within the run, from 1; the value of Last-Event-ID.")
    type: str = Field(
        description="status, phase, metrics, checkpoint, evaluation, artifact, warning, log, "
        "rewound, promoted or withdrawn."
    )
    job_id: str = Field(description="Identifier of the job that the event belongs to.")
    created_at: datetime = Field(description="Time of the event.")
    data: dict[str, Any] = Field(description="Content, depending on the type.")

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
    """Events of a run, oldest first."""

    data: list[EventView] = Field(description="Events, oldest first.")
    has_more: bool = Field(description="True if further events follow.")
    next: int | None = Field(
        description="Value of `after` for the next page; null on the last page."
    )
