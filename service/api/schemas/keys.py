"""API keys."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.base import View
from service.domain.access import KeyState, Role
from service.domain.storable import NOT_PADDED
from service.store.keys import Key
from service.usecases.api_keys import MAX_EXPIRY_SECONDS, MAX_NAME_LENGTH, NewKey


class KeyRequest(BaseModel):
    """Parameters of a new API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {"name": "nightly runs", "role": "operator", "expires_in_seconds": 7776000}
        },
    )

    name: str = Field(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="Name of the key; events record it. A name is never reused. Printable "
        "characters, no blanks at either end.",
        json_schema_extra={"pattern": NOT_PADDED},
    )
    role: Role = Field(
        description="viewer may read and request reports; operator may also write; admin may also "
        "manage keys."
    )
    expires_in_seconds: int | None = Field(
        None,
        strict=True,
        ge=1,
        le=MAX_EXPIRY_SECONDS,
        description="Lifetime of the key; by default it never expires.",
    )


class KeyView(View):
    """An API key, without its token."""

    id: str = Field(description="Identifier of the key.")
    name: str = Field(description="Name of the key.")
    role: Role = Field(description="Permissions of the key.")
    state: KeyState = Field(description="Only an active key grants access.")
    created_at: datetime = Field(description="Time of creation.")
    expires_at: datetime | None = Field(description="Time of expiry; null: never.")
    revoked_at: datetime | None = Field(description="Time of revocation; null if not revoked.")
    last_used_at: datetime | None = Field(
        description="Time of the last use, up to a minute old; null if never used."
    )

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(
            **key.row.model_dump(exclude={"project_id", "digest", "role"}),
            role=Role(key.row.role),
            state=key.state,
        )


class NewKeyView(KeyView):
    """A new API key with its token."""

    token: str = Field(
        description="Bearer token for the Authorization header. It is shown only once."
    )

    @classmethod
    def of_new(cls, new_key: NewKey) -> "NewKeyView":
        return cls(**KeyView.of(new_key.key).model_dump(), token=new_key.token)
