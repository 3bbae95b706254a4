"""API keys: make, list, revoke."""

import structlog
from fastapi import APIRouter, Depends, Response

from service.api.dependencies import After, Ctx, Limit, Who, no_body
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES
from service.api.schemas.base import Page, page
from service.api.schemas.keys import KeyRequest, KeyView, NewKeyView
from service.store import keys as rows
from service.usecases import api_keys as use_cases

log = structlog.get_logger()
router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


@router.post("", status_code=201, responses=WRITES)
def create_key(context: Ctx, who: Who, body: KeyRequest, response: Response) -> NewKeyView:
    """Make a key. The answer alone holds its token: only a digest of it is kept.

    The first one must be an admin's that never expires: from then on every call needs a key.
    """
    made = use_cases.create(context.database, body.name, body.role, body.expires_in_seconds)
    row = made.key.row
    log.info("API key made", key_id=row.id, name=row.name, role=row.role, by=who.name)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyView.made(made)


@router.get("", responses=READS)
def list_keys(context: Ctx, limit: Limit = 20, after: After = None) -> Page[KeyView]:
    """The keys, newest first; those that are revoked or have expired, too."""
    with context.database.read() as session:
        found, more = rows.page(session, limit=limit, after=after)
    views = [KeyView.of(key) for key in found]
    return page(views, views[-1].id if views else None, more=more)


@router.delete("/{key_id}", responses=WRITES, dependencies=[Depends(no_body)])
def revoke_key(context: Ctx, who: Who, key_id: str) -> KeyView:
    """Revoke a key, for good and from the next request on."""
    key = use_cases.revoke(context.database, key_id)
    log.info("API key revoked", key_id=key_id, name=key.row.name, by=who.name)
    return KeyView.of(key)
