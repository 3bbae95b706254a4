"""The probability of each label's whole answer against the others', from one prefill, exactly.

A row's answers share their beginning (``{"classification": "``), which says nothing about which one
it is: its likelihood cancels. Behind it they are a trie. So a row is laid out once, as

    prompt · shared beginning of the answers · the trie's nodes, in pre-order

where each node attends to what stands before the first one, to those above it and to itself, and
its position is its depth. One forward pass over that gives every label's likelihood: the sum over
its path. What all prompts of a split share is computed once before, and its keys and values are
lent to every batch.

Attention masks are built here from the tree and from positions, so that padding and other branches
do not shift a sliding window. For models that cannot take such masks `score` compares the two ways
on the first rows and uses the plain one, a forward pass per label, when they differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.modeling.mask_support import cannot
from worker.runtime.distributed import World
from worker.scoring.attention import Attention, Unsuited, attend_as_it_does, engaged
from worker.scoring.prefill import Passing, Prefix, left_padded, masks
from worker.scoring.trie import Trie

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
    """An item laid out as above: `main` is the prompt and what all its answers share."""

    row: int
    main: list[int]
    trie: Trie

    @property
    def width(self) -> int:
        return len(self.main) + len(self.trie.tokens)


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
    if not items:
        return []
    laid = lay_out(items)
    prefix: Prefix | None = None
    reason = cannot(model)
    attention: Attention = attend_as_it_does
    for attention in (engaged, attend_as_it_does) if reason is None else ():
        try:
            with attention(model, device):
                prefix = Prefix.of(model, [one.main for one in laid], device)
            reason = _differ(model, laid, items, prefix, pad, device, attention)
        except Unsuited as error:
            reason = str(error)
        if reason is None:
            break
    if reason is not None:
        prefix = None
        fell_back(f"Labels are scored by one forward pass each, which is slower: {reason}.")
    results = torch.zeros(len(items), len(items[0].answers), dtype=torch.float64)
    done = 0
    batches = _batches(laid, 0 if prefix is None else prefix.length, token_budget)
    for _, batch in world.share(batches):
        if prefix is None:
            scored = [_plain(model, items[one.row], device) for one in batch]
        else:
            with attention(model, device):
                scored = _packed(model, batch, prefix, pad, device)
        for one, log_likelihoods in zip(batch, scored, strict=True):
            results[one.row] = torch.tensor(_probabilities(log_likelihoods), dtype=torch.float64)
        done = min(done + len(batch) * world.size, len(items))
        tick(done)
    # Every row was scored by one of them and is 0 in the others.
    return world.sum(results).tolist()


def lay_out(items: Sequence[Item]) -> list[Laid]:
    """Items with the same answers, most often all of them, have one trie between them."""
    tries: dict[tuple[tuple[int, ...], ...], Trie] = {}
    laid = []
    for row, item in enumerate(items):
        answers = tuple(map(tuple, item.answers))
        trie = tries.get(answers) or tries.setdefault(answers, Trie.of(item.answers))
        laid.append(Laid(row, item.prompt + trie.shared, trie))
    return laid


def _differ(
    model: Any,
    laid: Sequence[Laid],
    items: Sequence[Item],
    prefix: Prefix,
    pad: int,
    device: torch.device,
    attention: Attention,
) -> str | None:
    """By how much the two ways differ on a row, padded if it can be; None where it is rounding.

    Compared is how the first and the last answer in the trie's order stand to each other, for that
    takes two plain passes however many labels there are. Where masks are wrong, the last one's
    nodes see all others.
    """
    probe = [one for one in laid if one.trie is laid[0].trie][:2]
    with attention(model, device):
        packed = _packed(model, probe, prefix, pad, device)
    values, row = min(
        zip(packed, (one.row for one in probe), strict=True), key=lambda pair: laid[pair[1]].width
    )
    item = items[row]
    order = sorted(range(len(values)), key=lambda place: item.answers[place])
    first, last = order[0], order[-1]
    ends = Item(item.prompt, [item.answers[first], item.answers[last]])
    plain = _plain(model, ends, device)
    apart = abs((values[last] - values[first]) - (plain[1] - plain[0]))
    return None if apart < AGREE[model.dtype] else f"the two ways differ by {apart:.3g} nats"


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
    """Rows of one trie and of like widths together.

    The widest come first: too little memory shows at once, not at the end.
    """
    groups: dict[int, list[Laid]] = {}  # in the rows' order, which is the same in all processes
    for one in laid:
        groups.setdefault(id(one.trie), []).append(one)
    batches: list[list[Laid]] = []
    for group in groups.values():
        batch: list[Laid] = []
        for one in sorted(group, key=lambda one: -one.width):
            if batch and (len(batch) + 1) * (batch[0].width - prefix) <= token_budget:
                batch.append(one)
            else:
                batch = [one]
                batches.append(batch)
    return sorted(batches, key=lambda batch: -batch[0].width)


def _packed(
    model: Any,
    batch: Sequence[Laid],
    prefix: Prefix,
    pad: int,
    device: torch.device,
) -> list[list[float]]:
    """Log-likelihoods of the answers given what all share, in nats, for each row of one trie."""
    start, trie = prefix.length, batch[0].trie
    nodes = len(trie.tokens)
    # Rows end together: the trie has the same columns in all.
    row = left_padded([one.main for one in batch], start, pad)
    depths, below, tokens = torch.tensor([trie.depths, trie.below, trie.tokens], dtype=torch.long)
    own = torch.arange(nodes) + row.ids.shape[1]
    row = row.extended(tokens, row.positions[:, -1:] + 1 + depths, own + below).to(device)
    logits = model(
        input_ids=row.ids[:, start:],
        attention_mask=masks(model, row, start),
        position_ids=row.positions[:, start:],
        past_key_values=prefix.lend(len(batch), Passing) if start else None,
        use_cache=bool(start),
        logits_to_keep=nodes + 1,
    ).logits[:, -nodes - 1 :]
    # The columns kept: the fork, then the nodes.
    steps = torch.tensor(trie.steps, dtype=torch.long, device=device).reshape(-1, 2)
    results = []
    for kept in logits:  # row by row: all of them in float32 would be large
        log_probs = torch.log_softmax(kept.float(), -1)[steps[:, 0], steps[:, 1]].double().cpu()
        results.append([log_probs[path].sum().item() for path in trie.paths])
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


@torch.no_grad()
def likelihoods(
    model: Any, items: Sequence[Item], device: torch.device, tick: Callable[[int], None]
) -> list[float]:
    """For each item the mean log-likelihood of a token of its first answer, in nats.

    `model` is in evaluation mode. Raises ProgramFailure(diverged) for what is not a number.
    """
    results = []
    for done, item in enumerate(items, 1):
        (found,) = _plain(model, Item(item.prompt, item.answers[:1]), device)
        if not math.isfinite(found):
            raise ProgramFailure(
                FailureReason.DIVERGED, "The model's likelihood of an answer is not a number."
            )
        results.append(found / len(item.answers[0]))
        tick(done)
    return results
