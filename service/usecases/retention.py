"""Use cases: delete a run or a merged model, enforce the quota, find and remove garbage."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog

from service.artifacts import ArtifactStore, Entry
from service.artifacts.key_set import KeySet
from service.context import Context
from service.domain.errors import Conflict, NotFound, QuotaExceeded, Unavailable
from service.domain.job_kinds import MERGE
from service.domain.wording import count
from service.store import datasets, retention
from service.store import runs as rows
from service.store.database import Database
from service.store.retention import FileRow
from service.store.tables import Dataset, Job

log = structlog.get_logger()

_FOLDERS = ("runs", "datasets")
"""Folders of the store that are searched: a bucket's prefix may contain files of others."""


def delete_run(
    database: Database, store: ArtifactStore, run_id: str, *, by: str | None = None
) -> None:
    """Remove a run's files, then its rows. If interrupted, the run is hidden; repeat the call.

    Raises NotFound, Conflict while one of its jobs runs or it has a name, and Unavailable.
    """
    with database.write() as session:
        retention.begin_delete(session, run_id, by)
    _remove_tree(store, f"runs/{run_id}")
    with database.write() as session:
        retention.finish_delete(session, run_id)
    log.info("run deleted", run_id=run_id, by=by)


def delete_merge(
    database: Database,
    store: ArtifactStore,
    run_id: str,
    merge: str,
    *,
    by: str | None = None,
) -> None:
    """Remove the files of a merge, its log included, then their rows.

    If interrupted, the merge is hidden; repeat the call. Raises NotFound, Conflict while it or a
    job that uses its model waits or runs, and Unavailable.
    """
    with database.write() as session:
        rows.get_run(session, run_id)
        job = retention.begin_delete_merge(session, run_id, merge, by)
    _remove_tree(store, f"runs/{run_id}/{job.id}")
    with database.write() as session:
        retention.finish_delete_merge(session, job)
    log.info("merged model deleted", run_id=run_id, job_id=job.id, by=by)


def delete_dataset(
    database: Database, store: ArtifactStore, dataset_id: str, *, by: str | None = None
) -> None:
    """Remove a dataset's file, unless another dataset has the same rows, then its row.

    If interrupted, the dataset is hidden; repeat the call. Raises NotFound, Conflict while a run or
    an evaluation uses it, and Unavailable.
    """
    with database.write() as session:
        key = retention.begin_delete_dataset(session, dataset_id).key
    with database.read() as session:
        # No dataset can begin to share the file from here on: see usecases.datasets.
        is_shared = datasets.names_blob(session, key)
    if not is_shared:
        _remove_file(store, key)
    with database.write() as session:
        retention.finish_delete_dataset(session, dataset_id)
    log.info("dataset deleted", dataset_id=dataset_id, by=by)


def _remove_file(store: ArtifactStore, key: str) -> None:
    try:
        store.check()  # so that a file of a store that is not mounted does not count as removed
        store.remove([store.stat(key)])
    except NotFound:
        return  # by an earlier call that was interrupted
    except OSError as error:
        raise Unavailable("the artifact store cannot be reached or written", error) from error


def _remove_tree(store: ArtifactStore, prefix: str) -> None:
    try:
        store.remove_tree(prefix)
    except OSError as error:
        raise Unavailable("the artifact store cannot be reached or written", error) from error


def check_quota(context: Context) -> None:
    """Raise QuotaExceeded if the store's files take as much as the quota (0: no limit) or more."""
    quota = context.settings.store_quota_bytes
    if not quota or context.used_bytes.value() < quota:
        return
    used = context.used_bytes.value(prefer_fresh=True)  # files may have been deleted
    if used >= quota:
        raise QuotaExceeded(
            f"the artifact store holds {used} bytes and its quota is {quota}: delete runs "
            "(DELETE /v1/runs/{id}), or raise FAIRTUNE_STORE_QUOTA_BYTES"
        )


class Garbage(NamedTuple):
    half_deleted: list[str]
    """Runs whose deletion was interrupted."""
    half_deleted_merges: list[Job]
    half_deleted_datasets: list[Dataset]
    unknown: list[Entry]
    """Files that no row names, and abandoned parts of files."""
    lost: list[FileRow]
    """Rows whose files are missing."""

    def __bool__(self) -> bool:
        return any(self)


def look(database: Database, store: ArtifactStore, older_than: float) -> Garbage:
    """Return the garbage without removing it.

    Files younger than `older_than` seconds are skipped, since they are stored before their rows; so
    are those of a running job. Raises Unavailable, OSError, and Conflict if the store seems to be
    the wrong one.
    """
    # The store first: a file that is stored meanwhile has its row by the time rows are read, or is
    # young. Of keys only digests are in memory, so that the store is read twice.
    stored = KeySet(entry.key for entry in _entries(store) if entry.half is None)
    recorded = KeySet()
    candidates = []
    is_this_store = False
    with database.read() as session:
        for row in retention.file_rows(session):
            present = [key in stored for key in row.keys]
            is_this_store = is_this_store or any(present)
            for key in row.keys:
                recorded.add(key)
            if not all(present):
                candidates.append(row)
        half = retention.unfinished_deletions(session)
        merges = retention.unfinished_merge_deletions(session)
        half_datasets = retention.unfinished_dataset_deletions(session)
        busy, prefixes = retention.running_jobs(session)
    if len(recorded) and not is_this_store:
        raise Conflict(
            f"the artifact store contains none of the {count(len(recorded), 'file')} that the "
            "database names: check FAIRTUNE_ARTIFACTS_URL"
        )
    being_deleted = (
        *(f"runs/{run_id}/" for run_id in half),
        *(f"runs/{job.run_id}/{job.id}/" for job in merges),
        *(dataset.key for dataset in half_datasets),
    )
    youngest = datetime.now(UTC) - timedelta(seconds=older_than)
    unknown = [
        entry
        for entry in _entries(store)
        if (entry.half is not None or (entry.key in stored and entry.key not in recorded))
        and entry.modified < youngest
        and not entry.key.startswith(tuple(prefixes))
        and not entry.key.startswith(being_deleted)
    ]
    lost = [
        row
        for row in candidates
        if row.run_id not in busy
        and not any(key.startswith(being_deleted) for key in row.keys)
        and _is_lost(store, row)
    ]
    return Garbage(half, merges, half_datasets, unknown, lost)


def collect(database: Database, store: ArtifactStore, garbage: Garbage) -> None:
    """Remove what `look` returned and is still garbage. May be repeated.

    Rows of datasets stay, since runs refer to them. Raises Unavailable, OSError.
    """
    for run_id in garbage.half_deleted:
        try:
            delete_run(database, store, run_id)
        except (NotFound, Conflict) as error:  # deleted meanwhile, or one of its jobs still runs
            log.warning("run not deleted", run_id=run_id, why=error.detail)
    for job in garbage.half_deleted_merges:
        try:
            delete_merge(database, store, job.run_id, MERGE.result_id(job.id))
        except (NotFound, Conflict) as error:  # the same, or its run is being deleted
            log.warning("merged model not deleted", job_id=job.id, why=error.detail)
    for dataset in garbage.half_deleted_datasets:
        try:
            delete_dataset(database, store, dataset.id)
        except (NotFound, Conflict) as error:  # deleted meanwhile
            log.warning("dataset not deleted", dataset_id=dataset.id, why=error.detail)
    with database.read() as session:
        recorded = KeySet(key for row in retention.file_rows(session) for key in row.keys)
    store.remove([entry for entry in garbage.unknown if entry.half or entry.key not in recorded])
    lost = [row for row in garbage.lost if _is_lost(store, row)]
    with database.write() as session:
        retention.delete_rows(session, lost)


def _entries(store: ArtifactStore) -> Iterator[Entry]:
    for folder in _FOLDERS:
        yield from store.entries(folder)


def _is_lost(store: ArtifactStore, row: FileRow) -> bool:
    for key in row.keys:
        try:
            store.stat(key)
        except NotFound:
            return True
    return False
