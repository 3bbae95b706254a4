"""Reading an object of a bucket, whatever happens to the connection."""

import io
from typing import Any

from service.artifacts.files import StoreAway
from service.artifacts.s3_errors import away, translated
from service.domain.errors import NotFound

_REOPENED = 5


class ObjectReader(io.RawIOBase):
    """An object from `start` on. A connection that breaks is made anew from where it broke.

    Opening raises NotFound and StoreAway, reading StoreAway; also where the object is another one
    than was opened.
    """

    def __init__(self, s3: Any, place: dict[str, str], key: str, start: int) -> None:
        self._s3, self._place, self._key = s3, place, key
        self._position = start
        self._etag: str | None = None
        self._body: Any = None
        self._open()

    def _open(self) -> None:
        asked: dict[str, Any] = dict(self._place)
        if self._position:
            asked["Range"] = f"bytes={self._position}-"
        if self._etag is not None:
            asked["IfMatch"] = self._etag
        with translated(self._key):
            answer = self._s3.get_object(**asked)
        self._etag, self._body = answer["ETag"], answer["Body"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for left in reversed(range(_REOPENED)):
            if self._body is None:
                try:
                    self._open()  # has attempts of its own
                except NotFound as error:
                    raise StoreAway(error.detail) from error
            try:
                data: bytes = self._body.read(len(buffer))
            except Exception as error:
                self._drop()
                found = away(error)
                if found is None:
                    raise
                if not left:
                    raise found from error
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
