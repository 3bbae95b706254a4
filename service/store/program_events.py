"""Record a program's events, fenced by its worker's token, each line once."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from service.domain.events import (
    ArtifactEvent,
    CheckpointEvent,
    EvaluationEvent,
    FailureEvent,
    FileEntry,
    MergedEvent,
    MetricsEvent,
    PhaseEvent,
    PredictionsEvent,
    ProgramEvent,
    Progress,
    RewoundEvent,
)
from service.domain.ids import new_id
from service.domain.job_kinds import EVALUATE, job_kind
from service.domain.merge import merged_path
from service.domain.states import JobStatus
from service.store import events, jobs, merges, metrics
from service.store.events import NewEvent
from service.store.jobs import Claim
from service.store.rewind import UnusedFiles, rewind
from service.store.tables import Artifact, Checkpoint, Evaluation, Job, Run


def run_prefix(run_id: str) -> str:
    """Return the prefix of a run's files in the artifact store."""
    return f"runs/{run_id}"


def prefix(run_id: str, job_id: str, token: int) -> str:
    """Return the prefix of an attempt's files in the artifact store; no two attempts share one."""
    return f"{run_prefix(run_id)}/{job_id}/{token}"


def run_of(key: str) -> str:
    """Return the id of the run to which a file of an attempt belongs."""
    return key.split("/")[1]


def attempt_prefix(key: str) -> str:
    """Return the prefix of the attempt to which a file belongs."""
    return "/".join(key.split("/")[:4])


def prefix_of(claim: Claim) -> str:
    return prefix(claim.run_id, claim.job_id, claim.token)


def prefixes_up_to(run_id: str, job_id: str, token: int) -> list[str]:
    """Return the prefixes of an attempt and the job's earlier ones; none for token 0.

    Later attempts are left out: whoever deletes unrecorded files may have lost the job to one of
    them without knowing it yet.
    """
    return [prefix(run_id, job_id, earlier) for earlier in range(1, token + 1)]


def ended_prefixes(session: Session, run_id: str) -> set[str] | None:
    """Return the prefixes of all ended attempts at a run's jobs; None if the run is deleted.

    They record nothing more. A running job's attempt has not ended, and none that may follow.
    """
    if session.get(Run, run_id) is None:
        return None
    statement = select(Job.id, Job.token, Job.status).where(Job.run_id == run_id)
    return {
        ended
        for job_id, token, status in session.exec(statement)
        for ended in prefixes_up_to(run_id, job_id, token - (status == JobStatus.RUNNING))
    }


def ship(session: Session, claim: Claim, lines: Sequence[ProgramEvent]) -> list[UnusedFiles]:
    """Record `lines` in order, skipping those that were recorded before.

    Their files must be in the store under `prefix_of(claim)` already. Returns the files that no row
    names any more. Raises Fenced if the job is no longer this worker's, and RuntimeError for an
    event that a program of this kind may not emit.
    """
    job = jobs.lock_for_worker(session, claim)
    new = [line for line in lines if line.seq > job.shipped_seq]
    if not new:
        return []
    unused: list[UnusedFiles] = []
    kind = job_kind(job.kind)
    points: dict[tuple[str, int], dict[str, Any]] = {}
    for line in new:
        if isinstance(line, RewoundEvent):  # it deletes points: those before it must be stored
            metrics.put(session, list(points.values()))
            points.clear()
        if not kind.accepts(line):
            raise RuntimeError(f"a program of kind {kind.name} may not emit a {line.type} event")
        unused += _apply(session, claim, job, line)
        if isinstance(line, MetricsEvent):
            points |= _points(claim, line)
    metrics.put(session, list(points.values()))
    job.shipped_seq = new[-1].seq
    session.add(job)
    session.flush()
    visible = [
        NewEvent(line.type, _public(line), claim.token, line.seq)
        for line in new
        if not isinstance(line, Progress | FailureEvent)
    ]
    events.append(session, claim.run_id, claim.job_id, visible)
    # Rewound past a step and saved it again within one batch: its prefix is in use again.
    used = set(session.exec(select(Checkpoint.prefix).where(Checkpoint.run_id == claim.run_id)))
    return [checkpoint for checkpoint in unused if checkpoint.prefix not in used]


def _public(line: ProgramEvent) -> dict[str, Any]:
    data = line.model_dump(mode="json", exclude={"seq", "type"})
    if isinstance(line, CheckpointEvent | MergedEvent):
        data.pop("path")
    if isinstance(line, PredictionsEvent):
        data.pop("file")
    return data


def _apply(session: Session, claim: Claim, job: Job, line: ProgramEvent) -> list[UnusedFiles]:
    match line:
        case PhaseEvent():
            job.phase, job.phase_share = line.phase, None
        case Progress():
            job.step, job.total_steps, job.epoch = line.step, line.total_steps, line.epoch
            job.samples_per_second = line.samples_per_second
            job.eta_seconds, job.phase_share = line.eta_seconds, line.phase_share
            if line.gpu_memory_bytes is not None:
                # A program that is restarted with a smaller batch begins at 0.
                job.gpu_memory_bytes = max(job.gpu_memory_bytes or 0, line.gpu_memory_bytes)
        case MetricsEvent():
            job.metrics = job.metrics | line.values
        case RewoundEvent():
            return rewind(session, job, line.step)
        case CheckpointEvent():
            return _put_checkpoint(session, claim, job, line)
        case ArtifactEvent() | PredictionsEvent():
            path = claim.kind.path(job.id, line.file.path)
            visible = line.file.model_copy(update={"path": path})
            put_artifact(session, claim, visible, line.file.path)
        case EvaluationEvent():
            _put_evaluation(session, claim, job, line)
        case MergedEvent():
            _put_merged(session, claim, job, line)
        case _:
            pass
    return []


def _points(claim: Claim, line: MetricsEvent) -> dict[tuple[str, int], dict[str, Any]]:
    """Return a row for each value, by name and step."""
    common = {
        "run_id": claim.run_id,
        "step": line.step,
        "epoch": line.epoch,
        "job_id": claim.job_id,
        "token": claim.token,
    }
    return {
        (name, line.step): common | {"name": name, "value": value}
        for name, value in line.values.items()
    }


def put_artifact(
    session: Session, claim: Claim, file: FileEntry, stored_path: str | None = None
) -> None:
    """Make a file of the store visible under its path; a newer attempt's replaces an older's.

    It lies in the store under `stored_path` (default: its path) below the attempt's prefix.
    """
    existing = session.get(Artifact, (claim.run_id, file.path))
    if existing is not None:
        session.delete(existing)
        session.flush()
    session.add(
        Artifact(
            run_id=claim.run_id,
            path=file.path,
            job_id=claim.job_id,
            token=claim.token,
            key=f"{prefix_of(claim)}/{stored_path or file.path}",
            size=file.size,
            sha256=file.sha256,
        )
    )


def _put_merged(session: Session, claim: Claim, job: Job, line: MergedEvent) -> None:
    """Make a merged model visible, all its files at once, instead of an earlier attempt's."""
    for old in merges.files_of(session, job):
        session.delete(old)
    session.flush()
    merge = claim.kind.result_id(job.id)
    for file in line.files:
        visible = file.model_copy(update={"path": merged_path(merge, file.path)})
        put_artifact(session, claim, visible, f"{line.path}/{file.path}")
    job.metrics = line.comparison.figures


def _put_checkpoint(
    session: Session, claim: Claim, job: Job, line: CheckpointEvent
) -> list[UnusedFiles]:
    """Record a checkpoint and delete the rows beyond save_total_limit."""
    existing = list(
        session.exec(
            select(Checkpoint)
            .where(Checkpoint.run_id == claim.run_id)
            .order_by(col(Checkpoint.step))
        )
    )
    replaced = [old for old in existing if old.step == line.step]
    if not existing or line.step > existing[-1].step:
        job.attempts_since_checkpoint = 0
    for old in replaced:
        session.delete(old)
    session.flush()
    checkpoint_prefix = f"{prefix_of(claim)}/{line.path}"
    session.add(
        Checkpoint(
            run_id=claim.run_id,
            step=line.step,
            job_id=claim.job_id,
            token=claim.token,
            epoch=line.epoch,
            metrics=line.metrics,
            prefix=checkpoint_prefix,
            files=[file.model_dump() for file in line.files],
            size=sum(file.size for file in line.files),
        )
    )
    session.flush()
    session.execute(
        update(Checkpoint)
        .where(col(Checkpoint.run_id) == claim.run_id)
        .values(is_best=col(Checkpoint.step) == line.best_step)
    )
    run = session.get_one(Run, claim.run_id)
    limit: int = run.spec["training"]["save_total_limit"]
    others = [old for old in existing if old.step not in (line.step, line.best_step)]
    best_is_other = line.best_step is not None and line.best_step != line.step
    keep = max(0, limit - 1 - int(best_is_other))
    surplus = others[: max(0, len(others) - keep)]
    for old in surplus:
        session.delete(old)
    # A step saved twice by one attempt has one prefix: its files are the new ones.
    removed = [old for old in replaced if old.prefix != checkpoint_prefix] + surplus
    return [UnusedFiles(old.prefix, old.step) for old in removed]


def steps_of(session: Session, run_id: str) -> set[int]:
    """Return the steps of the stored checkpoints."""
    return set(session.exec(select(Checkpoint.step).where(Checkpoint.run_id == run_id)))


def keys_of(session: Session, run_id: str) -> set[str]:
    """Return the keys of all files of the run that a row names."""
    checkpoints = session.exec(select(Checkpoint).where(Checkpoint.run_id == run_id))
    keys = {
        f"{checkpoint.prefix}/{file['path']}"
        for checkpoint in checkpoints
        for file in checkpoint.files
    }
    keys |= set(session.exec(select(Artifact.key).where(Artifact.run_id == run_id)))
    return keys | set(session.exec(select(Evaluation.key).where(Evaluation.run_id == run_id)))


def _put_evaluation(session: Session, claim: Claim, job: Job, line: EvaluationEvent) -> None:
    task = jobs.task_of(job)
    run = session.get_one(Run, claim.run_id)
    label = f"{claim.job_id}/{line.target}/{line.step}/{line.split}/{line.template}"
    session.execute(
        delete(Evaluation).where(
            col(Evaluation.run_id) == claim.run_id, col(Evaluation.label) == label
        )
    )
    session.add(
        Evaluation(
            id=new_id(EVALUATE.result_prefix) if claim.kind.trains else EVALUATE.result_id(job.id),
            run_id=claim.run_id,
            label=label,
            job_id=claim.job_id,
            token=claim.token,
            target=line.target,
            step=line.step,
            dataset_id=(task and task.dataset_id) or run.dataset_id,
            split=line.split,
            template=line.template,
            metrics=line.metrics,
            key=f"{prefix_of(claim)}/{line.predictions.path}",
            size=line.predictions.size,
            sha256=line.predictions.sha256,
        )
    )
