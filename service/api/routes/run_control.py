"""Control of a run: cancel, pause, resume, retry."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from service.api.dependencies import Ctx, RunId, Who, no_body
from service.api.openapi import WRITES
from service.api.routes.runs import current_view
from service.api.schemas.runs import RunView
from service.usecases import run_control

router = APIRouter(
    prefix="/v1/runs/{run_id}", tags=["runs"], responses=WRITES, dependencies=[Depends(no_body)]
)


@router.post("/cancel", summary="Cancel a run")
def cancel_run(context: Ctx, who: Who, run_id: RunId) -> RunView:
    """Cancel a queued or paused run immediately, a running one at its next step.

    Checkpoints and metrics are kept. A run that is already writing its result finishes.
    """
    return current_view(context, run_control.cancel(context, run_id, by=who.name))


@router.post("/pause", summary="Pause a run")
def pause_run(context: Ctx, who: Who, run_id: RunId) -> RunView:
    """Pause a queued run immediately, a running one after writing a checkpoint at its next step.

    This frees the worker and its GPU. A run that is already writing its result finishes.
    """
    return current_view(context, run_control.pause(context, run_id, by=who.name))


@router.post("/resume", summary="Resume a run")
def resume_run(context: Ctx, who: Who, run_id: RunId) -> RunView:
    """Return a paused run to the queue; any worker can resume it from its newest checkpoint."""
    return current_view(context, run_control.resume(context, run_id, by=who.name))


@router.post("/retry", summary="Retry a run")
def retry_run(
    context: Ctx,
    who: Who,
    run_id: RunId,
    from_start: Annotated[
        bool, Query(description="Discard checkpoints and metrics and start at step 0.")
    ] = False,
) -> RunView:
    """Run a failed run again, unchanged, from its newest checkpoint."""
    run_and_job = run_control.retry(context, run_id, from_start=from_start, by=who.name)
    return current_view(context, run_and_job)
