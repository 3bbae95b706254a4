"""The base model's scores: made once in a run, however often its program starts."""

import time
from typing import Any

from service.domain.events import Progress
from service.domain.states import Phase
from service.fairness import Predictions
from worker.data.rows import Row
from worker.data.tokenize import Prompts, Tokens
from worker.runtime.gpu import peak_gpu_memory
from worker.runtime.launch import Program
from worker.scoring.evaluate import Scorer

ROWS_PER_SECOND = 20.0
"""Taken for the speed of scoring until a split has been scored."""


def score_base(
    program: Program,
    scorer: Scorer,
    model: Any,
    tokens: Tokens,
    rows: dict[str, list[Row]],
    splits: list[str],
    later: list[str],
    total_steps: int,
) -> tuple[dict[str, Predictions], float]:
    """Predictions by split, and the seconds that scoring all of `later` will take here.

    `later` are `splits` and those that only the tuned model is scored on.
    """
    job, reporter = program.job, program.reporter
    before: dict[str, Predictions] = {}
    seconds = 0.0
    wanted = splits if job.spec.evaluation.baseline else []
    if wanted:
        reporter.phase(Phase.BASELINE)
    prompts = Prompts(tokens, job.baseline_template or job.template, job.completions)

    def alive(_left: float) -> None:
        reporter.emit(
            Progress, step=0, total_steps=total_steps, epoch=0, gpu_memory_bytes=peak_gpu_memory()
        )

    for split in later:
        found, known, began = False, None, time.monotonic()
        if split in wanted:
            if scorer.world.is_rank_zero:
                found, known = scorer.stored_base_predictions(rows[split])
            found = scorer.world.broadcast_flag(found)
            if not found:
                known = scorer.evaluate(model, rows[split], prompts, "base", None, alive)
        if known is not None:
            before[split] = known
        scored = split in wanted and not found
        seconds += time.monotonic() - began if scored else len(rows[split]) / ROWS_PER_SECOND
    return before, seconds
