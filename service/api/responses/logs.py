"""Logs of programs as text responses."""

from fastapi import Response

from service.context import Context
from service.domain.errors import NotFound
from service.store import runs as run_rows
from service.store.tables import Artifact
from service.usecases.large_reads import LARGE_READS


def log_response(context: Context, run_id: str, path: str, tail: int | None) -> Response:
    """Return a log among the run's files, or its last `tail` lines; empty if there is none yet."""
    with LARGE_READS.acquire():
        data = _read(context, run_id, path)
        if tail is not None:
            data = _last_lines(data, tail)
    return Response(data, media_type="text/plain; charset=utf-8")


def find_artifact(context: Context, run_id: str, path: str) -> Artifact | None:
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        return run_rows.find_artifact(session, run_id, path)


def _read(context: Context, run_id: str, path: str) -> bytes:
    artifact = find_artifact(context, run_id, path)
    if artifact is None:
        return b""
    try:
        file = context.store.open(artifact.key)
    except NotFound:  # a longer log has replaced it since its row was read
        artifact = find_artifact(context, run_id, path)
        assert artifact is not None
        file = context.store.open(artifact.key)
    with file:
        return file.read()


def _last_lines(data: bytes, lines: int) -> bytes:
    position = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(lines):
        position = data.rfind(b"\n", 0, position)
        if position < 0:
            return data
    return data[position + 1 :]
