"""Exact probability of each label's whole answer among all labels' answers, from one prefill.

The answers of a row share a prefix (``{"classification": "``), whose likelihood is common to all
labels and cancels. Behind it they form a trie. A row is therefore written once, as

    prompt · common prefix of the answers · the trie's nodes, in pre-order

where each node attends to all tokens before the trie, to its ancestors and to itself, and its
position follows from its depth (tree attention). One forward pass over the row gives every label's
log-likelihood, the sum over its path. The common prefix of all prompts of a split is computed once,
and its keys and values are reused by every batch.

Attention masks are built here from the tree and from positions, so that padding and other branches
do not shift a sliding window. A model may not support such masks: `score` compares trie scoring
with plain scoring, one forward pass per label, on the first rows, and uses plain scoring when the
two differ.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from service.domain.errors import ProgramFailure
from service.domain.states import FailureReason
from worker.modeling.mask_support import unsupported_reason
from worker.modeling.model_failures import describe, is_of_machine
from worker.runtime.distributed import World
from worker.scoring.attention import (
    AttentionContext,
    UnsupportedAttention,
    default_attention,
    scoring_attention,
)
from worker.scoring.prefill import Prefix, TransientLayer, left_padded, masks
from worker.scoring.trie import Trie

SINGLE_PROCESS = World()

TOLERANCE_NATS = {torch.float32: 1e-3, torch.bfloat16: 1.0, torch.float16: 0.5}
"""Nats by which trie and plain scoring may differ: the rounding of logits over an answer's tokens
(a bfloat16 logit of 20 is exact to 0.06 only). A wrong mask causes larger differences."""


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt's ids and the ids of each label's whole answer, end of turn included."""

    prompt: list[int]
    answers: list[list[int]]


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """An item written as above: `main` is the prompt and the common prefix of its answers."""

    row: int
    main: list[int]
    trie: Trie

    @property
    def width(self) -> int:
        """Tokens of `main` and the trie's nodes."""
        return len(self.main) + len(self.trie.tokens)


@torch.no_grad()
def score(
    model: Any,
    items: Sequence[Item],
    *,
    pad: int,
    token_budget: int,
    device: torch.device,
    world: World = SINGLE_PROCESS,
    tick: Callable[[int], None] = lambda _done: None,
    on_fallback: Callable[[str], None] = lambda _why: None,
) -> list[list[float]]:
    """Return for each item its labels' probabilities, which sum to 1, in the order of its answers.

    `model` is in evaluation mode; the answers are not empty. A batch has at most `token_budget`
    tokens, but at least one row; each process of `world` scores its share of the batches. `tick` is
    called with the approximate number of rows done in all processes, and `on_fallback` with a
    sentence if plain scoring is used. Raises ProgramFailure(diverged) for a likelihood that is not
    a number.
    """
    if not items:
        return []
    prepared = prepare_items(items)
    prefix: Prefix | None = None
    reason = unsupported_reason(model)
    attention: AttentionContext = default_attention
    for attention in (scoring_attention, default_attention) if reason is None else ():
        try:
            with attention(model, device):
                prefix = Prefix.of(model, [entry.main for entry in prepared], device)
            reason = _mismatch_reason(model, prepared, items, prefix, pad, device, attention)
        except UnsupportedAttention as error:
            reason = str(error)
        except Exception as error:
            # A model's own code may raise anything on masks that it was not written for.
            if is_of_machine(error):
                raise
            reason = f"the model does not take its attention masks ({describe(error)})"
        if reason is None:
            break
    if reason is not None:
        prefix = None
        on_fallback(f"Labels are scored by one forward pass each, which is slower: {reason}.")
    results = torch.zeros(len(items), len(items[0].answers), dtype=torch.float64)
    done = 0
    batches = _batches(prepared, 0 if prefix is None else prefix.length, token_budget)
    for _, batch in world.share(batches):
        if prefix is None:
            scored = [_plain_log_likelihoods(model, items[entry.row], device) for entry in batch]
        else:
            with attention(model, device):
                scored = _trie_log_likelihoods(model, batch, prefix, pad, device)
        for entry, log_likelihoods in zip(batch, scored, strict=True):
            results[entry.row] = torch.tensor(_probabilities(log_likelihoods), dtype=torch.float64)
        done = min(done + len(batch) * world.size, len(items))
        tick(done)
    # Every row was scored by one process and is 0 in the others.
    return world.sum(results).tolist()


def prepare_items(items: Sequence[Item]) -> list[PreparedItem]:
    """Return the items with their tries; items with equal answers share one trie."""
    tries: dict[tuple[tuple[int, ...], ...], Trie] = {}
    prepared = []
    for row, item in enumerate(items):
        answers = tuple(map(tuple, item.answers))
        trie = tries.get(answers) or tries.setdefault(answers, Trie.of(item.answers))
        prepared.append(PreparedItem(row, item.prompt + trie.shared, trie))
    return prepared


def _mismatch_reason(
    model: Any,
    prepared: Sequence[PreparedItem],
    items: Sequence[Item],
    prefix: Prefix,
    pad: int,
    device: torch.device,
    attention: AttentionContext,
) -> str | None:
    """Return by how much trie and plain scoring differ on a row; None if by rounding only.

    The row is one with padding, if there is one among the first two. Compared is the difference of
    the log-likelihoods of the first and the last answer in the trie's order, which takes two plain
    passes for any number of labels. With wrong masks the last answer's nodes see all others.
    """
    probe = [entry for entry in prepared if entry.trie is prepared[0].trie][:2]
    with attention(model, device):
        trie_values = _trie_log_likelihoods(model, probe, prefix, pad, device)
    values, row = min(
        zip(trie_values, (entry.row for entry in probe), strict=True),
        key=lambda pair: prepared[pair[1]].width,
    )
    item = items[row]
    order = sorted(range(len(values)), key=lambda index: item.answers[index])
    first, last = order[0], order[-1]
    ends = Item(item.prompt, [item.answers[first], item.answers[last]])
    plain = _plain_log_likelihoods(model, ends, device)
    difference = abs((values[last] - values[first]) - (plain[1] - plain[0]))
    return (
        None
        if difference < TOLERANCE_NATS[model.dtype]
        else f"trie and plain scoring differ by {difference:.3g} nats"
    )


def _probabilities(log_likelihoods: Sequence[float]) -> list[float]:
    """Softmax in float64. Raises ProgramFailure(diverged) for a value that is not a number."""
    highest = max(log_likelihoods)
    weights = [math.exp(value - highest) for value in log_likelihoods]
    total = sum(weights)
    if not math.isfinite(total):
        raise ProgramFailure(
            FailureReason.DIVERGED, "The model's likelihood of a label is not a number."
        )
    return [weight / total for weight in weights]


def _batches(
    prepared: Sequence[PreparedItem], prefix: int, token_budget: int
) -> list[list[PreparedItem]]:
    """Return batches of rows with the same trie and similar widths.

    The widest come first, so that an out-of-memory error happens at the start, not at the end.
    """
    groups: dict[
        int, list[PreparedItem]
    ] = {}  # in the rows' order, which is the same in all processes
    for item in prepared:
        groups.setdefault(id(item.trie), []).append(item)
    batches: list[list[PreparedItem]] = []
    for group in groups.values():
        batch: list[PreparedItem] = []
        for item in sorted(group, key=lambda item: -item.width):
            if batch and (len(batch) + 1) * (batch[0].width - prefix) <= token_budget:
                batch.append(item)
            else:
                batch = [item]
                batches.append(batch)
    return sorted(batches, key=lambda batch: -batch[0].width)


def _trie_log_likelihoods(
    model: Any,
    batch: Sequence[PreparedItem],
    prefix: Prefix,
    pad: int,
    device: torch.device,
) -> list[list[float]]:
    """Return for each row of one trie its answers' log-likelihoods given `main`, in nats."""
    start, trie = prefix.length, batch[0].trie
    nodes = len(trie.tokens)
    # Padded on the left, so that the trie has the same columns in all rows.
    columns = left_padded([item.main for item in batch], start, pad)
    depths, below, tokens = torch.tensor([trie.depths, trie.below, trie.tokens], dtype=torch.long)
    node_columns = torch.arange(nodes) + columns.ids.shape[1]
    columns = columns.extended(
        tokens, columns.positions[:, -1:] + 1 + depths, node_columns + below
    ).to(device)
    logits = model(
        input_ids=columns.ids[:, start:],
        attention_mask=masks(model, columns, start),
        position_ids=columns.positions[:, start:],
        past_key_values=prefix.cache_for(len(batch), TransientLayer) if start else None,
        use_cache=bool(start),
        logits_to_keep=nodes + 1,
    ).logits[:, -nodes - 1 :]
    # Columns of the logits: the root, then the nodes.
    steps = torch.tensor(trie.steps, dtype=torch.long, device=device).reshape(-1, 2)
    results = []
    for row_logits in logits:  # row by row: all of them in float32 would take much memory
        log_probs = (
            torch.log_softmax(row_logits.float(), -1)[steps[:, 0], steps[:, 1]].double().cpu()
        )
        results.append([log_probs[path].sum().item() for path in trie.paths])
    return results


def _plain_log_likelihoods(model: Any, item: Item, device: torch.device) -> list[float]:
    """Return the log-likelihoods of the whole answers, in nats, by one unpadded pass each."""
    results = []
    for answer in item.answers:
        ids = torch.tensor([item.prompt + answer], device=device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer) + 1).logits
        log_probs = torch.log_softmax(logits[0, -len(answer) - 1 : -1].float(), -1)
        chosen = log_probs.gather(1, torch.tensor(answer, device=device)[:, None])
        results.append(chosen.double().sum().item())
    return results


@torch.no_grad()
def mean_log_likelihoods(
    model: Any, items: Sequence[Item], device: torch.device, tick: Callable[[int], None]
) -> list[float]:
    """Return for each item the mean log-likelihood of a token of its first answer, in nats.

    `model` is in evaluation mode. Raises ProgramFailure(diverged) for a value that is not a number.
    """
    results = []
    for done, item in enumerate(items, 1):
        (total,) = _plain_log_likelihoods(model, Item(item.prompt, item.answers[:1]), device)
        if not math.isfinite(total):
            raise ProgramFailure(
                FailureReason.DIVERGED, "The model's likelihood of an answer is not a number."
            )
        results.append(total / len(item.answers[0]))
        tick(done)
    return results
