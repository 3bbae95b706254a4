"""What a run leaves behind: logs, checkpoints, files."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from service.api.dependencies import Ctx, Step
from service.api.problems import READS, documented
from service.api.responses.archives import ARCHIVE, ArchiveFormat, Part, archive_response
from service.api.responses.files import file_response
from service.api.schemas.results import ArtifactList, ArtifactView, CheckpointList, CheckpointView
from service.artifacts import Stored, is_safe
from service.context import Context
from service.domain.errors import Conflict, InvalidRequest, NotFound, RangeNotSatisfiable
from service.domain.job import ADAPTER_FILES, CARD_FILE, LOG_FILE
from service.store import runs as rows
from service.store.tables import Artifact

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["results"])
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file; ranges and If-None-Match are understood.",
        "content": _BYTES,
    },
    206: {
        "description": "The part that Range asks for; of several ranges the only one that the file "
        "has. Where it has more of them, the answer is the whole file.",
        "content": _BYTES,
    },
    307: {"description": "With redirect=true: where the file is to be had."},
    304: {"description": "The file is the one that If-None-Match names."},
    **documented(RangeNotSatisfiable),
}


FILE_OR_ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"The file. Or: {ARCHIVE[200]['description']}",
        "content": {**_BYTES, **ARCHIVE[200]["content"]},
    }
}
Redirect = Annotated[
    bool,
    Query(
        description="Where the files lie in a bucket: answer 307 with a link to it, good "
        "for 15 minutes and for anybody. Where they lie in a directory, the file comes as always."
    ),
]
Tail = Annotated[int | None, Query(ge=1, le=100_000, description="Only the last lines.")]


@router.get("/logs", responses={**READS, 200: {"content": {"text/plain": {}}}})
def get_logs(context: Ctx, run_id: str, tail: Tail = None) -> Response:
    """The program's log as text; a few seconds behind while the run goes on."""
    return log_response(context, run_id, LOG_FILE, tail)


def log_response(context: Context, run_id: str, path: str, tail: int | None) -> Response:
    """A growing log among the run's files, or its last lines; nothing where it has not begun."""
    data = _log(context, run_id, path)
    if tail is not None:
        data = _tail(data, tail)
    return Response(data, media_type="text/plain; charset=utf-8")


def _log(context: Context, run_id: str, path: str) -> bytes:
    found = _artifact(context, run_id, path)
    if found is None:
        return b""
    try:
        file = context.store.open(found.key)
    except NotFound:  # a longer one has taken its place since its row was read
        found = _artifact(context, run_id, path)
        assert found is not None
        file = context.store.open(found.key)
    with file:
        return file.read()


def _tail(data: bytes, lines: int) -> bytes:
    position = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        position = data.rfind(b"\n", 0, position)
        if position < 0:
            return data
    return data[position + 1 :]


@router.get("/checkpoints", responses=READS)
def list_checkpoints(context: Ctx, run_id: str) -> CheckpointList:
    """The checkpoints that are kept, by step."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = rows.checkpoints(session, run_id)
    return CheckpointList(data=[CheckpointView.of(row) for row in found])


@router.get("/checkpoints/{step}", responses=READS)
def get_checkpoint(context: Ctx, run_id: str, step: Step) -> CheckpointView:
    with context.database.read() as session:
        rows.get_run(session, run_id)
        return CheckpointView.of(rows.get_checkpoint(session, run_id, step))


@router.head("/checkpoints/{step}/download", include_in_schema=False)
@router.get(
    "/checkpoints/{step}/download",
    responses={**READS, **FILE, **FILE_OR_ARCHIVE},
    response_class=Response,
)
def download_checkpoint(
    request: Request,
    context: Ctx,
    run_id: str,
    step: Step,
    path: Annotated[
        str | None,
        Query(
            description="One of the checkpoint's files; left out: all of them.",
            examples=["adapter_model.safetensors"],
        ),
    ] = None,
    format: ArchiveFormat = None,  # noqa: A002 - the API's name
    redirect: Redirect = False,
) -> Response:
    """A whole checkpoint as an archive, which peft opens once unpacked; or one of its files.

    The archive is made while it is sent. One file can be had in ranges (curl -C -), and of a bucket
    by a link.
    """
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = rows.get_checkpoint(session, run_id, step)
    if path is None:
        parts = [
            Part(one["path"], f"{found.prefix}/{one['path']}", Stored(one["size"], one["sha256"]))
            for one in found.files
        ]
        if redirect:
            raise InvalidRequest.at("/query/redirect", "only one file has a link: name its path")
        folder = f"{run_id}-checkpoint-{step}"
        return archive_response(request, context.store, folder, parts, format)
    if format is not None:
        raise InvalidRequest.at("/query/format", "one file comes as it is: leave out path or this")
    for file in found.files:
        if file["path"] == path:
            expected = Stored(file["size"], file["sha256"])
            key = f"{found.prefix}/{path}"
            return file_response(context.store, key, expected, redirect=redirect)
    names = ", ".join(file["path"] for file in found.files)
    raise NotFound(f"checkpoint {step} has no file {path!r}; it has {names}")


@router.head("/adapter/download", include_in_schema=False)
@router.get(
    "/adapter/download",
    responses={**READS, **documented(Conflict), **ARCHIVE},
    response_class=Response,
)
def download_adapter(
    request: Request,
    context: Ctx,
    run_id: str,
    format: ArchiveFormat = None,  # noqa: A002 - the API's name
) -> Response:
    """The final adapter with its model card as an archive, which peft opens once unpacked."""
    with context.database.read() as session:
        _, job = rows.get_run(session, run_id)
        found = [rows.find_artifact(session, run_id, name) for name in (*ADAPTER_FILES, CARD_FILE)]
    parts = [Part(one.path, one.key, Stored(one.size, one.sha256)) for one in found if one]
    if not {one.name for one in parts}.issuperset(ADAPTER_FILES):
        raise Conflict(f"the run is {job.status} and has no final adapter; see GET …/checkpoints")
    return archive_response(request, context.store, f"{run_id}-adapter", parts, format)


@router.get("/artifacts", responses=READS)
def list_artifacts(context: Ctx, run_id: str) -> ArtifactList:
    """Every file of the run's result."""
    with context.database.read() as session:
        rows.get_run(session, run_id)
        found = rows.artifacts(session, run_id)
    views = [
        ArtifactView(path=row.path, size=row.size, sha256=row.sha256, created_at=row.created_at)
        for row in found
    ]
    return ArtifactList(data=views)


@router.head("/artifacts/{path:path}", include_in_schema=False)
@router.get("/artifacts/{path:path}", responses={**READS, **FILE}, response_class=Response)
def download_artifact(context: Ctx, run_id: str, path: str, redirect: Redirect = False) -> Response:
    """One file; the final adapter lies at adapter_model.safetensors."""
    # The path is looked up among the run's rows and never becomes a path of this machine.
    found = _artifact(context, run_id, path) if is_safe(path) else None
    if found is None:
        raise NotFound(f"run {run_id} has no file {path!r}; GET …/artifacts lists them")
    expected = Stored(found.size, found.sha256)
    return file_response(context.store, found.key, expected, redirect=redirect)


def _artifact(context: Context, run_id: str, path: str) -> Artifact | None:
    with context.database.read() as session:
        rows.get_run(session, run_id)
        return rows.find_artifact(session, run_id, path)
