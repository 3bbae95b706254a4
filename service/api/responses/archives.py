"""Archives of several files of the store, created while they are sent."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Literal, NamedTuple

from fastapi import Query
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request

from service.api.openapi import BINARY, Responses
from service.api.responses.files import disposition, sendable
from service.artifacts import ArtifactStore, StoredFile
from service.artifacts.archives import Member, tar, tar_size, zip_stored

ArchiveFormat = Annotated[
    Literal["tar", "zip"] | None,
    Query(description="Archive format: tar (default, with a Content-Length) or zip (without)."),
]
ARCHIVE: Responses = {
    200: {
        "description": "The files in one uncompressed archive. Each is compared with its SHA-256 "
        "while it is sent; the connection is aborted if they differ.",
        "content": {"application/x-tar": BINARY, "application/zip": BINARY},
    },
}


class Part(NamedTuple):
    """A file of the store and its name in the archive."""

    name: str
    key: str
    stored: StoredFile
    modified: datetime | None = None
    """None: the store's own time, which differs between stores."""


def archive_response(
    request: Request,
    store: ArtifactStore,
    folder: str,
    parts: Sequence[Part],
    archive_format: Literal["tar", "zip"] | None,
) -> Response:
    """Stream `parts` below `folder`, to be saved under its name. Raises NotFound, OSError.

    The existence of every file is checked before the first byte is sent.
    """
    members = []
    for part in parts:
        entry = store.stat(part.key)
        members.append(
            Member(
                f"{folder}/{part.name}",
                part.stored.size,
                partial(store.verified, part.key, part.stored),
                part.modified or entry.modified,
            )
        )
    headers = {"Content-Disposition": disposition(f"{folder}.{archive_format or 'tar'}")}
    headers["X-Content-Type-Options"] = "nosniff"
    if archive_format != "zip":
        headers["Content-Length"] = str(tar_size(members))
        chunks, media_type = tar(members), "application/x-tar"
    else:
        chunks, media_type = zip_stored(members), "application/zip"
    if request.method == "HEAD":
        chunks = iter(())
    return StreamingResponse(sendable(chunks), headers=headers, media_type=media_type)
