"""Comparison of a merged model with its base model and adapter, on a sample of the run's rows."""

from collections.abc import Callable, Sequence
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.job import Job
from service.domain.merge import MergeComparison, MergeTask
from service.domain.states import FailureReason
from worker.data.rows import Row, sample
from worker.data.template_check import prompt_notes
from worker.data.tokenize import Prompts, Tokens
from worker.modeling.load import set_training
from worker.runtime.events import Reporter
from worker.runtime.out_of_memory import detect_out_of_memory
from worker.scoring.labels import Item, mean_log_likelihoods, score
from worker.scoring.predictions import predicted_label

MAX_ROWS = 64
"""Maximum number of rows compared."""

MAX_CHANGED_SHARE = 0.25
"""Maximum share of rows with a changed label (one row may always change): rounding alone changes
borderline rows, of which a model that has learned little has many. A wrong merge changes more."""

MAX_CHANGED_SHARE_ORIGINAL = 0.5
"""The same limit if a model trained on 4-bit weights is merged into the original ones: that is
another model, and a small one changes much. The limit then only rejects a useless model."""

MAX_MEAN_NATS = 0.5
"""Without labels: maximum of the mean difference in the log-likelihood of a token, in nats."""

RowScores = list[list[float]]
"""For each row its labels' probabilities; without labels its answer's mean log-likelihood."""


def comparison_rows(rows: Sequence[Row], task: MergeTask) -> list[Row]:
    """Return the rows to compare on: without labels only rows that contain an answer."""

    def can_be_compared(row: Row) -> bool:
        answered = row.messages is not None and row.messages[-1]["role"] == "assistant"
        return bool(task.labels) or answered

    comparable = [row for row in rows if can_be_compared(row)]
    return sample([row for row in comparable if row.split == task.split] or comparable, MAX_ROWS)


def score_rows(
    job: Job,
    task: MergeTask,
    rows: Sequence[Row],
    model: Any,
    tokenizer: Any,
    *,
    tick: Callable[[int], None],
    log: Callable[[str], None],
) -> RowScores:
    """Return the model's scores of each row.

    `tick` is called with the number of rows done, `log` if scoring is slow. Raises ProgramFailure.
    """
    tokens = Tokens(tokenizer, job.spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    size = job.eval_batch_size or job.spec.training.per_device_eval_batch_size
    with detect_out_of_memory("eval", size):
        set_training(model, training=False)
        if not task.labels:
            log_likelihoods = mean_log_likelihoods(
                model, _answer_items(prompts, rows), model.device, tick
            )
            return [[value] for value in log_likelihoods]
        items = []
        for row in rows:
            encoded = prompts.encode(row, task.labels)
            items.append(Item(encoded.prompt, encoded.answers))
        return score(
            model,
            items,
            pad=tokens.pad,
            token_budget=size * job.spec.training.max_seq_length,
            device=model.device,
            tick=tick,
            on_fallback=log,
        )


def served_prompt_notes(job: Job, rows: Sequence[Row], tokenizer: Any) -> list[str]:
    """Return sentences on how to send the prompt that the model is trained with."""
    tokens = Tokens(tokenizer, job.spec.training.max_seq_length)
    return prompt_notes(Prompts(tokens, job.template, job.completions), rows[0]) if rows else []


def _answer_items(prompts: Prompts, rows: Sequence[Row]) -> list[Item]:
    examples = [prompts.example(row, []) for row in rows]
    return [
        Item(example.ids[: example.start], [example.ids[example.start :]])
        for example in examples
        if example
    ]


def compare_scores(task: MergeTask, adapter: RowScores, merged: RowScores) -> MergeComparison:
    """Return the differences between the scores of both models, for at least one row."""
    differences = [
        max(abs(before - after) for before, after in zip(*pair, strict=True))
        for pair in zip(adapter, merged, strict=True)
    ]
    changed = None
    if task.labels:
        changed = sum(
            predicted_label(task.labels, before) != predicted_label(task.labels, after)
            for before, after in zip(adapter, merged, strict=True)
        )
    return MergeComparison(
        rows=len(differences),
        split=task.split,
        labels_changed=changed,
        max_difference=max(differences),
        mean_difference=sum(differences) / len(differences),
    )


def check_comparison(
    task: MergeTask, comparison: MergeComparison, *, in_4bit: bool, reporter: Reporter
) -> None:
    """Report the differences. Raises ProgramFailure if they exceed what rounding explains."""
    summary = comparison_summary(comparison)
    reporter.log(f"Compared merged model and adapter: {summary}.")
    original_weights = task.base_weights == "original" and in_4bit
    remedy = "Set dtype to float32 for less rounding."
    if original_weights:
        remedy = (
            "The run was trained on 4-bit weights, and these are the original ones: base_weights "
            "dequantized is closer to the training."
        )
    if comparison.labels_changed is None:
        within_tolerance = comparison.mean_difference <= MAX_MEAN_NATS
    else:
        share = MAX_CHANGED_SHARE_ORIGINAL if original_weights else MAX_CHANGED_SHARE
        within_tolerance = comparison.labels_changed <= max(1, int(share * comparison.rows))
    if not within_tolerance:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged model differs too much from the adapter and is not published: {summary}. "
            f"{remedy}",
        )
    if comparison.labels_changed:
        reporter.warn("merged_differs", f"Merged model and adapter: {summary}. {remedy}")


def comparison_summary(comparison: MergeComparison) -> str:
    """Return the comparison as a clause without a final full stop."""
    sample_text = f"on {comparison.rows} rows of the {comparison.split} split"
    if comparison.labels_changed is None:
        return (
            f"{sample_text} the mean log-likelihood of an answer's tokens differs by "
            f"{comparison.mean_difference:.2g} nats on average and by at most "
            f"{comparison.max_difference:.2g}"
        )
    return (
        f"{sample_text} {comparison.labels_changed} changed their label, and a label's probability "
        f"differs by at most {comparison.max_difference:.2g} and by "
        f"{comparison.mean_difference:.2g} on average"
    )
