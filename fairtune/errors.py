"""Errors of the client.

FairtuneError
├── ServerUnreachable       no answer: wrong address, no server, broken connection
├── InvalidResponse         the answer is not one of Fairtune's API
├── ProblemError            the server refused the request (RFC 9457); any status not listed below
│   ├── BadRequest          400  the request cannot be parsed
│   ├── Unauthorized        401  no API key, or an invalid one
│   ├── Forbidden           403  the key's role does not permit the call
│   ├── NotFound            404
│   ├── Conflict            409  the state of the resource forbids the call
│   │   └── NotReleasable   409  the certifying report does not let the run be promoted
│   ├── PayloadTooLarge     413
│   ├── InvalidRequest      422  a field or a line is invalid; `errors` points at each
│   ├── Unavailable         503  a dependency of the server is unreachable, or it is busy
│   └── QuotaExceeded       507  the artifact store has reached its quota
├── JobFailed               a job that was waited for failed, was cancelled or is paused
├── WaitTimeout             a job did not finish within the time limit; it continues
└── DownloadFailed          a downloaded file is not the stored one
"""

from collections.abc import Mapping
from typing import Any

import httpx

from fairtune.models import Failure, FieldProblem, Hindrance

NO_KEY_ADVICE = (
    "Pass an API key with Client(key=…), --key or FAIRTUNE_KEY; `fairtune keys create` makes one "
    "on the server's machine."
)


class FairtuneError(Exception):
    """Base of the tree."""


class ServerUnreachable(FairtuneError):
    """No answer came from `url`."""

    def __init__(self, url: str, cause: Exception) -> None:
        self.url = url
        super().__init__(
            f"{url} does not answer ({cause or type(cause).__name__}); set the server's address "
            "with Client(url), --server or FAIRTUNE_URL, or start one: fairtune up"
        )


class InvalidResponse(FairtuneError):
    """The answer is not one of Fairtune's API, for example a proxy's page."""


class ProblemError(FairtuneError):
    """A refusal by the server, with the members of its problem (RFC 9457)."""

    status: int
    type: str
    title: str
    detail: str
    errors: list[FieldProblem]
    """Invalid fields or lines, each with an RFC 6901 JSON pointer."""
    hindrances: list[Hindrance]
    """Reasons why a run cannot be promoted."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.title = str(problem.get("title", ""))
        self.detail = str(problem.get("detail") or self.title or f"HTTP status {status}")
        self.errors = [FieldProblem.from_json(entry) for entry in problem.get("errors") or ()]
        self.hindrances = [Hindrance.from_json(entry) for entry in problem.get("hindrances") or ()]
        super().__init__(self._message())

    def _message(self) -> str:
        return self.detail


class BadRequest(ProblemError):
    pass


class Unauthorized(ProblemError):
    def _message(self) -> str:
        return f"{self.detail}. {NO_KEY_ADVICE}"


class Forbidden(ProblemError):
    pass


class NotFound(ProblemError):
    pass


class Conflict(ProblemError):
    pass


class NotReleasable(Conflict):
    pass


class PayloadTooLarge(ProblemError):
    pass


class InvalidRequest(ProblemError):
    pass


class Unavailable(ProblemError):
    pass


class QuotaExceeded(ProblemError):
    pass


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    422: InvalidRequest,
    503: Unavailable,
    507: QuotaExceeded,
}


def problem_error(response: httpx.Response) -> FairtuneError:
    """Return the error of an answer that was read and is not successful."""
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "detail" not in problem:
        return InvalidResponse(
            f"{response.url} answered {response.status_code} without a problem document: is it the "
            f"address of a Fairtune server? {response.text[:200]!r}"
        )
    kind = _BY_STATUS.get(response.status_code, ProblemError)
    if problem.get("type") == "urn:fairtune:not-releasable":
        kind = NotReleasable
    return kind(response.status_code, problem)


class JobFailed(FairtuneError):
    """A job ended otherwise than `succeeded`, or is paused.

    `job` is the run, evaluation, merge or predictions; `failure` has the reason and the advice.
    """

    def __init__(self, job: Any) -> None:
        self.job = job
        self.status: str = job.status
        self.failure: Failure | None = job.failure
        if job.failure is not None:
            message = f"{job.id} failed: {job.failure.detail} {job.failure.advice}".rstrip()
        else:
            message = f"{job.id} {'is' if job.status == 'paused' else 'was'} {job.status}"
        super().__init__(message)


class WaitTimeout(FairtuneError):
    """A job did not finish in time; it continues on the server."""

    def __init__(self, job: Any, seconds: float) -> None:
        self.job = job
        position = getattr(job, "queue_position", None)
        at_position = "" if position is None else f" at position {position}"
        super().__init__(f"after {seconds:g} s {job.id} is {job.status}{at_position}; it continues")


class DownloadFailed(FairtuneError):
    """A file's SHA-256 is not that of the stored file, or a path would leave the directory."""
