"""Stream of a run's events, until its final status."""

import asyncio
import random
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
"""Maximum time between keep-alive comments, and from a key's revocation to the stream's end."""
_INTERVAL = 0.8
_MAX_AGE = 0.2
"""Parts of PING_SECONDS: the interval of the checks, and the age of an outcome that is shared."""


def _status(event: Event) -> JobStatus | None:
    """Return the run's new status if the event is a change of it."""
    if event.type == "status" and (kind := KINDS.get(event.data.get("kind", ""))) and kind.trains:
        return JobStatus(event.data["status"])
    return None


async def run_events(
    context: Context,
    feed: Feed,
    run_id: str,
    after: int,
    key_id: str | None,
    has_access: Callable[[], bool],
) -> AsyncIterator[EventView | None]:
    """Yield events numbered above `after`, and None at least every PING_SECONDS.

    Ends with the run, also if it is deleted, and when `has_access` returns False. That is called
    regularly, once for all streams of a key. If it raises Unavailable the stream stays open: no
    events can be read from the database either.
    """

    async def may_continue() -> bool:
        try:
            return await feed.access.outcome(key_id, has_access, _MAX_AGE * PING_SECONDS)
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
        # Streams that were opened together, after a restart say, do not stay in step.
        next_ping = clock() + _INTERVAL * PING_SECONDS * random.uniform(0.5, 1)  # noqa: S311
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=max(0.0, next_ping - clock()))
            if clock() >= next_ping:  # also while events keep coming
                if not await may_continue():
                    return
                yield None
                next_ping = clock() + _INTERVAL * PING_SECONDS
            if not done:
                continue
            try:
                batch = upcoming.result()
            except StopAsyncIteration:  # deleted, perhaps together with the event that ended it
                return
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
