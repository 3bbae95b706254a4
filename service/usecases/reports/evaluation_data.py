"""A run's stored evaluations: which certifies it, which belong together, and their rows."""

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

_ADAPTERS = ("adapter", "checkpoint")
"""Targets whose weights at one step are the same."""


class RunData(NamedTuple):
    """A run with all that its reports are made from, as it stood when it was read."""

    run: Run
    job: Job
    spec: RunSpec
    dataset: Dataset
    """The one that the run was trained on."""
    evaluations: list[Evaluation]
    """Those whose predictions are stored, the oldest first."""
    sampled: dict[str, int]
    """max_samples of those that are of a part of their split's rows alone, by id."""
    datasets: dict[str, Dataset]
    """Those that the evaluations are of, by id."""
    artifact: Artifact | None
    """bias_report.json."""

    def content(self, evaluation: Evaluation) -> str:
        """The content hash of what was scored: the same rows may have been uploaded twice."""
        return self.datasets[evaluation.dataset_id].content_hash

    def own(self, target: str, split: str) -> Evaluation | None:
        """The evaluation of the run's own dataset that its train job made."""
        for one in self.evaluations:
            if one.job_id == self.job.id and (one.target, one.split) == (target, split):
                return one
        return None

    def certificate(self, context: Context) -> Certificate | None:
        """None while the run has not succeeded, or where it has no report."""
        if self.artifact is None or self.job.status != JobStatus.SUCCEEDED:
            return None
        return certificates.read(context.store, self.artifact)

    def certifying(self, certificate: Certificate | None) -> Evaluation | None:
        """The evaluation that the certificate was made from; None without one."""
        if certificate is None or certificate.verdicts is None:
            return None
        meta = certificate.verdicts.meta
        found = self.own("adapter", meta.split)
        return found if found is not None and found.step == meta.checkpoint_step else None

    def validation_of(self, evaluation: Evaluation) -> Evaluation | None:
        """The same model's, under the same template, on the run's own validation split.

        The train job's own one before those asked for later; of these one of all rows before one
        of a part, then the newest.
        """
        targets = _ADAPTERS if evaluation.target in _ADAPTERS else (evaluation.target,)
        found = [
            one
            for one in self.evaluations
            if one.target in targets
            and one.step == evaluation.step
            and one.template == evaluation.template
            and one.split == "validation"
            and one.dataset_id == self.run.dataset_id
        ]
        return max(found, key=self.rank, default=None)

    def rank(self, one: Evaluation) -> tuple[bool, bool, str]:
        """Of several evaluations that would do, the one that ranks highest is taken."""
        return one.job_id == self.job.id, one.id not in self.sampled, one.id

    def train_counts(self) -> LabelCounts | None:
        """Labelled rows of the training split by group and label; None where it has none."""
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
    """Raises NotFound."""
    run, job = rows.get_run(session, run_id)
    found = evaluations.all_of(session, run_id)
    stored_ones = [one.row for one in found if one.row is not None]
    ids = {row.dataset_id for row in stored_ones}
    datasets = {one: dataset_store.get_dataset(session, one) for one in ids}
    return RunData(
        run=run,
        job=job,
        spec=RunSpec.model_validate(run.spec),
        dataset=dataset_store.get_dataset(session, run.dataset_id),
        evaluations=stored_ones,
        sampled=dict(_sampled(found, datasets)),
        datasets=datasets,
        artifact=rows.find_artifact(session, run_id, BIAS_REPORT_FILE),
    )


def _sampled(
    found: Sequence[StoredEvaluation], datasets: Mapping[str, Dataset]
) -> Iterator[tuple[str, int]]:
    for one in found:
        if one.row is None or one.task is None or one.task.max_samples is None:
            continue
        stats = DatasetStats.model_validate(datasets[one.row.dataset_id].stats)
        if one.task.max_samples < stats.splits[one.task.split].rows:
            yield one.id, one.task.max_samples


class Scored(NamedTuple):
    predictions: Predictions
    """Of the labelled rows alone, decided by argmax."""
    truncated: int | None
    """Rows whose text's end was cut off to fit; null: not known."""
    without_label: int
    """Rows that were scored and are not among the predictions."""


def load(context: Context, evaluation: Evaluation, positive_label: str) -> Scored:
    """Read an evaluation's rows. Raises NotFound, and Conflict where none has a label."""
    with context.store.local(
        evaluation.key, StoredFile(evaluation.size, evaluation.sha256)
    ) as path:
        try:
            read = stored.read_predictions(path, positive_label)
            facts = stored.read_metadata(path)
        except (ValueError, OSError) as error:
            detail = f"the predictions of {evaluation.id} cannot be read: {error}"
            raise Conflict(detail) from error
    if read.predictions is None:
        raise Conflict(
            f"the rows of {evaluation.id} (split {evaluation.split}) have no labels, so there is "
            "nothing to report on"
        )
    return Scored(read.predictions, _count(facts.get("truncated")), read.without_label)


def load_if_labelled(
    context: Context, evaluation: Evaluation | None, positive_label: str
) -> Scored | None:
    """The same for what is not needed: None where there are no labels, or no evaluation."""
    if evaluation is None:
        return None
    try:
        return load(context, evaluation, positive_label)
    except Conflict:
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def request_for(spec: RunSpec, evaluation: Evaluation, split: str) -> dict[str, Any]:
    """The body of POST …/evaluations that scores the same model on the run's own `split`."""
    body: dict[str, Any] = {"target": evaluation.target, "split": split}
    if evaluation.target == "checkpoint":
        body["step"] = evaluation.step
    usual = spec.template
    if evaluation.target == "base":
        usual = spec.evaluation.baseline_template or usual
    if evaluation.template != usual:
        body["template"] = evaluation.template
    return body


def groups_of(datasets: Sequence[Dataset]) -> set[str]:
    return {group for one in datasets for group in DatasetStats.model_validate(one.stats).groups}
