"""Carries a program's events to the database and its files to the store, in order, each once."""

import errno
import json
import shutil
import threading
import time
from pathlib import Path, PurePosixPath
from typing import Literal

import structlog
from pydantic import ValidationError

from service.artifacts import ArtifactStore, Stored
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
from service.domain.job import EVENTS_FILE, LOG_FILE
from service.domain.states import Phase
from service.observability import request_context
from service.store import jobs, program_events
from service.store.database import Database
from service.store.jobs import Claim
from worker.supervision.transfer_progress import TransferProgress

log = structlog.get_logger()

_BATCH = 200
_LOG_SECONDS = 5.0
_BATCHES: dict[Phase, Literal["train", "eval"]] = {
    Phase.BASELINE: "eval",
    Phase.TRAINING: "train",
    Phase.EVALUATING: "eval",
}


class StorageUnavailable(Unavailable):
    """The artifact store, or the disk of the job directories, cannot be read or written now."""

    def __init__(self, where: str, error: OSError) -> None:
        super().__init__(where, error)
        self.is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)


class EventShipper:
    """Invariant: a line is recorded only after the files that it names are in the store."""

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        claim: Claim,
        directory: Path,
        movement: TransferProgress,
    ) -> None:
        self.database = database
        self.store = store
        self.claim = claim
        self.directory = directory
        self.movement = movement
        self.prefix = program_events.prefix_of(claim)
        self.failure: FailureEvent | None = None
        self.batch_at_work: Literal["train", "eval"] | None = None
        """Whose rows the program was working on when it was last heard; None while it loads."""
        self._offset = 0
        self._pending: list[ProgramEvent] = []
        self._uploaded = 0  # the last seq whose files are in the store
        self._there: set[str] = set()
        """Those of the next seq's files that are: a failure does not begin them all anew."""
        self._log_size = -1
        self._logs: list[int] = []
        """Sizes under which the log lies in the store, oldest first."""

    def ship(self) -> None:
        """Send what was said since the last call. Raises Unavailable (call again) or Fenced."""
        self._read()
        while self._pending:
            batch = self._pending[:_BATCH]
            for line in batch:
                if line.seq > self._uploaded:
                    self._upload(line)
                    self._uploaded = line.seq
                    self._there.clear()
            with self.database.write() as session:
                dropped = program_events.ship(session, self.claim, batch)
                kept = program_events.steps_of(session, self.claim.run_id)
            del self._pending[: len(batch)]
            for one in dropped:  # after the commit: no row may name files that are gone
                self.store.delete_tree(one.prefix)
            saved = [line.step for line in batch if isinstance(line, CheckpointEvent)]
            steps = {*saved, *(one.step for one in dropped if one.step is not None)}
            for step in steps - kept:
                # Nothing at a later step: having gone back, the program may just be writing that.
                if step < max(saved, default=0):
                    place = self.directory / "checkpoints" / f"checkpoint-{step}"
                    shutil.rmtree(place, ignore_errors=True)

    def ship_log(self) -> None:
        """Put the log, as far as it has come, into the store. Raises Unavailable, Fenced."""
        path = self.directory / LOG_FILE
        if not path.exists() or path.stat().st_size == self._log_size:
            return
        size = path.stat().st_size  # the program goes on writing
        # It only grows, so its size tells its content: a file that a row names never changes.
        shown = self.claim.kind.log_path(self.claim.job_id)
        place = f"log/{size}/{PurePosixPath(shown).name}"
        try:
            key = f"{self.prefix}/{place}"
            stored = self.store.put_file(path, key, size, self.movement.track(key))
        except OSError as error:
            raise StorageUnavailable("the artifact store", error) from error
        entry = FileEntry(path=shown, size=stored.size, sha256=stored.sha256)
        with self.database.write() as session:
            jobs.hold(session, self.claim)
            program_events.put_artifact(session, self.claim, entry, place)
        self._log_size = size
        # The one before stays for those who have just read its row; `tidy` removes it at the end.
        self._logs.append(size)
        for old in self._logs[:-2]:
            self.store.delete_tree(f"{self.prefix}/log/{old}")
        del self._logs[:-2]

    def tidy(self) -> None:
        """Remove the files of this attempt and earlier ones that no row names.

        Before its outcome is recorded, after which nobody may come any more: what was replaced.
        After it: what could not be recorded. Nothing may be uploaded meanwhile. Raises Unavailable.
        """
        self._tidy(self.claim.token)

    def tidy_before(self) -> None:
        """The same for earlier attempts alone: what a killed worker left.

        It may take its time, or hang and come back: what this attempt stores is not looked at.
        """
        self._tidy(self.claim.token - 1)

    def _tidy(self, token: int) -> None:
        claim = self.claim
        with self.database.read() as session:
            kept = program_events.keys_of(session, claim.run_id)
        for prefix in program_events.prefixes_up_to(claim.run_id, claim.job_id, token):
            self.store.tidy(prefix, kept)

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of the log, in one."""
        path = self.directory / LOG_FILE
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
        whole = "".join(sign for sign in text if sign.isprintable() or sign == "\n")
        last = (_said(line.strip()) for line in whole.split("\n")[-lines:])
        return " | ".join(line for line in last if line)

    def _read(self) -> None:
        """Take the whole lines that were added to events.jsonl."""
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
                message = f"events.jsonl holds a line that is no event: {error}"
                raise RuntimeError(message) from error
            self._pending.append(line)
            match line:
                case FailureEvent():
                    self.failure = line
                case PhaseEvent():
                    self.batch_at_work = _BATCHES.get(line.phase)
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
        if path in self._there:
            return
        source = self.directory / path
        if not source.is_file():
            # The program's fault, and no wait will mend it.
            raise RuntimeError(f"the program named the file {path}, which is not there")
        try:
            key = f"{self.prefix}/{path}"
            stored = self.store.put_file(source, key, moved=self.movement.track(key))
        except OSError as error:
            raise StorageUnavailable("the artifact store", error) from error
        if stored != Stored(entry.size, entry.sha256):
            raise RuntimeError(f"the file {path} has changed since the program announced it")
        self._there.add(path)


def _said(line: str) -> str:
    """What a line of training.log says; of one in JSON only that, without its ids."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict) or "event" not in fields:
        return line
    raised = str(fields.get("exception", "")).strip().rpartition("\n")[2]
    return f"{fields['event']}: {raised}" if raised else str(fields["event"])


class ShippingThread:
    """Ships while a program runs: neither a slow store nor a slow database keeps the supervisor
    from hearing a stop.
    """

    def __init__(self, shipper: EventShipper, poll_seconds: float) -> None:
        self._shipper = shipper
        self._poll_seconds = poll_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=request_context.carried(self._run), name="shipping", daemon=True
        )
        self.error: Exception | None = None
        """What ended it before its time: the supervisor must end the attempt for it."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ship no more. `join` waits for what is being uploaded."""
        self._ended.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        log_at = 0.0
        away = 0
        while not self._ended.wait(min(self._poll_seconds * 2**away, 10.0)):
            try:
                self._shipper.ship()
                if time.monotonic() - log_at > _LOG_SECONDS:
                    log_at = time.monotonic()
                    self._shipper.ship_log()
            except Unavailable as error:
                # The program trains on meanwhile; its lines wait in events.jsonl.
                away = min(away + 1, 8)
                log.warning("not shipped yet", error=error.detail)
            except Exception as error:  # noqa: BLE001 - raised again by the supervisor
                self.error = error
                return
            else:
                away = 0
