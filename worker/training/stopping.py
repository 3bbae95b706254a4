"""Which weights are the best, and when to stop early."""

from service.domain.spec import TrainingSection
from service.fairness.selection import CheckpointScore, is_better
from worker.training.checkpoints import LoopState


def judge(
    state: LoopState,
    loss: float,
    training: TrainingSection,
    standing: CheckpointScore | None = None,
) -> bool:
    """Take note of a validation loss; True: these weights are the best so far.

    Early stopping as transformers' EarlyStoppingCallback has it: patience counts evaluations that
    are not better than the best so far by more than the threshold. Any improvement at all, however
    small, is the new best.

    With a `standing` that decides which weights are the best, and the loss on stopping alone.
    """
    lowest = state.best_metric
    if lowest is None or lowest - loss > training.early_stopping_threshold:
        state.stale = 0
    else:
        state.stale += 1
    patience = training.early_stopping_patience
    state.stopped_early = 0 < patience <= state.stale
    lower = lowest is None or loss < lowest
    if lower:
        state.best_metric = loss
    best = lower if standing is None else is_better(standing, state.best_standing)
    if best:
        state.best_step, state.best_standing = state.step, standing
    return best
