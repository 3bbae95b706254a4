"""Lists that are read page by page.

Generated from fairtune/_async by tools/sync_client.py; do not edit.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from fairtune import _protocol as protocol
from fairtune._sync.transport import Transport

Item = TypeVar("Item")


def pages(
    transport: Transport,
    path: str,
    read: Callable[[dict[str, Any]], Item],
    limit: int | None = None,
    **params: Any,
) -> Iterator[Item]:
    """Yield at most `limit` items of a list, newest first, requesting pages as needed."""
    after: str | None = None
    remaining = limit
    while remaining is None or remaining > 0:
        size = protocol.PAGE_SIZE if remaining is None else min(remaining, protocol.PAGE_SIZE)
        page = transport.get(path, limit=size, after=after, **params)
        for entry in page["data"]:
            yield read(entry)
        if not page["has_more"]:
            return
        after = page["next"]
        if remaining is not None:
            remaining -= len(page["data"])
