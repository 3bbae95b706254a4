"""Job directories: all that a program needs, made by its supervisor and removed afterwards."""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sqlmodel import Session, col, select

from service.artifacts import ArtifactStore, Damaged, Stored
from service.datasets.templates import builtin_templates
from service.domain.job import DATASET_FILE, EVENTS_FILE, JOB_FILE, LOG_FILE, Job
from service.domain.spec import RunSpec
from service.settings import Settings
from service.store import events, jobs
from service.store import runs as rows
from service.store.database import Database
from service.store.events import NewEvent
from service.store.jobs import Claim
from service.store.tables import Artifact, Checkpoint, Dataset, Evaluation, Run
from worker.supervision import weights
from worker.supervision.transfer_progress import TransferProgress
from worker.supervision.weights_cache import WeightsCache

_LOCK = ".lock"
_CACHE = ".weights"
# What `path_of` makes, and nothing else that a person may keep in the same folder.
_NAME = re.compile(r"(job_[0-9a-z]+-[0-9]+)(\.lock)?")


def path_of(jobs_dir: Path, claim: Claim) -> Path:
    """The directory's name carries the token: no two attempts share one."""
    return jobs_dir / f"{claim.job_id}-{claim.token}"


def cache_of(settings: Settings) -> WeightsCache:
    """On the disk of the job directories, for links do not cross disks."""
    return WeightsCache(settings.jobs_dir / _CACHE, settings.weights_cache_bytes)


def open_log(directory: Path) -> BinaryIO:
    """What a program prints goes where it logs."""
    return (directory / LOG_FILE).open("ab")


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Own a job directory; afterwards it is gone.

    The lock beside it falls with this process, however that ends, and so tells `sweep` which
    directories nobody works in any more. Raises OSError.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(directory.with_name(directory.name + _LOCK), wait=True)
    assert lock is not None
    try:
        yield
    finally:
        _remove(directory, lock)


def sweep(jobs_dir: Path) -> int:
    """Remove the directories of supervisors that were killed; return how many.

    Never raises: what cannot be removed now will be met again.
    """
    removed = 0
    with contextlib.suppress(OSError):
        found = (_NAME.fullmatch(path.name) for path in jobs_dir.iterdir())
        for directory in (jobs_dir / name for name in sorted({one[1] for one in found if one})):
            lock = _lock(directory.with_name(directory.name + _LOCK), wait=False)
            if lock is not None:
                _remove(directory, lock)
                removed += 1
    return removed


def _lock(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock, or None where another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Between our opening and locking it another process may have removed the file.
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _remove(directory: Path, lock: int) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.with_name(directory.name + _LOCK).unlink(missing_ok=True)
    os.close(lock)


def prepare(
    directory: Path,
    settings: Settings,
    database: Database,
    store: ArtifactStore,
    claim: Claim,
    movement: TransferProgress,
) -> None:
    """Lay out job.json, the rows, and what an earlier attempt left to go on from.

    A checkpoint that is not what was stored is passed over with an event. Raises OSError, Fenced,
    Unavailable, Damaged where the dataset is not in the store as it was, and ProgramFailure where
    what an evaluation job is to score, or a merge job to merge, is not kept any more.
    """
    with database.read() as session:
        run = session.get_one(Run, claim.run_id)
        job = jobs.get(session, claim.job_id)
        task = jobs.task_of(job)
        learned = session.get_one(Dataset, run.dataset_id)
        dataset = learned
        if task is not None and task.dataset_id is not None:
            dataset = session.get_one(Dataset, task.dataset_id)
        checkpoints = list(reversed(rows.checkpoints(session, claim.run_id)))
        scored = _base_scores(session, claim)
        log = session.get(Artifact, (claim.run_id, claim.kind.log_path(claim.job_id)))
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    if claim.kind.needs_dataset:
        expected = Stored(dataset.size, dataset.content_hash)
        store.fetch(dataset.key, directory / DATASET_FILE, expected, movement.track(dataset.key))
    resume_from, broken, place = None, list[str](), None
    if task is not None:
        cache = cache_of(settings)
        place = weights.fetch(store, database, claim.run_id, task, directory, cache, movement)
    if claim.kind.trains:
        resume_from, broken = _fetch_newest(store, checkpoints, directory, movement)
        for evaluation in scored:
            path = directory / "evaluations" / f"base-{evaluation.split}.parquet"
            _fetch_if_whole(store, evaluation.key, path, evaluation.size, evaluation.sha256)
    if log is not None:
        # The log of a job goes on where an earlier attempt's ended; it is stored under one key as
        # it grows, so it may be longer than its row says.
        with contextlib.suppress(Damaged):
            store.fetch(log.key, directory / LOG_FILE)
    spec = RunSpec.model_validate(run.spec)
    templates = builtin_templates()
    baseline = spec.evaluation.baseline_template if claim.kind.trains else None
    write_job(
        directory,
        Job(
            kind=claim.kind.name,
            job_id=claim.job_id,
            run_id=claim.run_id,
            token=claim.token,
            request_id=claim.request_id,
            spec=spec,
            template=templates[(task and task.template) or spec.template],
            baseline_template=None if baseline is None else templates[baseline],
            models_dir=str(settings.models_dir),
            completions=learned.completions or None,
            dataset_warnings=dataset.warnings,
            resume_from=resume_from,
            train_batch_size=job.train_batch_size,
            eval_batch_size=job.eval_batch_size,
            task=task,
            adapter=place if place == weights.ADAPTER else None,
            merged=place if place == weights.MERGED else None,
        ),
    )
    if broken:  # last: whatever fails before this is tried again as a whole
        warnings = [{"code": "checkpoint_broken", "detail": detail} for detail in broken]
        with database.write() as session:
            jobs.hold(session, claim)
            said = [NewEvent("warning", warning, claim.token) for warning in warnings]
            events.append(session, claim.run_id, claim.job_id, said)


def write_job(directory: Path, job: Job) -> None:
    """Write job.json, whole or not at all. Raises OSError."""
    aside = directory / f".{JOB_FILE}.tmp"
    aside.write_text(job.model_dump_json(indent=2) + "\n")
    aside.replace(directory / JOB_FILE)


def newest_checkpoint(directory: Path, resume_from: str | None) -> str | None:
    """The newest checkpoint in this directory, as job.json names it.

    One that a program announced, or the one that it went on from: what was completed and not
    announced would leave a gap in the series, since the lines before it are missing.
    """
    places = [] if resume_from is None else [resume_from]
    if (directory / EVENTS_FILE).exists():
        for raw in (directory / EVENTS_FILE).read_bytes().split(b"\n")[:-1]:
            line = json.loads(raw)
            if line["type"] == "checkpoint":
                places.append(line["path"])
    there = [place for place in places if (directory / place).is_dir()]
    return max(there, key=lambda place: int(place.rpartition("-")[2]), default=None)


def _base_scores(session: Session, claim: Claim) -> list[Evaluation]:
    """The base model is not scored again: it has not changed."""
    statement = select(Evaluation).where(
        Evaluation.job_id == claim.job_id, col(Evaluation.target) == "base"
    )
    return list(session.exec(statement))


def _fetch_newest(
    store: ArtifactStore, checkpoints: list[Checkpoint], directory: Path, movement: TransferProgress
) -> tuple[str | None, list[str]]:
    """Fetch the newest checkpoint that is whole; its place, and what was wrong with newer ones."""
    broken: list[str] = []
    for checkpoint in checkpoints:
        place = f"checkpoints/checkpoint-{checkpoint.step}"
        try:
            for file in checkpoint.files:
                key = f"{checkpoint.prefix}/{file['path']}"
                expected = Stored(file["size"], file["sha256"])
                store.fetch(key, directory / place / file["path"], expected, movement.track(key))
        except Damaged as error:
            shutil.rmtree(directory / place, ignore_errors=True)
            broken.append(f"The checkpoint of step {checkpoint.step} is passed over: {error}.")
        else:
            return place, broken
    return None, broken


def _fetch_if_whole(store: ArtifactStore, key: str, target: Path, size: int, sha256: str) -> None:
    """Fetch what one can do without."""
    try:
        store.fetch(key, target, Stored(size, sha256))
    except Damaged:
        target.unlink(missing_ok=True)
