"""Reader of a bucket's object that survives broken connections."""

import io
from typing import Any

from service.artifacts.files import StoreUnavailable
from service.artifacts.s3_errors import as_unavailable, translate_errors
from service.domain.errors import NotFound

_REOPENED = 5


class ObjectReader(io.RawIOBase):
    """An object from `start` on. After a broken connection it reconnects at the same position.

    Opening raises NotFound and StoreUnavailable; reading raises StoreUnavailable, also if another
    object has replaced the opened one.
    """

    def __init__(self, s3: Any, location: dict[str, str], key: str, start: int) -> None:
        self._s3, self._location, self._key = s3, location, key
        self._position = start
        self._etag: str | None = None
        self._body: Any = None
        self._open()

    def _open(self) -> None:
        request: dict[str, Any] = dict(self._location)
        if self._position:
            request["Range"] = f"bytes={self._position}-"
        if self._etag is not None:
            request["IfMatch"] = self._etag
        with translate_errors(self._key):
            answer = self._s3.get_object(**request)
        self._etag, self._body = answer["ETag"], answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for left in reversed(range(_REOPENED)):
            if self._body is None:
                try:
                    self._open()  # has attempts of its own
                except NotFound as error:
                    raise StoreUnavailable(error.detail) from error
            try:
                data: bytes = self._body.read(len(buffer))
            except Exception as error:
                self._drop()
                unavailable = as_unavailable(error)
                if unavailable is None:
                    raise
                if not left:
                    raise unavailable from error
                continue
            buffer[: len(data)] = data
            self._position += len(data)
            return len(data)
        raise AssertionError("unreachable")

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()
