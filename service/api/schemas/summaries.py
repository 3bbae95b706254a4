"""Short forms of the items of lists, without specifications and statistics."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field

from service.api.schemas.base import Page, View
from service.api.schemas.datasets import DatasetView
from service.api.schemas.runs import RunView
from service.domain.states import FailureReason, JobStatus

SUMMARY_TYPE = "application/vnd.fairtune.summary+json"
"""Content type of a list of short forms, so that its schema stands beside that of the whole.

Most tools ignore parameters of a content type, and would expect the schema of application/json.
"""

ListView = Annotated[
    Literal["full", "summary"],
    Query(
        alias="view",
        description="full: whole items. summary: only what a table of them shows, as "
        f"`{SUMMARY_TYPE}`.",
    ),
]


class RunSummary(View):
    """A run in short: its specification and metrics are in `GET /v1/runs/{id}`."""

    id: str = Field(description="Identifier of the run.")
    name: str = Field(description="Name from the request, or a generated one.")
    status: JobStatus = Field(description="State of the run.")
    phase: str = Field(description="Current activity.")
    percent: float = Field(description="Progress over all phases, 0 to 100.")
    eta_seconds: float | None = Field(
        description="Estimated seconds until the report; null while unknown."
    )
    queue_position: int | None = Field(
        description="Position in the queue, 1 being next; null unless queued."
    )
    failure_reason: FailureReason | None = Field(
        description="Reason why the run failed; null if it has not."
    )
    preset: str = Field(description="Preset of the specification.")
    base_model: str = Field(description="Name of the base model.")
    dataset_id: str = Field(description="Dataset that the run is trained on.")
    tags: list[str] = Field(description="Tags of the run.")
    promoted_as: list[str] = Field(description="Current release names, as name@stage.")
    created_at: datetime = Field(description="Time of the request.")
    started_at: datetime | None = Field(description="Time of the first start; null before it.")
    finished_at: datetime | None = Field(description="Time of the end; null before it.")

    @classmethod
    def of(cls, run: RunView) -> "RunSummary":
        own = run.model_dump(include=set(cls.model_fields))
        spec = {name: getattr(run.spec, name) for name in ("preset", "base_model", "dataset_id")}
        reason = None if run.failure is None else run.failure.reason
        return cls(**own, **spec, tags=list(run.spec.tags), failure_reason=reason)


class DatasetSummary(View):
    """A dataset in short: its statistics are in `GET /v1/datasets/{id}`."""

    id: str = Field(description="Identifier of the dataset.")
    name: str = Field(description="Name from the upload.")
    kind: Literal["text", "messages"] = Field(description="text: labelled texts; messages: chats.")
    rows: dict[str, int] = Field(description="Number of rows by split.")
    warnings: int = Field(description="Number of warnings.")
    dropped: int = Field(description="Number of rows that `on_invalid=drop` left out.")
    created_at: datetime = Field(description="Time of the upload.")

    @classmethod
    def of(cls, dataset: DatasetView) -> "DatasetSummary":
        return cls(
            id=dataset.id,
            name=dataset.name,
            kind=dataset.stats.kind,
            rows={name: split.rows for name, split in dataset.stats.splits.items()},
            warnings=len(dataset.warnings),
            dropped=dataset.dropped.total,
            created_at=dataset.created_at,
        )


def summary_response(items: list[Any], whole: Page[Any]) -> Response:
    """Answer with the short forms of the items of a page."""
    page = Page[Any](data=items, has_more=whole.has_more, next=whole.next)
    return Response(page.model_dump_json(), media_type=SUMMARY_TYPE)


def summary_content(item: type[View]) -> dict[str, Any]:
    """Return the OpenAPI description of such an answer, for `responses[200]`."""
    schema = item.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    schema.pop("$defs", None)  # also in the whole item, hence among the components
    page = {
        "type": "object",
        "title": f"Page of {item.__name__}",
        "description": "One page of a list in short form, newest first.",
        "properties": {
            "data": {"type": "array", "items": schema, "description": "Items, newest first."},
            "has_more": {"type": "boolean", "description": "True if older items follow."},
            "next": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": "Value of `after` for the next page; null on the last page.",
            },
        },
        "required": ["data", "has_more", "next"],
    }
    return {"content": {SUMMARY_TYPE: {"schema": page}}}
