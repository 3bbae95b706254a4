"""Runs that have been scored, without a model: predictions as a worker writes them, by hand."""

import io
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import update
from sqlmodel import col

from service.context import Context
from service.datasets.rows import Row, keyed_rows, read_rows
from service.domain.evaluation import EvaluationTask
from service.domain.job_kinds import EVALUATE
from service.domain.row_keys import SeenRows, seen_rows
from service.domain.spec import RunSpec
from service.domain.states import JobStatus
from service.fairness import (
    Criteria,
    Predictions,
    ReportMeta,
    ScoredData,
    build_report,
    label_counts,
)
from service.store import jobs
from service.store.datasets import get_dataset
from service.store.runs import evaluations, get_run
from service.store.tables import Evaluation, Job
from tests.support.fake_worker import Worker

LABELS = ("hate", "normal")
Score = Callable[[Row], float]
"""The probability that the model gives the label hate."""


def right(row: Row) -> float:
    """A model that errs nowhere."""
    return 0.9 if row.label == "hate" else 0.1


def wrong_on(rows: Iterable[Row], surely: float = 0.8, **groups: int) -> Score:
    """The same, but the first so many harmless rows of these groups are called hate."""
    taken: set[str] = set()
    for group, count in groups.items():
        harmless = [row.id for row in rows if row.group == group and row.label == "normal"]
        assert len(harmless) >= count
        taken.update(harmless[:count])
    return lambda row: surely if row.id in taken else right(row)


def parquet(rows: Iterable[Row], score: Score, step: int | None, **facts: Any) -> bytes:
    """The file that worker.scoring.predictions writes for these rows."""
    rows = list(rows)
    columns = {
        name: pa.array([getattr(row, name) for row in rows], pa.string())
        for name in ("id", "group", "source", "detail", "label")
    }
    scores = [score(row) for row in rows]
    columns["score"] = pa.array(scores, pa.float64())
    columns["prediction"] = pa.array(["hate" if one >= 0.5 else "normal" for one in scores])
    columns["split"] = pa.array([row.split for row in rows], pa.string())
    columns["checkpoint"] = pa.array([step] * len(rows), pa.int64())
    columns["probability:hate"] = pa.array(scores, pa.float64())
    columns["probability:normal"] = pa.array([1 - one for one in scores], pa.float64())
    table = pa.table(columns)
    if facts:
        table = table.replace_schema_metadata({b"fairtune": json.dumps(facts).encode()})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


class ScoredRun:
    """A run whose worker scores what it is told and ends it."""

    def __init__(self, context: Context, run_id: str) -> None:
        self.context, self.run_id = context, run_id
        self.worker = Worker(context, run_id)
        with context.database.read() as session:
            run, _ = get_run(session, run_id)
            self.dataset = get_dataset(session, run.dataset_id)
        self.spec = RunSpec.model_validate(run.spec)
        with context.store.local(self.dataset.key) as path:
            self.rows = list(read_rows(path))

    def of(self, split: str) -> list[Row]:
        return [row for row in self.rows if row.split == split]

    def score(
        self,
        target: str,
        score: Score,
        split: str = "test",
        step: int | None = 90,
        template: str | None = None,
        rows: list[Row] | None = None,
        **facts: Any,
    ) -> str:
        """Ship an evaluation; return its id."""
        step = None if target == "base" else step
        content = parquet(self.of(split) if rows is None else rows, score, step, **facts)
        name = f"evaluations/{target}-{step}-{split}-{template}.parquet"
        self.worker.ship(
            self.worker.line(
                type="evaluation",
                target=target,
                step=step,
                split=split,
                template=template or self.spec.template,
                metrics={},
                predictions=self.worker.file(name, content),
            )
        )
        return self._newest()

    def _newest(self) -> str:
        with self.context.database.read() as session:
            return evaluations(session, self.run_id)[-1].id

    def certify(self, tuned: Score, base: Score | None = None, split: str = "test") -> dict:
        """Ship the evaluations and the report that a train job ends with; return the report."""
        if base is not None:
            self.score("base", base, split)
        self.score("adapter", tuned, split, truncated=3)
        train = self.of("train")
        report = build_report(
            ScoredData(
                tuned=self.predictions(tuned, split, 90),
                base=None if base is None else self.predictions(base, split, None),
                train_counts=label_counts(
                    [row.label for row in train], [row.group for row in train]
                ),
                dataset_groups={row.group for row in self.rows if row.group is not None},
                seen=self.seen(split),
            ),
            Criteria(
                positive_label="hate",
                caps=self.spec.fairness.caps,
                min_f1=self.spec.fairness.min_f1,
                confidence=self.spec.fairness.confidence,
                min_support=self.spec.fairness.min_support,
            ),
            ReportMeta(
                run_id=self.run_id,
                base_model=self.spec.base_model,
                template=self.spec.template,
                base_template=None if base is None else self.spec.template,
                dataset_id=self.dataset.id,
                split=split,
                checkpoint_step=90,
            ),
        )
        self.store_report(report.model_dump_json(indent=2).encode())
        return report.model_dump(mode="json")

    def seen(self, split: str) -> SeenRows:
        with self.context.store.local(self.dataset.key) as path:
            rows = list(keyed_rows(path))
        return seen_rows(rows, split, rows, same_kind=True)

    def add(
        self,
        score: Score,
        target: str = "adapter",
        split: str = "validation",
        step: int | None = 90,
        template: str | None = None,
        rows: list[Row] | None = None,
        dataset_id: str | None = None,
        max_samples: int | None = None,
    ) -> str:
        """Add an evaluation past the run's end, as a job of its own leaves it; return its id."""
        content = parquet(self.of(split) if rows is None else rows, score, step)
        task = EvaluationTask(
            target=target,
            step=step,
            dataset_id=dataset_id or self.dataset.id,
            split=split,
            template=template or self.spec.template,
            labels=list(LABELS),
            max_samples=max_samples,
        )
        with self.context.database.write() as session:
            params = task.model_dump(mode="json")
            job = jobs.create(session, self.run_id, EVALUATE, params=params)
            done = update(Job).where(col(Job.id) == job.id).values(status=JobStatus.SUCCEEDED)
            session.execute(done)
            row = Evaluation(
                id=EVALUATE.result_id(job.id),
                run_id=self.run_id,
                label=job.id,
                job_id=job.id,
                token=1,
                metrics={},
                **task.model_dump(exclude={"labels", "max_samples"}),
                size=len(content),
                **self._put(f"runs/{self.run_id}/{job.id}/1/predictions.parquet", content),
            )
            session.add(row)
        return EVALUATE.result_id(job.id)

    def _put(self, key: str, content: bytes) -> dict[str, str]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "file"
            file.write_bytes(content)
            stored = self.context.store.put_file(file, key)
        return {"key": key, "sha256": stored.sha256}

    def predictions(self, score: Score, split: str, step: int | None) -> Predictions:
        rows = self.of(split)
        scores = [score(row) for row in rows]
        return Predictions(
            ids=[row.id for row in rows],
            labels=[row.label for row in rows],
            groups=[row.group for row in rows],
            sources=[row.source for row in rows],
            details=[row.detail for row in rows],
            predictions=["hate" if one >= 0.5 else "normal" for one in scores],
            scores=scores,
            label_scores={"hate": scores, "normal": [1 - one for one in scores]},
            split=split,
            checkpoint_step=step,
        )

    def store_report(self, content: bytes) -> None:
        file = self.worker.file("bias_report.json", content)
        self.worker.ship(self.worker.line(type="artifact", file=file))

    def succeed(self) -> None:
        with self.context.database.write() as session:
            job = jobs.get(session, self.worker.job_id)
            token = self.worker.current.token
            assert jobs.switch_status(session, job, JobStatus.SUCCEEDED, expected_token=token)
