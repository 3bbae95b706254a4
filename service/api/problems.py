"""Every error as RFC 9457 problem+json."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.artifacts import Damaged, StoreAway
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
from service.domain.release import Hindrance

log = structlog.get_logger()
_PLAINER = {
    "dict_type": "send a JSON object, with Content-Type: application/json",
    "model_attributes_type": "send a JSON object, with Content-Type: application/json",
    "extra_forbidden": "this field is not known",
}
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    pointer: str = Field(description="RFC 6901 pointer into the body, or form field and line.")
    detail: str


class Problem(BaseModel):
    """What every refusal looks like (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:fairtune:invalid-request",
                "title": "The request is not valid",
                "status": 422,
                "detail": "/lora/r: Input should be greater than or equal to 1",
                "errors": [
                    {"pointer": "/lora/r", "detail": "Input should be greater than or equal to 1"}
                ],
            }
        }
    )

    type: str = Field(description="Stable identifier of the kind of problem.")
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="The fields that are wrong.")
    hindrances: list[Hindrance] | None = Field(
        None, description="Of urn:fairtune:not-releasable: all that hinders the promotion."
    )


def documented(*errors: type[FairtuneError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can raise these errors."""
    kinds: tuple[type[FairtuneError], ...] = (*errors, BadRequest, Unavailable)
    return {kind.status: {"description": kind.title, "model": Problem} for kind in kinds}


WRITES = documented(InvalidRequest, NotFound, Conflict)
READS = documented(InvalidRequest, NotFound)
UPLOADS = documented(InvalidRequest)
PROTECTED = documented(Unauthorized, Forbidden)


def response(error: FairtuneError) -> JSONResponse:
    detail = error.detail
    if isinstance(error, Busy):
        log.info("busy", why=detail)
    elif isinstance(error, Unavailable):
        log.warning("unavailable", why=detail)
        detail = error.public
    problem = Problem(
        type=error.type,
        title=error.title,
        status=error.status,
        detail=detail,
        errors=[FieldProblem(pointer=e.pointer, detail=e.detail) for e in error.errors] or None,
        hindrances=list(error.hindrances) if isinstance(error, NotReleasable) else None,
    )
    headers = {}
    if isinstance(error, Unauthorized | Forbidden):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, Busy):
        headers["Retry-After"] = str(error.retry_after)
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=error.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def describe(app: FastAPI) -> None:
    """Say in the OpenAPI document that every refusal is problem+json, FastAPI's own 422 too."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
            for path in schema["paths"].values():
                for method, operation in path.items():
                    if method != "get":  # body_limit.py's; a body that no call takes is read, too
                        for kind in (RequestTimeout, PayloadTooLarge):
                            refusal = {"description": kind.title}
                            operation["responses"][str(kind.status)] = refusal
                    for status, answer in operation["responses"].items():
                        if status.startswith("4") or "Problem" in str(answer.get("content")):
                            answer["content"] = {MEDIA_TYPE: problem}
            for name in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(name, None)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI documents this way


def install(app: FastAPI) -> None:
    """Make every error of the application a problem; middleware.request_log does the rest."""

    @app.exception_handler(FairtuneError)
    def _ours(_request: Request, error: FairtuneError) -> JSONResponse:
        return response(error)

    @app.exception_handler(StoreAway)
    def _store_away(_request: Request, error: StoreAway) -> JSONResponse:
        return response(Unavailable("the artifact store cannot be reached", error.strerror))

    @app.exception_handler(Damaged)
    def _damaged(_request: Request, error: Damaged) -> JSONResponse:
        return response(Conflict(f"{error}: it was changed or damaged since"))

    @app.exception_handler(DataError)
    def _unstorable(_request: Request, _error: DataError) -> JSONResponse:
        # A NUL in an id, say: PostgreSQL takes none.
        return response(InvalidRequest("a value holds what the database cannot keep"))

    @app.exception_handler(RequestValidationError)
    def _validation(_request: Request, error: RequestValidationError) -> JSONResponse:
        found = []
        for item in error.errors():
            part, *path = item["loc"]
            if item["type"] == "json_invalid":
                return response(BadRequest(f"the body is not JSON: {item['ctx']['error']}"))
            prefix = () if part == "body" else (part,)
            detail = _PLAINER.get(item["type"], item["msg"])
            if "UploadFile" in detail:
                detail = "send a file here (with curl: -F name=@FILE)"
            found.append(FieldError(pointer_of((*prefix, *path)), detail))
        first = found[0]
        where = first.pointer or "the body"
        return response(InvalidRequest(f"{where}: {first.detail}", tuple(found)))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        known: dict[int, type[FairtuneError]] = {
            404: NotFound,
            400: BadRequest,
            408: RequestTimeout,
            413: PayloadTooLarge,
        }
        kind = known.get(error.status_code)
        if kind is not None:
            return response(kind(str(error.detail)))
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_allowed(request))  # not of the first route alone
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
    """The methods that some route has for the request's path."""

    def has(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if has(method)]
