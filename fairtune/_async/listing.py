"""Lists that are read page by page."""

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from fairtune import _protocol as protocol
from fairtune._async.transport import AsyncTransport

Item = TypeVar("Item")


async def pages(
    transport: AsyncTransport,
    path: str,
    read: Callable[[dict[str, Any]], Item],
    limit: int | None = None,
    **params: Any,
) -> AsyncIterator[Item]:
    """Yield at most `limit` items of a list, newest first, requesting pages as needed."""
    after: str | None = None
    remaining = limit
    while remaining is None or remaining > 0:
        size = protocol.PAGE_SIZE if remaining is None else min(remaining, protocol.PAGE_SIZE)
        page = await transport.get(path, limit=size, after=after, **params)
        for entry in page["data"]:
            yield read(entry)
        if not page["has_more"]:
            return
        after = page["next"]
        if remaining is not None:
            remaining -= len(page["data"])
