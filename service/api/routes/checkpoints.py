"""Checkpoints of a run."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.api.dependencies import Ctx, Redirect, RunId, Step
from service.api.openapi import ANY_FILE, READS, Responses
from service.api.responses.archives import ARCHIVE, ArchiveFormat, Part, archive_response
from service.api.responses.files import file_response
from service.api.schemas.checkpoints import CheckpointList, CheckpointView
from service.artifacts import StoredFile
from service.domain.errors import InvalidRequest, NotFound
from service.store import runs as run_rows

router = APIRouter(prefix="/v1/runs/{run_id}/checkpoints", tags=["results"])
_FILE_OR_ARCHIVE: Responses = {
    200: {
        "description": f"The file if `path` is set. Otherwise: {ARCHIVE[200]['description']}",
        "content": {**ANY_FILE[200]["content"], **ARCHIVE[200]["content"]},
    }
}


@router.get("", responses=READS, summary="List the checkpoints of a run")
def list_checkpoints(context: Ctx, run_id: RunId) -> CheckpointList:
    """List the stored checkpoints by ascending step."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows = run_rows.checkpoints(session, run_id)
    return CheckpointList(data=[CheckpointView.of(row) for row in rows])


@router.get("/{step}", responses=READS, summary="Get a checkpoint")
def get_checkpoint(context: Ctx, run_id: RunId, step: Step) -> CheckpointView:
    """Return a checkpoint's metrics and list of files."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        return CheckpointView.of(run_rows.get_checkpoint(session, run_id, step))


@router.head("/{step}/download", include_in_schema=False)
@router.get(
    "/{step}/download",
    responses={**READS, **ANY_FILE, **_FILE_OR_ARCHIVE},
    response_class=Response,
    summary="Download a checkpoint",
)
def download_checkpoint(
    request: Request,
    context: Ctx,
    run_id: RunId,
    step: Step,
    path: Annotated[
        str | None,
        Query(
            description="One of the checkpoint's files; by default all of them as an archive. "
            "`format` is refused with it, and `redirect` without it.",
            examples=["adapter_model.safetensors"],
        ),
    ] = None,
    format: ArchiveFormat = None,  # noqa: A002 - the API's name
    redirect: Redirect = False,
) -> Response:
    """Download a checkpoint as an archive, or one of its files.

    peft opens the extracted folder. The archive is created while it is sent. A single file supports
    ranges (curl -C -) and, if it is in a bucket, `redirect`.
    """
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        checkpoint = run_rows.get_checkpoint(session, run_id, step)
    if path is None:
        if redirect:
            raise InvalidRequest.at("/query/redirect", "only a single file has a link: set path")
        parts = [
            Part(
                file["path"],
                f"{checkpoint.prefix}/{file['path']}",
                StoredFile(file["size"], file["sha256"]),
            )
            for file in checkpoint.files
        ]
        folder = f"{run_id}-checkpoint-{step}"
        return archive_response(request, context.store, folder, parts, format)
    if format is not None:
        raise InvalidRequest.at(
            "/query/format", "a single file is not archived: omit either path or format"
        )
    for file in checkpoint.files:
        if file["path"] == path:
            expected = StoredFile(file["size"], file["sha256"])
            key = f"{checkpoint.prefix}/{path}"
            return file_response(context.store, key, expected, redirect=redirect)
    names = ", ".join(file["path"] for file in checkpoint.files)
    raise NotFound(f"checkpoint {step} has no file {path!r}; it has {names}")
