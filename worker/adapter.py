"""The adapter that an evaluation job scores: from the store into its job directory."""

from pathlib import Path

from service.artifacts import ArtifactStore, Damaged, Stored
from service.domain.errors import NotFound, ProgramFailure
from service.domain.evaluation import EvaluationTask
from service.domain.states import FailureReason
from service.store import evaluations
from service.store.database import Database
from service.store.evaluations import Weights

DIRECTORY = "adapter"


def fetch(
    store: ArtifactStore, database: Database, run_id: str, task: EvaluationTask, directory: Path
) -> str | None:
    """Lay out the adapter as peft opens it; its place below `directory`, None for the base model.

    Raises OSError, Unavailable, Damaged, and ProgramFailure where the run does not keep it: a
    training that goes on drops checkpoints.
    """
    for last_look in (False, True):
        files = _files(database, run_id, task)
        try:
            for file in files:
                expected = Stored(file.size, file.sha256)
                store.fetch(file.key, directory / DIRECTORY / file.name, expected)
        except Damaged:
            # Or dropped since its row was read: the second look tells.
            if last_look:
                raise
        else:
            break
    return DIRECTORY if files else None


def _files(database: Database, run_id: str, task: EvaluationTask) -> list[Weights]:
    with database.read() as session:
        try:
            return evaluations.adapter_files(session, run_id, task)
        except NotFound as error:
            raise ProgramFailure(FailureReason.INVALID_SPEC, f"{error.detail}.") from error
