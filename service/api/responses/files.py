"""Responses with files of the store: ranges, entity tags, HEAD, presigned links."""

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
from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from service.domain.errors import NotFound, RangeNotSatisfiable

_TYPES = {
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".parquet": "application/vnd.apache.parquet",
}
_PART = r"\s*(\d{1,18}-\d{0,18}|-\d{1,18})\s*"
_RANGE = re.compile(rf"bytes={_PART}(,{_PART})*")


class _File(Response):
    """A file of the store: 200, 206 for a range, 304 if If-None-Match matches, or 416.

    A request for several ranges is answered with the only satisfiable one, or with the whole file
    if more are satisfiable, as RFC 9110 permits; 416 if none is. A whole file is compared with its
    SHA-256 while it is sent; the connection is aborted if they differ.
    """

    def __init__(
        self, store: ArtifactStore, key: str, expected: StoredFile, media_type: str
    ) -> None:
        name = PurePosixPath(key).name
        super().__init__(
            media_type=media_type,
            headers={
                "ETag": f'"{expected.sha256}"',
                "Accept-Ranges": "bytes",
                "Content-Disposition": disposition(name),
                "Content-Length": str(expected.size),
                # A browser never executes uploaded files or model output on this origin.
                "X-Content-Type-Options": "nosniff",
            },
        )
        self._store, self._key, self._expected = store, key, expected

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._response(scope["method"] == "HEAD", Headers(scope=scope))
        await response(scope, receive, send)

    async def _response(self, is_head: bool, request_headers: Headers) -> Response:
        etag, size = self.headers["etag"], self._expected.size
        if matches_etag(request_headers, etag):
            return Response(status_code=304, headers={"ETag": etag})
        headers, status, byte_range = dict(self.headers), 200, None
        # RFC 9110 defines Range for GET alone.
        header = None if is_head else request_headers.get("range")
        if header is not None and not header.lower().startswith("bytes="):
            header = None  # an unknown unit is ignored
        if header is not None and request_headers.get("if-range", etag) == etag:
            try:
                byte_range = _byte_range(header.lower(), size)
            except ValueError:
                refusal = problems.response(RangeNotSatisfiable(range_refusal(size, header)))
                refusal.headers["Content-Range"] = f"bytes */{size}"
                return refusal
        if byte_range is not None:
            status = 206
            headers["content-range"] = f"bytes {byte_range.start}-{byte_range.end - 1}/{size}"
            headers["content-length"] = str(byte_range.end - byte_range.start)
        if is_head:
            await run_in_threadpool(self._store.stat, self._key)
            return Response(status_code=status, headers=headers)
        chunks = await run_in_threadpool(self._open, byte_range)
        return StreamingResponse(sendable(chunks), status, headers)

    def _open(self, byte_range: "_ByteRange | None") -> Iterator[bytes]:
        if byte_range is None:
            return self._store.verified(self._key, self._expected)
        return self._store.chunks(self._key, byte_range.start, byte_range.end)


def matches_etag(headers: Headers, etag: str) -> bool:
    """Return True if If-None-Match names `etag`, so that the answer is 304."""
    tags = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    return etag in tags or "*" in tags


def range_refusal(size: int, header: str) -> str:
    return f"the file has {size} bytes; the range {header!r} is not part of it"


class BrokenOff(Exception):
    """The store failed while a file was being sent: the client has only a part of it."""


def sendable(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield `chunks`; errors of the store become BrokenOff.

    Starlette would take an OSError for a client that disconnected, and the other errors have error
    responses, for which it is too late.
    """
    try:
        yield from chunks
    except (OSError, ValueError, DamagedFile, NotFound) as error:
        raise BrokenOff(str(error)) from None  # its frames hold a piece of the file


class _ByteRange(NamedTuple):
    start: int
    end: int
    """Exclusive."""


def _byte_range(header: str, size: int) -> _ByteRange | None:
    """Parse a Range header for a file of `size` bytes (RFC 9110, section 14).

    Unsatisfiable ranges among several are ignored; None, the whole file, if several are
    satisfiable. Raises ValueError if none is, or if the header is malformed.
    """
    if not _RANGE.fullmatch(header):
        raise ValueError(header)
    specs = [spec.strip() for spec in header.removeprefix("bytes=").split(",")]
    if size == 0 and any(
        spec == "0-" or (spec.startswith("-") and int(spec[1:])) for spec in specs
    ):
        return None  # the whole file, which Content-Range cannot express
    ranges = [byte_range for spec in specs if (byte_range := _one_range(spec, size)) is not None]
    if not ranges:
        raise ValueError(header)
    return ranges[0] if len(ranges) == 1 else None


def _one_range(spec: str, size: int) -> _ByteRange | None:
    """Return None if the range is not satisfiable. Raises ValueError if it is malformed."""
    first, _, last = spec.partition("-")
    if first and last and int(last) < int(first):
        raise ValueError(spec)
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    return _ByteRange(start, end) if start < end else None


def disposition(name: str) -> str:
    """Return a Content-Disposition header that saves the response as `name` (RFC 6266)."""
    quoted = quote(name)
    plain = quoted == name
    return f'attachment; filename="{name}"' if plain else f"attachment; filename*=utf-8''{quoted}"


def file_response(
    store: ArtifactStore, key: str, expected: StoredFile, *, redirect: bool = False
) -> Response:
    """Stream the file under `key`, to be saved under its own name.

    With `redirect` a bucket serves it itself, by a link that expires after 15 minutes. Raises
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
