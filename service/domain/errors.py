"""Every error that Fairtune raises on purpose.

FairtuneError                   500
├── InvalidRequest              422  a field or line is wrong; `errors` point at each
├── BadRequest                  400  the request cannot be read at all
├── Unauthorized                401  no API key, or one that is not valid
├── Forbidden                   403  the key's role does not permit the call
├── NotFound                    404
├── NotAcceptable               406  there is no form of the answer that the caller takes
├── RequestTimeout              408  the body did not come in time
├── Conflict                    409  the state of the thing forbids the call
│   └── NotReleasable           409  the certifying report does not let the run be promoted
├── PayloadTooLarge             413
├── RangeNotSatisfiable         416
├── QuotaExceeded               507  the artifact store is as full as it may be
├── Unavailable                 503  the database or the broker is away
│   └── Busy                    503  as many of these as may go on at once do; try again
├── RefusedToStart                   the settings would open the service to all; never HTTP
└── ProgramFailure                   a job's end, with a reason of the closed list; never HTTP
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.domain.release import Hindrance
from service.domain.states import FailureReason


def escaped(name: str) -> str:
    """`name` as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_of(location: Iterable[str | int]) -> str:
    """An RFC 6901 JSON pointer."""
    return "".join(f"/{escaped(str(part))}" for part in location)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 300 characters; else its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong.

    `pointer` is an RFC 6901 JSON pointer into the body, or for an uploaded file
    ``/train/lines/17/text``: the form field, the 1-based line, the column.
    """

    pointer: str
    detail: str


class FairtuneError(Exception):
    """Base of the tree; `type` is the stable identifier of RFC 9457's problem type."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "urn:fairtune:internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors


class InvalidRequest(FairtuneError):
    status = 422
    type = "urn:fairtune:invalid-request"
    title = "The request is not valid"

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequest":
        """One wrong field."""
        return cls(detail, (FieldError(pointer, detail),))


class BadRequest(FairtuneError):
    status = 400
    type = "urn:fairtune:bad-request"
    title = "The request cannot be read"


class Unauthorized(FairtuneError):
    """`challenge` is the WWW-Authenticate header of the answer (RFC 6750, section 3)."""

    status = 401
    type = "urn:fairtune:unauthorized"
    title = "An API key is needed"

    def __init__(self, detail: str, *, token_sent: bool = False) -> None:
        super().__init__(detail)
        # The RFC wants no error code where the request held no token at all.
        self.challenge = 'Bearer error="invalid_token"' if token_sent else "Bearer"


class Forbidden(FairtuneError):
    """`challenge` as for Unauthorized."""

    status = 403
    type = "urn:fairtune:forbidden"
    title = "The key's role does not permit this"
    challenge = 'Bearer error="insufficient_scope"'


class NotFound(FairtuneError):
    status = 404
    type = "urn:fairtune:not-found"
    title = "Not found"


class NotAcceptable(FairtuneError):
    status = 406
    type = "urn:fairtune:not-acceptable"
    title = "There is no such form of the answer"


class RequestTimeout(FairtuneError):
    status = 408
    type = "urn:fairtune:timeout"
    title = "The request took too long to come"


class Conflict(FairtuneError):
    status = 409
    type = "urn:fairtune:conflict"
    title = "The state forbids this"


class NotReleasable(Conflict):
    """`hindrances` says what hinders, each by itself: a problem's extension member (RFC 9457)."""

    type = "urn:fairtune:not-releasable"
    title = "The certifying report does not let the run be promoted"

    def __init__(self, detail: str, hindrances: Sequence[Hindrance]) -> None:
        super().__init__(detail)
        self.hindrances = tuple(hindrances)


class PayloadTooLarge(FairtuneError):
    status = 413
    type = "urn:fairtune:too-large"
    title = "The upload is too large"


class RangeNotSatisfiable(FairtuneError):
    status = 416
    type = "urn:fairtune:range-not-satisfiable"
    title = "The file has no such part"


class QuotaExceeded(FairtuneError):
    status = 507
    type = "urn:fairtune:quota-exceeded"
    title = "The artifact store's quota is used up"


class Unavailable(FairtuneError):
    status = 503
    type = "urn:fairtune:unavailable"
    title = "Not available at present"

    def __init__(self, detail: str, said: object = None) -> None:
        """`said`, by whoever is away, is for the log: it may name hosts, users and paths."""
        super().__init__(detail if said is None else f"{detail}: {said}")
        self.public = detail


class Busy(Unavailable):
    type = "urn:fairtune:busy"
    title = "Too many of these at once"
    retry_after = 5
    """Seconds, for the Retry-After header (RFC 9110, section 10.2.3)."""


class RefusedToStart(Exception):
    """A server that would be open to everybody; `detail` says what to do about it."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ProgramFailure(Exception):
    """Ends a program (train, evaluate, merge) with a reason from the closed list.

    `detail` says what happened in one or two sentences that a user can read: no traceback.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
