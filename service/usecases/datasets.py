"""Use case: an upload becomes a dataset, which never changes afterwards."""

import hashlib
import tempfile
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.exc import IntegrityError

from service.context import Context
from service.datasets.build import build
from service.datasets.mapping import Mapping
from service.datasets.problems import OnInvalid
from service.domain.errors import InvalidRequest
from service.domain.ids import new_id
from service.store import datasets as dataset_store
from service.store import idempotency
from service.store.idempotency import IdempotencyKey
from service.store.tables import DEFAULT_PROJECT, Dataset


def fingerprint(fields: AnyMapping[str, str | None], files: AnyMapping[str, BinaryIO]) -> str:
    """SHA-256 of a multipart request's meaning; leaves every file at its start."""
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
    """Check the name and the files, store their rows, and return the dataset and if it is new.

    The file is in the store before its row is: a crash between the two leaves a blob that the
    same rows will use again. Raises InvalidRequest; then nothing is left behind.
    """
    if not name.strip() or not name.isprintable():
        raise InvalidRequest.at("/name", "the name is blank or contains unprintable characters")
    with context.database.read() as session:
        known = idempotency.recall(session, key)
        if known is not None:
            return dataset_store.get_dataset(session, known), False
    with tempfile.TemporaryDirectory(prefix="fairtune-upload-") as folder:
        built = build(
            files, Path(folder), file_format=file_format, mapping=mapping, on_invalid=on_invalid
        )
        blob = f"datasets/{built.content_hash}.parquet"
        with context.database.read() as session:
            shared = dataset_store.names_blob(session, blob)
        # A blob that no row names is stored anew: it may be about to be removed for its age.
        if not (shared and context.store.exists(blob)):
            stored = context.store.put_file(built.path, blob)
            if stored.sha256 != built.content_hash:
                raise RuntimeError(f"{blob} changed while it was stored: {stored.sha256}")
        size = built.path.stat().st_size
    dataset = Dataset(
        id=new_id("ds"),
        project_id=DEFAULT_PROJECT,
        name=name,
        content_hash=built.content_hash,
        key=blob,
        size=size,
        stats=built.stats.model_dump(mode="json"),
        warnings=[warning.model_dump(mode="json") for warning in built.warnings],
        dropped=built.dropped.model_dump(mode="json"),
        completions=built.completions or {},
    )
    try:
        with context.database.write() as session:
            session.add(dataset)
            idempotency.remember(session, key, dataset.id)
            session.flush()
            session.refresh(dataset)
    except IntegrityError:
        # The same key at the same time: the other request was first.
        with context.database.read() as session:
            made = idempotency.recall(session, key)
            if made is None:
                raise
            return dataset_store.get_dataset(session, made), False
    return dataset, True
