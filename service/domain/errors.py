"""Every error that Fairtune raises on purpose.

FairtuneError                   500
├── InvalidRequest              422  a field or a line is invalid; `errors` points at each
├── BadRequest                  400  the request cannot be parsed
├── Unauthorized                401  no API key, or an invalid one
├── Forbidden                   403  the key's role does not permit the call
├── NotFound                    404
├── MethodNotAllowed            405  the path has no operation with this method
├── NotAcceptable               406  no representation of the resource is acceptable to the client
├── RequestTimeout              408  the body did not arrive in time
├── Conflict                    409  the state of the resource forbids the call
│   └── NotReleasable           409  the certifying report does not let the run be promoted
├── PayloadTooLarge             413
├── RangeNotSatisfiable         416
├── QuotaExceeded               507  the artifact store has reached its quota
└── Unavailable                 503  the database, the broker or the artifact store is unreachable
    └── Busy                    503  the concurrency limit is reached; retry later

Two never reach HTTP:

RefusedToStart                       the settings would open the service to everybody
ProgramFailure                       ends a job's program with a reason of the closed list

The others stay in the module that raises them, since only its direct callers handle them:

service.api.responses.files
    BrokenOff               the store failed while a file was being sent; the connection is cut
service.artifacts.files
    DamagedFile             a stored file is not the one that was stored
    MissingFile             a NotFound with status 503: a row names a file that the store lacks
    StoreUnavailable        an OSError: the object store is unreachable or denies access
service.cli
    InvalidInputError       prediction_inputs: a file of texts cannot be read
    _RepeatedKeyError       spec_file: a mapping of a YAML file repeats a key
service.cli.original.arguments
    Refused                 arguments of `fairtune train` are invalid
service.datasets
    DuplicateKeyError       lines: an object repeats a key
    _RecordTooLongError     delimited: a record exceeds the limit
    _SyntaxError            arrays: a JSON array is malformed
service.domain.decoding
    NotTextError            the content of a file, body or field cannot be read as text
service.ops.readiness
    NotReady                a dependency is unavailable
service.store.abandonment
    Abandoned               the client has disconnected: nobody waits for the answer
service.store.jobs
    Fenced                  the job belongs to another worker, or was ended by a user
service.usecases.datasets
    _NotShared              no dataset names a file of rows any more, or it is being removed
worker.data
    EncodingFailure         encoding: the model's tokenizer fails on a text
    TemplateRefusal         chat_template: the model's chat template refuses a chat
    TurnsTooLong            fitting: frame and answer alone are too long
worker.modeling.model_files
    FaultyFile              a file of a model directory is not what its name says
worker.runtime
    BatchTooLarge           out_of_memory: a ProgramFailure that a smaller batch may avoid
    Stopped                 events: a BaseException, so that no library swallows a stop
worker.scoring.attention
    UnsupportedAttention    the model's attention is not supported
worker.supervision
    StorageUnavailable      event_shipper: an Unavailable of the store or the worker's disk
    RetryExhausted          retry: an attempt's end could not be recorded in time
worker.training.checkpoints
    BrokenCheckpoint        a checkpoint is not the one that was written
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from service.domain.release import Hindrance
from service.domain.states import FailureReason


def escaped(name: str) -> str:
    """Return `name` as one token of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def pointer_of(location: Iterable[str | int]) -> str:
    """Return the RFC 6901 JSON pointer to a location of names and indices."""
    return "".join(f"/{escaped(str(part))}" for part in location)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, cut to 300 characters; else its type's name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


@dataclass(frozen=True, slots=True)
class FieldError:
    """An invalid field or line of a request.

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
        """Return an error about a single field; the pointer "" is the whole body."""
        lead = f"{pointer}: {detail}" if pointer else detail
        return cls(lead, (FieldError(pointer, detail),))


class BadRequest(FairtuneError):
    status = 400
    type = "urn:fairtune:bad-request"
    title = "The request cannot be parsed"


class Unauthorized(FairtuneError):
    """Invariant: `challenge` is the response's WWW-Authenticate header (RFC 6750, section 3)."""

    status = 401
    type = "urn:fairtune:unauthorized"
    title = "A valid API key is required"

    def __init__(self, detail: str, *, token_sent: bool = False) -> None:
        super().__init__(detail)
        # The RFC asks for no error code if the request has no token at all.
        self.challenge = 'Bearer error="invalid_token"' if token_sent else "Bearer"


class Forbidden(FairtuneError):
    """Invariant: `challenge` as in Unauthorized."""

    status = 403
    type = "urn:fairtune:forbidden"
    title = "The key's role does not permit this"
    challenge = 'Bearer error="insufficient_scope"'


class NotFound(FairtuneError):
    status = 404
    type = "urn:fairtune:not-found"
    title = "Not found"


class MethodNotAllowed(FairtuneError):
    status = 405
    type = "urn:fairtune:method-not-allowed"
    title = "The path does not support this method"


class NotAcceptable(FairtuneError):
    status = 406
    type = "urn:fairtune:not-acceptable"
    title = "No acceptable representation"


class RequestTimeout(FairtuneError):
    status = 408
    type = "urn:fairtune:timeout"
    title = "The request body took too long to arrive"


class Conflict(FairtuneError):
    status = 409
    type = "urn:fairtune:conflict"
    title = "Conflict with the current state"


class NotReleasable(Conflict):
    """Refusal of a promotion; `hindrances` is an extension member of the problem (RFC 9457)."""

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
    title = "The file has no such range"


class QuotaExceeded(FairtuneError):
    status = 507
    type = "urn:fairtune:quota-exceeded"
    title = "The artifact store's quota is exhausted"


class Unavailable(FairtuneError):
    status = 503
    type = "urn:fairtune:unavailable"
    title = "Temporarily unavailable"

    def __init__(self, detail: str, cause: object = None) -> None:
        """Keep `cause` for the log alone: it may name hosts, users and paths."""
        super().__init__(detail if cause is None else f"{detail}: {cause}")
        self.public = detail


class Busy(Unavailable):
    type = "urn:fairtune:busy"
    title = "The concurrency limit is reached"
    retry_after = 5
    """Seconds, for the Retry-After header (RFC 9110, section 10.2.3)."""


class RefusedToStart(Exception):
    """The server would be open to everybody; `detail` names the remedy."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ProgramFailure(Exception):
    """Ends a program with a reason from the closed list.

    `detail` is one or two sentences for the user, without a traceback.
    """

    def __init__(self, reason: FailureReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
