"""Where the API or a worker can be held."""

import contextlib
import itertools
import os
import threading
from pathlib import Path
from typing import Any

from sitecustomize import reach, seen, told_by, wraps


@wraps("service.store.jobs", "has_queued")
def before_look(has_queued: Any) -> Any:
    """A worker without a job is about to look for one."""

    def held(*args: Any) -> Any:
        reach("before_look")
        return has_queued(*args)

    return held


@wraps("service.store.jobs", "claim_next")
def before_claim(claim_next: Any) -> Any:
    """A worker has seen that a job waits and is about to claim it."""

    def held(*args: Any) -> Any:
        reach("before_claim")
        return claim_next(*args)

    return held


@wraps("service.queue.celery_app", "notify")
def before_notify(notify: Any) -> Any:
    """A job is queued and committed, the queue message is not sent."""

    def held(*args: Any) -> Any:
        if threading.current_thread().name != "sweep":
            reach("before_notify")
        return notify(*args)

    return held


@wraps("service.store.program_events", "ship")
def before_record(ship: Any) -> Any:
    """Files of a checkpoint or a merged model are in the store, the rows that make them visible are
    not written.
    """

    def held(session: Any, claim: Any, lines: Any) -> Any:
        for line in lines:
            if line.type in ("checkpoint", "merged"):
                facts = {"step": line.step} if line.type == "checkpoint" else {"merged": True}
                session.info["facts"] = facts
                reach("before_record", **facts)
        return ship(session, claim, lines)

    return held


@wraps("service.store.events", "append")
def mid_transaction(append: Any) -> Any:
    """They are about to be recorded: the transaction has begun and holds the job's row."""

    def held(session: Any, *args: Any) -> Any:
        if "facts" in session.info:
            reach("mid_transaction", **session.info["facts"])
        return append(session, *args)

    return held


@wraps("service.store.database", "Database.write")
def answer_lost(write: Any) -> Any:
    """They are recorded and committed, but whoever recorded them does not hear of it."""

    @contextlib.contextmanager
    def deaf(self: Any) -> Any:
        with write(self) as session:
            yield session
        if "facts" in session.info and reach("answer_lost", **session.info["facts"]):
            from service.domain.errors import Unavailable

            raise Unavailable("the answer to a commit was lost (a test says so)")

    return deaf


@wraps("service.store.runs", "lock")
def before_lock(lock: Any) -> Any:
    """Something is requested of a run: it exists, and is not locked."""

    def held(*args: Any) -> None:
        reach("before_lock")
        lock(*args)

    return held


@wraps("service.store.idempotency", "remember")
def before_commit(remember: Any) -> Any:
    """Something is made on a run that is locked, and not committed."""

    def held(*args: Any) -> None:
        remember(*args)
        reach("before_commit")

    return held


# -- a file on its way into the store --------------------------------------------------------------


@wraps("service.artifacts.store", "ArtifactStore.put_file")
def before_upload(put: Any) -> Any:
    """Nothing of a checkpoint's or merged model's file is in the store."""

    def held(self: Any, source: Path, key: str, *args: Any, **kwargs: Any) -> Any:
        if facts := told_by(key):
            reach("before_upload", **facts)
        return put(self, source, key, *args, **kwargs)

    return held


@wraps("service.artifacts.directory", "copy")
def mid_upload(copy: Any) -> Any:
    """Some of it is in the store, under another name; or all of it is (`uploaded_aside`)."""

    def held(reader: Any, writer: Any, *args: Any, **kwargs: Any) -> Any:
        name = str(writer.name)
        facts = told_by(name) if name.endswith(".part") else {}
        if not facts:
            return copy(reader, writer, *args, **kwargs)
        writer.write(b"half a file")
        writer.flush()
        reach("mid_upload", **facts)
        writer.seek(0)
        copied = copy(reader, writer, *args, **kwargs)
        writer.flush()
        reach("uploaded_aside", **facts)
        return copied

    return held


@wraps("botocore.client", "BaseClient._make_api_call")
def mid_multipart(call: Any) -> Any:
    """An upload in parts is begun, has its first part, has all of them and is not complete."""

    def held(self: Any, operation: str, params: Any) -> Any:
        facts = told_by(params.get("Key", ""))
        if facts and operation == "CompleteMultipartUpload":
            reach("before_complete", **facts)
        answer = call(self, operation, params)
        if facts and operation == "CreateMultipartUpload":
            reach("upload_begun", **facts)
        if facts and operation == "UploadPart" and params["PartNumber"] == 1:
            reach("part_sent", **facts)
        return answer

    return held


@wraps("service.artifacts.bucket", "PART")
def small_parts(part: int) -> int:
    """Files of a few thousand bytes have several parts, where the S3 server takes such."""
    return int(os.environ.get("PART_BYTES", part))


# -- a run's deletion ------------------------------------------------------------------------------


@wraps("service.store.retention", "begin_delete_merge")
@wraps("service.store.retention", "begin_delete")
def hiding(begin: Any) -> Any:
    """A run or a merged model is hidden, and that is not committed."""

    def held(*args: Any) -> Any:
        found = begin(*args)
        reach("hiding")
        return found

    return held


@wraps("service.artifacts.directory", "Directory.remove_tree")
def mid_removal(remove: Any) -> Any:
    """It is hidden and all its files are there (`before_removal`); or one of them is gone."""

    def held(self: Any, prefix: str) -> None:
        reach("before_removal")
        own, unlink, removed = threading.get_ident(), os.unlink, itertools.count()

        def counted(*args: Any, **kwargs: Any) -> None:
            if threading.get_ident() == own and next(removed) == 1:
                reach("mid_removal")
            unlink(*args, **kwargs)

        os.unlink = counted
        try:
            remove(self, prefix)
        finally:
            os.unlink = unlink

    return held


@wraps("service.store.retention", "finish_delete_merge")
@wraps("service.store.retention", "finish_delete")
def mid_rows(finish: Any) -> Any:
    """Its files are gone and its rows are not (`before_rows`); or that is not committed."""

    def held(*args: Any) -> None:
        reach("before_rows")
        finish(*args)
        reach("rows_gone")

    return held


@wraps("service.usecases.retention", "delete_merge")
@wraps("service.usecases.retention", "delete_run")
def deleted(delete: Any) -> Any:
    """All of it is gone, and the client does not know it yet."""

    def held(*args: Any, **kwargs: Any) -> None:
        delete(*args, **kwargs)
        reach("deleted")

    return held


# -- a worker --------------------------------------------------------------------------------------


@wraps("worker.supervision.supervisor", "Supervisor._finish")
def after_end(finish: Any) -> Any:
    """The program has ended well, its supervisor is about to record that."""

    def held(self: Any, status: int, *args: Any) -> Any:
        if status == 0:
            reach("after_end")
        return finish(self, status, *args)

    return held


@wraps("worker.tasks", "make_worker")
def worker_terminated(make_worker: Any) -> Any:
    """Notes that the worker knows that it is to stop."""

    def made(*args: Any, **kwargs: Any) -> Any:
        from celery import signals

        worker = make_worker(*args, **kwargs)
        # After the product's own receiver: they are called in the order in which they connected.
        signals.worker_shutting_down.connect(lambda **_: seen("worker_terminated"), weak=False)
        return worker

    return made
