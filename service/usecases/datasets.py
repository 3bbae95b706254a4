"""Use case: create a dataset from an upload; a dataset is immutable."""

import contextlib
import hashlib
from collections.abc import Mapping as AnyMapping
from typing import BinaryIO

from sqlmodel import Session

from service.artifacts.temporary import UPLOADS, temporary_folder
from service.context import Context
from service.datasets.build import BuiltDataset, build
from service.datasets.mapping import Mapping
from service.datasets.problems import OnInvalid
from service.domain.errors import InvalidRequest, NotFound
from service.domain.ids import new_id
from service.ops.capacity_limiter import CapacityLimiter
from service.store import datasets as dataset_store
from service.store import idempotency, projects
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Dataset
from service.usecases.create_once import create_once

# An upload takes a core for its whole duration. Those of scripts that send many at once must not
# take all threads, on which every other request runs.
LIMITER = CapacityLimiter("uploads", at_once=2, waiting=6, seconds=60)


def fingerprint(fields: AnyMapping[str, str | None], files: AnyMapping[str, BinaryIO]) -> str:
    """Return the SHA-256 of a multipart request's content; leave every file at its start."""
    digest = hashlib.sha256(repr(sorted(fields.items())).encode())
    for name, file in sorted(files.items()):
        digest.update(f"\n{name}\n".encode())
        part = hashlib.sha256()
        while chunk := file.read(1 << 20):
            part.update(chunk)
        digest.update(part.digest())
        file.seek(0)
    return digest.hexdigest()


def create(
    context: Context,
    name: str,
    files: AnyMapping[str, BinaryIO],
    *,
    file_format: str,
    mapping: Mapping,
    on_invalid: OnInvalid,
    key: IdempotencyKey | None,
) -> tuple[Dataset, bool]:
    """Check the name and the files, and store the rows. Returns the dataset, and True if it is new.

    The file is stored before its database row: a crash in between leaves a blob that `fairtune gc`
    removes. Raises InvalidRequest and Busy; then nothing is left behind.
    """
    if not name.strip() or not name.isprintable():
        raise InvalidRequest.at("/name", "the name is blank or contains unprintable characters")
    with context.database.read() as session:
        existing = idempotency.recall(session, key)
        if existing is not None:
            return dataset_store.get_dataset(session, existing), False
    with LIMITER.acquire(), temporary_folder(UPLOADS) as folder:
        built = build(
            files,
            folder,
            file_format=file_format,
            mapping=mapping,
            on_invalid=on_invalid,
            max_file_bytes=context.settings.max_upload_bytes,
        )
        dataset_id, is_new = store_built(context, name, built, key)
    with context.database.read() as session:
        return dataset_store.get_dataset(session, dataset_id), is_new


class _NotShared(Exception):
    """No dataset names that file any more, or one that does is being deleted."""


def store_built(
    context: Context, name: str, built: BuiltDataset, key: IdempotencyKey | None
) -> tuple[str, bool]:
    """Store the rows and then the dataset; return its id, and True if it is new.

    It shares the file of a dataset with the same rows. Otherwise its key is new: a deletion that
    stalls, and removes its file late, cannot remove one that was stored since.
    """
    dataset_id = new_id("ds")
    with context.database.read() as session:
        shared = dataset_store.blob_of(session, built.content_hash)
    if shared is not None:
        with contextlib.suppress(_NotShared):
            created = _insert(context, name, built, key, dataset_id, shared, is_shared=True)
            # It may have been lost. No deletion can remove it from here on.
            if created[1] and not context.store.exists(shared):
                _put(context, built, shared)
            return created
    blob = f"datasets/{built.content_hash}-{dataset_id}.parquet"
    _put(context, built, blob)
    try:
        created = _insert(context, name, built, key, dataset_id, blob, is_shared=False)
    except InvalidRequest:
        _discard(context, blob)
        raise
    if not created[1]:
        _discard(context, blob)
    return created


def _insert(
    context: Context,
    name: str,
    built: BuiltDataset,
    key: IdempotencyKey | None,
    dataset_id: str,
    blob: str,
    *,
    is_shared: bool,
) -> tuple[str, bool]:
    """Insert the dataset, with its rows under the key `blob`. Raises _NotShared."""
    dataset = Dataset(
        id=dataset_id,
        project_id=DEFAULT_PROJECT,
        name=name,
        content_hash=built.content_hash,
        key=blob,
        size=built.path.stat().st_size,
        stats=built.stats.model_dump(mode="json"),
        warnings=[warning.model_dump(mode="json") for warning in built.warnings],
        dropped=built.dropped.model_dump(mode="json"),
        completions=built.completions or {},
    )

    def insert(session: Session) -> str:
        projects.lock(session)  # a deletion decides under it whether the file is shared
        if is_shared and (
            dataset_store.removes_blob(session, blob) or not dataset_store.names_blob(session, blob)
        ):
            raise _NotShared
        session.add(dataset)
        return dataset.id

    return create_once(context.database, key, insert)


def _discard(context: Context, blob: str) -> None:
    with contextlib.suppress(OSError, NotFound):  # then `fairtune gc` removes it
        context.store.remove([context.store.stat(blob)])


def _put(context: Context, built: BuiltDataset, blob: str) -> None:
    stored = context.store.put_file(built.path, blob)
    if stored.sha256 != built.content_hash:
        raise RuntimeError(f"{blob} changed while it was stored: {stored.sha256}")
