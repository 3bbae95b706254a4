"""API keys: create, list, revoke."""

from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Path, Response

from service.api.dependencies import AfterKey, Ctx, Limit, Who, no_body
from service.api.json_body import JsonRoute
from service.api.openapi import READS, WRITES
from service.api.paths import KEYS
from service.api.schemas.base import Page, page
from service.api.schemas.keys import KeyRequest, KeyView, NewKeyView
from service.store import keys as key_rows
from service.usecases import api_keys as use_cases

log = structlog.get_logger()
router = APIRouter(prefix=KEYS, tags=["keys"], route_class=JsonRoute)


@router.post("", status_code=201, responses=WRITES, summary="Create an API key")
def create_key(context: Ctx, who: Who, body: KeyRequest, response: Response) -> NewKeyView:
    """Create an API key. Only this response contains its token; the server stores a digest.

    The first key must have the role admin and no expiry: from then on every call needs a key.
    """
    new_key = use_cases.create(context.database, body.name, body.role, body.expires_in_seconds)
    row = new_key.key.row
    log.info("API key created", key_id=row.id, name=row.name, role=row.role, by=who.name)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView.of_new(new_key)


@router.get("", responses=READS, summary="List API keys")
def list_keys(context: Ctx, limit: Limit = 20, after: AfterKey = None) -> Page[KeyView]:
    """List all API keys, including revoked and expired ones, newest first."""
    with context.database.read() as session:
        rows, more = key_rows.page(session, limit=limit, after=after)
    views = [KeyView.of(key) for key in rows]
    return page(views, more=more)


@router.delete(
    "/{key_id}", responses=WRITES, dependencies=[Depends(no_body)], summary="Revoke an API key"
)
def revoke_key(
    context: Ctx,
    who: Who,
    key_id: Annotated[str, Path(description="Identifier of the key.")],
) -> KeyView:
    """Revoke an API key permanently, effective with the next request."""
    key = use_cases.revoke(context.database, key_id)
    log.info("API key revoked", key_id=key_id, name=key.row.name, by=who.name)
    return KeyView.of(key)
