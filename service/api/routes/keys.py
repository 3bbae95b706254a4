"""API keys: make, list, revoke."""

from datetime import datetime

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.dependencies import After, Ctx, Limit, Who, no_body
from service.api.json_body import JsonRoute
from service.api.problems import READS, WRITES
from service.api.schemas.runs import Page, View, page
from service.domain.access import KeyState, Role
from service.store import keys as rows
from service.store.keys import Key
from service.usecases import api_keys as use_cases
from service.usecases.api_keys import MAX_EXPIRY_SECONDS, MAX_NAME_LENGTH, Made

log = structlog.get_logger()
router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)


class KeyRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "nightly runs", "role": "operator", "expires_in_seconds": 7776000}
        },
    )

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="Stands in the events of what the key does. No two keys ever have the same.",
    )
    role: Role = Field(
        description="viewer reads and may ask for reports; operator also writes; admin also "
        "manages keys."
    )
    expires_in_seconds: int | None = Field(
        None, strict=True, ge=1, le=MAX_EXPIRY_SECONDS, description="Left out: never."
    )


class KeyView(View):
    id: str
    name: str
    role: Role
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="At most a minute behind.")

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(
            **key.row.model_dump(exclude={"project_id", "digest", "role"}),
            role=Role(key.row.role),
            state=key.state,
        )


class NewKeyView(KeyView):
    token: str = Field(description="What the caller sends as bearer. Shown this once.")

    @classmethod
    def made(cls, made: Made) -> "NewKeyView":
        return cls(**KeyView.of(made.key).model_dump(), token=made.token)


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
