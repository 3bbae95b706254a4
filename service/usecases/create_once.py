"""Create a resource at most once for each Idempotency-Key."""

from collections.abc import Callable

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service.store import idempotency
from service.store.database import Database
from service.store.idempotency import IdempotencyKey


def create_once(
    database: Database, key: IdempotencyKey | None, create: Callable[[Session], str]
) -> tuple[str, bool]:
    """Return the id of the resource, and True if `create` made it in this call.

    `create` returns the id; it runs in one transaction with the key's row. Of two simultaneous
    requests with the same key, the second gets the id that the first one stored. Raises
    InvalidRequest if the key was used with another body, and what `create` raises.
    """
    try:
        with database.write() as session:
            existing = idempotency.recall(session, key)
            if existing is not None:
                return existing, False
            created = create(session)
            idempotency.remember(session, key, created)
    except IntegrityError:
        # The other request with this key committed first.
        with database.read() as session:
            existing = idempotency.recall(session, key)
        if existing is None:
            raise
        return existing, False
    return created, True
