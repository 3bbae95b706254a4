"""An installation to break: an API and workers that can be killed, frozen and cut off."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlmodel import col, select

from service.artifacts import ArtifactStore
from service.cli.temporary_server import free_port
from service.domain.lease import RENEWAL_SECONDS
from service.queue import celery_app
from service.settings import Settings
from service.store import migrate
from service.store.database import Database
from service.store.tables import Job, Run
from tests.faults.gates import Gate, Gates
from tests.faults.outages import OnBucket, OnFiles, OnServers, Outages
from tests.support.installation import Service, wait_until

API = "api"
WORKERS = ("worker-1", "worker-2")

LEASE_SECONDS = 2.5
SWEEP_SECONDS = 0.3
TIMES = {
    "lease_seconds": LEASE_SECONDS,
    "sweep_seconds": SWEEP_SECONDS,
    "poll_seconds": 0.05,
    "stop_grace_seconds": 10,
}
"""Short, so that what takes minutes in an installation takes seconds here."""

NOTICED_SECONDS = LEASE_SECONDS + 2 * SWEEP_SECONDS + 2 * min(LEASE_SECONDS / 4, RENEWAL_SECONDS)
"""Until a lost worker is noticed: its lease runs out, a sweep sees that, and one that comes when an
owner that lives would have renewed it sees it again."""


PART_BYTES = 4096
"""Of a part of an upload into a bucket, so that small files have several."""

_TOLD = re.compile(r"\d\d:\d\d:\d\d |CRITICAL|ERROR|\w+Error: ")


def _outages(setting: str, data: Path, server: Any) -> Outages:
    if setting == "servers":
        return OnServers(server, f"faults_{os.urandom(4).hex()}")
    return OnFiles(data) if setting == "files" else OnBucket(data, server)


def _find(store: ArtifactStore, variables: Mapping[str, str]) -> None:
    """Lead a bucket's store to its server, which is done by variables, at the first use."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        store.exists("anything")


class Environment(Service):
    """Everything of one installation, and what can be done to it.

    `setting`: files (SQLite, Celery's filesystem transport, a directory as the store), servers
    (PostgreSQL and a Redis-protocol server), or bucket (as files, and an S3 server for the store).

    `heal` brings back what a case of the matrix took away, `assert_idle` says whether it did.
    """

    def __init__(
        self,
        setting: str,
        folder: Path,
        models: Path,
        server: Any = None,
        workers: Sequence[str] = WORKERS,
        **fields: Any,
    ) -> None:
        self.workers = tuple(workers)
        self.setting = setting
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        self.outages = _outages(setting, data, server)
        self._variables: dict[str, str] = {}
        if isinstance(self.outages, OnBucket):
            fields["artifacts_url"] = f"s3://{server.bucket()}/faults"
            self._variables = server.environment(self.outages.store_url)
            self._variables |= {"PART_BYTES": str(PART_BYTES)}
        settings = Settings(
            data_dir=data,
            models_dir=models,
            port=free_port(),
            database_url=self.outages.direct_url,
            broker_url=self.outages.broker_url,
            **TIMES | fields,
        )
        super().__init__(settings, folder / "service.log")
        self.gates = Gates(folder / "gates")
        self.database = Database(settings.database_url)
        self.store = ArtifactStore(settings.artifacts_url)
        if isinstance(self.outages, OnBucket):
            _find(self.store, server.environment())
        migrate.upgrade(self.database)
        self._broker = celery_app.make_app(settings)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._to_end: set[str] = set()

    # -- the processes -------------------------------------------------------------------------

    def start_part(self, part: str, **variables: str) -> None:
        """Start the API, or the worker of that name."""
        given = self.gates.variables | self._variables | variables
        given |= {"FAIRTUNE_DATABASE_URL": self.outages.database_url(part)}
        if part in self._processes:
            self.parts.remove(self._processes[part])
            self._to_end.discard(part)
        self._processes[part] = self.start(part.partition("-")[0], **given)

    def ready(self) -> "Environment":
        """Wait until the API answers; whether the workers live is another matter."""
        wait_until(self._answers, 60)
        return self

    def _answers(self) -> bool:
        assert not self.has_ended(API), self.log_tail()
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/readyz").status_code == 200
        return False

    def start_all(self) -> "Environment":
        for part in (API, *self.workers):
            self.start_part(part)
        self.ready()
        self.assert_workers_listen()
        return self

    def process(self, part: str) -> psutil.Process:
        return psutil.Process(self._processes[part].pid)

    def kill(self, *parts: str) -> None:
        """SIGKILL, and wait until they are gone."""
        self._to_end.update(parts)
        for part in parts:
            self._processes[part].kill()
        for part in parts:
            self._processes[part].wait()

    def tell(self, part: str) -> None:
        """SIGTERM."""
        self._to_end.add(part)
        self._processes[part].terminate()

    def has_ended(self, part: str) -> bool:
        return self._processes[part].poll() is not None

    def part_with(self, pid: int) -> str:
        """The name of the worker with that process id."""
        return next(part for part in self.workers if self._processes[part].pid == pid)

    def log_tail(self, about: str = "") -> str:
        """What the processes said last: no tracebacks."""
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line for line in lines if _TOLD.match(line)]
        return "\n".join([line for line in told if about in line][-40:])

    # -- the truth, asked without the API ------------------------------------------------------

    def job_of(self, run_id: str) -> Job:
        with self.database.read() as session:
            return session.exec(select(Job).where(Job.run_id == run_id)).one()

    def newest_run(self) -> str:
        with self.database.read() as session:
            return session.exec(select(Run.id).order_by(col(Run.created_at).desc())).first() or ""

    def send_message(self) -> None:
        """Send a queue message, however many wait there."""
        self._broker.send_task(celery_app.EXECUTE, queue=celery_app.QUEUE)

    # -- between two cases ----------------------------------------------------------------------

    def heal(self) -> None:
        """Restore what was taken away; afterwards API and both workers work.

        Raises AssertionError where a process has ended that nobody had ended.
        """
        self.gates.clear()
        self.outages.restore()
        for part, process in list(self._processes.items()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            if part in self._to_end:
                process.wait(timeout=30)
                self.start_part(part)
            else:
                assert process.poll() is None, f"{part} has ended: {process.returncode}"
        self.ready()
        self.assert_workers_listen()

    def assert_workers_listen(self) -> None:
        """Assert that each worker looks for jobs; one that is held leaves messages to others."""
        gates = [self.gates.arm("before_look") for _ in self.workers]
        self.hold_each(gates)
        for gate in gates:
            gate.open()

    def hold_each(self, gates: list[Gate]) -> None:
        """Send messages until a worker stands at each of the gates."""
        while not all(gate.is_reached for gate in gates):
            # Again and again: a held worker takes one more message beforehand.
            for _ in gates:
                self.send_message()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: all(gate.is_reached for gate in gates), 0.5)

    def assert_nobody_ended(self, but: Collection[str]) -> None:
        for part, process in self._processes.items():
            if part not in but:
                assert process.poll() is None, f"{part} has ended: {process.returncode}"

    def children(self) -> list[psutil.Process]:
        """Every process of this installation but API and workers, whoever its parent is."""
        own = {process.pid for process in self._processes.values()}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid not in own and process.environ().get("GATES_DIR") == str(
                    self.gates.folder
                ):
                    found.append(process)
        return found

    def close(self) -> None:
        """End everything, at once."""
        self.client.close()
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for child in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        wait_until(lambda: not self.children(), 10)
        self.database.dispose()
        self.outages.close()

    def freeze(self, part: str, *, anywhere: bool = False) -> None:
        """SIGSTOP; not in the middle of a transaction, unless `anywhere`: cases differ in that."""
        while True:
            self.process(part).suspend()
            with contextlib.suppress(AssertionError):
                wait_until(lambda: anywhere or not self.outages.in_transaction(), 0.25)
                return
            self.process(part).resume()

    @contextlib.contextmanager
    def frozen(self, part: str, *, anywhere: bool = False) -> Iterator[None]:
        """SIGSTOP for a while."""
        self.freeze(part, anywhere=anywhere)
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.process(part).resume()
