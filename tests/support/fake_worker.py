"""A stand-in for a worker process, without a program."""

import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.context import Context
from service.domain.events import program_event
from service.store import jobs, program_events
from service.store.jobs import Claim
from service.store.runs import get_run


class Worker:
    """Claims a job and ships the events that a test passes."""

    def __init__(self, context: Context, run_id: str, job_id: str | None = None) -> None:
        """`job_id` defaults to the run's train job."""
        self.context = context
        self.seq = 0
        with context.database.read() as session:
            self.job_id = job_id or get_run(session, run_id)[1].id
        claim = self.claim()
        assert claim is not None
        self.current: Claim = claim

    def claim(self, owner: str = "a worker", lease: float = 60) -> Claim | None:
        with self.context.database.write() as session:
            return jobs.claim(session, self.job_id, owner, lease)

    def line(self, **fields: Any) -> Any:
        self.seq += 1
        return program_event.validate_python(
            {"seq": self.seq, "time": datetime.now(UTC).isoformat(), **fields}
        )

    def file(self, path: str, content: bytes) -> dict[str, Any]:
        """Upload a file as a supervisor does; return its entry."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "file"
            source.write_bytes(content)
            key = f"{program_events.prefix_of(self.current)}/{path}"
            self.context.store.put_file(source, key)
        return {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def ship(self, *lines: Any, claim: Claim | None = None) -> list[Any]:
        with self.context.database.write() as session:
            return program_events.ship(session, claim or self.current, lines)
