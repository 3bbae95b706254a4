"""Use cases on merged models: ask for one as a job of its own, cancel it."""

from sqlmodel import Session

from service.context import Context
from service.datasets.stats import DatasetStats
from service.domain.errors import InvalidRequest
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeRequest, MergeTask
from service.domain.spec import RunSpec
from service.store import job_control, jobs, merges
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.merges import StoredMerge
from service.store.tables import Dataset, Job, Run
from service.usecases import job_submission
from service.usecases.evaluations import adapter_step, checkpoint_step
from service.usecases.job_submission import Order
from service.usecases.retention import check_quota


def submit(
    context: Context,
    run_id: str,
    asked: MergeRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredMerge, bool]:
    """Store the merge's queued job, then send a queue message. `by`: who asks.

    Returns the merge, and whether it was made now (False: the key was used before, or a merge of
    the same weights with the same parameters is there or under way). The run itself stays as it
    is, whatever comes of it. Raises NotFound, InvalidRequest, QuotaExceeded, and Conflict where the
    run has nothing to merge.
    """

    def create(session: Session, run: Run, trained: Job) -> Order:
        task = resolve(session, run, trained, asked)
        if (found := merges.same(session, run_id, task)) is not None:
            return Order(found.id, None)
        check_quota(session, context.settings.store_quota_bytes)
        params = task.model_dump(mode="json")
        job = jobs.create(session, run.id, MERGE, by=by, params=params)
        return Order(MERGE.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, merges.find, create)


def cancel(
    context: Context, run_id: str, merge: str | None, *, by: str | None = None
) -> StoredMerge:
    """Cancel a waiting one at once; a running one stops soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        found = merges.find(session, run_id, merge)
        job_control.cancel(session, found.job, by)
    with context.database.read() as session:
        return merges.find(session, run_id, found.id)


def resolve(session: Session, run: Run, trained: Job, asked: MergeRequest) -> MergeTask:
    """What exactly is to be merged. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    if asked.base_weights == "dequantized" and not spec.quantization.load_in_4bit:
        raise InvalidRequest.at(
            "/base_weights",
            "the run was not trained on 4-bit weights (quantization.load_in_4bit), so what it saw "
            "are the original ones; leave it out",
        )
    stats = DatasetStats.model_validate(session.get_one(Dataset, run.dataset_id).stats)
    if asked.checkpoint is None:
        step = adapter_step(session, run, trained, "merge a checkpoint, or wait for it")
    else:
        step = checkpoint_step(
            session, run, trained, asked.checkpoint, "/checkpoint", "wait for its adapter"
        )
    return MergeTask(
        target="adapter" if asked.checkpoint is None else "checkpoint",
        step=step,
        dtype=asked.dtype,
        max_shard_bytes=asked.max_shard_bytes,
        base_weights=asked.base_weights,
        labels=sorted(stats.splits["train"].labels),
        split=next(split for split in ("validation", "test", "train") if split in stats.splits),
    )
