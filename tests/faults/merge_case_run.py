"""A merge at work, of a run that nobody disturbed; and what must be true of it whatever broke."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from sqlmodel import col, select

from service.domain.job_kinds import MERGE
from service.domain.states import JobStatus
from service.store.tables import Artifact, Job
from tests.faults.case_run import CaseRun
from tests.faults.gates import Gate
from tests.faults.invariants import files, leftovers, numbering, stale_writes, state
from tests.faults.record import ADAPTER, Record, record_of

Merged = dict[str, str]
"""File -> SHA-256 of what is downloaded, without the run's id, which stands in the card."""


@dataclass
class MergeCaseRun(CaseRun):
    """The run is one that came to what the reference did: whatever is broken, a merge leaves it."""

    merged: Merged | None = None
    """The undisturbed merge."""
    merge_id: str = field(init=False)
    _own_before: list[Any] = field(default_factory=list)

    held_at: ClassVar = ("announced", {})

    def prepare(self) -> None:
        self.run_id = self._trained() or self._train()
        self._own_before = self._own()

    def _trained(self) -> str | None:
        assert self.reference is not None
        statement = (
            select(Artifact.run_id)
            .join(Job, col(Job.id) == col(Artifact.job_id))
            .where(
                Artifact.path == ADAPTER,
                Artifact.sha256 == self.reference.adapter,
                Job.status == JobStatus.SUCCEEDED,
            )
        )
        with self.environment.database.read() as session:
            return session.exec(statement).first()

    def _train(self) -> str:
        training = CaseRun(self.reference)
        training.environment, training.dataset_id = self.environment, self.dataset_id
        training.submit()
        training.until_status(JobStatus.SUCCEEDED)
        return training.run_id

    def submit(self) -> None:
        with self.environment.database.read() as session:
            of_merges = select(Job.id).where(Job.kind == MERGE.name)
            earlier = len(list(session.exec(of_merges)))
        # One that is there already is not made again, and one file suffices for the model anyway.
        body = {"max_shard_size": f"{earlier + 1}MB"}
        answer = self.environment.client.post(f"/v1/runs/{self.run_id}/merged", json=body)
        assert answer.status_code == 201, answer.text
        self.job_id, self.merge_id = answer.json()["job_id"], answer.json()["id"]

    @property
    def job(self) -> Job:
        with self.environment.database.read() as session:
            return session.get_one(Job, self.job_id)

    def measured(self) -> dict[str, float]:
        found = super().measured()
        found.pop("steps lost", None)  # all of it is done again
        return found

    def record(self) -> Record:
        return record_of(self.environment, self.run_id, self.job_id)

    def ask(self, what: str, **query: Any) -> None:
        super().ask(f"merged/{what}", merge_id=self.merge_id, **query)

    def reach_each(self) -> Iterator[Gate]:
        for gate in super().reach_each():
            assert not self._half_visible()
            yield gate

    def check(self, end: str) -> None:
        found = [*self._violations(end), *leftovers(self.environment)]
        assert not found, "\n".join(found)

    # -- what users see ------------------------------------------------------------------------

    def _get(self, path: str, **query: Any) -> Any:
        return self.environment.client.get(f"/v1/runs/{self.run_id}{path}", params=query)

    def downloaded(self) -> Merged:
        answer = self._get("/merged/download", merge_id=self.merge_id)
        assert answer.status_code == 200, answer.text
        found = {}
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
            for member in archive.getmembers():
                content = archive.extractfile(member).read()
                content = content.replace(self.run_id.encode(), b"RUN")
                found[member.name.rpartition("/")[2]] = hashlib.sha256(content).hexdigest()
        return found

    def _half_visible(self) -> list[str]:
        """What is to be seen of a merge that has not succeeded."""
        found = []
        shown = self._get("/merged", merge_id=self.merge_id).json()
        if shown["files"] or shown["comparison"] or shown["size"]:
            found.append(f"the merge is {shown['status']} and shows {shown}")
        status = self._get("/merged/download", merge_id=self.merge_id).status_code
        if status != 409:
            found.append(f"the merged model's download is answered {status}")
        return found

    def _own(self) -> list[Any]:
        """What is the run's own."""
        parts = [
            self._get(path).json() for path in ("", "/checkpoints", "/evaluations", "/metrics")
        ]
        artifacts = self._get("/artifacts").json()["data"]
        return [*parts, [one for one in artifacts if not one["path"].startswith("merge")]]

    # -- what must be so -----------------------------------------------------------------------

    def _violations(self, end: str) -> Iterator[str]:
        record = self.record()
        yield from state(record, end)
        yield from numbering(record)
        yield from stale_writes(record)
        yield from files(self.environment, record)
        if self._own() != self._own_before:
            yield f"the run was {self._own_before}, and is {self._own()}"
        rows = [one.path for one in record.artifacts if one.path.startswith("merged/")]
        if end != JobStatus.SUCCEEDED:
            yield from self._half_visible()
            if rows:
                yield f"the merge is {end} and has the files {rows}"
            return
        downloaded = self.downloaded()
        if self.merged is not None and downloaded != self.merged:
            yield f"the merged model is {downloaded}, undisturbed {self.merged}"
        if sorted(path.rpartition("/")[2] for path in rows) != sorted(downloaded):
            yield f"the merged model's rows are {rows}, its files {sorted(downloaded)}"
