"""Whether a model computes over packed rows what it computes over padded ones.

Structure first, since that does not drown in rounding: every layer's attention was ours, and got
its sliding window; the output layer alone makes the logits; nothing in training mode is unknown to
us. Then numbers: the log-likelihood of each target, packed, against the sample in a row of its own.
What rounding alone does is measured in the same place, by the same samples in padded rows: packing
may differ from the lone rows twice as much as those do. (A sum of losses would let errors of
opposite sign cancel.)
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from service.domain.errors import first_line
from worker.data.tokenize import Example
from worker.modeling.load import set_training
from worker.modeling.mask_support import unsupported_reason
from worker.runtime.out_of_memory import is_out_of_memory
from worker.training.padded import Padded
from worker.training.shared_prefix.method import SharedPrefix
from worker.training.shared_prefix.packing import find_groups

AT_MOST = 8
"""Samples of a trial."""

TOKENS = 4096
"""About so many tokens of samples at most, though never fewer than `AT_LEAST` samples: each is
computed three times, which with prompts of a thousand tokens took a minute of a run's start."""

AT_LEAST = 3

ROUNDING = 2.0
"""Packed rows may differ so many times as much as padded ones do."""

LEAST = 1e-4
"""Nats per target that are always taken for rounding; or four units of the type's last place, since
another order of the same operations may differ where two batches of one kernel do not."""


def why_not(
    model: Any, packed: SharedPrefix, padded: Padded, step: Sequence[Example], rows: int
) -> str | None:
    """Why the model unsupported_reason be trained on packed rows; None when it can.

    `step` are the samples of an optimizer step and `rows` as in Method.cut. The generators are left
    as they were, and the model in evaluation mode. Raises where memory lacks.
    """
    samples = choose(step)
    try:
        with torch.no_grad():
            return (
                unsupported_reason(model)
                or _other_head(model, packed, samples[0])
                or _unlike(model, packed, padded, samples, rows)
                or _unknown_in_training(model, packed, samples, rows)
            )
    except Exception as error:
        # Whatever a model's own code raises over a row that it was not written for.
        if is_out_of_memory(error):
            raise
        return first_line(error)
    finally:
        set_training(model, training=False)


def choose(step: Sequence[Example]) -> list[Example]:
    """The longest samples of a step, the shortest and some between; two at least begin alike."""
    ordered = sorted(step, key=lambda sample: -len(sample.ids))
    most = min(AT_MOST, max(AT_LEAST, TOKENS // len(ordered[0].ids)))
    if len(ordered) > most:
        places = [round(n * (len(ordered) - 1) / (most - 1)) for n in range(most)]
        ordered = [ordered[place] for place in places]
    if all(len(group.samples) == 1 for group in find_groups(ordered)):
        longest = ordered[0]
        ordered.append(Example([*longest.ids[:-1], longest.ids[0]], longest.start))
    return ordered


def _other_head(model: Any, packed: SharedPrefix, sample: Example) -> str | None:
    set_training(model, training=False)
    ids = torch.tensor([sample.ids], device=model.device)
    kept = min(len(sample.ids), 8)
    own = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, -kept:].float()
    states = packed.decoder(input_ids=ids, use_cache=False).last_hidden_state[:, -kept:]
    ours = packed.causal.get_output_embeddings()(states).float()
    if (own - ours).abs().mean() > 1e-3 * own.abs().mean():
        return "it does more to its logits than the output layer does"
    return None


def _unlike(
    model: Any, packed: SharedPrefix, padded: Padded, samples: Sequence[Example], rows: int
) -> str | None:
    config = model.config.get_text_config()
    alone = _by_target([(sample, padded.losses([sample])) for sample in samples])
    together: dict[tuple[int, ...], float] = {}
    for micro in padded.cut(samples, max(rows, 2)):
        counts = [padded.count(sample) for sample in micro]
        parts = torch.split(padded.losses(micro), counts)
        together |= _by_target(zip(micro, parts, strict=True))
    found = {}
    with packed.engaged():
        for pack in packed.cut(samples, rows):
            states, targets, row = packed.states(pack)
            layers = config.num_hidden_layers
            if row.calls != layers:
                return f"only {row.calls} of its {layers} layers have attention to exchange"
            window = getattr(config, "sliding_window", None)
            if getattr(config, "use_sliding_window", True) and window and not row.windows:
                return "its sliding window does not come to its attention"
            logits = packed.causal.get_output_embeddings()(states).float()
            tokens = torch.tensor(targets.tokens, device=logits.device)
            each = cross_entropy(logits, tokens, reduction="none").tolist()
            for (sample, place), loss in zip(targets.origins, each, strict=True):
                found[tuple(sample.ids[: place + 1])] = loss
    noise = _distance(together, alone)
    apart = _distance(found, alone)
    rounding = max(LEAST, 4 * torch.finfo(packed.causal.dtype).eps)
    if not apart <= max(ROUNDING * noise, rounding):
        return f"targets' losses differ by {apart:.3g} nats, where rounding makes {noise:.3g}"
    return None


def _by_target(losses: Iterable[tuple[Example, torch.Tensor]]) -> dict[tuple[int, ...], float]:
    """Losses by what determines them: the ids up to the target, and it."""
    found = {}
    for sample, values in losses:
        first = len(sample.ids) - len(values)
        for place, value in enumerate(values.tolist(), first):
            found[tuple(sample.ids[: place + 1])] = value
    return found


def _distance(one: dict[tuple[int, ...], float], other: dict[tuple[int, ...], float]) -> float:
    """Root mean square, in nats."""
    differences = torch.tensor([one[key] - other[key] for key in one], dtype=torch.float64)
    return differences.square().mean().sqrt().item()


def _unknown_in_training(
    model: Any, packed: SharedPrefix, samples: Sequence[Example], rows: int
) -> str | None:
    """Attention of some models has dropout, in training alone: it raises then."""
    device = model.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        set_training(model, training=True)
        with packed.engaged():
            packed.loss_sum(packed.cut(samples, rows)[0])
    return None
