"""A run that is deleted, beside one that is not; and what must be true whatever broke meanwhile."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from sqlmodel import SQLModel, col, select

from service.context import Context
from service.domain.job_kinds import MERGE
from service.domain.states import JobStatus
from service.store import jobs
from service.store.tables import Idempotency, Job, Run
from tests.faults.case_run import BODY
from tests.faults.environment import API, Environment
from tests.faults.gates import Gate
from tests.faults.invariants import content_of, leftovers
from tests.support.fake_worker import Worker
from tests.support.trained_runs import finish, leave_adapter, save

WORKER = "worker-1"


@dataclass
class Deletion:
    """A case under way. No worker runs unless a scenario starts one: runs are trained by hand."""

    environment: Environment
    dataset_id: str
    point: str
    """Where the API is held while it deletes."""
    run_id: str = ""
    other_id: str = ""
    answers: list[int] = field(default_factory=list)
    """To DELETE; none where the API died."""
    asked_answer: int = 0
    """To the request for a merge."""
    _other_before: list[Any] = field(default_factory=list)
    _files_before: list[Any] = field(default_factory=list)

    @property
    def named(self) -> str:
        """The id of what is deleted."""
        return self.run_id

    def prepare(self) -> None:
        self.run_id, self.other_id = self._trained(), self._trained()
        cancelled = self.environment.client.post(f"/v1/runs/{self.other_id}/merged/cancel")
        assert cancelled.status_code == 200, cancelled.text  # no worker shall take it up
        self._other_before = [self._rows(self.other_id), self._files(self.other_id)]
        self._files_before = self._files(self.run_id)

    def _trained(self) -> str:
        """A run with checkpoints, metrics and an adapter, and with a merge that waits."""
        context = Context.make(self.environment.settings)
        run_id = self.environment.submit(dataset_id=self.dataset_id, **BODY)
        worker = Worker(context, run_id)
        worker.ship(worker.line(type="metrics", step=1, epoch=0, values={"loss": 1.0}))
        for step in (2, 4):
            save(worker, step)
        leave_adapter(worker)
        finish(worker)
        context.database.dispose()
        answer = self.environment.client.post(f"/v1/runs/{run_id}/merged", headers=_key(run_id))
        assert answer.status_code == 201, answer.text
        return run_id

    @property
    def waiting(self) -> str:
        """The id of the merge's job."""
        statement = select(Job.id).where(Job.run_id == self.run_id, Job.kind == MERGE.name)
        with self.environment.database.read() as session:
            return session.exec(statement).one()

    def queued(self) -> list[str]:
        """The jobs of the run that wait."""
        statement = select(Job.id).where(Job.run_id == self.run_id, Job.status == JobStatus.QUEUED)
        with self.environment.database.read() as session:
            return list(session.exec(statement))

    @contextlib.contextmanager
    def held(self, before: Callable[[], None] | None = None) -> Iterator[Gate]:
        """While the API stands at the point; afterwards DELETE has its answer, or none.

        `before` is called when DELETE is under way, and may be what lets it come to the point.
        """
        gate = self.environment.gates.arm(self.point)
        asking = threading.Thread(target=self._delete_if_it_lives)
        asking.start()
        if before is not None:
            before()
        gate.reached()
        yield gate
        gate.open()
        asking.join()

    def _delete_if_it_lives(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self.delete()

    def delete(self) -> int:
        self.answers.append(self.environment.client.delete(f"/v1/runs/{self.run_id}").status_code)
        return self.answers[-1]

    @contextlib.contextmanager
    def asked(self, point: str) -> Iterator[Gate]:
        """While the API stands at that point with a request for a merge that is not there."""
        gate = self.environment.gates.arm(point)
        asking = threading.Thread(target=self._ask)
        asking.start()
        gate.reached()
        yield gate
        gate.open()
        asking.join()

    def _ask(self) -> None:
        answer = self.environment.client.post(
            f"/v1/runs/{self.run_id}/merged", json={"checkpoint": 2}
        )
        self.asked_answer = answer.status_code

    def kill_api(self, gate: Gate) -> None:
        self.environment.kill(API)
        gate.open()
        self.environment.start_part(API)
        self.environment.ready()

    # -- what must be so -----------------------------------------------------------------------

    def assert_untouched(self) -> None:
        """What was not committed did not happen."""
        assert self._get("").status_code == 200
        assert self._get("/merged").json()["status"] == "queued"
        assert self._files(self.run_id) == self._files_before

    def assert_hidden(self) -> None:
        """However much of it is left, no user and no worker gets at it."""
        for path in ("", "/checkpoints", "/artifacts", "/events", "/merged", "/merged/download"):
            assert self._get(path).status_code == 404, path
        for path, body in {
            "/retry": None,
            "/merged": {},
            "/evaluations": {"target": "base"},
        }.items():
            asked = self.environment.client.post(f"/v1/runs/{self.run_id}{path}", json=body)
            assert asked.status_code == 404, path
        listed = self.environment.client.get("/v1/runs", params={"limit": 100}).json()["data"]
        assert self.run_id not in [one["id"] for one in listed]
        with self.environment.database.write() as session:
            waiting = session.exec(select(Job.id).where(Job.run_id == self.run_id)).all()
            claims = [jobs.claim(session, job_id, "nobody", 60) for job_id in waiting]
        assert not any(claims)

    def check(self) -> None:
        """It is gone, all of it, and nothing else is."""
        assert self._get("").status_code == 404
        assert self._rows(self.run_id) == []
        assert self._files(self.run_id) == []
        assert [self._rows(self.other_id), self._files(self.other_id)] == self._other_before
        found = leftovers(self.environment)
        assert not found, "\n".join(found)

    def _get(self, path: str) -> httpx.Response:
        return self.environment.client.get(f"/v1/runs/{self.run_id}{path}")

    def _rows(self, run_id: str) -> list[str]:
        """Whatever any table says of a run."""
        found = []
        with self.environment.database.read() as session:
            for table in SQLModel.metadata.sorted_tables:
                if "run_id" in table.columns:
                    rows = session.execute(select(table).where(table.c.run_id == run_id))
                    found += [f"{table.name} {row}" for row in rows]
            found += [repr(row) for row in session.exec(select(Run).where(Run.id == run_id))]
            keys = select(Idempotency).where(col(Idempotency.key) == run_id)
            found += [repr(row) for row in session.exec(keys)]
        return sorted(found)

    def _files(self, run_id: str) -> list[Any]:
        keys = sorted(one.key for one in self.environment.store.entries(f"runs/{run_id}"))
        return [(key, content_of(self.environment, key)) for key in keys]


def _key(run_id: str) -> dict[str, str]:
    return {"Idempotency-Key": run_id}
