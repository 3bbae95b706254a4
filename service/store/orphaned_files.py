"""Removal of a run's files that no row names, repeated until the store and the database answer."""

import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import structlog

from service.domain.errors import Unavailable
from service.observability import request_context
from service.store import program_events
from service.store.database import Database

log = structlog.get_logger()

_WAIT_SECONDS = 5.0
_PAUSE_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_GIVE_UP_SECONDS = 24 * 3600.0


class FileStore(Protocol):
    """The part of the artifact store that is needed here."""

    def entries(self, prefix: str = "") -> Iterator[Any]:
        """Yield all files under `prefix`, incomplete ones too. Raises OSError."""

    def remove(self, entries: Iterable[Any]) -> None:
        """Remove these files; a missing one is no error. Raises OSError."""


class OrphanedFiles:
    """Files that ended attempts stored without a row, or whose row is gone.

    It works on threads of its own: a store that hangs blocks no caller for long. After a day
    without success, or when the process ends before, `fairtune gc` has to remove the files.
    """

    def __init__(self, database: Database, store: FileStore) -> None:
        self._database = database
        self._store = store

    def remove(self, run_id: str) -> None:
        """Remove a run's orphaned files. Return once that was tried, or if it takes long.

        After an error it is repeated in the background.
        """
        tried = threading.Event()
        self._start(run_id, 0.0, tried)
        tried.wait(_WAIT_SECONDS)

    def remove_later(self, run_id: str, seconds: float) -> None:
        """Do the same in so many seconds: a store may complete an upload that was given up."""
        self._start(run_id, seconds, threading.Event())

    def _start(self, run_id: str, seconds: float, tried: threading.Event) -> None:
        def work() -> None:
            time.sleep(seconds)
            self._repeat(run_id, tried)

        carried = request_context.carried(work)
        threading.Thread(target=carried, name="orphaned files", daemon=True).start()

    def _repeat(self, run_id: str, tried: threading.Event) -> None:
        since, attempt = time.monotonic(), 0
        while time.monotonic() - since < _GIVE_UP_SECONDS:
            try:
                self._remove(run_id)
            except (OSError, Unavailable) as error:
                log.warning("orphaned files not removed yet", run_id=run_id, error=str(error))
            except Exception:
                log.exception("orphaned files not removed", run_id=run_id)
                return
            else:
                return
            finally:
                tried.set()
            time.sleep(_PAUSE_SECONDS[min(attempt, len(_PAUSE_SECONDS) - 1)])
            attempt += 1
        log.error("orphaned files left to fairtune gc", run_id=run_id)

    def _remove(self, run_id: str) -> None:
        with self._database.read() as session:
            # In this order: an ended attempt records nothing more.
            ended = program_events.ended_prefixes(session, run_id)
            recorded = program_events.keys_of(session, run_id)
        orphans = [
            entry
            for entry in self._store.entries(program_events.run_prefix(run_id))
            if (ended is None or program_events.attempt_prefix(entry.key) in ended)
            and (entry.half is not None or entry.key not in recorded)
        ]
        self._store.remove(orphans)
        if orphans:
            log.info("orphaned files removed", run_id=run_id, count=len(orphans))
