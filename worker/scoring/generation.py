"""Format check: the share of free answers that are no label, on a small sample.

Scores cannot show this: they are shares among the labels, even if all of them are improbable.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from service.fairness.rates import rate
from service.fairness.schema import FormatSample
from worker.modeling.mask_support import unsupported_reason
from worker.scoring.labels import Item
from worker.scoring.prefill import Prefix, left_padded, masks

SAMPLE_ROWS = 32
EXTRA_TOKENS = 8
"""Tokens that an answer may have in excess of the longest label's answer."""

MAX_EXAMPLES, MAX_EXAMPLE_LENGTH = 5, 200


@torch.no_grad()
def sample_answers(
    model: Any,
    items: Sequence[Item],
    labels: Sequence[str],
    predicted_labels: Sequence[str],
    *,
    tokens_to_text: Callable[[list[int]], str],
    pad: int,
    eos: int,
    device: torch.device,
    token_budget: int,
    confidence: float,
    rows: int = SAMPLE_ROWS,
    tick: Callable[[int], None] = lambda _done: None,
    on_skip: Callable[[str], None] = lambda _why: None,
) -> FormatSample | None:
    """Generate greedy answers to at most `rows` items and compare them with the labels' answers.

    The items are taken at equal distances. `model` is in evaluation mode and is not changed; no
    random number is drawn. Each item's answers are those of `labels`, in order; `predicted_labels`
    holds the most probable label of each item. A generated answer counts as a label if its text,
    stripped of white space, equals that label's answer; `tokens_to_text` keeps special tokens.
    `tick` is called after each token with the number of rows completed in earlier batches; its
    exceptions propagate. One process calls this.

    Returns None without items, and for a model that does not support custom masks, in which case
    `on_skip` gets the reason. Must not be called where `score` fell back to plain scoring: the
    masks are wrong there.
    """
    if not items:
        return None
    if reason := unsupported_reason(model):
        on_skip(f"No answers were sampled: {reason}.")
        return None
    count = min(rows, len(items))
    indices = [number * len(items) // count for number in range(count)]
    sample = [items[index] for index in indices]
    generated = _generate(model, sample, pad, eos, device, token_budget, tick)
    outside, inside, disagree = [], 0, 0
    for index, item, ids in zip(indices, sample, generated, strict=True):
        text = tokens_to_text(ids).strip()
        answers = [tokens_to_text(_until_eos(answer, eos)).strip() for answer in item.answers]
        if text in answers:
            inside += 1
            disagree += labels[answers.index(text)] != predicted_labels[index]
        else:
            outside.append(text)
    return FormatSample(
        rows=count,
        outside=rate(len(outside), count, confidence, empty="no rows"),
        disagree=rate(disagree, inside, confidence, empty="no answer is a label's"),
        examples=tuple(dict.fromkeys(_storable(text) for text in outside))[:MAX_EXAMPLES],
    )


def _until_eos(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos)] if eos in ids else ids


def _storable(text: str) -> str:
    """Return the text truncated, without NUL and unpaired surrogates, which databases reject."""
    truncated = text[:MAX_EXAMPLE_LENGTH].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return truncated.encode("utf-8", "replace").decode()


def _generate(
    model: Any,
    items: Sequence[Item],
    pad: int,
    eos: int,
    device: torch.device,
    token_budget: int,
    tick: Callable[[int], None],
) -> list[list[int]]:
    """Return the ids of the greedy answers, without the end of turn.

    A complete batch has at most `token_budget` tokens, not counting the prompts' common prefix.
    """
    limit = EXTRA_TOKENS + max(len(answer) for item in items for answer in item.answers)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    prefix = Prefix.of(model, [item.prompt for item in items], device)
    generated: list[list[int]] = [[] for _ in items]
    remaining = sorted(range(len(items)), key=lambda index: -len(items[index].prompt))
    while remaining:
        longest = len(items[remaining[0]].prompt)
        batch_size = max(1, token_budget // (longest - prefix.length + limit))
        batch, done = remaining[:batch_size], len(items) - len(remaining)
        remaining = remaining[batch_size:]
        answers = _generate_batch(
            model,
            [items[index].prompt for index in batch],
            prefix,
            limit if positions is None else min(limit, positions - longest),
            pad,
            eos,
            device,
            partial(tick, done),
        )
        for index, answer in zip(batch, answers, strict=True):
            generated[index] = answer
    return generated


def _generate_batch(
    model: Any,
    prompts: Sequence[list[int]],
    prefix: Prefix,
    limit: int,
    pad: int,
    eos: int,
    device: torch.device,
    tick: Callable[[], None],
) -> list[list[int]]:
    columns = left_padded(prompts, prefix.length, pad).to(device)
    width, first_new = columns.ids.shape[1], prefix.length
    cache = prefix.cache_for(len(prompts))
    for _ in range(limit):
        logits = model(
            input_ids=columns.ids[:, first_new:],
            attention_mask=masks(model, columns, first_new),
            position_ids=columns.positions[:, first_new:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        first_new = columns.ids.shape[1]
        columns = columns.extended(
            logits[:, -1].argmax(-1, keepdim=True), columns.positions[:, -1:] + 1
        )
        tick()
        if (columns.ids[:, width:] == eos).any(1).all():
            break
    return [_until_eos(ids, eos) for ids in columns.ids[:, width:].tolist()]
