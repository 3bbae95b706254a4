"""Shipping of a program's events to the database and files to the store, in order, each once."""

import json
import shutil
import threading
import time
from pathlib import Path, PurePosixPath

import structlog
from pydantic import ValidationError

from service.artifacts import ArtifactStore, StoredFile
from service.domain.errors import Unavailable
from service.domain.events import (
    ArtifactEvent,
    CheckpointEvent,
    EvaluationEvent,
    FailureEvent,
    FileEntry,
    MergedEvent,
    PhaseEvent,
    PredictionsEvent,
    ProgramEvent,
    program_event,
)
from service.domain.job import EVENTS_FILE, LOG_FILE, checkpoint_path
from service.domain.states import Phase
from service.observability import request_context
from service.store import jobs, program_events
from service.store.database import Database
from service.store.jobs import Claim
from worker.runtime.disk_errors import is_full
from worker.runtime.out_of_memory import Batch
from worker.supervision.transfer_progress import TransferProgress

log = structlog.get_logger()

_MAX_EVENTS_PER_TRANSACTION = 200
_MAX_PAUSE_SECONDS = 10.0
_LOG_SECONDS = 5.0
_BATCH_BY_PHASE: dict[Phase, Batch] = {
    Phase.BASELINE: "eval",
    Phase.TRAINING: "train",
    Phase.EVALUATING: "eval",
}


class StorageUnavailable(Unavailable):
    """The artifact store, or the disk of the job directories, is currently not accessible."""

    def __init__(self, resource: str, error: OSError) -> None:
        super().__init__(resource, error)
        self.is_full = is_full(error)


class EventShipper:
    """Invariant: an event is recorded only when the files that it names are in the store."""

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        claim: Claim,
        directory: Path,
        transfers: TransferProgress,
    ) -> None:
        self.database = database
        self.store = store
        self.claim = claim
        self.directory = directory
        self.transfers = transfers
        self.prefix = program_events.prefix_of(claim)
        self.failure: FailureEvent | None = None
        self.current_batch: Batch | None = None
        """Kind of batch that the program processes, by its last phase; None while it loads."""
        self._offset = 0
        self._pending: list[ProgramEvent] = []
        self._uploaded_seq = 0
        """The last event whose files are in the store."""
        self._uploaded_paths: set[str] = set()
        """Files of the next event that are in the store: a failure does not repeat their upload."""
        self._log_size = -1
        self._logs: list[int] = []
        """Sizes of the log's versions in the store, oldest first."""
        self.has_failed_upload = False
        """True if an upload was given up, which the store may yet complete."""

    def ship(self) -> None:
        """Ship the events since the last call. Raises Unavailable (call again) or Fenced."""
        self._read_events()
        while self._pending:
            batch = self._pending[:_MAX_EVENTS_PER_TRANSACTION]
            for line in batch:
                if line.seq > self._uploaded_seq:
                    self._upload(line)
                    self._uploaded_seq = line.seq
                    self._uploaded_paths.clear()
            with self.database.write() as session:
                dropped = program_events.ship(session, self.claim, batch)
                recorded_steps = program_events.steps_of(session, self.claim.run_id)
            del self._pending[: len(batch)]
            for tree in dropped:  # after the commit: no row may name files that are gone
                self.store.delete_tree(tree.prefix)
            saved_steps = [line.step for line in batch if isinstance(line, CheckpointEvent)]
            dropped_steps = [tree.step for tree in dropped if tree.step is not None]
            for step in {*saved_steps, *dropped_steps} - recorded_steps:
                # Not a later step: after a rewind the program may be writing it just now.
                if step < max(saved_steps, default=0):
                    shutil.rmtree(self.directory / checkpoint_path(step), ignore_errors=True)

    def ship_log(self) -> None:
        """Store the log as written so far. Raises Unavailable, Fenced."""
        path = self.directory / LOG_FILE
        if not path.exists() or path.stat().st_size == self._log_size:
            return
        size = path.stat().st_size  # the program continues to write
        # It only grows, so its size identifies its content: a file that a row names never changes.
        artifact_path = self.claim.kind.log_path(self.claim.job_id)
        stored_path = f"log/{size}/{PurePosixPath(artifact_path).name}"
        try:
            key = f"{self.prefix}/{stored_path}"
            stored = self.store.put_file(path, key, size, self.transfers.track(key))
        except OSError as error:
            self.has_failed_upload = True
            raise StorageUnavailable("the artifact store", error) from error
        entry = FileEntry(path=artifact_path, size=stored.size, sha256=stored.sha256)
        with self.database.write() as session:
            jobs.lock_for_worker(session, self.claim)
            program_events.put_artifact(session, self.claim, entry, stored_path)
        self._log_size = size
        # The version before remains for readers of its row; `remove_orphans` removes it at the end.
        self._logs.append(size)
        for old in self._logs[:-2]:
            self.store.delete_tree(f"{self.prefix}/log/{old}")
        del self._logs[:-2]

    def remove_orphans(self) -> None:
        """Remove the files of this attempt and earlier ones that no row names.

        Before the outcome is recorded, which may end the run: files that were replaced. Nothing may
        be uploaded meanwhile. Raises Unavailable.
        """
        claim = self.claim
        with self.database.read() as session:
            recorded = program_events.keys_of(session, claim.run_id)
        try:
            for prefix in program_events.prefixes_up_to(claim.run_id, claim.job_id, claim.token):
                self.store.remove_except(prefix, recorded)
        except OSError as error:
            raise StorageUnavailable("the artifact store", error) from error

    def log_tail(self, lines: int) -> str:
        """Return the last `lines` lines of the log as one."""
        path = self.directory / LOG_FILE
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
        whole = "".join(sign for sign in text if sign.isprintable() or sign == "\n")
        last = (_log_message(line.strip()) for line in whole.split("\n")[-lines:])
        return " | ".join(line for line in last if line)

    def _read_events(self) -> None:
        """Read the whole lines that were added to events.jsonl."""
        path = self.directory / EVENTS_FILE
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole, newline, _ = data.rpartition(b"\n")
        if not newline:
            return
        self._offset += len(whole) + 1
        for raw in whole.split(b"\n"):
            try:
                line = program_event.validate_json(raw)
            except ValidationError as error:
                message = f"events.jsonl contains an invalid event: {error}"
                raise RuntimeError(message) from error
            self._pending.append(line)
            match line:
                case FailureEvent():
                    self.failure = line
                case PhaseEvent():
                    self.current_batch = _BATCH_BY_PHASE.get(line.phase)
                case _:
                    pass

    def _upload(self, line: ProgramEvent) -> None:
        match line:
            case CheckpointEvent() | MergedEvent():
                for file in line.files:
                    self._put(f"{line.path}/{file.path}", file)
            case ArtifactEvent() | PredictionsEvent():
                self._put(line.file.path, line.file)
            case EvaluationEvent():
                self._put(line.predictions.path, line.predictions)
            case _:
                pass

    def _put(self, path: str, entry: FileEntry) -> None:
        if path in self._uploaded_paths:
            return
        source = self.directory / path
        if not source.is_file():
            # A fault of the program, which a retry cannot fix.
            raise RuntimeError(f"the program announced the file {path}, which does not exist")
        try:
            key = f"{self.prefix}/{path}"
            stored = self.store.put_file(source, key, moved=self.transfers.track(key))
        except OSError as error:
            self.has_failed_upload = True
            raise StorageUnavailable("the artifact store", error) from error
        if stored != StoredFile(entry.size, entry.sha256):
            raise RuntimeError(f"the file {path} has changed since the program announced it")
        self._uploaded_paths.add(path)


def _log_message(line: str) -> str:
    """Return the message of a line of training.log; of a JSON line without its other fields."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict) or "event" not in fields:
        return line
    exception = str(fields.get("exception", "")).strip().rpartition("\n")[2]
    return f"{fields['event']}: {exception}" if exception else str(fields["event"])


class ShippingThread:
    """Ships while a program runs, so that neither a slow store nor a slow database delays the
    supervisor's reaction to a stop request.
    """

    def __init__(self, shipper: EventShipper, poll_seconds: float) -> None:
        self._shipper = shipper
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=request_context.carried(self._run), name="shipping", daemon=True
        )
        self.error: Exception | None = None
        """The error that ended it early: the supervisor must then end the attempt."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop shipping. `join` waits for the upload in progress."""
        self._ended.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        log_shipped_at = 0.0
        failures = 0
        while not self._ended.wait(min(self._poll_seconds * 2**failures, _MAX_PAUSE_SECONDS)):
            try:
                self._shipper.ship()
                if time.monotonic() - log_shipped_at > _LOG_SECONDS:
                    log_shipped_at = time.monotonic()
                    self._shipper.ship_log()
            except Unavailable as error:
                # The program continues meanwhile; its events wait in events.jsonl.
                failures = min(failures + 1, 8)
                log.warning("not shipped yet", error=error.detail)
            except Exception as error:  # noqa: BLE001 - the supervisor raises it
                self.error = error
                return
            else:
                failures = 0
