"""What routes are given."""

import hashlib
import json
from collections import Counter
from typing import Annotated, Any, get_args, get_origin

from fastapi import Depends, Header, Path, Query, Request

from service.api.middleware import auth
from service.api.responses.event_feed import Feed
from service.context import Context
from service.domain.access import Caller
from service.domain.errors import InvalidRequest, pointer_of
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


Step = Annotated[int, Path(ge=0, le=2**31 - 1, description="Optimizer step.")]
EventNumber = Annotated[int, Query(ge=0, le=2**31 - 1, description="Events numbered above this.")]


# Those that read nothing but the request are async: for others FastAPI takes a thread each.


async def known_query(request: Request) -> None:
    """Refuse a query parameter that the route does not know: a misspelt one would do nothing. And
    one that is sent twice where the route takes one value: the first would do nothing.
    """
    route = request.scope["route"]
    known = {field.alias: field.field_info.annotation for field in route.dependant.query_params}
    sent = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in sent.items():
        if name not in known:
            has = ", ".join(known) if known else "none"
            detail = f"not a parameter of this call; it has {has}"
            raise InvalidRequest.at(pointer_of(["query", name]), detail)
        if times > 1 and not _takes_several(known[name]):
            raise InvalidRequest.at(pointer_of(["query", name]), "the parameter was sent twice")


def _takes_several(annotation: Any) -> bool:
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


async def known_form(request: Request) -> None:
    """Refuse a form field that the route does not know, and one that is sent twice."""
    seen: set[str] = set()
    known = [field.alias for field in request.scope["route"].dependant.body_params]
    for name, _ in (await request.form()).multi_items():
        if name not in known:
            detail = f"not a field of this form; it has {', '.join(known)}"
            raise InvalidRequest.at(pointer_of([name]), detail)
        if name in seen:
            raise InvalidRequest.at(pointer_of([name]), "the field was sent twice")
        seen.add(name)


async def no_body(request: Request) -> None:
    """Refuse a body where the call takes none: what it asks for would be ignored."""
    if (await request.body()).strip() not in (b"", b"{}"):
        raise InvalidRequest.at("", "this call takes no body; its options are query parameters")


async def get_context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def get_feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def get_caller(request: Request) -> Caller:
    return auth.caller_of(request)


Ctx = Annotated[Context, Depends(get_context)]
Who = Annotated[Caller, Depends(get_caller)]


def idempotency_key(
    who: Caller, route: str, key: str | None, body_hash: str
) -> IdempotencyKey | None:
    """The caller's own: what another API key sent is another's. Raises InvalidRequest if blank."""
    if key is None:
        return None
    if not key.strip():
        raise InvalidRequest.at("/header/Idempotency-Key", "the key is blank; leave it out")
    return IdempotencyKey(who.key_id or DEFAULT_PROJECT, route, key, body_hash)


def hash_of(body: Any) -> str:
    """The same for the same JSON value, however it is written."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
