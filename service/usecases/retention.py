"""Use cases: delete a run or a merged model, refuse new runs past the quota, find garbage and
remove it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import structlog
from sqlmodel import Session

from service.artifacts import ArtifactStore, Entry
from service.domain.errors import Conflict, NotFound, QuotaExceeded, Unavailable
from service.domain.job_kinds import MERGE
from service.store import retention
from service.store import runs as rows
from service.store.database import Database
from service.store.retention import FileRow
from service.store.tables import Job

log = structlog.get_logger()

_OURS = ("runs", "datasets")
"""What is looked through: a bucket's prefix may hold what others keep there."""


def delete_run(
    database: Database, store: ArtifactStore, run_id: str, *, by: str | None = None
) -> None:
    """Remove a run's files, then its rows. Cut short, it is hidden, and the next call goes on.

    Raises NotFound, Conflict while a job of it is running or it has a name, and Unavailable.
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
    """Remove the files of a merge, its log's too, then their rows.

    Cut short, it is hidden, and the next call goes on. Raises NotFound, Conflict while it or a job
    that uses its model waits or runs, and Unavailable.
    """
    with database.write() as session:
        rows.get_run(session, run_id)
        job = retention.begin_delete_merge(session, run_id, merge, by)
    _remove_tree(store, f"runs/{run_id}/{job.id}")
    with database.write() as session:
        retention.finish_delete_merge(session, job)
    log.info("merged model deleted", run_id=run_id, job_id=job.id, by=by)


def _remove_tree(store: ArtifactStore, prefix: str) -> None:
    try:
        store.remove_tree(prefix)
    except OSError as error:
        raise Unavailable("the artifact store cannot be reached or written", error) from error


def check_quota(session: Session, quota: int) -> None:
    """Raise QuotaExceeded where the store's files take `quota` bytes (0: any) or more."""
    if quota and (used := retention.used_bytes(session)) >= quota:
        raise QuotaExceeded(
            f"the artifact store holds {used} bytes and its quota is {quota}: delete runs "
            "(DELETE /v1/runs/{id}), or raise FAIRTUNE_STORE_QUOTA_BYTES"
        )


class Garbage(NamedTuple):
    half_deleted: list[str]
    """Runs whose deletion was cut short."""
    half_deleted_merges: list[Job]
    unknown: list[Entry]
    """Files that no row names, and halves of files that nobody writes any more."""
    lost: list[FileRow]
    """Rows whose files are gone."""

    def __bool__(self) -> bool:
        return any(self)


def look(database: Database, store: ArtifactStore, older_than: float) -> Garbage:
    """What could be removed, and touch nothing.

    Files younger than `older_than` seconds are passed over, since they are stored before their
    rows; so is what belongs to a job that a worker has. Raises Unavailable, OSError, and Conflict
    where the store looks like the wrong one.
    """
    # The store first: whatever is stored while we look has its row by the time those are read, or
    # is young.
    there = {(one.key, one.half): one for one in _entries(store)}
    with database.read() as session:
        rows = retention.file_rows(session)
        half = retention.unfinished_deletions(session)
        merges = retention.unfinished_merge_deletions(session)
        busy, prefixes = retention.running_jobs(session)
    whole = {key for key, part in there if part is None}
    known = {key for row in rows for key in row.keys}
    if known and not known & whole:
        raise Conflict(
            f"the artifact store holds none of the {len(known)} files that the database names: is "
            "FAIRTUNE_ARTIFACTS_URL the right one?"
        )
    going = (
        *(f"runs/{run_id}/" for run_id in half),
        *(f"runs/{job.run_id}/{job.id}/" for job in merges),
    )
    youngest = datetime.now(UTC) - timedelta(seconds=older_than)
    unknown = [
        one
        for one in there.values()
        if (one.half is not None or one.key not in known)
        and one.modified < youngest
        and not one.key.startswith(tuple(prefixes))
        and not one.key.startswith(going)
    ]
    lost = [
        row
        for row in rows
        if row.run_id not in busy
        and not any(key.startswith(going) for key in row.keys)
        and not whole.issuperset(row.keys)
        and _is_lost(store, row)
    ]
    return Garbage(half, merges, unknown, lost)


def collect(database: Database, store: ArtifactStore, garbage: Garbage) -> None:
    """Remove what `look` found and still is garbage. May be repeated.

    Rows of datasets stay, since runs refer to them. Raises Unavailable, OSError.
    """
    for run_id in garbage.half_deleted:
        try:
            delete_run(database, store, run_id)
        except (NotFound, Conflict) as error:  # somebody was faster, or a job of it still runs
            log.warning("run not deleted", run_id=run_id, why=error.detail)
    for job in garbage.half_deleted_merges:
        try:
            delete_merge(database, store, job.run_id, MERGE.result_id(job.id))
        except (NotFound, Conflict) as error:  # the same; or its run is being deleted
            log.warning("merged model not deleted", job_id=job.id, why=error.detail)
    with database.read() as session:
        known = {key for row in retention.file_rows(session) for key in row.keys}
    store.remove([one for one in garbage.unknown if one.half or one.key not in known])
    lost = [row for row in garbage.lost if _is_lost(store, row)]
    with database.write() as session:
        retention.delete_rows(session, lost)


def _entries(store: ArtifactStore) -> Iterator[Entry]:
    for folder in _OURS:
        yield from store.entries(folder)


def _is_lost(store: ArtifactStore, row: FileRow) -> bool:
    for key in row.keys:
        try:
            store.stat(key)
        except NotFound:
            return True
    return False
