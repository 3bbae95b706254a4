"""Answers with files of the store: ranges and entity tags come with FileResponse."""

import mimetypes
from pathlib import PurePosixPath

from fastapi.responses import FileResponse

from service.artifacts import ArtifactStore

_TYPES = {
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".parquet": "application/vnd.apache.parquet",
}


def file_response(store: ArtifactStore, key: str, sha256: str) -> FileResponse:
    """Stream the file under `key`, to be saved under its own name. Raises NotFound."""
    name = PurePosixPath(key).name
    suffix = PurePosixPath(key).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return FileResponse(
        store.local_path(key),
        media_type=media_type,
        filename=name,
        # What people upload and models write is never run by a browser on this origin.
        headers={"ETag": f'"{sha256}"', "X-Content-Type-Options": "nosniff"},
    )
