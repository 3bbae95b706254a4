"""The API's protocol without input and output: settings, retries, uploads, event streams."""

import json
import os
import random
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeGuard, cast
from urllib.parse import quote

import httpx

from fairtune.errors import NotFound, ServerUnreachable

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_TEXTS = 256
"""Maximum number of texts in one request for predictions."""
PAGE_SIZE = 100
RESTING = frozenset({"succeeded", "failed", "cancelled", "paused"})
"""States in which a job stays until a user changes it."""
ENDED = frozenset({"succeeded", "cancelled"})
"""States that no job leaves."""
_RETRIED_STATUSES = frozenset({429, 502, 503, 504})
_MAX_DELAY_SECONDS = 8.0
TIMEOUT = httpx.Timeout(120, connect=10)
UPLOAD_TIMEOUT = httpx.Timeout(600, connect=10)
STREAM_TIMEOUT = httpx.Timeout(60, connect=10)
"""Event streams send a comment at least every 15 s."""
STREAM_FAILURES = 20
"""Maximum number of failures in a row to open an event stream again: some two minutes."""

Source = str | os.PathLike[str] | bytes | IO[bytes] | Iterable[Mapping[str, Any]]
"""A file: its path, content or open binary file; or rows, which are sent as JSON lines."""


def server_url(url: str | None) -> str:
    """Return the server's address: `url`, FAIRTUNE_URL or the default. Raises ServerUnreachable."""
    address = url or os.environ.get("FAIRTUNE_URL") or DEFAULT_URL
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    try:
        httpx.URL(address)
    except httpx.InvalidURL as error:
        raise ServerUnreachable(address, error) from None
    return address


def is_loopback(url: str) -> bool:
    """Tell whether the server is on this machine."""
    return httpx.URL(url).host in {"localhost", "127.0.0.1", "::1"}


def headers(key: str | None, version: str) -> dict[str, str]:
    """Return the headers of every request; the key is `key` or FAIRTUNE_KEY."""
    token = key or os.environ.get("FAIRTUNE_KEY")
    fixed = {"User-Agent": f"fairtune-python/{version}", "Accept": "application/json"}
    return fixed if not token else fixed | {"Authorization": f"Bearer {token.strip()}"}


def segment(identifier: str) -> str:
    """Return a name or id as one segment of a path, whatever it contains. Raises NotFound."""
    if identifier in {"", ".", ".."}:
        raise NotFound(404, {"detail": f"nothing has the id {identifier!r}"})
    return quote(identifier, safe="")


def new_idempotency_key() -> dict[str, str]:
    """Return the header with which repeating a request creates nothing twice."""
    return {"Idempotency-Key": str(uuid.uuid4())}


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def may_succeed_later(status: int) -> bool:
    """Tell whether repeating a request may help."""
    return status in _RETRIED_STATUSES


def delay_seconds(attempt: int, response: httpx.Response | None = None) -> float:
    """Return the time before the next attempt: Retry-After, or exponential with jitter."""
    retry_after = None if response is None else response.headers.get("Retry-After", "")
    if retry_after and retry_after.isdecimal():
        return min(float(retry_after), _MAX_DELAY_SECONDS)
    bound = min(0.5 * 2.0**attempt, _MAX_DELAY_SECONDS)
    return random.uniform(0.5, 1) * bound  # noqa: S311 - no secret


@dataclass
class EventLines:
    """Decoder of a text/event-stream (WHATWG HTML, section 9.2); Fairtune's data is JSON."""

    last_id: int = 0
    _data: list[str] = field(default_factory=list)
    _id: str = ""

    def push(self, line: str) -> dict[str, Any] | None:
        """Take a line without its end; return the event's data if the line completes an event."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "id":
                self._id = value
            return None
        data, self._data = "\n".join(self._data), []
        if not data:
            return None
        if self._id.isdecimal():
            self.last_id = int(self._id)
        content: dict[str, Any] = json.loads(data)
        return content


def upload_part(source: Source, name: str) -> tuple[str, IO[bytes] | bytes]:
    """Return the file name and the content of a part of a multipart upload. Raises OSError."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.name, path.open("rb")
    if isinstance(source, bytes):
        return name, source
    if _is_file(source):
        return Path(str(getattr(source, "name", name))).name, source
    if hasattr(source, "to_json") and hasattr(source, "columns"):  # a pandas frame
        lines: str = source.to_json(orient="records", lines=True, force_ascii=False)
        return f"{name}.jsonl", lines.encode()
    return f"{name}.jsonl", b"".join(_json_lines(cast("Iterable[Mapping[str, Any]]", source)))


def _is_file(source: Source) -> TypeGuard[IO[bytes]]:
    return hasattr(source, "read")


def _json_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        yield json.dumps(dict(row), ensure_ascii=False).encode() + b"\n"


def batches(items: list[Any], size: int = MAX_TEXTS) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def last_lines(text: str, count: int) -> str:
    """Return the last lines of a text whose lines end with LF."""
    return "".join(re.findall(r"[^\n]*\n|[^\n]+", text)[-count:])
