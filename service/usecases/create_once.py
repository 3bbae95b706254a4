"""Create a resource at most once for each Idempotency-Key."""

from collections.abc import Callable

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from service.store import idempotency
from service.store.database import Database
from service.store.idempotency import IdempotencyKey


def create_once(
    database: Database,
    key: IdempotencyKey | None,
    create: Callable[[Session], str],
    lock: Callable[[Session], object] = lambda _: None,
) -> tuple[str, bool]:
    """Return the id of the resource, and True if `create` made it in this call.

    `create` returns the id; it runs in one transaction with the key's row. `lock` comes before the
    key is looked up: where it lets one request in at a time, the second of two simultaneous ones
    finds the first one's key, and `create` does not judge it by what the first one changed. Without
    it the second gets the id that the first one stored. Raises InvalidRequest if the key was used
    with another body, and what `create` and `lock` raise.
    """
    try:
        with database.write() as session:
            lock(session)
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
