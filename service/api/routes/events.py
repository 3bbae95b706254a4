"""Events of a run, as a list or as an event stream."""

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import Ctx, RunId, Who, get_feed
from service.api.openapi import READS, TEXT
from service.api.responses import event_stream
from service.api.responses.event_feed import Feed
from service.api.schemas.events import EventList, EventView
from service.context import Context
from service.store import events
from service.store import runs as run_rows
from service.usecases import api_keys

_EVENT_STREAM = re.compile(r"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
_EVENT_NUMBER = re.compile(r"[0-9]{1,9}")
EventNumber = Annotated[
    int, Query(ge=0, le=2**31 - 1, description="Return only events with a higher number.")
]
router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])


@router.get(
    "/events",
    responses={
        **READS,
        200: {
            "model": EventList,
            "description": "A list; or, with `Accept: text/event-stream`, a stream that ends after "
            "the final status, or within 15 s of the key's revocation or expiry.",
            "content": {"text/event-stream": TEXT},
        },
    },
    summary="List or follow the events of a run",
)
async def get_events(
    request: Request,
    context: Ctx,
    who: Who,
    feed: Annotated[Feed, Depends(get_feed)],
    run_id: RunId,
    after: EventNumber = 0,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="Maximum number of events of a list.")
    ] = 200,
    last_event_id: Annotated[
        str | None,
        Header(
            description="Number of the last received event; resumes a stream; "
            "anything else is ignored."
        ),
    ] = None,
) -> Any:
    """Return the events of a run and of its jobs, oldest first.

    With `Accept: text/event-stream` they are sent as server-sent events while the run proceeds.
    """
    if last_event_id is not None and _EVENT_NUMBER.fullmatch(last_event_id):
        after = max(after, int(last_event_id))
    # A stream needs the list too: an unknown run is 404 before the stream begins.
    first_page = await run_in_threadpool(_event_list, context, run_id, after, limit)
    if not _EVENT_STREAM.search(request.headers.get("accept", "")):
        return first_page
    has_access = partial(api_keys.is_let_in, context.database, who)
    stream = event_stream.run_events(context, feed, run_id, after, who.key_id, has_access)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_encoded(stream), media_type="text/event-stream", headers=headers)


def _event_list(context: Context, run_id: str, after: int, limit: int) -> EventList:
    with context.database.read() as session:
        run_rows.get_run(session, run_id)
        rows = events.page(session, run_id, after, limit + 1)
    views = [EventView.of(event) for event in rows[:limit]]
    has_more = len(rows) > limit
    return EventList(data=views, has_more=has_more, next=views[-1].id if has_more else None)


async def _encoded(stream: AsyncIterator[EventView | None]) -> AsyncIterator[bytes]:
    async for event in stream:
        if event is None:
            yield KEEPALIVE_COMMENT
        else:
            data = event.model_dump_json()
            yield format_sse_event(data_str=data, event=event.type, id=str(event.id))
