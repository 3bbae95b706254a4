"""A run's events as they come, until its final status."""

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from service.api.feed import Feed
from service.api.schemas import EventView
from service.context import Context
from service.domain.states import RESTING, JobKind, JobStatus
from service.store import runs as rows
from service.store.tables import Event

PING_SECONDS = 15.0


def _status(event: Event) -> JobStatus | None:
    """The run's new status, where the event brings one."""
    if event.type == "status" and event.data.get("kind") == JobKind.TRAIN:
        return JobStatus(event.data["status"])
    return None


async def run_events(
    context: Context, feed: Feed, run_id: str, after: int
) -> AsyncIterator[EventView | None]:
    """Events numbered above `after`; None when nothing came for a while. Ends with the run."""

    def resting() -> bool:
        with context.database.read() as session:
            return JobStatus(rows.get_run(session, run_id)[1].status) in RESTING

    batches = feed.follow(run_id, after)
    try:
        ended = False
        caught_up = False
        upcoming = asyncio.ensure_future(anext(batches))
        while True:
            done, _ = await asyncio.wait({upcoming}, timeout=PING_SECONDS)
            if not done:
                yield None
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
