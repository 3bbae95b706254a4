"""A merged model held against the adapter that it was made from, on a sample of the run's rows."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.merge import MergeComparison, MergeTask
from service.domain.states import FailureReason
from worker.programs.memory import rows_at_once
from worker.programs.program import Program
from worker.scoring.labels import Item, likelihoods, score
from worker.scoring.predictions import predicted
from worker.training.examples import Prompts, Tokens
from worker.training.models import Base, set_training
from worker.training.rows import Row, sample

ROWS = 64
"""Rows compared, at most."""

TOLERATED = 0.1
"""Share of the rows that may change their label (one may always): a borderline row does by rounding
alone, and original weights differ from the 4-bit ones that were trained on."""

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
    program: Program,
    task: MergeTask,
    rows: Sequence[Row],
    base: Base,
    model: Any,
    device: torch.device,
    tick: Callable[[int], None],
) -> Values:
    """What `model`, which is `base.model` or that with an adapter, says of each row.

    `tick` is called with the number of rows done. Raises ProgramFailure.
    """
    job = program.job
    tokens = Tokens(base.tokenizer, job.spec.training.max_seq_length)
    prompts = Prompts(tokens, job.template, job.completions)
    size = job.eval_batch_size or job.spec.training.per_device_eval_batch_size
    with rows_at_once("eval", size):
        set_training(model, training=False)
        if not task.labels:
            found = likelihoods(model, _answered(prompts, rows), device, tick)
            return [[value] for value in found]
        items = []
        for row in rows:
            answers = prompts.label_answers(row, task.labels)
            items.append(Item(prompts.fitted(row, answers), answers))
        return score(
            model,
            items,
            pad=tokens.pad,
            token_budget=size * job.spec.training.max_seq_length,
            device=device,
            tick=tick,
            fell_back=program.reporter.log,
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
            predicted(task.labels, one) != predicted(task.labels, other)
            for one, other in zip(adapter, merged, strict=True)
        )
    return MergeComparison(
        rows=len(apart),
        split=task.split,
        labels_changed=changed,
        max_difference=max(apart),
        mean_difference=sum(apart) / len(apart),
    )


def judge(program: Program, task: MergeTask, found: MergeComparison) -> None:
    """Say what differs. Raises ProgramFailure where that is more than rounding explains."""
    said = stated(found)
    program.reporter.log(f"Merged model and adapter compared: {said}.")
    if found.labels_changed is None:
        fits = found.mean_difference <= TOLERATED_NATS
    else:
        fits = found.labels_changed <= max(1, int(TOLERATED * found.rows))
    if fits and not found.labels_changed:
        return
    if fits:
        program.reporter.warn("merged_differs", f"The merged model differs: {said}.")
    elif task.base_weights == "original" and program.job.spec.quantization.load_in_4bit:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged model differs too much from the adapter: {said}. The run was trained on "
            "4-bit weights and these are the original ones: ask for base_weights dequantized.",
        )
    else:
        raise ProgramFailure(
            FailureReason.INVALID_SPEC,
            f"The merged model differs too much from the adapter: {said}. Ask for dtype float32.",
        )


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
