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
    if dataset is None or dataset.project_id != DEFAULT_PROJECT:
        raise NotFound(f"there is no dataset {dataset_id!r}")
    return dataset


def names_blob(session: Session, key: str) -> bool:
    """Return True if some dataset's rows are stored under `key`."""
    return session.exec(select(Dataset.id).where(Dataset.key == key)).first() is not None


def list_datasets(session: Session, *, limit: int, after: str | None) -> tuple[list[Dataset], bool]:
    """Return datasets, newest first, and True if there are more."""
    statement = select(Dataset).where(Dataset.project_id == DEFAULT_PROJECT)
    if after is not None:
        statement = statement.where(Dataset.id < after)
    rows = list(session.exec(statement.order_by(col(Dataset.id).desc()).limit(limit + 1)))
    return rows[:limit], len(rows) > limit
