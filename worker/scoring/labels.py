"""The probability of each label's whole answer against the others', from one prefill, exactly.

A row's answers share their beginning (``{"classification": "``), which says nothing about which one
it is: its likelihood cancels. So a row is laid out once, as

    prompt · shared beginning of the answers · end of answer 1 · end of answer 2 · …

where each end attends to what stands before the first one and to itself alone, and positions
restart with each. One forward pass over that gives every label's likelihood. What all prompts of a
split share is computed once before, and its keys and values are lent to every batch.

Attention masks are built here from positions, so that padding and the ends do not shift a sliding
window. For models that cannot take such masks `score` compares the two ways on the first rows and
uses the plain one, a forward pass per label, when they differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.scoring.prefill import MAIN, PADDING, Prefix, cannot, common_length, masks
from worker.training.world import World

ALONE = World()

AGREE = {torch.float32: 1e-3, torch.bfloat16: 1.0, torch.float16: 0.5}
"""Nats by which the two ways may differ: the rounding of logits over an answer's tokens (a bfloat16
logit of 20 is only known to 0.06). A wrong mask is off by more."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt's ids and the ids of each label's whole answer, end of turn included."""

    prompt: list[int]
    answers: list[list[int]]


@dataclass(frozen=True, slots=True)
class Laid:
    """An item laid out as above: `main` is prompt and shared beginning, `ends` the rest."""

    row: int
    main: list[int]
    ends: list[list[int]]

    @property
    def width(self) -> int:
        return len(self.main) + sum(len(end) for end in self.ends)


@torch.no_grad()
def score(
    model: Any,
    items: Sequence[Item],
    *,
    pad: int,
    token_budget: int,
    device: torch.device,
    world: World = ALONE,
    tick: Callable[[int], None] = lambda _done: None,
    fell_back: Callable[[str], None] = lambda _why: None,
) -> list[list[float]]:
    """For each item the labels' probabilities, which sum to 1, in the order of its answers.

    `model` is in evaluation mode; the answers are not empty. At most `token_budget` tokens (and at
    least one row) are in a batch, of which each process of `world` takes its share. `tick` is
    called with the number of rows done, about so many in all; `fell_back` with a sentence when the
    plain way is used. Raises ProgramFailure(diverged) for a likelihood that is not a number.
    """
    laid = [lay_out(row, item) for row, item in enumerate(items)]
    if not laid:
        return []
    reason = cannot(model)
    if reason is None:
        probe = laid[:2]
        packed = _packed(
            model, probe, Prefix.of(model, [one.main for one in probe], device), pad, device
        )
        plain = [_plain(model, items[one.row], device) for one in probe]
        apart = max(
            abs(a - b)
            for left, right in zip(packed, plain, strict=True)
            for a, b in zip(_relative(left), _relative(right), strict=True)
        )
        if not apart < AGREE[model.dtype]:
            reason = f"the two ways differ by {apart:.3g} nats"
    if reason is not None:
        fell_back(f"Labels are scored by one forward pass each, which is slower: {reason}.")
    prefix = None if reason else Prefix.of(model, [one.main for one in laid], device)
    results = torch.zeros(len(items), len(items[0].answers), dtype=torch.float64)
    done = 0
    batches = _batches(laid, 0 if prefix is None else prefix.length, token_budget)
    for _, batch in world.share(batches):
        if prefix is None:
            scored = [_plain(model, items[one.row], device) for one in batch]
        else:
            scored = _packed(model, batch, prefix, pad, device)
        for one, log_likelihoods in zip(batch, scored, strict=True):
            results[one.row] = torch.tensor(_probabilities(log_likelihoods), dtype=torch.float64)
        done = min(done + len(batch) * world.size, len(items))
        tick(done)
    # Every row was scored by one of them and is 0 in the others.
    return world.sum(results).tolist()


def lay_out(row: int, item: Item) -> Laid:
    shared = common_length(item.answers)
    return Laid(
        row,
        item.prompt + item.answers[0][:shared],
        [answer[shared:] for answer in item.answers],
    )


def _relative(log_likelihoods: Sequence[float]) -> list[float]:
    """Against the first label's: what all labels share is left out of one way."""
    return [value - log_likelihoods[0] for value in log_likelihoods]


def _probabilities(log_likelihoods: Sequence[float]) -> list[float]:
    highest = max(log_likelihoods)
    weights = [math.exp(value - highest) for value in log_likelihoods]
    total = sum(weights)
    if not math.isfinite(total):
        raise ProgramFailure(
            FailureReason.DIVERGED, "The model's likelihood of a label is not a number."
        )
    return [weight / total for weight in weights]


def _batches(laid: Sequence[Laid], prefix: int, token_budget: int) -> list[list[Laid]]:
    """Like widths together, the widest first: too little memory shows at once, not at the end."""
    batches: list[list[Laid]] = []
    for one in sorted(laid, key=lambda one: -one.width):
        if batches and (len(batches[-1]) + 1) * (batches[-1][0].width - prefix) <= token_budget:
            batches[-1].append(one)
        else:
            batches.append([one])
    return batches


def _packed(
    model: Any,
    batch: Sequence[Laid],
    prefix: Prefix,
    pad: int,
    device: torch.device,
) -> list[list[float]]:
    """Log-likelihoods of the ends given what stands before them, in nats, for each row."""
    start = prefix.length
    width = max(one.width for one in batch) - start
    ids = torch.full((len(batch), width), pad)
    branches = torch.full((len(batch), width), PADDING)
    positions = torch.zeros((len(batch), width), dtype=torch.long)
    for row, one in enumerate(batch):
        parts = [(MAIN, one.main[start:], start)]
        parts += [(number, end, len(one.main)) for number, end in enumerate(one.ends, 1)]
        column = width - (one.width - start)
        for branch, tokens, first in parts:
            after = column + len(tokens)
            ids[row, column:after] = torch.tensor(tokens, dtype=torch.long)
            branches[row, column:after] = branch
            positions[row, column:after] = torch.arange(first, first + len(tokens))
            column = after
    ids, branches, positions = ids.to(device), branches.to(device), positions.to(device)
    before = torch.arange(start, device=device).expand(len(batch), -1)
    key = (
        torch.cat([torch.zeros_like(before), branches], 1),
        torch.cat([before, positions], 1),
    )
    tails = max(one.width - len(one.main) for one in batch)
    logits = model(
        input_ids=ids,
        attention_mask=masks(model, (branches, positions), key),
        position_ids=positions,
        past_key_values=prefix.lend(len(batch)) if start else None,
        use_cache=bool(start),
        logits_to_keep=tails + 1,
    ).logits[:, -tails - 1 :]
    # The columns kept: the last of MAIN, in rows with the longest ends at least, then the ends.
    log_probs = torch.log_softmax(logits.float(), -1).cpu()
    results = []
    for row, one in enumerate(batch):
        fork = tails - sum(len(end) for end in one.ends)
        column = fork + 1
        sums = []
        for end in one.ends:
            predicted_by = [fork, *range(column, column + len(end) - 1)][: len(end)]
            sums.append(log_probs[row, predicted_by, end].double().sum().item())
            column += len(end)
        results.append(sums)
    return results


def _plain(model: Any, item: Item, device: torch.device) -> list[float]:
    """Log-likelihoods of the whole answers, in nats, by one unpadded forward pass each."""
    results = []
    for answer in item.answers:
        ids = torch.tensor([item.prompt + answer], device=device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits
        log_probs = torch.log_softmax(logits[0, -len(answer) - 1 : -1].float(), -1)
        chosen = log_probs.gather(1, torch.tensor(answer, device=device)[:, None])
        results.append(chosen.double().sum().item())
    return results
