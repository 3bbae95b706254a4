"""The weights that an evaluation or merge job is about: from the store into its job directory."""

from pathlib import Path

from service.artifacts import ArtifactStore, Damaged, Stored
from service.domain.errors import NotFound, ProgramFailure
from service.domain.states import FailureReason
from service.domain.task import Task
from service.store import evaluations
from service.store.database import Database
from service.store.evaluations import Weights
from worker.supervision.transfer_progress import TransferProgress
from worker.supervision.weights_cache import WeightsCache

ADAPTER = "adapter"
MERGED = "merged"


def fetch(
    store: ArtifactStore,
    database: Database,
    run_id: str,
    task: Task,
    directory: Path,
    cache: WeightsCache,
    movement: TransferProgress,
) -> str | None:
    """Lay out the adapter as peft opens it, or the merged model as transformers does.

    Returns its place below `directory`, None for the base model. Raises OSError, Unavailable,
    Damaged, and ProgramFailure where the run does not keep it: a training that goes on drops
    checkpoints.
    """
    place = MERGED if task.target == "merged" else ADAPTER
    for last_look in (False, True):
        files = _files(database, run_id, task)
        try:
            for file in files:
                expected = Stored(file.size, file.sha256)
                target = directory / place / file.name
                target.unlink(missing_ok=True)  # of the first look
                cache.lay(store, file.key, target, expected, movement.track(file.key))
        except Damaged:
            # Or dropped since its row was read: the second look tells.
            if last_look:
                raise
        else:
            break
    return place if files else None


def _files(database: Database, run_id: str, task: Task) -> list[Weights]:
    with database.read() as session:
        try:
            return evaluations.weight_files(session, run_id, task)
        except NotFound as error:
            raise ProgramFailure(FailureReason.INVALID_SPEC, f"{error.detail}.") from error
