"""Idempotency-Key: a creating POST sent twice makes one thing.

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
    """The id that this request made before, if any. Raises InvalidRequest for another body."""
    if key is None:
        return None
    known = session.get(Idempotency, (key.owner, key.route, key.key))
    if known is None:
        return None
    if known.body_hash != key.body_hash:
        raise InvalidRequest(
            "this Idempotency-Key was used with another body; send the same body or a new key"
        )
    return known.made_id


def remember(session: Session, key: IdempotencyKey | None, made_id: str) -> None:
    """To be called in the transaction that makes the thing; a concurrent twin fails its commit."""
    if key is not None:
        session.add(Idempotency(**key._asdict(), made_id=made_id))
