"""Liveness and readiness, for supervisors and load balancers.

Nothing here uses the request threads: all of them may be waiting for the very database whose state
is requested.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future

import structlog
from fastapi import APIRouter, Request, Response

from service import __version__
from service.api.paths import LIVENESS, READINESS
from service.api.schemas.health import Health, Readiness
from service.context import Context
from service.ops import readiness
from service.store.migrate import Schema

log = structlog.get_logger()
router = APIRouter(tags=["health"])

ANSWER_SECONDS = 3.0
"""A component that does not answer within this time is not ready."""


class Probe:
    """Checks one component; at most one check runs at a time, however long it hangs."""

    def __init__(self, component: str, check: Callable[[], None]) -> None:
        self._component = component
        self._check = check
        self._running: Future[None] | None = None
        self._state = "ok"

    async def state(self) -> str:
        """Return the public state: "ok", or the problem."""
        if self._running is None or self._running.done():
            self._running = readiness.begin(self._check)
        running = self._running
        ended = asyncio.wrap_future(running)
        # The outcome is read from `running`; asyncio would log an error that nobody reads from
        # `ended`, also that of a check which ends after its timeout.
        ended.add_done_callback(lambda future: future.cancelled() or future.exception())
        done, _ = await asyncio.wait({ended}, timeout=ANSWER_SECONDS)
        if not done:
            state, detail = "no answer", f"no answer within {ANSWER_SECONDS:g} s"
        elif (missing := readiness.outcome(running)) is not None:
            state, detail = missing.state, missing.detail
        else:
            state, detail = "ok", ""
        if state != self._state:  # polled every few seconds: only changes are logged
            self._state = state
            if state == "ok":
                log.info("ready again", what=self._component)
            else:
                log.warning("not ready", what=self._component, why=detail)
        return state


def probes(context: Context) -> dict[str, Probe]:
    """Return a probe for each component, for the lifetime of the application."""
    # A newer version's schema does not make this process unready: migrations keep what a running
    # process of the previous version needs until it has stopped.
    usable = frozenset({Schema.CURRENT, Schema.AHEAD})
    checks: dict[str, Callable[[], None]] = {
        "database": lambda: readiness.check_database(context.database),
        "schema": lambda: readiness.check_schema(context.database, usable),
        "broker": lambda: readiness.check_broker(context.celery),
        "store": lambda: readiness.check_store(context.store),
    }
    return {component: Probe(component, check) for component, check in checks.items()}


@router.head(LIVENESS, include_in_schema=False)
@router.get(LIVENESS, summary="Check liveness")
async def healthz() -> Health:
    """Answer while the API process is alive."""
    return Health(status="ok", version=__version__)


@router.head(READINESS, include_in_schema=False)
@router.get(
    READINESS,
    responses={503: {"model": Readiness, "description": "At least one component is not ready."}},
    summary="Check readiness",
)
async def readyz(request: Request, response: Response) -> Readiness:
    """Check the database, its schema, the broker and the artifact store.

    Runs are accepted while only the broker is unreachable; they start once it is back.
    """
    probes_by_component: dict[str, Probe] = request.app.state.probes
    states = await asyncio.gather(*(probe.state() for probe in probes_by_component.values()))
    parts = dict(zip(probes_by_component, states, strict=True))
    ready = all(state == "ok" for state in states)
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "not ready", parts=parts)
