"""Where a training goes on from, when it is not the first start of its job."""

from service.domain.errors import ProgramFailure
from service.domain.events import Progress, RewoundEvent
from service.domain.states import FailureReason
from worker.runtime.launch import Program
from worker.training import checkpoints
from worker.training.checkpoints import BrokenCheckpoint
from worker.training.loop import Trainer
from worker.training.tensorboard import TensorBoardWriter


def resume(program: Program, trainer: Trainer, board: TensorBoardWriter | None) -> None:
    """Restore the newest checkpoint that can be, and say which step is gone on from.

    What an earlier start said of later steps is superseded by that. Raises ProgramFailure(crashed)
    when no checkpoint is left: another attempt gets them anew from the store. `board` is None in
    all processes of a run but the first.
    """
    job, reporter = program.job, program.reporter
    again = job.resume_from is not None or job.token > 1 or reporter.goes_on
    if job.resume_from is not None:
        _restore(program, trainer, job.resume_from)
        if board is not None:
            board.replay(trainer.state.log_history)
    step = trainer.state.step
    if again:
        reporter.emit(RewoundEvent, step=step)
    reporter.emit(
        Progress,
        step=step,
        total_steps=trainer.plan.total_steps,
        epoch=trainer.plan.epoch(step),
    )


def _restore(program: Program, trainer: Trainer, named: str) -> None:
    """Restore the checkpoint `named` in job.json, or the newest one before it that is whole."""
    place = program.directory / "checkpoints"
    first = program.directory / named
    # Not a later one: job.json would name it if it had been announced, and what was logged on the
    # way there with it.
    earlier = [step for step in checkpoints.steps_in(place) if step < checkpoints.step_of(first)]
    broken = []
    for directory in [first, *(place / f"checkpoint-{step}" for step in earlier)]:
        try:
            trainer.restore(checkpoints.read(directory))
        except BrokenCheckpoint as error:
            broken.append(str(error))
            program.reporter.warn(
                "checkpoint_broken",
                f"Training cannot go on from {directory.name}: {error}. It is passed over.",
            )
        else:
            return
    raise ProgramFailure(FailureReason.CRASHED, f"Cannot resume: {'; '.join(broken)}.")
