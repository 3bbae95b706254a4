"""All that the database has about a run, and what an undisturbed run came to."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlmodel import Session, col, select

from service.store.tables import Artifact, Checkpoint, Evaluation, Event, Job, Metric, Run
from tests.faults.environment import Environment

ADAPTER = "adapter_model.safetensors"
LEARNED = (ADAPTER, "optimizer.safetensors")

Series = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Reference:
    """What the undisturbed run came to."""

    series: Series
    evaluations: dict[str, dict[str, float | None]]
    adapter: str
    """SHA-256."""
    checkpoints: dict[int, dict[str, str]]
    """Step -> file -> SHA-256."""

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> "Reference":
        fields = json.loads(text)
        fields["series"] = {
            name: {int(step): value for step, value in points.items()}
            for name, points in fields["series"].items()
        }
        fields["checkpoints"] = {int(key): value for key, value in fields["checkpoints"].items()}
        return cls(**fields)

    @property
    def steps(self) -> int:
        return max(self.series["loss"])


class Record:
    """All that the database has about one run, or about one of the jobs of it."""

    def __init__(self, session: Session, run_id: str, job_id: str | None = None) -> None:
        def all_of(table: Any, order: Any) -> list[Any]:
            statement = select(table).where(table.run_id == run_id).order_by(order)
            if job_id is not None:
                statement = statement.where((table.id if table is Job else table.job_id) == job_id)
            return list(session.exec(statement))

        self.run = session.get_one(Run, run_id)
        (self.job,) = all_of(Job, col(Job.id))
        numbers = select(Event.number).where(Event.run_id == run_id)
        self.numbers = sorted(session.exec(numbers))
        """Of all events of the run."""
        self.events: list[Event] = all_of(Event, col(Event.number))
        self.metrics: list[Metric] = all_of(Metric, col(Metric.step))
        self.checkpoints: list[Checkpoint] = all_of(Checkpoint, col(Checkpoint.step))
        self.artifacts: list[Artifact] = all_of(Artifact, col(Artifact.path))
        self.evaluations: list[Evaluation] = all_of(Evaluation, col(Evaluation.label))

    @property
    def statuses(self) -> list[Event]:
        return [event for event in self.events if event.type == "status"]

    def series(self) -> Series:
        found: Series = defaultdict(dict)
        for metric in self.metrics:
            found[metric.name][metric.step] = metric.value
        return dict(found)

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Key, size and SHA-256 of every file that a row names."""
        for checkpoint in self.checkpoints:
            for file in checkpoint.files:
                yield f"{checkpoint.prefix}/{file['path']}", file["size"], file["sha256"]
        for row in (*self.artifacts, *self.evaluations):
            yield row.key, row.size, row.sha256

    def reference(self) -> Reference:
        return Reference(
            series=self.series(),
            evaluations={self.label(one): one.metrics for one in self.evaluations},
            adapter=next(one.sha256 for one in self.artifacts if one.path == ADAPTER),
            checkpoints={one.step: self.learned(one) for one in self.checkpoints},
        )

    @staticmethod
    def label(evaluation: Evaluation) -> str:
        return f"{evaluation.target}/{evaluation.step}/{evaluation.split}"

    @staticmethod
    def learned(checkpoint: Checkpoint) -> dict[str, str]:
        return {one["path"]: one["sha256"] for one in checkpoint.files if one["path"] in LEARNED}


def record_of(environment: Environment, run_id: str, job_id: str | None = None) -> Record:
    with environment.database.read() as session:
        return Record(session, run_id, job_id)
