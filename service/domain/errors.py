"""Every error that Fairtune raises on purpose.

FairtuneError                   500
├── InvalidRequest              422  a field or line is wrong; `errors` point at each
├── BadRequest                  400  the request cannot be read at all
├── NotFound                    404
├── Conflict                    409  the state of the thing forbids the call
├── PayloadTooLarge             413
├── RangeNotSatisfiable         416
├── Unavailable                 503  the database or the broker is away
└── ProgramFailure                   a job's end, with a reason of the closed list; never HTTP
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from service.domain.states import FailureReason


def escaped(name: str) -> str:
    """`name` as one step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_of(location: Iterable[str | int]) -> str:
    """An RFC 6901 JSON pointer."""
    return "".join(f"/{escaped(str(part))}" for part in location)


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


class NotFound(FairtuneError):
    status = 404
    type = "urn:fairtune:not-found"
    title = "Not found"


class Conflict(FairtuneError):
    status = 409
    type = "urn:fairtune:conflict"
    title = "The state forbids this"


class PayloadTooLarge(FairtuneError):
    status = 413
    type = "urn:fairtune:too-large"
    title = "The upload is too large"


class RangeNotSatisfiable(FairtuneError):
    status = 416
    type = "urn:fairtune:range-not-satisfiable"
    title = "The file has no such part"


class Unavailable(FairtuneError):
    status = 503
    type = "urn:fairtune:unavailable"
    title = "Not available at present"


class ProgramFailure(Exception):
    """Ends a program (train, evaluate, merge) with a reason from the closed list.

    `detail` says what happened in one or two sentences that a user can read: no traceback.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
