"""Liveness and readiness, for whoever starts, watches and balances the processes.

Nothing here takes one of the threads that requests share: those may all be waiting for the very
database that is asked about.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from fastapi import APIRouter, Request, Response

from service import __version__
from service.api.schemas.health import Health, Readiness
from service.context import Context
from service.ops import readiness
from service.store.migrate import Schema

log = structlog.get_logger()
router = APIRouter(tags=["health"])

ANSWER_SECONDS = 3.0
"""A part that says nothing for so long is not ready."""


class Probe:
    """Looks at one part. However many ask, and however long it hangs, one look is under way."""

    def __init__(self, part: str, check: Callable[[], None]) -> None:
        self._part = part
        self._check = check
        self._looking: Future[None] | None = None
        self._state = "ok"

    async def state(self) -> str:
        """What everybody may know: "ok", or what is wrong."""
        if self._looking is None or self._looking.done():
            self._looking = readiness.begin(self._check)
        looking = self._looking
        ended = asyncio.wrap_future(looking)
        # What it found is read from `looking`; asyncio logs an error that nobody reads from `ended`
        # itself, also of a look that ends after it was given up.
        ended.add_done_callback(lambda found: found.cancelled() or found.exception())
        done, _ = await asyncio.wait({ended}, timeout=ANSWER_SECONDS)
        if not done:
            state, detail = "no answer", f"no answer within {ANSWER_SECONDS:g} s"
        elif (missing := readiness.outcome(looking)) is not None:
            state, detail = missing.state, missing.detail
        else:
            state, detail = "ok", ""
        if state != self._state:  # asked for every few seconds: only what is new is logged
            self._state = state
            if state == "ok":
                log.info("ready again", what=self._part)
            else:
                log.warning("not ready", what=self._part, why=detail)
        return state


def probes(context: Context) -> dict[str, Probe]:
    """One for each part, for the life of the application."""
    # A newer version's schema is no reason to turn users away: its migrations leave what a running
    # process of this version needs until that is gone.
    works = frozenset({Schema.CURRENT, Schema.AHEAD})
    checks: dict[str, Callable[[], None]] = {
        "database": lambda: readiness.check_database(context.database),
        "schema": lambda: readiness.check_schema(context.database, works),
        "broker": lambda: readiness.check_broker(context.celery),
        "store": lambda: readiness.check_store(context.store),
    }
    return {part: Probe(part, check) for part, check in checks.items()}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Health:
    """Whether the process is alive."""
    return Health(status="ok", version=__version__)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": Readiness}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Whether the process can do its work: database, schema, broker and artifact store.

    Runs are accepted while the broker alone is away; they start once it is back.
    """
    asked: dict[str, Probe] = request.app.state.probes
    states = await asyncio.gather(*(probe.state() for probe in asked.values()))
    parts = dict(zip(asked, states, strict=True))
    ready = all(state == "ok" for state in states)
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "not ready", parts=parts)
