"""Answers with files of the store, piece by piece: ranges, entity tags, HEAD, presigned links."""

import mimetypes
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from service.api import problems
from service.artifacts import ArtifactStore, Damaged, Stored
from service.domain.errors import NotFound, RangeNotSatisfiable

_TYPES = {
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".parquet": "application/vnd.apache.parquet",
}
_PART = r"\s*(\d{1,18}-\d{0,18}|-\d{1,18})\s*"
_RANGE = re.compile(rf"bytes={_PART}(,{_PART})*")


class _File(Response):
    """A file of the store: 200, 206 for a range, 304 where If-None-Match has it, or 416.

    Who asks for several ranges at once gets the only one that the file has, or the whole file where
    it has more of them, as RFC 9110 permits; 416 is for who asks for none that it has. A whole file
    is compared with its SHA-256 while it is sent; the connection breaks off where it is another.
    """

    def __init__(self, store: ArtifactStore, key: str, expected: Stored, media_type: str) -> None:
        name = PurePosixPath(key).name
        super().__init__(
            media_type=media_type,
            headers={
                "ETag": f'"{expected.sha256}"',
                "Accept-Ranges": "bytes",
                "Content-Disposition": disposition(name),
                "Content-Length": str(expected.size),
                # What people upload and models write is never run by a browser on this origin.
                "X-Content-Type-Options": "nosniff",
            },
        )
        self._store, self._key, self._expected = store, key, expected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(scope["method"] == "HEAD", Headers(scope=scope))
        await answer(scope, receive, send)

    async def _answer(self, is_head: bool, asked: Headers) -> Response:
        etag, size = self.headers["etag"], self._expected.size
        known = [
            tag.strip().removeprefix("W/") for tag in asked.get("if-none-match", "").split(",")
        ]
        if etag in known or "*" in known:
            return Response(status_code=304, headers={"ETag": etag})
        headers, status, part = dict(self.headers), 200, None
        wanted = None if is_head else asked.get("range")  # RFC 9110 defines it for GET alone
        if wanted is not None and not wanted.lower().startswith("bytes="):
            wanted = None  # an unknown unit is ignored
        if wanted is not None and asked.get("if-range", etag) == etag:
            try:
                part = _part(wanted.lower(), size)
            except ValueError:
                detail = f"the file has {size} bytes; {wanted!r} is no part of it"
                refusal = problems.response(RangeNotSatisfiable(detail))
                refusal.headers["Content-Range"] = f"bytes */{size}"
                return refusal
        if part is not None:
            status = 206
            headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{size}"
            headers["content-length"] = str(part.end - part.start)
        if is_head:
            await run_in_threadpool(self._store.stat, self._key)
            return Response(status_code=status, headers=headers)
        chunks = await run_in_threadpool(self._open, part)
        return StreamingResponse(sent(chunks), status, headers)

    def _open(self, part: "_Part | None") -> Iterator[bytes]:
        if part is None:
            return self._store.verified(self._key, self._expected)
        return self._store.chunks(self._key, part.start, part.end)


class BrokenOff(Exception):
    """The store failed while a file was being sent: what was sent is not the whole of it."""


def sent(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """`chunks`, with what breaks them off as BrokenOff.

    Starlette would take an OSError for a client that left, and the others have an answer of their
    own, for which it is too late.
    """
    try:
        yield from chunks
    except (OSError, ValueError, Damaged, NotFound) as error:
        raise BrokenOff(str(error)) from None  # whose frames hold a piece of the file


class _Part(NamedTuple):
    start: int
    end: int
    """One past its last byte."""


def _part(wanted: str, size: int) -> _Part | None:
    """What a Range header asks for of a file of this size (RFC 9110, section 14).

    Of several parts those that are not there are passed over; None where more than one is there.
    Raises ValueError where the file has none of them, or the header is none.
    """
    if not _RANGE.fullmatch(wanted):
        raise ValueError(wanted)
    asked = [one.strip() for one in wanted.removeprefix("bytes=").split(",")]
    if size == 0 and any(one == "0-" or (one.startswith("-") and int(one[1:])) for one in asked):
        return None  # all there is, which Content-Range could not name
    parts = [part for one in asked if (part := _one(one, size)) is not None]
    if not parts:
        raise ValueError(wanted)
    return parts[0] if len(parts) == 1 else None


def _one(wanted: str, size: int) -> _Part | None:
    """None where the file has no such part. Raises ValueError where there can be none."""
    first, _, last = wanted.partition("-")
    if first and last and int(last) < int(first):
        raise ValueError(wanted)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    return _Part(start, end) if start < end else None


def disposition(name: str) -> str:
    """A Content-Disposition header that saves the answer under `name` (RFC 6266)."""
    quoted = quote(name)
    plain = quoted == name
    return f'attachment; filename="{name}"' if plain else f"attachment; filename*=utf-8''{quoted}"


def file_response(
    store: ArtifactStore, key: str, expected: Stored, *, redirect: bool = False
) -> Response:
    """Stream the file under `key`, to be saved under its own name.

    With `redirect` a bucket hands it out itself, under a link that is good for 15 minutes. Raises
    NotFound, OSError.
    """
    name = PurePosixPath(key).name
    media_type = (
        _TYPES.get(PurePosixPath(key).suffix)
        or mimetypes.guess_type(name)[0]
        or "application/octet-stream"
    )
    if redirect and (url := store.link(key, name, media_type)) is not None:
        return RedirectResponse(url, 307, headers={"Cache-Control": "no-store"})
    return _File(store, key, expected, media_type)
