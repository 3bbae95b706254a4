"""Which weights are the best, and when to stop early."""

from service.domain.spec import TrainingSection
from worker.training.checkpoints import LoopState


def judge(state: LoopState, loss: float, training: TrainingSection) -> bool:
    """Take note of a validation loss; True: these weights are the best so far.

    Early stopping as transformers' EarlyStoppingCallback has it: patience counts evaluations that
    are not better than the best so far by more than the threshold. Any improvement at all, however
    small, is the new best.
    """
    best = state.best_metric
    if best is None or best - loss > training.early_stopping_threshold:
        state.stale = 0
    else:
        state.stale += 1
    patience = training.early_stopping_patience
    state.stopped_early = 0 < patience <= state.stale
    if best is None or loss < best:
        state.best_metric, state.best_step = loss, state.step
        return True
    return False
