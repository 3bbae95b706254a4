"""Feed of new events: one reader per process, any number of listeners."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import structlog
from starlette.concurrency import run_in_threadpool

from service.api.responses.shared_check import SharedCheck
from service.domain.errors import Unavailable
from service.store import events as event_rows
from service.store.database import Database
from service.store.tables import Event

log = structlog.get_logger()
_POLL_SECONDS = 0.5
_PAGE = 500


_Queue = asyncio.Queue[list[Event] | None]
"""Batches for a listener; None: the run was deleted."""


class Feed:
    """Reads new rows once and passes them to all listeners of their run, in order, without gaps."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: dict[str, list[_Queue]] = {}
        self._cursors: dict[str, int] = {}
        self._has_listeners = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.access = SharedCheck()
        """Checks of listeners' keys, once for all streams of a key."""

    def start(self) -> None:
        self._task = asyncio.create_task(self._read_forever(), name="feed")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def follow(self, run_id: str, after: int) -> AsyncGenerator[list[Event], None]:
        """Yield batches of events numbered above `after`: first the stored ones, then new ones.

        Yields an empty batch between the two. Ends if the run is deleted.
        """
        # Listening begins before the stored events are read, so that none is missed; duplicates are
        # recognized by their number.
        listener: _Queue = asyncio.Queue()
        newest = await run_in_threadpool(self._newest, [run_id])
        self._cursors.setdefault(run_id, newest.get(run_id, 0))
        self._listeners.setdefault(run_id, []).append(listener)
        self._has_listeners.set()
        try:
            while batch := await run_in_threadpool(self._page, run_id, after):
                after = batch[-1].number
                yield batch
            yield []
            while (events := await listener.get()) is not None:
                fresh = [event for event in events if event.number > after]
                if fresh:
                    after = fresh[-1].number
                    yield fresh
        finally:
            self._listeners[run_id].remove(listener)
            if not self._listeners[run_id]:
                del self._listeners[run_id]
                self._cursors.pop(run_id, None)

    async def _read_forever(self) -> None:
        while True:
            await self._has_listeners.wait()
            await asyncio.sleep(_POLL_SECONDS)
            if not self._listeners:
                self._has_listeners.clear()
                continue
            try:
                await self._read()
            except Unavailable as error:
                log.warning("reading events failed", error=error.detail)
            except Exception:  # one failure must not cut off every listener
                log.exception("reading events failed")

    async def _read(self) -> None:
        run_ids = list(self._listeners)
        newest = await run_in_threadpool(self._newest, run_ids)
        for run_id in run_ids:
            if run_id not in newest:
                for listener in self._listeners.get(run_id, []):
                    listener.put_nowait(None)
        for run_id, number in newest.items():
            while (cursor := self._cursors.get(run_id)) is not None and cursor < number:
                batch = await run_in_threadpool(self._page, run_id, cursor)
                if not batch:
                    break
                if run_id in self._cursors:
                    self._cursors[run_id] = batch[-1].number
                for listener in self._listeners.get(run_id, []):
                    listener.put_nowait(batch)

    def _newest(self, run_ids: list[str]) -> dict[str, int]:
        with self._database.read() as session:
            return event_rows.newest(session, run_ids)

    def _page(self, run_id: str, after: int) -> list[Event]:
        with self._database.read() as session:
            return event_rows.page(session, run_id, after, _PAGE)
