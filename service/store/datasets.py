"""Rows of datasets."""

from sqlmodel import Session, col, select

from service.domain.errors import NotFound
from service.store.tables import (
    DEFAULT_PROJECT,
    Dataset,
)


def get_dataset(session: Session, dataset_id: str) -> Dataset:
    """Raises NotFound."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.project_id != DEFAULT_PROJECT or dataset.deleted_at is not None:
        raise NotFound(f"there is no dataset {dataset_id!r}")
    return dataset


def find_dataset(session: Session, name: str, content_hash: str) -> Dataset | None:
    """Return the oldest dataset with this name and content; None if there is none."""
    statement = select(Dataset).where(
        Dataset.project_id == DEFAULT_PROJECT,
        Dataset.content_hash == content_hash,
        Dataset.name == name,
        col(Dataset.deleted_at).is_(None),
    )
    return session.exec(statement.order_by(col(Dataset.id)).limit(1)).first()


def hold(session: Session, dataset_id: str) -> None:
    """Lock a dataset against deletion until the commit. Raises NotFound if that has begun."""
    visible = select(Dataset.id).where(Dataset.id == dataset_id, col(Dataset.deleted_at).is_(None))
    if session.exec(visible.with_for_update(read=True, key_share=True)).one_or_none() is None:
        raise NotFound(f"there is no dataset {dataset_id!r}")


def blob_of(session: Session, content_hash: str) -> str | None:
    """Return the key of the newest dataset with these rows that is not being deleted."""
    same = select(Dataset.key).where(
        Dataset.content_hash == content_hash, col(Dataset.deleted_at).is_(None)
    )
    return session.exec(same.order_by(col(Dataset.id).desc()).limit(1)).first()


def names_blob(session: Session, key: str) -> bool:
    """Return True if a dataset's rows are stored under `key`, and it is not being deleted."""
    named = select(Dataset.id).where(Dataset.key == key, col(Dataset.deleted_at).is_(None))
    return session.exec(named.limit(1)).first() is not None


def removes_blob(session: Session, key: str) -> bool:
    """Return True if a dataset whose rows are stored under `key` is being deleted."""
    named = select(Dataset.id).where(Dataset.key == key, col(Dataset.deleted_at).is_not(None))
    return session.exec(named.limit(1)).first() is not None


def list_datasets(session: Session, *, limit: int, after: str | None) -> tuple[list[Dataset], bool]:
    """Return datasets, newest first, and True if there are more."""
    statement = select(Dataset).where(
        Dataset.project_id == DEFAULT_PROJECT, col(Dataset.deleted_at).is_(None)
    )
    if after is not None:
        statement = statement.where(Dataset.id < after)
    rows = list(session.exec(statement.order_by(col(Dataset.id).desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit
