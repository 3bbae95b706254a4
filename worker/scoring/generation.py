"""How often the model answers outside the format when it may write freely: a small sample.

Scores never say so: they are shares among the labels, whatever else the model would rather write.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from service.fairness.rates import rate
from service.fairness.schema import FormatSample
from worker.modeling.mask_support import cannot
from worker.scoring.labels import Item
from worker.scoring.prefill import Prefix, left_padded, masks

ROWS = 32
MORE = 8
"""Tokens that an answer may have beyond the longest label's."""

EXAMPLES, EXAMPLE_LENGTH = 5, 200


@torch.no_grad()
def sample_answers(
    model: Any,
    items: Sequence[Item],
    labels: Sequence[str],
    scored: Sequence[str],
    *,
    tokens_to_text: Callable[[list[int]], str],
    pad: int,
    eos: int,
    device: torch.device,
    token_budget: int,
    confidence: float,
    rows: int = ROWS,
    tick: Callable[[int], None] = lambda _done: None,
    gave_up: Callable[[str], None] = lambda _why: None,
) -> FormatSample | None:
    """Greedy answers to at most `rows` of the items, at equal distances, against the labels'.

    `model` is in evaluation mode and stays as it is; no random number is drawn. Each item's answers
    are those of `labels`, in order; `scored` holds the label that each item was given by its
    scores. An answer counts as a label's when its text, without white space around it, is that
    answer's; `tokens_to_text` leaves special tokens in. `tick` is called after each token with the
    number of rows done before, which may be 0; what it raises ends this. One process calls it.

    None without items, or, `gave_up` being told why, for a model that cannot take masks made here.
    Where `score` fell back to its plain way it is not to be called: the masks are wrong there.
    """
    if not items:
        return None
    if reason := cannot(model):
        gave_up(f"No answers were sampled: {reason}.")
        return None
    count = min(rows, len(items))
    places = [number * len(items) // count for number in range(count)]
    sample = [items[place] for place in places]
    written = _write(model, sample, pad, eos, device, token_budget, tick)
    outside, inside, disagree = [], 0, 0
    for place, item, ids in zip(places, sample, written, strict=True):
        text = tokens_to_text(ids).strip()
        answers = [tokens_to_text(_before(answer, eos)).strip() for answer in item.answers]
        if text in answers:
            inside += 1
            disagree += labels[answers.index(text)] != scored[place]
        else:
            outside.append(text)
    return FormatSample(
        rows=count,
        outside=rate(len(outside), count, confidence, empty="no rows"),
        disagree=rate(disagree, inside, confidence, empty="no answer is a label's"),
        examples=tuple(dict.fromkeys(_storable(text) for text in outside))[:EXAMPLES],
    )


def _before(ids: list[int], eos: int) -> list[int]:
    return ids[: ids.index(eos)] if eos in ids else ids


def _storable(text: str) -> str:
    """Cut short, and without what databases refuse: NUL and lone surrogates."""
    kept = text[:EXAMPLE_LENGTH].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return kept.encode("utf-8", "replace").decode()


def _write(
    model: Any,
    items: Sequence[Item],
    pad: int,
    eos: int,
    device: torch.device,
    token_budget: int,
    tick: Callable[[int], None],
) -> list[list[int]]:
    """Ids of the greedy answers, without the end of turn.

    At most `token_budget` tokens are in a batch at its end, prompts' common beginning apart.
    """
    limit = MORE + max(len(answer) for item in items for answer in item.answers)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    prefix = Prefix.of(model, [item.prompt for item in items], device)
    written: list[list[int]] = [[] for _ in items]
    todo = sorted(range(len(items)), key=lambda place: -len(items[place].prompt))
    while todo:
        longest = len(items[todo[0]].prompt)
        at_once = max(1, token_budget // (longest - prefix.length + limit))
        batch, done = todo[:at_once], len(items) - len(todo)
        todo = todo[at_once:]
        answers = _batch(
            model,
            [items[place].prompt for place in batch],
            prefix,
            limit if positions is None else min(limit, positions - longest),
            pad,
            eos,
            device,
            partial(tick, done),
        )
        for place, answer in zip(batch, answers, strict=True):
            written[place] = answer
    return written


def _batch(
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
    width, new = columns.ids.shape[1], prefix.length
    cache = prefix.lend(len(prompts))
    for _ in range(limit):
        logits = model(
            input_ids=columns.ids[:, new:],
            attention_mask=masks(model, columns, new),
            position_ids=columns.positions[:, new:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        new = columns.ids.shape[1]
        columns = columns.extended(
            logits[:, -1].argmax(-1, keepdim=True), columns.positions[:, -1:] + 1
        )
        tick()
        if (columns.ids[:, width:] == eos).any(1).all():
            break
    return [_before(ids, eos) for ids in columns.ids[:, width:].tolist()]
