"""Job directories: all that a program needs, made by its supervisor and removed afterwards."""

import shutil
from pathlib import Path
from typing import BinaryIO

from sqlmodel import Session, col, select

from service.artifacts import ArtifactStore
from service.datasets.templates import builtin_templates
from service.domain.job import DATASET_FILE, JOB_FILE, LOG_FILE, Job
from service.domain.spec import RunSpec
from service.settings import Settings
from service.store.database import Database
from service.store.jobs import Claim
from service.store.tables import Artifact, Checkpoint, Dataset, Run


def path_of(jobs_dir: Path, claim: Claim) -> Path:
    """The directory's name carries the token: no two attempts share one."""
    return jobs_dir / f"{claim.job_id}-{claim.token}"


def open_log(directory: Path) -> BinaryIO:
    """What a program prints goes where it logs."""
    return (directory / LOG_FILE).open("ab")


def remove(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)


def prepare(
    directory: Path, settings: Settings, database: Database, store: ArtifactStore, claim: Claim
) -> None:
    """Lay out job.json, the rows and the checkpoint to go on from. Raises NotFound, OSError."""
    with database.read() as session:
        run = session.get_one(Run, claim.run_id)
        dataset = session.get_one(Dataset, run.dataset_id)
        checkpoint = _newest(session, claim.run_id)
        log = session.get(Artifact, (claim.run_id, LOG_FILE))
    remove(directory)
    directory.mkdir(parents=True)
    _fetch(store, dataset.key, directory / DATASET_FILE)
    resume_from = None
    if checkpoint is not None:
        resume_from = f"checkpoints/checkpoint-{checkpoint.step}"
        for file in checkpoint.files:
            _fetch(
                store, f"{checkpoint.prefix}/{file['path']}", directory / resume_from / file["path"]
            )
    if log is not None:  # the log of a run goes on where an earlier attempt's ended
        _fetch(store, log.key, directory / LOG_FILE)
    spec = RunSpec.model_validate(run.spec)
    templates = builtin_templates()
    baseline = spec.evaluation.baseline_template
    job = Job(
        job_id=claim.job_id,
        run_id=claim.run_id,
        token=claim.token,
        spec=spec,
        template=templates[spec.template],
        baseline_template=None if baseline is None else templates[baseline],
        models_dir=str(settings.models_dir),
        completions=dataset.completions or None,
        resume_from=resume_from,
    )
    (directory / JOB_FILE).write_text(job.model_dump_json(indent=2) + "\n")


def _newest(session: Session, run_id: str) -> Checkpoint | None:
    statement = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return session.exec(statement.order_by(col(Checkpoint.step).desc()).limit(1)).first()


def _fetch(store: ArtifactStore, key: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with store.open(key) as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
