"""Stream of a run's events, until its final status."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from service.api.responses.event_feed import Feed
from service.api.schemas.events import EventView
from service.context import Context
from service.domain.errors import NotFound, Unavailable
from service.domain.job_kinds import KINDS
from service.domain.states import RESTING, JobStatus
from service.store import runs as rows
from service.store.tables import Event

PING_SECONDS = 15.0
"""Interval of keep-alive comments, and of checks that the listener still has access."""


def _status(event: Event) -> JobStatus | None:
    """Return the run's new status if the event is a change of it."""
    if event.type == "status" and (kind := KINDS.get(event.data.get("kind", ""))) and kind.trains:
        return JobStatus(event.data["status"])
    return None


async def run_events(
    context: Context, feed: Feed, run_id: str, after: int, has_access: Callable[[], bool]
) -> AsyncIterator[EventView | None]:
    """Yield events numbered above `after`, and None every PING_SECONDS.

    Ends with the run, and when `has_access`, called every PING_SECONDS, returns False. If it raises
    Unavailable the stream stays open: no events can be read from the database either.
    """

    def may_continue() -> bool:
        # A run may be deleted meanwhile, together with the event that ended it.
        try:
            return has_access() and run_status() is not None
        except Unavailable:
            return True

    def run_status() -> JobStatus | None:
        with context.database.read() as session:
            try:
                return JobStatus(rows.get_run(session, run_id)[1].status)
            except NotFound:
                return None

    def has_ended() -> bool:
        return run_status() in {None, *RESTING}

    batches = feed.follow(run_id, after)
    try:
        ended = False
        caught_up = False
        upcoming = asyncio.ensure_future(anext(batches))
        clock = asyncio.get_running_loop().time
        next_ping = clock() + PING_SECONDS
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=max(0.0, next_ping - clock()))
            if clock() >= next_ping:  # also while events keep coming
                if not await run_in_threadpool(may_continue):
                    return
                yield None
                next_ping = clock() + PING_SECONDS
            if not done:
                continue
            batch = upcoming.result()
            for event in batch:
                status = _status(event)
                if status is not None:
                    ended = status in RESTING
                yield EventView.of(event)
            if not batch:
                caught_up = True
                # For a client that resumes past the final status the stream ends at once.
                ended = ended or await run_in_threadpool(has_ended)
            if ended and caught_up:
                return
            upcoming = asyncio.ensure_future(anext(batches))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await batches.aclose()
