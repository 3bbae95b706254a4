"""StoredFile evaluations of a run: the certifying one, matching pairs, and their predictions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlmodel import Session

from service.artifacts import StoredFile
from service.context import Context
from service.datasets.stats import DatasetStats
from service.domain.errors import Conflict
from service.domain.job import BIAS_REPORT_FILE
from service.domain.spec import RunSpec
from service.domain.states import JobStatus
from service.fairness import LabelCounts, Predictions, stored
from service.store import datasets as dataset_store
from service.store import evaluations
from service.store import runs as rows
from service.store.evaluations import StoredEvaluation
from service.store.tables import Artifact, Dataset, Evaluation, Job, Run
from service.usecases.reports import certifying as certificates
from service.usecases.reports.certifying import Certificate

ADAPTER_TARGETS = ("adapter", "checkpoint")
"""Targets whose weights at the same step are identical."""


class RunData(NamedTuple):
    """Snapshot of a run and everything that its reports are computed from."""

    run: Run
    job: Job
    spec: RunSpec
    dataset: Dataset
    """Dataset that the run was trained on; of an imported adapter, the one it is scored on."""
    evaluations: list[Evaluation]
    """Evaluations with stored predictions, the oldest first."""
    sampled: dict[str, int]
    """max_samples by id, of evaluations that cover only part of their split."""
    datasets: dict[str, Dataset]
    """Datasets of the evaluations, by id."""
    artifact: Artifact | None
    """bias_report.json, if the run has one."""

    @property
    def is_imported(self) -> bool:
        """True if the adapter was trained elsewhere, on rows that nobody knows here."""
        return self.run.imported is not None

    def content(self, evaluation: Evaluation) -> str:
        """Return the content hash of the scored dataset: rows may have been uploaded twice."""
        return self.datasets[evaluation.dataset_id].content_hash

    def own(self, target: str, split: str) -> Evaluation | None:
        """Return the evaluation of that target and split that the train job made, if any."""
        own = (row for row in self.evaluations if row.job_id == self.job.id)
        return next((row for row in own if (row.target, row.split) == (target, split)), None)

    def certificate(self, context: Context) -> Certificate | None:
        """Return the run's certificate; None unless the run has succeeded and has a report."""
        if self.artifact is None or self.job.status != JobStatus.SUCCEEDED:
            return None
        return certificates.read(context.store, self.artifact)

    def certifying(self, certificate: Certificate | None) -> Evaluation | None:
        """Return the evaluation that the certificate was computed from; None without one."""
        if certificate is None or certificate.verdicts is None:
            return None
        meta = certificate.verdicts.meta
        own = self.own("adapter", meta.split)
        return own if own is not None and own.step == meta.checkpoint_step else None

    def validation_of(self, evaluation: Evaluation) -> Evaluation | None:
        """Return the same model's evaluation on the run's own validation split, if any.

        The template is the same. The train job's evaluation is preferred to requested ones, among
        these one of all rows to one of a sample, then the newest.
        """
        targets = ADAPTER_TARGETS if evaluation.target in ADAPTER_TARGETS else (evaluation.target,)
        matching = [
            row
            for row in self.evaluations
            if row.target in targets
            and row.step == evaluation.step
            and row.template == evaluation.template
            and row.split == "validation"
            and row.dataset_id == self.run.dataset_id
        ]
        return max(matching, key=self.rank, default=None)

    def rank(self, evaluation: Evaluation) -> tuple[bool, bool, str]:
        """Return the sort key of interchangeable evaluations; the highest one is used."""
        is_own, is_complete = evaluation.job_id == self.job.id, evaluation.id not in self.sampled
        return is_own, is_complete, evaluation.id

    def train_counts(self) -> LabelCounts | None:
        """Return the training split's labelled rows by group and label; None if there are none, or
        they are unknown.
        """
        if self.is_imported:
            return None
        train = DatasetStats.model_validate(self.dataset.stats).splits["train"]
        if not train.labels:
            return None
        counts: dict[str | None, dict[str, int]] = {}
        counts.update(train.group_labels.items())
        without = {
            label: rows - sum(of_group.get(label, 0) for of_group in train.group_labels.values())
            for label, rows in train.labels.items()
        }
        if any(without.values()):
            counts[None] = {label: rows for label, rows in without.items() if rows}
        return counts


def read_run(session: Session, run_id: str) -> RunData:
    """Read the snapshot of a run. Raises NotFound."""
    run, job = rows.get_run(session, run_id)
    of_run = evaluations.all_of(session, run_id)
    scored = [evaluation.row for evaluation in of_run if evaluation.row is not None]
    ids = {row.dataset_id for row in scored}
    datasets = {dataset_id: dataset_store.get_dataset(session, dataset_id) for dataset_id in ids}
    return RunData(
        run=run,
        job=job,
        spec=RunSpec.model_validate(run.spec),
        dataset=dataset_store.get_dataset(session, run.dataset_id),
        evaluations=scored,
        sampled=dict(_sampled(of_run, datasets)),
        datasets=datasets,
        artifact=rows.find_artifact(session, run_id, BIAS_REPORT_FILE),
    )


def _sampled(
    of_run: Sequence[StoredEvaluation], datasets: Mapping[str, Dataset]
) -> Iterator[tuple[str, int]]:
    """Yield id and max_samples of evaluations that cover only part of their split."""
    for evaluation in of_run:
        row, task = evaluation.row, evaluation.task
        if row is None or task is None or task.max_samples is None:
            continue
        stats = DatasetStats.model_validate(datasets[row.dataset_id].stats)
        if task.max_samples < stats.splits[task.split].rows:
            yield evaluation.id, task.max_samples


class Scored(NamedTuple):
    predictions: Predictions
    """Predictions for the labelled rows only, by argmax."""
    truncated: int | None
    """Number of rows whose text was truncated; None: unknown."""
    without_label: int
    """Number of scored rows without a label, which are not among the predictions."""


def load(context: Context, evaluation: Evaluation, positive_label: str) -> Scored:
    """Read an evaluation's predictions. Raises NotFound, and Conflict if no row has a label."""
    with context.store.local(
        evaluation.key, StoredFile(evaluation.size, evaluation.sha256)
    ) as path:
        try:
            table = stored.read_predictions(path, positive_label)
            facts = stored.read_metadata(path)
        except (ValueError, OSError) as error:
            detail = f"the predictions of {evaluation.id} cannot be read: {error}"
            raise Conflict(detail) from error
    if table.predictions is None:
        raise Conflict(
            f"the rows of {evaluation.id} (split {evaluation.split}) have no labels, so there is "
            "nothing to report"
        )
    return Scored(table.predictions, _count(facts.get("truncated")), table.without_label)


def load_if_labelled(
    context: Context, evaluation: Evaluation | None, positive_label: str
) -> Scored | None:
    """Return the evaluation's predictions, or None without labels or without an evaluation."""
    if evaluation is None:
        return None
    try:
        return load(context, evaluation, positive_label)
    except Conflict:
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def request_for(spec: RunSpec, evaluation: Evaluation, split: str) -> dict[str, Any]:
    """Return the body of POST …/evaluations that scores the same model on the run's `split`."""
    body: dict[str, Any] = {"target": evaluation.target, "split": split}
    if evaluation.target == "checkpoint":
        body["step"] = evaluation.step
    default = spec.template
    if evaluation.target == "base":
        default = spec.evaluation.baseline_template or default
    if evaluation.template != default:
        body["template"] = evaluation.template
    return body


def groups_of(datasets: Sequence[Dataset]) -> set[str]:
    """Return the groups that occur in any of the datasets."""
    stats = (DatasetStats.model_validate(dataset.stats) for dataset in datasets)
    return {group for dataset_stats in stats for group in dataset_stats.groups}
