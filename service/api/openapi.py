"""The OpenAPI document: the responses of the routes, and an example of every error."""

from typing import Any

from fastapi import FastAPI

from service.api import schema_rules
from service.api.problem_examples import errors_of
from service.api.problems import MEDIA_TYPE, problem_of
from service.api.schemas.jobs import JobView
from service.api.schemas.problems import Problem
from service.domain.errors import (
    BadRequest,
    Busy,
    Conflict,
    FairtuneError,
    Forbidden,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    RequestTimeout,
    Unauthorized,
    Unavailable,
)

Responses = dict[int | str, dict[str, Any]]
LOCATION: dict[str, Any] = {
    "Location": {"schema": {"type": "string"}, "description": "Path of the new resource."}
}
TEXT: dict[str, Any] = {"schema": {"type": "string"}}
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def documented(*errors: type[FairtuneError]) -> Responses:
    """Return the `responses` of a route that can raise these errors."""
    kinds: tuple[type[FairtuneError], ...] = (*errors, BadRequest, Unavailable)
    return {kind.status: {"description": kind.title, "model": Problem} for kind in kinds}


def busy(reason: str) -> Responses:
    """Return the `responses` of a route whose requests take turns; `reason` says when it is 503."""
    return {
        503: {
            "description": f"Unavailable; or {Busy.type}: {reason}.",
            "model": Problem,
            "headers": {
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": f"Seconds to wait; only with {Busy.type}.",
                }
            },
        }
    }


WRITES = documented(InvalidRequest, NotFound, Conflict)
READS = documented(InvalidRequest, NotFound)
UPLOADS = documented(InvalidRequest)
PROTECTED = documented(Unauthorized, Forbidden)
FILE: Responses = {
    200: {
        "description": "The file.",
        "content": {"application/octet-stream": BINARY},
    },
    206: {
        "description": "The requested range. If several ranges are requested: the only satisfiable "
        "one; the answer is the whole file if more are.",
        "content": {"application/octet-stream": BINARY},
    },
    307: {"description": "With redirect=true: a link to the file in the Location header."},
    304: {"description": "The file has the entity tag of If-None-Match."},
    **documented(RangeNotSatisfiable),
}
PREDICTIONS_FILE: Responses = FILE | {
    status: {
        **FILE[status],
        "content": {**FILE[status]["content"], "application/vnd.apache.parquet": BINARY},
    }
    for status in (200, 206)
}
ANY_FILE: Responses = FILE | {
    status: {
        "description": f"{FILE[status]['description']} Its type is that of its name, if known.",
        "content": {**FILE[status]["content"], "*/*": BINARY},
    }
    for status in (200, 206)
}
LARGE_READ = busy("four large reads are in progress and eight are waiting")
LOG: Responses = {
    **READS,
    **LARGE_READ,
    200: {"description": "The log.", "content": {"text/plain": {}}},
}


def creates_job(view: type[JobView], queued: str, existing: str) -> Responses:
    """Return the `responses` of a route that queues a job, or answers with the existing one."""
    return {
        **WRITES,
        201: {"model": view, "description": queued, "headers": LOCATION},
        200: {"model": view, "description": existing},
    }


def install(app: FastAPI) -> None:
    """Complete the application's OpenAPI document: every error is problem+json, with examples."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    _complete(method, path, operation)
            schema_rules.complete(document)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if method != "get":  # body_limit reads the body of every other method, also an unexpected one
        for kind in (RequestTimeout, PayloadTooLarge):
            responses[str(kind.status)] = {"description": kind.title}
    for status, answer in responses.items():
        if not status.startswith("4") and "Problem" not in str(answer.get("content")):
            continue
        problems = [problem_of(e) for e in errors_of(method, path, operation, int(status))]
        content: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Problem"}}
        bodies = [problem.model_dump(exclude_none=True) for problem in problems]
        if len(bodies) == 1:
            content["example"] = bodies[0]
        else:
            content["examples"] = {
                body["type"].rpartition(":")[2]: {"summary": body["title"], "value": body}
                for body in bodies
            }
        answer["content"] = {MEDIA_TYPE: content}
    operation["responses"] = dict(sorted(responses.items()))
