"""Carries a program's events to the database and its files to the store, in order, each once."""

import shutil
from pathlib import Path

from pydantic import ValidationError

from service.artifacts import ArtifactStore
from service.domain.digests import sha256_of
from service.domain.errors import Unavailable
from service.domain.events import (
    ArtifactEvent,
    CheckpointEvent,
    EvaluationEvent,
    FailureEvent,
    FileEntry,
    ProgramEvent,
    program_event,
)
from service.domain.job import EVENTS_FILE, LOG_FILE
from service.store import jobs, shipping
from service.store.database import Database
from service.store.jobs import Claim

_BATCH = 200


class Shipper:
    """Invariant: a line is recorded only after the files that it names are in the store."""

    def __init__(
        self, database: Database, store: ArtifactStore, claim: Claim, directory: Path
    ) -> None:
        self.database = database
        self.store = store
        self.claim = claim
        self.directory = directory
        self.prefix = shipping.prefix_of(claim)
        self.failure: FailureEvent | None = None
        self._offset = 0
        self._pending: list[ProgramEvent] = []
        self._uploaded = 0  # the last seq whose files are in the store
        self._log_size = -1

    def ship(self) -> None:
        """Send what was said since the last call. Raises Unavailable (call again) or Fenced."""
        self._read()
        while self._pending:
            batch = self._pending[:_BATCH]
            for line in batch:
                if line.seq > self._uploaded:
                    self._upload(line)
                    self._uploaded = line.seq
            with self.database.write() as session:
                dropped = shipping.ship(session, self.claim, batch)
            del self._pending[: len(batch)]
            for checkpoint in dropped:  # after the commit: no row may name files that are gone
                self.store.delete_tree(checkpoint.prefix)
                shutil.rmtree(
                    self.directory / "checkpoints" / f"checkpoint-{checkpoint.step}",
                    ignore_errors=True,
                )

    def ship_log(self) -> None:
        """Put training.log, as far as it has come, into the store. Raises Unavailable, Fenced."""
        path = self.directory / LOG_FILE
        if not path.exists() or path.stat().st_size == self._log_size:
            return
        size = path.stat().st_size
        copy = self.directory / f".{LOG_FILE}.shipping"  # the program goes on writing
        try:
            shutil.copyfile(path, copy)
            self.store.put_file(copy, f"{self.prefix}/{LOG_FILE}")
            entry = FileEntry(path=LOG_FILE, size=copy.stat().st_size, sha256=sha256_of(copy))
        except OSError as error:
            raise Unavailable(f"the artifact store: {error}") from error
        finally:
            copy.unlink(missing_ok=True)
        with self.database.write() as session:
            jobs.hold(session, self.claim)
            shipping.put_artifact(session, self.claim, entry)
        self._log_size = size

    def log_tail(self, lines: int) -> str:
        """The last `lines` lines of the log, in one."""
        path = self.directory / LOG_FILE
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            text = file.read().decode("utf-8", "replace")
        return " | ".join(line.strip() for line in text.splitlines()[-lines:] if line.strip())

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
            if isinstance(line, FailureEvent):
                self.failure = line

    def _upload(self, line: ProgramEvent) -> None:
        match line:
            case CheckpointEvent():
                for file in line.files:
                    self._put(f"{line.path}/{file.path}")
            case ArtifactEvent():
                self._put(line.file.path)
            case EvaluationEvent():
                self._put(line.predictions.path)
            case _:
                pass

    def _put(self, path: str) -> None:
        source = self.directory / path
        if not source.is_file():
            # The program's fault, and no wait will mend it.
            raise RuntimeError(f"the program named the file {path}, which is not there")
        try:
            self.store.put_file(source, f"{self.prefix}/{path}")
        except OSError as error:
            raise Unavailable(f"the artifact store: {error}") from error
