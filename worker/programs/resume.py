"""Resuming of a training from a checkpoint, when its job is not started for the first time."""

from service.domain.errors import ProgramFailure
from service.domain.events import Progress, RewoundEvent
from service.domain.job import CHECKPOINTS_DIR, Job, checkpoint_path
from service.domain.states import FailureReason
from worker.training import checkpoints
from worker.training.checkpoints import BrokenCheckpoint
from worker.training.loop import Trainer
from worker.training.tensorboard import TensorBoardWriter


def resume(job: Job, trainer: Trainer, board: TensorBoardWriter | None) -> None:
    """Restore the newest intact checkpoint and emit the step from which training resumes.

    The rewound event supersedes what an earlier start reported for later steps. `board` is None on
    nonzero ranks. Raises ProgramFailure(crashed) if no checkpoint is intact: another attempt
    fetches them again from the store.
    """
    reporter = trainer.reporter
    is_restart = job.resume_from is not None or job.token > 1 or reporter.is_continued
    if job.resume_from is not None:
        _restore(trainer, job.resume_from)
        if board is not None:
            board.replay(trainer.state.log_history)
    step = trainer.state.step
    if is_restart:
        reporter.emit(RewoundEvent, step=step)
    reporter.emit(
        Progress,
        step=step,
        total_steps=trainer.plan.total_steps,
        epoch=trainer.plan.epoch(step),
    )


def _restore(trainer: Trainer, resume_from: str) -> None:
    """Restore the checkpoint `resume_from` of job.json, or the newest intact one before it."""
    parent = trainer.directory / CHECKPOINTS_DIR
    newest = trainer.directory / resume_from
    # Not a later one: job.json would name it if it had been announced, together with what was
    # logged on the way to it.
    earlier = [step for step in checkpoints.steps_in(parent) if step < checkpoints.step_of(newest)]
    errors = []
    for directory in [newest, *(trainer.directory / checkpoint_path(step) for step in earlier)]:
        try:
            trainer.restore(checkpoints.read(directory))
        except BrokenCheckpoint as error:
            errors.append(str(error))
            trainer.reporter.warn(
                "checkpoint_broken",
                f"Training cannot resume from {directory.name}: {error}. It is skipped.",
            )
        else:
            return
    raise ProgramFailure(FailureReason.CRASHED, f"Cannot resume: {'; '.join(errors)}.")
