"""Celery's filesystem transport with an atomic put.

kombu writes into the message's final name, so that a reader may receive it while it is empty, and
the message is lost. This one writes aside and renames.
"""

import os
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

SCHEME = "fairtune-files"
_PROCESSED_LIFETIME_SECONDS = 3600.0


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no types
    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        folder = Path(self.data_folder_out)
        # Named as kombu names them, but by the wall clock: files outlive a reboot.
        name = f"{time.time_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        aside = folder / f".{name}.part"
        with aside.open("w", encoding="utf-8") as file:
            file.write(dumps(payload))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(folder / name)

    def _get(self, queue: str) -> dict[str, Any]:
        """Return the next message. Raises Empty, also while the folder cannot be read: another
        error would end Celery's worker, and the folder may be readable a moment later.
        """
        try:
            message: dict[str, Any] = super()._get(queue)
        except OSError as error:
            raise Empty from error
        return message


class Transport(filesystem.Transport):  # type: ignore[misc]  # as above
    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = "service.queue.filesystem_transport:Transport"


def folders(root: Path) -> dict[str, Any]:
    """Create the transport's folders on one disk and return them as its options."""
    paths = {name: root / name for name in ("messages", "processed", "control")}
    for path in paths.values():
        path.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(paths["messages"]),
        "data_folder_out": str(paths["messages"]),
        "processed_folder": str(paths["processed"]),
        "control_folder": paths["control"],
        "store_processed": True,
        "polling_interval": 0.1,
    }


def sweep(root: Path, now: float | None = None) -> int:
    """Remove received messages and incomplete files older than an hour; return their number."""
    limit = (time.time() if now is None else now) - _PROCESSED_LIFETIME_SECONDS
    removed = 0
    for path in [*(root / "processed").glob("*.msg"), *(root / "messages").glob(".*.part")]:
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # another process swept it
            continue
    return removed
