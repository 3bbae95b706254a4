"""Parameters and dependencies that routes share."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, get_args, get_origin

from fastapi import Depends, Header, Path, Query, Request
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from service.api.json_body import check_content_encoding
from service.api.middleware import auth
from service.api.responses.event_feed import Feed
from service.context import Context
from service.domain.access import Caller
from service.domain.decoding import NotTextError, form_text
from service.domain.errors import InvalidRequest, NotFound, pointer_of
from service.domain.ids import id_pattern, is_id
from service.domain.job_kinds import EVALUATE, PREDICT
from service.domain.storable import UNSTORABLE, is_storable
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT

Limit = Annotated[int, Query(ge=1, le=200, description="Maximum number of items.")]


def _cursor(prefix: str) -> AfterValidator:
    """Return the check of a cursor of a list whose items have ids with this prefix.

    The item itself may be gone meanwhile: any id of the kind is a place in the list.
    """

    def check(value: str | None) -> str | None:
        if value is not None and not is_id(value, prefix):
            raise PydanticCustomError(
                "cursor",
                "is no cursor of this list: send the value of `next` from the previous page (an "
                "id {prefix}_…), or omit the parameter for the first page",
                {"prefix": prefix},
            )
        return value

    return AfterValidator(check)


def _after(prefix: str) -> Any:
    return Query(
        description="Value of `next` from the previous page; omit for the first. Anything else is "
        "refused with 422.",
        json_schema_extra={"pattern": id_pattern(prefix)},
    )


AfterRun = Annotated[str | None, _cursor("run"), _after("run")]
AfterDataset = Annotated[str | None, _cursor("ds"), _after("ds")]
AfterPromotion = Annotated[str | None, _cursor("promo"), _after("promo")]
AfterKey = Annotated[str | None, _cursor("key"), _after("key")]
AfterEvaluation = Annotated[
    str | None, _cursor(EVALUATE.result_prefix), _after(EVALUATE.result_prefix)
]
AfterPrediction = Annotated[
    str | None, _cursor(PREDICT.result_prefix), _after(PREDICT.result_prefix)
]
KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        description="Repeating a request with the same key returns the resource created by the "
        "first request instead of creating another. Using the key with a different body is "
        "refused with 422, and so is a blank one.",
        json_schema_extra={"pattern": r"\S"},
    ),
]


RunId = Annotated[str, Path(description="Identifier of the run.")]
DatasetId = Annotated[str, Path(description="Identifier of the dataset.")]
Step = Annotated[int, Path(ge=0, le=2**31 - 1, description="Optimizer step.")]
Tail = Annotated[
    int | None, Query(ge=1, le=100_000, description="Return only this many lines from the end.")
]
Redirect = Annotated[
    bool,
    Query(
        description="If the files are in a bucket, answer 307 with a link to the file that expires "
        "after 15 minutes and needs no API key; no effect if they are in a directory."
    ),
]
DryRun = Annotated[bool, Query(description="Validate and plan only; nothing is stored or started.")]


# Dependencies that only read the request are async: FastAPI runs others in a thread each.


async def known_query(request: Request) -> None:
    """Refuse unknown and empty query parameters, repeated ones of single values, and NUL.

    The first would be ignored silently, an empty filter matches nothing, and databases treat NUL
    differently. Raises NotFound for an identifier with NUL.
    """
    route = request.scope["route"]
    fields = {field.alias: field.field_info.annotation for field in route.dependant.query_params}
    if not all(is_storable(str(value)) for value in request.path_params.values()):
        raise NotFound("nothing has such an identifier")
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if name not in fields:
            raise unknown_parameter(name, fields)
        if not all(map(is_storable, request.query_params.getlist(name))):
            raise InvalidRequest.at(pointer_of(["query", name]), UNSTORABLE)
        if count > 1 and not _is_list(fields[name]):
            raise InvalidRequest.at(pointer_of(["query", name]), "the parameter was sent twice")
        if "" in request.query_params.getlist(name) and name != "after":  # a cursor has its own
            detail = "the value is empty; omit the parameter"
            raise InvalidRequest.at(pointer_of(["query", name]), detail)


def unknown_parameter(name: str, names: Iterable[str]) -> InvalidRequest:
    detail = f"unknown parameter; this call takes {', '.join(names) or 'none'}"
    return InvalidRequest.at(pointer_of(["query", name]), detail)


def _is_list(annotation: Any) -> bool:
    return any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))


async def known_form(request: Request) -> None:
    """Refuse an unknown form field, a repeated one, an empty required one, and another body."""
    check_content_encoding(request)
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "multipart/form-data":
        instead = f", not {content_type}" if content_type.isprintable() and content_type else ""
        content, example = "a name and a file", "-F name=NAME -F train=@FILE"
        if "name" not in {field.alias for field in request.scope["route"].dependant.body_params}:
            content, example = "a file", "-F file=@FILE"
        raise InvalidRequest.at(
            "",
            f"send multipart/form-data with {content}{instead} (with curl: {example})",
        )
    previous: set[str] = set()
    fields = request.scope["route"].dependant.body_params
    names = [field.alias for field in fields]
    required = {field.alias for field in fields if field.field_info.is_required()}
    for name, value in (await request.form()).multi_items():
        if name not in names:
            detail = f"unknown field; this form has {', '.join(names)}"
            raise InvalidRequest.at(pointer_of([name]), detail)
        if name in previous:
            raise InvalidRequest.at(pointer_of([name]), "the field was sent twice")
        if value == "" and name in required:  # FastAPI would call it missing
            raise InvalidRequest.at(pointer_of([name]), "must not be empty")
        previous.add(name)


def decoded_field(value: Any) -> Any:
    """Return the text of a form field, which may be in another encoding than UTF-8."""
    if not isinstance(value, str):
        return value
    try:
        return form_text(value)
    except NotTextError as error:
        raise PydanticCustomError("not_text", "{detail}", {"detail": error.detail}) from error


async def no_body(request: Request) -> None:
    """Refuse a body where the call takes none: it would be ignored."""
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
    """Return the key, scoped to the caller's API key. Raises InvalidRequest if it is blank."""
    if key is None:
        return None
    if not key.strip():
        raise InvalidRequest.at("/header/Idempotency-Key", "the key is blank; omit the header")
    return IdempotencyKey(who.key_id or DEFAULT_PROJECT, route, key, body_hash)


def hash_of(body: Any) -> str:
    """Return a hash of the JSON value, independent of its formatting and the order of its keys."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
