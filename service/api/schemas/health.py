"""Liveness and readiness."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    status: Literal["ok"]
    version: str


class Readiness(BaseModel):
    status: Literal["ok", "not ready"]
    parts: dict[str, str] = Field(
        description='database, schema, broker and store: each "ok" or what is wrong with it. '
        "The server's log says more.",
        examples=[{"database": "ok", "schema": "ok", "broker": "unreachable", "store": "ok"}],
    )
