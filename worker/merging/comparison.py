"""A merged model held against the adapter that it was made from, on a sample of the run's rows."""

from collections.abc import Callable, Sequence
from typing import Any

from service.domain.errors import ProgramFailure
from service.domain.job import Job
from service.domain.merge import MergeComparison, MergeTask
from service.domain.states import FailureReason
from worker.data.rows import Row, sample
from worker.data.tokenize import Prompts, Tokens
from worker.modeling.load import set_training
from worker.runtime.events import Reporter
from worker.runtime.out_of_memory import detect_out_of_memory
from worker.scoring.labels import Item, mean_log_likelihoods, score
from worker.scoring.predictions import predicted_label

ROWS = 64
"""Rows compared, at most."""

TOLERATED = 0.25
"""Share of the rows that may change their label (one may always): borderline ones do by rounding
alone, and of a model that has learned little many are. What is merged wrongly changes more."""

TOLERATED_OF_OTHERS = 0.5
"""The same where a model that was trained on 4-bit weights gets the original ones: it is another
model, and a small one is moved far by that. What is left is to refuse one that says nothing."""

TOLERATED_NATS = 0.5
"""Without labels: mean difference in the log-likelihood of a token."""

Values = list[list[float]]
"""For each row its labels' probabilities; without labels its answer's likelihood alone."""


def drawn(rows: Sequence[Row], task: MergeTask) -> list[Row]:
    """The rows to compare on. Where there are no labels, only those with an answer of their own."""

    def can_be_compared(row: Row) -> bool:
        answered = row.messages is not None and row.messages[-1]["role"] == "assistant"
        return bool(task.labels) or answered

    known = [row for row in rows if can_be_compared(row)]
    return sample([row for row in known if row.split == task.split] or known, ROWS)


def values_of(
    job: Job,
    task: MergeTask,
    rows: Sequence[Row],
    model: Any,
    tokenizer: Any,
    *,
    tick: Callable[[int], None],
    log: Callable[[str], None],
) -> Values:
    """Return the model's values of each row.

    `tick` is called with the number of rows done, `log` if scoring is slow. Raises ProgramFailure.
    """
    tokens = Tokens(tokenizer, job.spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    size = job.eval_batch_size or job.spec.training.per_device_eval_batch_size
    with detect_out_of_memory("eval", size):
        set_training(model, training=False)
        if not task.labels:
            found = mean_log_likelihoods(model, _answered(prompts, rows), model.device, tick)
            return [[value] for value in found]
        items = []
        for row in rows:
            answers = prompts.label_answers(row, task.labels)
            items.append(Item(prompts.fit_prompt(row, answers), answers))
        return score(
            model,
            items,
            pad=tokens.pad,
            token_budget=size * job.spec.training.max_seq_length,
            device=model.device,
            tick=tick,
            on_fallback=log,
        )


def _answered(prompts: Prompts, rows: Sequence[Row]) -> list[Item]:
    examples = [prompts.example(row, []) for row in rows]
    return [Item(one.ids[: one.start], [one.ids[one.start :]]) for one in examples if one]


def compared(task: MergeTask, adapter: Values, merged: Values) -> MergeComparison:
    """What differs between the two. At least one row was drawn."""
    apart = [
        max(abs(one - other) for one, other in zip(*pair, strict=True))
        for pair in zip(adapter, merged, strict=True)
    ]
    changed = None
    if task.labels:
        changed = sum(
            predicted_label(task.labels, one) != predicted_label(task.labels, other)
            for one, other in zip(adapter, merged, strict=True)
        )
    return MergeComparison(
        rows=len(apart),
        split=task.split,
        labels_changed=changed,
        max_difference=max(apart),
        mean_difference=sum(apart) / len(apart),
    )


def judge(task: MergeTask, found: MergeComparison, *, in_4bit: bool, reporter: Reporter) -> None:
    """Say what differs. Raises ProgramFailure where that is more than rounding explains."""
    said = stated(found)
    reporter.log(f"Merged model and adapter compared: {said}.")
    others = task.base_weights == "original" and in_4bit
    remedy = "dtype float32 rounds less."
    if others:
        remedy = (
            "The run was trained on 4-bit weights and these are the original ones: base_weights "
            "dequantized is nearer."
        )
    if found.labels_changed is None:
        fits = found.mean_difference <= TOLERATED_NATS
    else:
        share = TOLERATED_OF_OTHERS if others else TOLERATED
        fits = found.labels_changed <= max(1, int(share * found.rows))
    if not fits:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged model differs too much from the adapter and is not published: {said}. "
            f"{remedy}",
        )
    if found.labels_changed:
        reporter.warn("merged_differs", f"Merged model and adapter: {said}. {remedy}")


def stated(found: MergeComparison) -> str:
    """The comparison as half a sentence."""
    on = f"on {found.rows} rows of the {found.split} split"
    if found.labels_changed is None:
        return (
            f"{on} the mean log-likelihood of an answer's tokens differs by "
            f"{found.mean_difference:.2g} nats, {found.max_difference:.2g} at most"
        )
    return (
        f"{on} {found.labels_changed} changed their label, and a label's probability differs by "
        f"{found.max_difference:.2g} at most, {found.mean_difference:.2g} in the mean"
    )
