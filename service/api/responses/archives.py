"""Several files of the store as one archive, made while it is sent."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import Query
from fastapi.responses import Response, StreamingResponse
from starlette.requests import Request

from service.api.responses.files import disposition, sent
from service.artifacts import ArtifactStore, Stored
from service.artifacts.archives import Member, tar, tar_size, zip_stored

ArchiveFormat = Annotated[
    Literal["tar", "zip"] | None,
    Query(description="tar, the default, says its size at the beginning; zip does not."),
]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The files in one archive, uncompressed. Each is compared with its SHA-256 "
        "while it is sent; the connection breaks off where one is another.",
        "content": {"application/x-tar": _BYTES, "application/zip": _BYTES},
    },
}


class Part(NamedTuple):
    """A file of the store and its name in the archive."""

    name: str
    key: str
    stored: Stored
    modified: datetime | None = None
    """None: as the store has it, which another store has otherwise."""


def archive_response(
    request: Request,
    store: ArtifactStore,
    folder: str,
    parts: Sequence[Part],
    archive_format: Literal["tar", "zip"] | None,
) -> Response:
    """`parts` below `folder`, to be saved under its name. Raises NotFound, OSError.

    Every file is looked for before the first byte is sent.
    """
    members = []
    for part in parts:
        there = store.stat(part.key)
        members.append(
            Member(
                f"{folder}/{part.name}",
                part.stored.size,
                partial(store.verified, part.key, part.stored),
                part.modified or there.modified,
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
    return StreamingResponse(sent(chunks), headers=headers, media_type=media_type)
