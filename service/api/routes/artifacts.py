"""A run's log, final adapter and files."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.api.dependencies import Ctx, Redirect, RunId, Tail
from service.api.openapi import ANY_FILE, LOG, READS, documented
from service.api.responses.archives import ARCHIVE, ArchiveFormat, Part, archive_response
from service.api.responses.files import file_response
from service.api.responses.logs import find_artifact, log_response
from service.api.schemas.artifacts import ArtifactList, ArtifactView
from service.artifacts import StoredFile, is_safe
from service.domain.errors import Conflict, NotFound
from service.domain.job import ADAPTER_FILES, CARD_FILE, LOG_FILE
from service.store import runs as run_rows

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["results"])


@router.get("/logs", responses=LOG, summary="Read the log of a run")
def get_logs(context: Ctx, run_id: RunId, tail: Tail = None) -> Response:
    """Return the training program's log as text. During the run it is a few seconds old."""
    return log_response(context, run_id, LOG_FILE, tail)


@router.head("/adapter/download", include_in_schema=False)
@router.get(
    "/adapter/download",
    responses={**READS, **documented(Conflict), **ARCHIVE},
    response_class=Response,
    summary="Download the final adapter",
)
def download_adapter(
    request: Request,
    context: Ctx,
    run_id: RunId,
    format: ArchiveFormat = None,  # noqa: A002 - the API's name
) -> Response:
    """Download the final adapter and its model card as an archive; peft opens the extracted folder.

    Answers 409 until the run has an adapter.
    """
    with context.database.read() as session:
        _, job = run_rows.get_run(session, run_id)
        rows = [
            run_rows.find_artifact(session, run_id, name) for name in (*ADAPTER_FILES, CARD_FILE)
        ]
    parts = [Part(row.path, row.key, StoredFile(row.size, row.sha256)) for row in rows if row]
    if not {part.name for part in parts}.issuperset(ADAPTER_FILES):
        raise Conflict(f"the run is {job.status} and has no final adapter; see GET …/checkpoints")
    return archive_response(request, context.store, f"{run_id}-adapter", parts, format)


@router.get("/artifacts", responses=READS, summary="List the files of a run")
def list_artifacts(context: Ctx, run_id: RunId) -> ArtifactList:
    """List the files of the run's result, except for checkpoints."""
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows = run_rows.artifacts(session, run_id)
    views = [
        ArtifactView(path=row.path, size=row.size, sha256=row.sha256, created_at=row.created_at)
        for row in rows
    ]
    return ArtifactList(data=views)


@router.head("/artifacts/{path:path}", include_in_schema=False)
@router.get(
    "/artifacts/{path:path}",
    responses={**READS, **ANY_FILE},
    response_class=Response,
    summary="Download a file of a run",
)
def download_artifact(
    context: Ctx,
    run_id: RunId,
    path: Annotated[
        str,
        Path(
            description="Path of the file, as listed by GET …/artifacts; the final adapter is "
            "adapter_model.safetensors."
        ),
    ],
    redirect: Redirect = False,
) -> Response:
    """Download one file of the run's result. Range and If-None-Match are supported."""
    # The path is compared with the run's rows and never used as a path of this machine.
    artifact = find_artifact(context, run_id, path) if is_safe(path) else None
    if artifact is None:
        raise NotFound(f"run {run_id} has no file {path!r}; GET …/artifacts lists them")
    expected = StoredFile(artifact.size, artifact.sha256)
    return file_response(context.store, artifact.key, expected, redirect=redirect)
