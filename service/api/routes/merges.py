"""Merged models: base model and adapter in one, created on request, downloaded as a tar."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from service.api import examples
from service.api.dependencies import (
    Ctx,
    KeyHeader,
    RunId,
    Tail,
    Who,
    hash_of,
    idempotency_key,
    no_body,
)
from service.api.json_body import JsonRoute
from service.api.openapi import BINARY, LOG, READS, WRITES, Responses, creates_job, documented
from service.api.responses.archives import Part, archive_response
from service.api.responses.created import set_created
from service.api.responses.files import matches_etag
from service.api.responses.logs import log_response
from service.api.schemas.merges import MergeView
from service.artifacts import StoredFile
from service.domain.errors import QuotaExceeded
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeRequest, merged_path
from service.store import jobs, merges
from service.store import runs as run_rows
from service.store.merges import StoredMerge
from service.usecases import merges as use_cases
from service.usecases import retention

router = APIRouter(prefix="/v1/runs/{run_id}/merged", tags=["results"], route_class=JsonRoute)
_DEFAULTS = MergeRequest()  # type: ignore[call-arg]  # every field has a default

MergeId = Annotated[
    str | None,
    Query(max_length=100, description="Identifier of the merge; by default the newest merge."),
]
_TAR: Responses = {
    200: {
        "description": "The files of the merged model in one folder. Content-Length is set, and "
        "repeated downloads have identical bytes. Single files, with ranges: GET "
        "…/artifacts/merged/{id}/{path}.",
        "content": {"application/x-tar": BINARY},
    },
    304: {"description": "The archive has the entity tag of If-None-Match."},
}


def view(session: Session, merge: StoredMerge) -> MergeView:
    return MergeView.of(merge, jobs.queue_position(session, merge.job))


@router.post(
    "",
    status_code=201,
    responses=creates_job(
        MergeView,
        "The queued merge.",
        "The existing or running merge of the same weights with the same parameters; or the merge "
        "created by an earlier request with the same Idempotency-Key.",
    )
    | documented(QuotaExceeded),
    summary="Merge a run's adapter into its base model",
)
def submit_merge(
    context: Ctx,
    who: Who,
    run_id: RunId,
    response: Response,
    body: Annotated[MergeRequest | None, Body(openapi_examples=examples.MERGES)] = None,
    key: KeyHeader = None,
) -> MergeView:
    """Merge the adapter or a checkpoint into the weights of the base model.

    The merge is a job of its own and never changes the run's state. The merged model does not need
    peft: AutoModelForCausalLM.from_pretrained loads it. Before it is published its scores are
    compared with the adapter's on a sample of the run's rows; `comparison` states the difference.
    Answers 409 if the run has neither an adapter nor the checkpoint.
    """
    merge_request = body or _DEFAULTS
    route = f"POST /v1/runs/{run_id}/merged"
    request_key = idempotency_key(who, route, key, hash_of(merge_request.model_dump()))
    merge, is_new = use_cases.submit(context, run_id, merge_request, request_key, by=who.name)
    location = f"/v1/runs/{run_id}/merged?merge_id={merge.id}"
    set_created(response, location, is_new=is_new)
    with context.database.read() as session:
        return view(session, merge)


@router.get("", responses=READS, summary="Get a merge")
def get_merge(context: Ctx, run_id: RunId, merge_id: MergeId = None) -> MergeView:
    """Return the state of the newest merge, or of the one with `merge_id`."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        return view(session, merges.find(session, run_id, merge_id))


@router.delete(
    "",
    status_code=204,
    responses=WRITES,
    dependencies=[Depends(no_body)],
    summary="Delete a merged model",
)
def delete_merge(
    context: Ctx,
    who: Who,
    run_id: RunId,
    merge_id: Annotated[str, Query(max_length=100, description="Identifier of the merge.")],
) -> None:
    """Delete a merge with its model and log permanently.

    Answers 409 while the merge, or an evaluation or prediction of its model, is queued or running.
    Evaluations of the model and their predictions are kept. The same request to merge creates a new
    model. If the request is interrupted, repeat it; 404 then means that the deletion is complete.
    """
    retention.delete_merge(context.database, context.store, run_id, merge_id, by=who.name)


@router.head("/download", include_in_schema=False)
@router.get(
    "/download",
    responses={**WRITES, **_TAR},
    response_class=StreamingResponse,
    summary="Download a merged model",
)
def download_merged(
    context: Ctx, run_id: RunId, request: Request, merge_id: MergeId = None
) -> Response:
    """Download the merged model as a tar archive. Answers 409 until the merge has succeeded."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        merge = merges.published(session, run_id, merge_id)
    content = "\n".join(f"{row.path} {row.sha256}" for row in merge.files)
    etag = f'"{hashlib.sha256(content.encode()).hexdigest()}"'
    if matches_etag(request.headers, etag):
        return Response(status_code=304, headers={"ETag": etag})
    start = len(merged_path(merge.id))
    parts = [
        Part(row.path[start:], row.key, StoredFile(row.size, row.sha256), row.created_at)
        for row in merge.files
    ]
    archive = archive_response(request, context.store, merge.id, parts, "tar")
    archive.headers["ETag"] = etag
    return archive


@router.get("/logs", responses=LOG, summary="Read the log of a merge")
def get_merge_logs(
    context: Ctx, run_id: RunId, merge_id: MergeId = None, tail: Tail = None
) -> Response:
    """Return the log of a merge as text; while it runs, a few seconds old."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        merge = merges.find(session, run_id, merge_id)
    return log_response(context, run_id, MERGE.log_path(merge.job.id), tail)


@router.post("/cancel", responses=WRITES, dependencies=[Depends(no_body)], summary="Cancel a merge")
def cancel_merge(context: Ctx, who: Who, run_id: RunId, merge_id: MergeId = None) -> MergeView:
    """Cancel the newest merge, or the one with `merge_id`.

    A queued merge is cancelled immediately, a running one within seconds.
    """
    merge = use_cases.cancel(context, run_id, merge_id, by=who.name)
    with context.database.read() as session:
        return view(session, merge)
