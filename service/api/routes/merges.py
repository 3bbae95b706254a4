"""Merged models: base model and adapter as one, made on request, downloaded as a tar."""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import Ctx, KeyHeader, Who, hash_of, idempotency_key, no_body
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES, documented
from service.api.responses.archives import Part, archive_response
from service.api.routes.results import Tail, log_response
from service.api.schemas.jobs import makes
from service.api.schemas.merges import MergeView
from service.artifacts import Stored
from service.domain.errors import QuotaExceeded
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeRequest, merged_path
from service.store import jobs, merges
from service.store import runs as rows
from service.store.merges import FoundMerge
from service.usecases import merges as use_cases
from service.usecases import retention

router = APIRouter(prefix="/v1/runs/{run_id}/merged", tags=["results"], route_class=JsonRoute)
_NOTHING_SAID = MergeRequest()  # type: ignore[call-arg]  # every field has a default

Which = Annotated[
    str | None, Query(max_length=100, description="A merge's id; left out: the newest.")
]
_TAR: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "All files of the merged model below one folder; Content-Length is known, "
        "and the same merge gives the same bytes. Single files, with ranges: GET "
        "…/artifacts/merged/{id}/{path}.",
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    },
    304: {"description": "The tar is the one that If-None-Match names."},
}


def view(session: Session, found: FoundMerge) -> MergeView:
    return MergeView.of(found, jobs.queue_position(session, found.job))


@router.post(
    "",
    status_code=201,
    responses=makes(
        MergeView,
        "The merge",
        "The merge of these weights with these parameters that is there already or under way; or "
        "what an earlier request with this Idempotency-Key made.",
    )
    | documented(QuotaExceeded),
)
def submit_merge(
    context: Ctx,
    who: Who,
    run_id: str,
    response: Response,
    body: Annotated[MergeRequest | None, Body(openapi_examples=examples.MERGES)] = None,
    key: KeyHeader = None,
) -> MergeView:
    """Merge the adapter, or a checkpoint, into the base model's weights, as a job of its own.

    The merged model needs no peft: AutoModelForCausalLM.from_pretrained opens it. Before it is
    published its scores are held against the adapter's on a sample of the run's rows, and
    `comparison` states the difference. The run itself does not change, whatever comes of it. 409
    while the run has nothing to merge.
    """
    asked = body or _NOTHING_SAID
    route = f"POST /v1/runs/{run_id}/merged"
    request_key = idempotency_key(who, route, key, hash_of(asked.model_dump()))
    found, made = use_cases.submit(context, run_id, asked, request_key, by=who.name)
    response.headers["Location"] = f"/v1/runs/{run_id}/merged?merge_id={found.id}"
    if not made:
        response.status_code = 200
    with context.database.read() as session:
        return view(session, found)


@router.get("", responses=READS)
def get_merge(context: Ctx, run_id: str, merge_id: Which = None) -> MergeView:
    """Where the newest merge stands, or the one named; poll this."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        return view(session, merges.find(session, run_id, merge_id))


@router.delete("", status_code=204, responses=WRITES, dependencies=[Depends(no_body)])
def delete_merge(
    context: Ctx,
    who: Who,
    run_id: str,
    merge_id: Annotated[str, Query(max_length=100, description="The merge's id.")],
) -> None:
    """Delete the merge named, with its model and its log, for good.

    409 while it is queued or running, and while an evaluation or predictions of its model are.
    Evaluations that were made of it stay, with their predictions. Asked for again, it is made anew.
    Cut short, call it again; 404 is then that it was done.
    """
    retention.delete_merge(context.database, context.store, run_id, merge_id, by=who.name)


@router.head("/download", include_in_schema=False)
@router.get("/download", responses={**WRITES, **_TAR}, response_class=StreamingResponse)
def download_merged(
    context: Ctx, run_id: str, request: Request, merge_id: Which = None
) -> Response:
    """The merged model as a tar, streamed. 409 until it is there."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = merges.published(session, run_id, merge_id)
    content = "\n".join(f"{row.path} {row.sha256}" for row in found.files)
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()}"'
    known = [
        tag.strip().removeprefix("W/")
        for tag in request.headers.get("if-none-match", "").split(",")
    ]
    if etag in known or "*" in known:
        return Response(status_code=304, headers={"ETag": etag})
    start = len(merged_path(found.id))
    parts = [
        Part(row.path[start:], row.key, Stored(row.size, row.sha256), row.created_at)
        for row in found.files
    ]
    answer = archive_response(request, context.store, found.id, parts, "tar")
    answer.headers["ETag"] = etag
    return answer


@router.get("/logs", responses={**READS, 200: {"content": {"text/plain": {}}}})
def get_merge_logs(
    context: Ctx, run_id: str, merge_id: Which = None, tail: Tail = None
) -> Response:
    """The log of the merge's own program; a few seconds behind while it goes on."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = merges.find(session, run_id, merge_id)
    return log_response(context, run_id, MERGE.log_path(found.job.id), tail)


@router.post("/cancel", responses=WRITES, dependencies=[Depends(no_body)])
def cancel_merge(context: Ctx, who: Who, run_id: str, merge_id: Which = None) -> MergeView:
    """Cancel the newest merge, or the one named: a queued one at once, a running one in seconds."""
    found = use_cases.cancel(context, run_id, merge_id, by=who.name)
    with context.database.read() as session:
        return view(session, found)
