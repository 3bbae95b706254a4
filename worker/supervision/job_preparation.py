"""Preparation of a job directory: job.json, the dataset, weights, and the newest checkpoint."""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from service.artifacts import ArtifactStore, DamagedFile, StoredFile
from service.datasets.templates import builtin_templates
from service.domain.errors import NotFound, ProgramFailure
from service.domain.job import (
    ADAPTER_DIR,
    DATASET_FILE,
    EVALUATIONS_DIR,
    LOG_FILE,
    MERGED_DIR,
    Job,
    checkpoint_path,
)
from service.domain.spec import RunSpec
from service.domain.states import FailureReason
from service.domain.task import Task
from service.store import evaluations, events, jobs
from service.store import runs as run_rows
from service.store.database import Database
from service.store.evaluations import Weights
from service.store.events import NewEvent
from service.store.jobs import Claim
from service.store.tables import Artifact, Checkpoint, Dataset, Evaluation, Run
from service.store.tables import Job as JobRow
from worker.supervision import job_directory
from worker.supervision.transfer_progress import TransferProgress
from worker.supervision.weights_cache import WeightsCache


@dataclass(frozen=True, slots=True)
class JobRecords:
    """The database rows that a job directory is made from."""

    run: Run
    job: JobRow
    task: Task | None
    training_dataset: Dataset
    dataset: Dataset
    """The dataset whose rows the job reads."""
    checkpoints: list[Checkpoint]
    """Newest first."""
    base_evaluations: list[Evaluation]
    """Scores of the base model by an earlier attempt: it is not scored again."""
    log: Artifact | None


@dataclass(frozen=True, slots=True)
class JobPreparation:
    """Fills one attempt's directory from the database and the store."""

    directory: Path
    database: Database
    store: ArtifactStore
    claim: Claim
    transfers: TransferProgress
    cache: WeightsCache

    def prepare(self, models_dir: Path) -> None:
        """Fill the directory with job.json, the rows, weights and files of an earlier attempt.

        A checkpoint that differs from what was stored is skipped, with an event. Raises OSError,
        Fenced, Unavailable; DamagedFile if the dataset in the store differs from its row; and
        ProgramFailure if the weights that the job needs no longer exist.
        """
        records = self._read_records()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        if self.claim.kind.needs_dataset:
            dataset = records.dataset
            self._fetch(dataset.key, DATASET_FILE, StoredFile(dataset.size, dataset.content_hash))
        weights_dir = None if records.task is None else self._fetch_weights(records.task)
        resume_from, skipped = None, list[str]()
        if self.claim.kind.trains:
            resume_from, skipped = self._fetch_newest_checkpoint(records.checkpoints)
            for evaluation in records.base_evaluations:
                self._fetch_base_scores(evaluation)
        if records.log is not None:
            # The log continues that of an earlier attempt. It is stored under one key as it grows,
            # so it may be longer than its row says.
            with contextlib.suppress(DamagedFile):
                self.store.fetch(records.log.key, self.directory / LOG_FILE)
        job = self._job(records, models_dir, resume_from, weights_dir)
        job_directory.write_job(self.directory, job)
        if skipped:  # last: if anything before this fails, all of it is retried
            self._record_skipped(skipped)

    def _read_records(self) -> JobRecords:
        claim = self.claim
        with self.database.read() as session:
            run = session.get_one(Run, claim.run_id)
            job = jobs.get(session, claim.job_id)
            task = jobs.task_of(job)
            training_dataset = session.get_one(Dataset, run.dataset_id)
            dataset = training_dataset
            if task is not None and task.dataset_id is not None:
                dataset = session.get_one(Dataset, task.dataset_id)
            return JobRecords(
                run=run,
                job=job,
                task=task,
                training_dataset=training_dataset,
                dataset=dataset,
                checkpoints=list(reversed(run_rows.checkpoints(session, claim.run_id))),
                base_evaluations=_base_evaluations(session, claim),
                log=session.get(Artifact, (claim.run_id, claim.kind.log_path(claim.job_id))),
            )

    def _job(
        self,
        records: JobRecords,
        models_dir: Path,
        resume_from: str | None,
        weights_dir: str | None,
    ) -> Job:
        claim, task, job = self.claim, records.task, records.job
        spec = RunSpec.model_validate(records.run.spec)
        templates = builtin_templates()
        baseline = spec.evaluation.baseline_template if claim.kind.trains else None
        return Job(
            kind=claim.kind.name,
            job_id=claim.job_id,
            run_id=claim.run_id,
            token=claim.token,
            request_id=claim.request_id,
            spec=spec,
            template=templates[(task and task.template) or spec.template],
            baseline_template=None if baseline is None else templates[baseline],
            models_dir=str(models_dir),
            completions=records.training_dataset.completions or None,
            dataset_name=records.dataset.name,
            dataset_warnings=records.dataset.warnings,
            resume_from=resume_from,
            train_batch_size=job.train_batch_size,
            eval_batch_size=job.eval_batch_size,
            task=task,
            adapter=weights_dir if weights_dir == ADAPTER_DIR else None,
            imported=records.run.imported is not None,
            merged=weights_dir if weights_dir == MERGED_DIR else None,
        )

    def _record_skipped(self, details: list[str]) -> None:
        claim = self.claim
        warnings = [
            NewEvent("warning", {"code": "checkpoint_broken", "detail": detail}, claim.token)
            for detail in details
        ]
        with self.database.write() as session:
            jobs.lock_for_worker(session, claim)
            events.append(session, claim.run_id, claim.job_id, warnings)

    def _fetch_weights(self, task: Task) -> str | None:
        """Fetch the adapter in peft's layout, or the merged model in that of transformers.

        Returns its directory below the job directory, None for the base model. Raises OSError,
        Unavailable, DamagedFile, and ProgramFailure if the run no longer has it: a training that
        continues drops checkpoints.
        """
        directory = MERGED_DIR if task.target == "merged" else ADAPTER_DIR
        for is_last_try in (False, True):
            files = self._weight_files(task)
            try:
                for file in files:
                    target = self.directory / directory / file.name
                    target.unlink(missing_ok=True)  # of the first try
                    self.cache.provide(
                        self.store,
                        file.key,
                        target,
                        StoredFile(file.size, file.sha256),
                        self.transfers.track(file.key),
                    )
            except DamagedFile:
                # Or dropped since its row was read: the second try tells.
                if is_last_try:
                    raise
            else:
                break
        return directory if files else None

    def _weight_files(self, task: Task) -> list[Weights]:
        with self.database.read() as session:
            try:
                return evaluations.weight_files(session, self.claim.run_id, task)
            except NotFound as error:
                raise ProgramFailure(FailureReason.INVALID_SPEC, f"{error.detail}.") from error

    def _fetch_newest_checkpoint(
        self, checkpoints: list[Checkpoint]
    ) -> tuple[str | None, list[str]]:
        """Fetch the newest intact checkpoint; return its path and the defects of newer ones."""
        skipped: list[str] = []
        for checkpoint in checkpoints:
            path = checkpoint_path(checkpoint.step)
            try:
                for file in checkpoint.files:
                    self._fetch(
                        f"{checkpoint.prefix}/{file['path']}",
                        f"{path}/{file['path']}",
                        StoredFile(file["size"], file["sha256"]),
                    )
            except DamagedFile as error:
                shutil.rmtree(self.directory / path, ignore_errors=True)
                skipped.append(f"The checkpoint of step {checkpoint.step} is skipped: {error}.")
            else:
                return path, skipped
        return None, skipped

    def _fetch_base_scores(self, evaluation: Evaluation) -> None:
        """Fetch the base model's predictions; without them the program scores it again."""
        target = self.directory / EVALUATIONS_DIR / f"base-{evaluation.split}.parquet"
        try:
            self.store.fetch(evaluation.key, target, StoredFile(evaluation.size, evaluation.sha256))
        except DamagedFile:
            target.unlink(missing_ok=True)

    def _fetch(self, key: str, path: str, expected: StoredFile) -> None:
        """Fetch a file of the store to `path` below the directory. Raises OSError, DamagedFile."""
        self.store.fetch(key, self.directory / path, expected, self.transfers.track(key))


def _base_evaluations(session: Session, claim: Claim) -> list[Evaluation]:
    statement = select(Evaluation).where(
        Evaluation.job_id == claim.job_id, col(Evaluation.target) == "base"
    )
    return list(session.exec(statement))
