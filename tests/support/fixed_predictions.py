"""A training loop with fixed validation predictions, so that the best checkpoint is known."""

from pathlib import Path
from typing import Any

from service.fairness import Predictions
from tests.support.train_jobs import make_trainer, spec, token_examples
from worker.training.selection import Selection

ODD = "a/b, c 🙂"
"""A group's name can hold any character."""

ERRORS = {3: (0, 2), 6: (2, 1), 9: (4, 0)}
"""For each step the false negatives, and the false positives of ODD; a group has 4 rows of each.

F1 is 16/18, 12/15, 8/12; the FPR of ODD 0.5, 0.25, 0.
"""
LOSSES = {3: 1.0, 6: 0.9, 9: 0.5}


def answers(step: int, errors: dict[int, tuple[int, int]] | None = None) -> Predictions:
    """Return the validation predictions of the weights at that step."""
    missed, wrong = (errors or ERRORS)[step]
    rows = [(group, label) for group in (ODD, "b") for label in ("hate", "normal") for _ in "1234"]
    predicted = (
        ["hate"] * 4 + ["hate"] * wrong + ["normal"] * (4 - wrong) + ["hate"] * 4 + ["normal"] * 4
    )
    for row in [index for index, (_, label) in enumerate(rows) if label == "hate"][:missed]:
        predicted[row] = "normal"
    scores = [0.9 if label == "hate" else 0.2 for label in predicted]
    return Predictions(
        ids=[str(number) for number in range(len(rows))],
        labels=[label for _, label in rows],
        groups=[group for group, _ in rows],
        sources=[None] * len(rows),
        details=[None] * len(rows),
        predictions=predicted,
        scores=scores,
        label_scores={"hate": scores, "normal": [1 - score for score in scores]},
        split="validation",
        checkpoint_step=step,
    )


def choosing(
    load: Any,
    directory: Path,
    caps: list[dict[str, Any]],
    min_f1: float | None = None,
    errors: dict[int, tuple[int, int]] | None = None,
    **training: Any,
) -> Any:
    """Return a loop of 9 steps with evaluations at 3, 6 and 9."""
    run_spec = spec(
        training={"num_train_epochs": 3, "save_total_limit": 1} | training,
        fairness={"select": "best_f1_within_caps", "caps": caps, "min_f1": min_f1},
    )
    selection = Selection(
        run_spec.fairness, fitted=False, score=lambda _model, step, _between: answers(step, errors)
    )
    run = make_trainer(
        load, directory, run_spec, token_examples(10), token_examples(3), selection=selection
    )
    run._evaluate = lambda: {"eval_loss": LOSSES[run.state.step]}
    return run
