"""Liveness and readiness."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from service import __version__, broker
from service.api.dependencies import get_context
from service.context import Context
from service.domain.errors import Unavailable
from service.store import migrate

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str
    version: str


class Readiness(BaseModel):
    status: str
    parts: dict[str, str]
    """Each part and "ok" or what is wrong with it."""


@router.get("/healthz")
def healthz() -> Health:
    """Whether the process is alive."""
    return Health(status="ok", version=__version__)


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(context: Annotated[Context, Depends(get_context)], response: Response) -> Readiness:
    """Whether the database (at this version's schema) and the broker can be reached."""
    parts = {"database": "ok", "broker": "ok"}
    try:
        if not migrate.is_current(context.database):
            parts["database"] = "not at this version's schema; run: fairtune migrate"
    except Unavailable as error:
        parts["database"] = error.detail
    try:
        broker.check(context.celery)
    except Unavailable as error:
        parts["broker"] = error.detail
    ready = all(state == "ok" for state in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "not ready", parts=parts)
