"""Out of memory: the same job with fewer rows per forward pass and the same effective batch."""

import math
from pathlib import Path

from service.domain.job import Job
from service.store import events, jobs
from service.store.database import Database
from service.store.events import NewEvent
from service.store.jobs import Claim
from worker.runtime.out_of_memory import Batch
from worker.supervision import job_directory


def halve_batch(directory: Path, database: Database, claim: Claim, batch: Batch) -> bool:
    """Halve a batch in job.json and in the job's row, with an event; resume from a checkpoint.

    Returns False, and changes nothing, if the batch is one row already. Later attempts keep the
    smaller batch. Raises Unavailable, Fenced, OSError.
    """
    job = Job.read(directory)
    rows = _current_rows(job, batch)
    if rows == 1:
        return False
    smaller = rows // 2
    detail = (
        f"Out of memory with {rows} rows per forward pass; continuing with {smaller}. "
        f"{_consequence(job, batch, smaller)}"
    )
    field = f"{batch}_batch_size"
    with database.write() as session:
        row = jobs.lock_for_worker(session, claim)
        setattr(row, field, smaller)
        session.add(row)
        warning = NewEvent("warning", {"code": "out_of_memory", "detail": detail}, claim.token)
        events.append(session, claim.run_id, claim.job_id, [warning])
    job_directory.write_job(
        directory,
        job.model_copy(
            update={
                field: smaller,
                "resume_from": job_directory.newest_checkpoint(directory, job.resume_from),
            }
        ),
    )
    return True


def _current_rows(job: Job, batch: Batch) -> int:
    """Return the rows per forward pass: those of the job, else those of the specification."""
    training = job.spec.training
    if batch == "train":
        return job.train_batch_size or training.per_device_train_batch_size
    return job.eval_batch_size or training.per_device_eval_batch_size


def _consequence(job: Job, batch: Batch, rows: int) -> str:
    """Return a sentence on what the smaller batch changes, for the warning."""
    training, effective = job.spec.training, job.spec.effective_batch_size
    if batch == "eval":
        return "This affects evaluation only; its results do not depend on the batch size."
    if training.packing != "none":
        tokens = rows * training.max_seq_length
        return f"Packed rows hold at most {tokens} tokens; the effective batch remains {effective}."
    world = job.spec.resources.num_processes
    passes = math.ceil(math.ceil(effective / rows) / world)
    per_process = " in each process" if world > 1 else ""
    return (
        f"Gradients are accumulated over {passes} passes{per_process}; the effective batch remains "
        f"{effective}."
    )
