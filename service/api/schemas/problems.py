"""Error responses."""

from pydantic import BaseModel, Field

from service.domain.release import Hindrance


class FieldProblem(BaseModel):
    """An invalid field."""

    pointer: str = Field(
        description="JSON pointer (RFC 6901) into the body; or form field, line and column of an "
        "uploaded file; or /query/NAME, /header/NAME."
    )
    detail: str = Field(description="Description of the error.")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Stable identifier of the kind of error.")
    title: str = Field(description="Summary of the kind of error.")
    status: int = Field(description="HTTP status code.")
    detail: str = Field(description="Description of this error.")
    errors: list[FieldProblem] | None = Field(None, description="Invalid fields of the request.")
    hindrances: list[Hindrance] | None = Field(
        None, description="With urn:fairtune:not-releasable: every obstacle to the promotion."
    )
