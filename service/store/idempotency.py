"""Idempotency-Key: a repeated POST returns the resource that the first one created.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

from typing import NamedTuple

from sqlmodel import Session

from service.domain.errors import InvalidRequest
from service.store.tables import Idempotency


class IdempotencyKey(NamedTuple):
    owner: str
    route: str
    key: str
    body_hash: str


def recall(session: Session, key: IdempotencyKey | None) -> str | None:
    """Return the id of the resource that an earlier request with the key created, if any.

    Raises InvalidRequest for another body.
    """
    if key is None:
        return None
    stored = session.get(Idempotency, (key.owner, key.route, key.key))
    if stored is None:
        return None
    if stored.body_hash != key.body_hash:
        raise InvalidRequest(
            "this Idempotency-Key was used with another body; send the same body or a new key"
        )
    return stored.made_id


def remember(session: Session, key: IdempotencyKey | None, made_id: str) -> None:
    """Store the key in the transaction that creates the resource; a concurrent commit fails."""
    if key is not None:
        session.add(Idempotency(**key._asdict(), made_id=made_id))
