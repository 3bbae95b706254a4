"""Liveness and readiness."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """Liveness of the API process."""

    status: Literal["ok"] = Field(description="Always `ok`.")
    version: str = Field(description="Version of Fairtune.")


class Readiness(BaseModel):
    """Readiness of the API process and of the components that it needs."""

    status: Literal["ok", "not ready"] = Field(description="`ok` if every component is.")
    parts: dict[str, str] = Field(
        description="State of each component (database, schema, broker, store): `ok` or the "
        "problem. The server's log has details.",
        examples=[{"database": "ok", "schema": "ok", "broker": "unreachable", "store": "ok"}],
    )
