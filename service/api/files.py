"""Answers with files of the store: ranges and entity tags come with FileResponse."""

import mimetypes
import re
from pathlib import Path, PurePosixPath

from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.api import problems
from service.artifacts import ArtifactStore
from service.domain.errors import RangeNotSatisfiable

_TYPES = {
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".parquet": "application/vnd.apache.parquet",
}


class _File(FileResponse):
    """A FileResponse that knows If-None-Match and refuses a range that cannot be had."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        known = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]
        if self.headers["etag"] in known or "*" in known:
            await Response(status_code=304, headers={"ETag": self.headers["etag"]})(
                scope, receive, send
            )
            return
        wanted = headers.get("range", "bytes=0-")
        size = Path(self.path).stat().st_size
        if not _is_range(wanted, size):
            error = RangeNotSatisfiable(f"the file has {size} bytes; {wanted!r} is no part of it")
            refusal = problems.response(error)
            refusal.headers["Content-Range"] = f"bytes */{size}"
            await refusal(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


def _is_range(wanted: str, size: int) -> bool:
    """Whether a Range header asks for bytes of a file of this size (RFC 9110, section 14)."""
    if not re.fullmatch(r"bytes=\s*(\d+-\d*|-\d+)(\s*,\s*(\d+-\d*|-\d+))*", wanted):
        return False
    for part in wanted.removeprefix("bytes=").split(","):
        first, _, last = part.strip().partition("-")
        if first and (int(first) >= max(size, 1) or (last and int(last) < int(first))):
            return False
        if not first and not int(last):
            return False
    return True


def file_response(store: ArtifactStore, key: str, sha256: str) -> FileResponse:
    """Stream the file under `key`, to be saved under its own name. Raises NotFound."""
    name = PurePosixPath(key).name
    suffix = PurePosixPath(key).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    return _File(
        store.local_path(key),
        media_type=media_type,
        filename=name,
        # What people upload and models write is never run by a browser on this origin.
        headers={"ETag": f'"{sha256}"', "X-Content-Type-Options": "nosniff"},
    )
