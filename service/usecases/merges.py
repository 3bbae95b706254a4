"""Use cases: request a merged model as a job of its own, cancel the merge."""

from sqlmodel import Session

from service.context import Context
from service.domain.errors import InvalidRequest
from service.domain.job_kinds import MERGE
from service.domain.merge import MergeRequest, MergeTask
from service.domain.spec import RunSpec
from service.store import job_control, jobs, merges
from service.store import runs as rows
from service.store.idempotency import IdempotencyKey
from service.store.merges import StoredMerge
from service.store.tables import Job, Run
from service.usecases import job_submission
from service.usecases.evaluations import adapter_step, checkpoint_step
from service.usecases.job_submission import ResultHandle
from service.usecases.learned import learned
from service.usecases.retention import check_quota


def submit(
    context: Context,
    run_id: str,
    request: MergeRequest,
    key: IdempotencyKey | None = None,
    *,
    by: str | None = None,
) -> tuple[StoredMerge, bool]:
    """Store the merge's queued job, then send a queue message.

    Returns the merge, and True if it is new (False: the key was used before, or a merge of the same
    weights with the same parameters exists or is in progress). `by` is the name of the caller's API
    key. The run's own state never changes. Raises NotFound, InvalidRequest, QuotaExceeded, and
    Conflict if the run has nothing to merge.
    """

    def create(session: Session, run: Run, trained: Job) -> ResultHandle:
        task = resolve(session, run, trained, request)
        if (existing := merges.same(session, run_id, task)) is not None:
            return ResultHandle(existing.id, None)
        check_quota(context)
        params = task.model_dump(mode="json")
        job = jobs.create(session, run.id, MERGE, by=by, params=params)
        return ResultHandle(MERGE.result_id(job.id), job)

    return job_submission.submit(context, run_id, key, merges.find, create)


def cancel(
    context: Context, run_id: str, merge: str | None, *, by: str | None = None
) -> StoredMerge:
    """Cancel a waiting merge at once, a running one soon. Raises NotFound, Conflict."""
    with context.database.write() as session:
        rows.get_run(session, run_id)
        cancelled = merges.find(session, run_id, merge)
        job_control.cancel(session, cancelled.job, by)
    with context.database.read() as session:
        return merges.find(session, run_id, cancelled.id)


def resolve(session: Session, run: Run, trained: Job, request: MergeRequest) -> MergeTask:
    """Resolve the request's defaults into a task. Raises InvalidRequest, Conflict."""
    spec = RunSpec.model_validate(run.spec)
    if request.base_weights == "dequantized" and not spec.quantization.load_in_4bit:
        raise InvalidRequest.at(
            "/base_weights",
            "the run was not trained on 4-bit weights (quantization.load_in_4bit), but on the "
            "original ones; omit it",
        )
    own = learned(session, run)
    if request.checkpoint is None:
        step = adapter_step(session, run, trained, "merge a checkpoint, or wait for the adapter")
    else:
        step = checkpoint_step(
            session, run, trained, request.checkpoint, "/checkpoint", "wait for its adapter"
        )
    return MergeTask(
        target="adapter" if request.checkpoint is None else "checkpoint",
        step=step,
        dtype=request.dtype,
        max_shard_bytes=request.max_shard_bytes,
        base_weights=request.base_weights,
        labels=own.labels,
        split=next(split for split in ("validation", "test", "train") if split in own.stats.splits),
    )
