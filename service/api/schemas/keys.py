"""API keys."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import View
from service.domain.access import KeyState, Role
from service.store.keys import Key
from service.usecases.api_keys import MAX_EXPIRY_SECONDS, MAX_NAME_LENGTH, Made


class KeyRequest(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "nightly runs", "role": "operator", "expires_in_seconds": 7776000}
        },
    )

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="Stands in the events of what the key does. No two keys ever have the same.",
    )
    role: Role = Field(
        description="viewer reads and may ask for reports; operator also writes; admin also "
        "manages keys."
    )
    expires_in_seconds: int | None = Field(
        None, strict=True, ge=1, le=MAX_EXPIRY_SECONDS, description="Left out: never."
    )


class KeyView(View):
    id: str
    name: str
    role: Role
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="At most a minute behind.")

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(
            **key.row.model_dump(exclude={"project_id", "digest", "role"}),
            role=Role(key.row.role),
            state=key.state,
        )


class NewKeyView(KeyView):
    token: str = Field(description="What the caller sends as bearer. Shown this once.")

    @classmethod
    def made(cls, made: Made) -> "NewKeyView":
        return cls(**KeyView.of(made.key).model_dump(), token=made.token)
