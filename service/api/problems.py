"""Every error as RFC 9457 problem+json."""

import errno
import os
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.schemas.problems import FieldProblem, Problem
from service.artifacts import DamagedFile, MissingFile, StoreUnavailable
from service.domain.errors import (
    BadRequest,
    Busy,
    Conflict,
    FairtuneError,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    NotReleasable,
    PayloadTooLarge,
    RequestTimeout,
    Unauthorized,
    Unavailable,
)
from service.domain.validation import field_errors, invalid_request

log = structlog.get_logger()
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_DISK_ERRORS = frozenset(
    {
        errno.EACCES,
        errno.EHOSTDOWN,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Errors of disks, mounts and network file systems, which an administrator has to remove."""
_SEND_JSON = "send a JSON object, with Content-Type: application/json"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MEDIA_TYPE = "application/problem+json"


def problem_of(error: FairtuneError) -> Problem:
    """Return the answer's body; what only the log may hold is left out."""
    return Problem(
        type=error.type,
        title=error.title,
        status=error.status,
        detail=error.public if isinstance(error, Unavailable) else error.detail,
        errors=[FieldProblem(pointer=e.pointer, detail=e.detail) for e in error.errors] or None,
        hindrances=list(error.hindrances) if isinstance(error, NotReleasable) else None,
    )


def response(error: FairtuneError) -> JSONResponse:
    if isinstance(error, Busy):
        log.info("busy", why=error.detail)
    elif isinstance(error, Unavailable | MissingFile):
        log.warning("unavailable", why=error.detail)
    headers = {}
    if isinstance(error, Unauthorized | Forbidden):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(
        problem_of(error).model_dump(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def install(app: FastAPI) -> None:
    """Answer every error with a problem; middleware.request_log does so for unexpected ones."""

    @app.exception_handler(FairtuneError)
    def _ours(_request: Request, error: FairtuneError) -> JSONResponse:
        return response(error)

    @app.exception_handler(StoreUnavailable)
    def _store_away(_request: Request, error: StoreUnavailable) -> JSONResponse:
        return response(Unavailable("the artifact store cannot be reached", error.strerror))

    @app.exception_handler(OSError)
    def _disk(_request: Request, error: OSError) -> JSONResponse:
        unavailable = _as_unavailable(error)
        if unavailable is None:
            raise error
        return response(unavailable)

    @app.exception_handler(DamagedFile)
    def _damaged(_request: Request, error: DamagedFile) -> JSONResponse:
        return response(Conflict(f"{error}: it has been changed or damaged"))

    @app.exception_handler(DataError)
    def _unstorable(_request: Request, _error: DataError) -> JSONResponse:
        # A NUL in an id, say: PostgreSQL takes none.
        return response(
            InvalidRequest("a value contains a character that the database cannot store")
        )

    @app.exception_handler(RequestValidationError)
    def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        return response(invalid_request(field_errors(map(_located, error.errors()))))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        errors_by_status: dict[int, type[FairtuneError]] = {
            404: NotFound,
            400: BadRequest,
            405: MethodNotAllowed,
            408: RequestTimeout,
            413: PayloadTooLarge,
        }
        # FastAPI answers 400 to whatever fails while it reads a body.
        cause = error.__cause__
        if isinstance(cause, FairtuneError):
            return response(cause)
        if isinstance(cause, OSError) and (unavailable := _as_unavailable(cause)) is not None:
            return response(unavailable)
        kind = errors_by_status.get(error.status_code)
        if kind is MethodNotAllowed:
            methods = ", ".join(_allowed(request))  # those of every matching route
            answer = response(kind(f"the path supports {methods}, not {request.method}"))
            answer.headers["Allow"] = methods
            return answer
        if kind is not None:
            return response(kind(str(error.detail)))
        content = Problem(
            type="about:blank",
            title=str(error.detail),
            status=error.status_code,
            detail=str(error.detail),
            errors=None,
            hindrances=None,
        )
        return JSONResponse(
            content.model_dump(exclude_none=True),
            status_code=error.status_code,
            media_type=MEDIA_TYPE,
            headers=error.headers,
        )


def _located(item: dict[str, Any]) -> dict[str, Any]:
    """Return FastAPI's error with its location in the body, and what was sent instead of it."""
    part, *path = item["loc"]
    location = tuple(path) if part == "body" else (part, *path)
    kind, message = item["type"], item["msg"]
    if not location and kind in ("missing", "dict_type", "model_attributes_type"):
        kind, message = "body", _SEND_JSON
    elif "UploadFile" in message:
        kind = "part"
        message = f"send a file in this field (with curl: -F {location[-1]}=@FILE)"
    elif isinstance(item.get("input"), UploadFile):
        kind = "part"
        message = f"send text in this field, not a file (with curl: -F '{location[-1]}=<FILE')"
    return {**item, "loc": location, "type": kind, "msg": message}


def _as_unavailable(error: OSError) -> Unavailable | None:
    """Return the answer to an error of a disk or a file system; None for another error."""
    if error.errno in _FULL:
        return Unavailable("the disk is full: free space on the server, then repeat", error)
    if error.errno in _DISK_ERRORS:
        reason = os.strerror(error.errno).lower()
        if error.errno == errno.ENXIO:
            reason = "it is not mounted"
        return Unavailable(f"the server's storage cannot be used: {reason}", error)
    return None


def _allowed(request: Request) -> list[str]:
    """Return the methods for which the request's path has a route."""

    def has(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if has(method)]
