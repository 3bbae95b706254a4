"""What routes are given."""

import hashlib
import json
from typing import Annotated, Any

from fastapi import Header, Query, Request

from service.api.feed import Feed
from service.context import Context
from service.domain.errors import InvalidRequest
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT

Limit = Annotated[int, Query(ge=1, le=200, description="At most so many.")]
After = Annotated[str | None, Query(description="The `next` of the page before.")]
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        description="Send the same key again and nothing is made twice: the first answer's thing "
        "comes back. Another body under the same key is refused with 422.",
    ),
]


def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def get_feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


def idempotency_key(route: str, key: str | None, body_hash: str) -> IdempotencyKey | None:
    """Raises InvalidRequest for a blank key."""
    if key is None:
        return None
    if not key.strip():
        raise InvalidRequest.at("/header/Idempotency-Key", "the key is blank; leave it out")
    return IdempotencyKey(DEFAULT_PROJECT, route, key, body_hash)


def hash_of(body: Any) -> str:
    """The same for the same JSON value, however it is written."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
