"""A run's events as they come, until its final status."""

import asyncio
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from service.api.responses.event_feed import Feed
from service.api.schemas.results import EventView
from service.context import Context
from service.domain.errors import NotFound, Unavailable
from service.domain.job_kinds import KINDS
from service.domain.states import RESTING, JobStatus
from service.store import runs as rows
from service.store.tables import Event

PING_SECONDS = 15.0
"""How often a stream shows that it is alive, and asks whether its listener may still read."""


def _status(event: Event) -> JobStatus | None:
    """The run's new status, where the event brings one."""
    if event.type == "status" and (kind := KINDS.get(event.data.get("kind", ""))) and kind.trains:
        return JobStatus(event.data["status"])
    return None


async def run_events(
    context: Context, feed: Feed, run_id: str, after: int, is_let_in: Callable[[], bool]
) -> AsyncIterator[EventView | None]:
    """Events numbered above `after`, and None every PING_SECONDS.

    Ends with the run; and when `is_let_in`, which is asked as often and may raise Unavailable, says
    no. While the database cannot tell, nothing new is read from it either, and the stream stays.
    """

    def may_go_on() -> bool:
        try:
            return is_let_in() and not gone()
        except Unavailable:
            return True

    def gone() -> bool:
        """Deleted meanwhile: the event that ended it may be gone, too."""
        return standing() is None

    def standing() -> JobStatus | None:
        with context.database.read() as session:
            try:
                return JobStatus(rows.get_run(session, run_id)[1].status)
            except NotFound:
                return None

    def resting() -> bool:
        return standing() in {None, *RESTING}

    batches = feed.follow(run_id, after)
    try:
        ended = False
        caught_up = False
        upcoming = asyncio.ensure_future(anext(batches))
        clock = asyncio.get_running_loop().time
        next_ping = clock() + PING_SECONDS
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=max(0.0, next_ping - clock()))
            if clock() >= next_ping:  # also where events keep coming
                if not await run_in_threadpool(may_go_on):
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
                # A client that resumes past the final status is told so by the end of the stream.
                ended = ended or await run_in_threadpool(resting)
            if ended and caught_up:
                return
            upcoming = asyncio.ensure_future(anext(batches))
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        await batches.aclose()
