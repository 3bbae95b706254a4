"""Every error as RFC 9457 problem+json."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.api.schemas.problems import FieldProblem, Problem
from service.artifacts import DamagedFile, StoreUnavailable
from service.domain.errors import (
    BadRequest,
    Busy,
    Conflict,
    FairtuneError,
    FieldError,
    Forbidden,
    InvalidRequest,
    NotFound,
    NotReleasable,
    PayloadTooLarge,
    RequestTimeout,
    Unauthorized,
    Unavailable,
    pointer_of,
)
from service.domain.validation import UNKNOWN_FIELD

log = structlog.get_logger()
_PLAIN_MESSAGES = {
    "dict_type": "send a JSON object, with Content-Type: application/json",
    "model_attributes_type": "send a JSON object, with Content-Type: application/json",
    "extra_forbidden": UNKNOWN_FIELD,
}
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
    elif isinstance(error, Unavailable):
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
        field_errors = []
        for item in error.errors():
            part, *path = item["loc"]
            if item["type"] == "json_invalid":
                return response(BadRequest(f"the body is not JSON: {item['ctx']['error']}"))
            prefix = () if part == "body" else (part,)
            detail = _PLAIN_MESSAGES.get(item["type"], item["msg"])
            if "UploadFile" in detail:
                detail = "send a file in this field (with curl: -F name=@FILE)"
            field_errors.append(FieldError(pointer_of((*prefix, *path)), detail))
        first = field_errors[0]
        where = first.pointer or "the body"
        return response(InvalidRequest(f"{where}: {first.detail}", tuple(field_errors)))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        errors_by_status: dict[int, type[FairtuneError]] = {
            404: NotFound,
            400: BadRequest,
            408: RequestTimeout,
            413: PayloadTooLarge,
        }
        kind = errors_by_status.get(error.status_code)
        if kind is not None:
            return response(kind(str(error.detail)))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed(request))  # those of every matching route
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
            headers=headers,
        )


def _allowed(request: Request) -> list[str]:
    """Return the methods for which the request's path has a route."""

    def has(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if has(method)]
