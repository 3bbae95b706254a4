"""Out of memory: the same job with fewer rows per forward pass, and the same effective batch."""

import math
from pathlib import Path
from typing import Literal

from service.domain.job import Job
from service.store import events, jobs
from service.store.database import Database
from service.store.events import NewEvent
from service.store.jobs import Claim
from worker.supervision import job_directory

Batch = Literal["train", "eval"]


def shrink(directory: Path, database: Database, claim: Claim, batch: Batch) -> bool:
    """Halve a batch in job.json and in the job's row, with an event; go on from a checkpoint.

    Returns False, and changes nothing, where the batch is one row already. Every later attempt
    keeps the smaller batch. Raises Unavailable, Fenced, OSError.
    """
    job = Job.read(directory)
    training = job.spec.training
    asked = {
        "train": training.per_device_train_batch_size,
        "eval": training.per_device_eval_batch_size,
    }[batch]
    now = (job.train_batch_size if batch == "train" else job.eval_batch_size) or asked
    if now == 1:
        return False
    smaller = now // 2
    detail = f"Memory did not suffice for {now} rows per forward pass; now there are {smaller}. "
    if batch == "train" and training.packing == "none":
        effective, world = job.spec.effective_batch_size, job.spec.resources.num_processes
        each = " in each process" if world > 1 else ""
        passes = math.ceil(math.ceil(effective / smaller) / world)
        detail += (
            f"Gradients are accumulated over {passes} passes{each}: the effective batch stays "
            f"{effective}."
        )
    elif batch == "train":
        tokens = smaller * training.max_seq_length
        detail += (
            f"Packed rows hold at most {tokens} tokens: the effective batch stays "
            f"{job.spec.effective_batch_size}."
        )
    else:
        detail += "Only evaluation is concerned, and its figures do not depend on it."
    field = f"{batch}_batch_size"
    with database.write() as session:
        row = jobs.hold(session, claim)
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
